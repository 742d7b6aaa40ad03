"""A conversation at a terminal: what is said, what is asked back, and how it goes on.

The one rule: a turn that is watched here and interrupted here is cancelled, with a recorded
outcome, and the conversation stays usable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeAlias

from rich.text import Text

from ..call import Call
from ..conversation import Conversation, ConversationState
from ..errors import ConfigurationError, NotFound, StoreError, TurnlogError, Waiting
from ..log import Log
from ..result import TurnResult
from ..turn import Turn
from ..updates import Cursor
from .background import Background
from .deciding import decide
from .hints import go_on, waiting
from .opening import Way, is_new
from .screen import Screen, safe
from .telling import Telling
from .words import call_words, counted, given_to, item_words

EXIT = {"completed": 0, "waiting": 4}
"""The exit code for what a turn came to; 1 for everything else."""


class Session:
    """One conversation, talked to through one open log. Its coroutines run on the loop's thread."""

    def __init__(
        self,
        screen: Screen,
        db: str,
        id: str,
        way: Way,
        *,
        by: str,
        agent: str | None = None,
        model: str | None = None,
        instructions: str | None = None,
    ) -> None:
        self.screen = screen
        self.db = db
        self.id = id
        self.telling = Telling(screen)
        self._way = way
        self._by = by
        self._agent = agent
        self._model = model
        self._instructions = instructions
        self._log: Log | None = None
        self._chat: Conversation | None = None

    # -- on the loop's thread --------------------------------------------------------------

    async def open(self) -> ConversationState | None:
        """Open the log; the state of the conversation, or None where it is new."""
        self._log = log = await self._way.open(self.db)
        try:
            state = await (await log.get(self.id)).state()
        except NotFound:
            state = None
        names = [agent.name for agent in self._way.bound()]
        recorded = state.agent if state is not None else None
        agent = self._agent or (recorded if recorded in names else next(iter(names), None))
        model = self._model
        if model is None and self._way.offline and (state is None or state.model is None):
            model = None if names else "scripted"
        self._chat = await log.conversation(
            self.id, agent=agent, model=model, instructions=self._instructions
        )
        return state

    async def begin(self) -> ConversationState | None:
        """Open the log for messages; as `open`, and it makes no database where none can be sent.

        Raises ConfigurationError where nothing says which model, or there is no key.
        """
        if is_new(self.db):
            self._check_model(None)
        await self._way.check()
        state = await self.open()
        self._check_model(state)
        return state

    def _check_model(self, state: ConversationState | None) -> None:
        configured = state is not None and state.head.config is not None
        way = self._way
        if not (configured or self._model or way.offline or way.bound()):
            raise ConfigurationError("say which model: --model, TURNLOG_MODEL or --agents")

    async def close(self) -> None:
        """Close the log; a turn that still runs is stopped, to be resumed."""
        if self._log is not None:
            await self._log.close()

    async def say(self, message: str) -> TurnResult[str]:
        """Send a message, and tell what happens until the turn ends or waits."""
        try:
            turn = await self._conversation.send(message, by=self._by)
        except Waiting as error:
            paused = (await self.state()).paused
            said = f"turn {error.turn} waits ({paused}): answer or resume it"
            raise Waiting(said, turn=error.turn) from error
        return await self._watched(turn, None)

    async def state(self) -> ConversationState:
        """What is open now. Raises NotFound."""
        return await self._conversation.state()

    async def recent(self, last: int) -> list[str]:
        """The last items, in words."""
        return [item_words(item.raw, 400) for item in await self._conversation.items(last=last)]

    async def go_on(self) -> TurnResult[str] | None:
        """Continue the open turn; None where none is open."""
        state = await self.state()
        if state.turn is None:
            return None
        await self._way.check()
        after = self.telling.cursor or Cursor(state.version)
        turn = await self._conversation.turn(state.turn)
        return await self._watched(await turn.resume(), after)

    async def settle(self, call: Call, said: str) -> None:
        """Do with a call that waits what was answered at the terminal."""
        if call.waits_for in ("deferred", "unbound"):
            await call.answer(said, by=self._by)
            return
        allowed = said.lower() in ("y", "yes")
        reason = None if allowed or said.lower() in ("n", "no") else said
        await decide(call, allowed=allowed, by=self._by, reason=reason)

    @property
    def _conversation(self) -> Conversation:
        assert self._chat is not None
        return self._chat

    async def _watched(self, turn: Turn[str], after: Cursor | None) -> TurnResult[str]:
        self.telling.wait()
        # From the start, so that it hears what stops the turn.
        ended = asyncio.create_task(turn.peek())
        try:
            async for update in turn.updates(after):
                self.telling.update(update)
            result = await ended
        except Waiting as error:
            left = Waiting(f"turn {turn.id} has no process any more", turn=turn.id)
            left.add_note(go_on(self.db, self.id))
            raise left from error
        except StoreError as error:
            error.add_note(go_on(self.db, self.id))
            raise
        finally:
            self.telling.over()
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
            await asyncio.shield(turn.leave())
        self.telling.result(result)
        return result


# -- on the thread of the terminal ---------------------------------------------------------

Work: TypeAlias = Coroutine[Any, Any, TurnResult[str] | None]


@dataclass(frozen=True, slots=True)
class _Open:
    """A session whose log is open: what it was found as, and the loop that it lives on."""

    session: Session
    loop: Background
    found: ConversationState | None


@contextmanager
def _opened(
    session: Session, opening: Coroutine[Any, Any, ConversationState | None]
) -> Generator[_Open]:
    with Background() as loop:
        try:
            yield _Open(session, loop, loop.run(opening))
        finally:
            loop.run(session.close())


def say_once(session: Session, message: str) -> int:
    """Send one message, and wait; the exit code."""
    with _opened(session, session.begin()) as open_:
        result = open_.loop.run(session.say(message))
        return _ending(open_, _answered(open_, result))


def continue_once(session: Session) -> int:
    """Continue the open turn, and wait; the exit code."""
    with _opened(session, session.open()) as open_:
        if open_.found is None:
            raise NotFound(f"there is no conversation {session.id!r} in {session.db}")
        return _ending(open_, _answered(open_, open_.loop.run(session.go_on())))


def _ending(open_: _Open, result: TurnResult[str] | None) -> int:
    session = open_.session
    if result is None:
        session.screen.note(f"no turn of {session.id} is open")
        return 0
    if result.status == "waiting" and not session.screen.as_json:
        waiting(session.screen.remark, session.db, open_.loop.run(session.state()))
    return EXIT.get(result.status, 1)


def converse(session: Session) -> None:
    """Talk until the end of input."""
    with suppress(ImportError):
        # It makes `input` edit its line.
        import_module("readline")
    with _opened(session, session.begin()) as open_:
        _greet(open_)
        while (message := _asked("> ")) is not None:
            if message:
                _turn(open_, message)


def _greet(open_: _Open) -> None:
    session, found = open_.session, open_.found
    screen = session.screen
    if found is None:
        screen.note(f"{session.id} is new. Ctrl-C cancels a turn, Ctrl-D leaves.")
        return
    screen.note(f"{session.id} goes on behind {counted(found.turns, 'turn')}. Ctrl-D leaves.")
    for words in open_.loop.run(session.recent(4)):
        screen.note(f"  {words}")
    if found.turn is not None:
        screen.note(f"its last turn is open ({found.paused or found.status}): it goes on")
        _turn(open_, None)


def _turn(open_: _Open, message: str | None) -> None:
    """One turn, new or open; what goes wrong is told, and the conversation goes on."""
    session, loop = open_.session, open_.loop
    try:
        work: Work = session.go_on() if message is None else session.say(message)
        _answered(open_, loop.run(work))
    except KeyboardInterrupt:
        session.screen.note("cancelled", "yellow")
    except TurnlogError as error:
        session.screen.error(error)


def _answered(open_: _Open, result: TurnResult[str] | None) -> TurnResult[str] | None:
    """Ask about what the turn waits for, where somebody is there, and go on."""
    session, loop = open_.session, open_.loop
    while result is not None and result.status == "waiting" and session.screen.asks:
        calls = [call for call in loop.run(session.state()).pending if call.waits_for]
        answers = [(call, said) for call in calls if (said := _ask(session.screen, call))]
        if not answers:
            break
        for call, said in answers:
            loop.run(session.settle(call, said))
        result = loop.run(session.go_on())
    return result


_QUESTIONS = {
    "approval": "allow it? y, n, or why not: ",
    "uncertain": "it may have run already. Run it again? y, n, or why not: ",
    "deferred": "its answer, or nothing to leave it waiting: ",
    "unbound": "no tool of this name is bound. Its answer, or nothing to leave it waiting: ",
}


def _ask(screen: Screen, call: Call) -> str | None:
    words = call_words(call.name, call.kind, given_to(call.raw))
    screen.remark(Text.assemble(("? ", "yellow"), (safe(words), "bold")))
    return _asked("  " + _QUESTIONS[call.waits_for or "approval"])


def _asked(question: str) -> str | None:
    """A line from the terminal; None at its end, and empty where it was interrupted."""
    try:
        return input(question).strip()
    except EOFError:
        print()
        return None
    except KeyboardInterrupt:
        print()
        return ""
