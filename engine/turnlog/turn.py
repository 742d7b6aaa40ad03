"""A turn, as people hold it: one accepted input and all that follows.

The one rule: the log owns the turn and runs it; a handle watches, waits, cancels and resumes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar, cast

from .agent import Agent
from .cancelling import cancel, drop_queued
from .canonical import integer, text
from .configuring import check_actor
from .context import every, turn_row
from .engine import ENGINE, Engine
from .errors import TurnFailed, Waiting
from .events import CancelMode
from .ports import Head, TurnRow
from .result import TurnResult, result_of
from .schemas import parse_output
from .starting import RESUMED, go_on, resume, run_next
from .truncating import Mode, truncate
from .updates import Cursor, Update
from .watching import watch

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Turn(Generic[T]):
    """One turn. Iterate it to watch it from its start; `result` waits for it."""

    id: str
    conversation: str
    _engine: Engine = field(repr=False, compare=False)
    _agent: Agent | None = field(default=None, repr=False, compare=False)
    _output_type: object = field(default=None, repr=False, compare=False)

    def __aiter__(self) -> AsyncIterator[Update]:
        return self.updates()

    def updates(self, after: Cursor | str | None = None) -> AsyncGenerator[Update]:
        """What happens in the turn, from its start or behind a cursor, to its end.

        Raises InvalidInput for a text that is no cursor.
        """
        cursor = Cursor.parse(after) if isinstance(after, str) else after
        return watch(self._engine, self.conversation, cursor, turn=self.id)

    async def result(self) -> TurnResult[T]:
        """Wait until the turn ended or waits for an answer, and say what it came to.

        Raises what `peek` raises, TurnFailed where it failed, OutputInvalid where the answer does
        not fit its `output_type`, and what stopped the turn, where the store or a lease did.
        """
        found = await self.peek()
        if found.status == "failed":
            raise failure(found)
        if self._output_type is None or found.status != "completed":
            return cast("TurnResult[T]", found)
        parsed = parse_output(self._output_type, found.output_text)
        return replace(cast("TurnResult[T]", found), output=cast("T", parsed))

    async def peek(self) -> TurnResult[str]:
        """Wait like `result`, wherever the turn runs, and raise nothing for one that failed.

        Raises Waiting where nobody runs it: its process is gone, or it is queued behind a turn
        that waits itself.
        """
        with self._engine.news.listen(self.conversation) as ear:
            told = True
            while True:
                found = await self._found(told=told)
                # Whoever has settled a dead owner's turn may be about to go on with it.
                if found is not None and not (told and is_held_up(found)):
                    return found
                told = await ear.wait()

    async def _found(self, *, told: bool) -> TurnResult[str] | None:
        """What the turn came to; None while somebody runs it, or will.

        `told` says that something happened just now: whoever ran the turn before begins the next.
        """
        engine, conversation = self._engine, self.conversation
        runner = engine.live.get(conversation)
        if runner is not None and runner.turn == self.id:
            await runner.wait()
        row = await engine.store.turn(conversation, id=self.id)
        if row is not None and row.ended is not None:
            return await self._read(row)
        head = await engine.head(conversation)
        if head.state.in_queue(self.id) is not None:
            await self._check_queue(head, told=told)
            return None
        found = await self._read(await turn_row(engine.store, conversation, self.id))
        if found.status != "running":
            return found
        if await engine.is_left(head):
            raise Waiting(
                f"turn {self.id} has no process any more: `await turn.resume()` goes on",
                turn=self.id,
            )
        return None

    async def _read(self, row: TurnRow) -> TurnResult[str]:
        """What the log says that the turn came to."""
        store, conversation = self._engine.store, self.conversation
        events = await every(store, conversation, row.started - 1, row.ended)
        return result_of(conversation, self.id, events)

    async def _check_queue(self, head: Head, *, told: bool) -> None:
        """Have the queue go on where nobody else does; raises Waiting where it cannot."""
        open_ = head.state.turn
        if open_ is None:
            if not told:
                await run_next(self._engine, self.conversation)
            return
        if open_.paused is not None or await self._engine.is_left(head):
            raise Waiting(
                f"turn {self.id} is queued behind turn {open_.id}, which waits"
                f" ({open_.paused or 'its process is gone'}): resume or cancel that one",
                turn=open_.id,
            )

    async def cancel(
        self, *, mode: CancelMode = "now", reason: str | None = None, by: str = "user"
    ) -> None:
        """Stop the turn; its calls get an output, and the conversation stays usable.

        With `mode="after_request"` the response under way is still heard, and its calls are not
        run. A turn that ended already stays as it is. Where another process runs the turn, it is
        stopped there, which is waited for with `mode="now"`.
        """
        engine, conversation = self._engine, self.conversation
        if await cancel(engine, conversation, self.id, mode=mode, reason=reason, actor=by):
            go_on(engine, conversation)

    async def truncate(self, *, heard: str, mode: Mode = "edit", by: str = "user") -> None:
        """Say how much of the last answer the user really heard, where it was spoken aloud.

        A turn that still speaks is cancelled first, and what was heard enters the context. `edit`
        leaves the message with what was heard, or takes it out where that is nothing; the next
        request forks or is full (law 9). `note` leaves it and tells the model, which keeps the
        chain. White space at the end does not count, and the same again changes nothing.

        Raises InvalidInput where `heard` is not a beginning of what was said, where the answer was
        removed, and for a note behind which another turn has begun; Busy while a request is out.
        """
        await truncate(self._engine, self.conversation, self.id, heard=heard, mode=mode, actor=by)

    async def leave(self, *, queued: bool = False) -> None:
        """Stop watching: a turn that still runs here is cancelled, and one that waits is not.

        `queued` says that it may be in the queue still, which it leaves then.
        """
        reason = "the caller left"
        if queued and await drop_queued(
            self._engine, self.conversation, self.id, "cancelled", reason, ENGINE
        ):
            return
        runner = await self._engine.runner(self.conversation)
        if runner is not None and runner.turn == self.id:
            await self.cancel(reason=reason)

    async def resume(self, *, by: str = ENGINE) -> Turn[T]:
        """Continue the turn here, where it waits or its process is gone.

        Raises Busy where another process runs it, ConfigurationError without a key.
        """
        actor = check_actor(by)
        await resume(self._engine, self.conversation, self.id, self._agent, actor=actor)
        return self


def is_held_up(result: TurnResult[str]) -> bool:
    """Whether a turn waits for nobody's answer: its process died, or let go of it."""
    return result.status == "waiting" and result.reason in RESUMED


def failure(result: TurnResult[str]) -> TurnFailed:
    """The error that a failed turn raises from `run`."""
    error = result.error or {}
    return TurnFailed(
        f"turn {result.turn} failed: {result.reason}",
        result=result,
        code=text(error, "code"),
        status=integer(error, "status"),
    )
