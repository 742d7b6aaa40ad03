"""Going on with whatever can go on: a worker that may run as a service, as many as you like.

The one rule: a worker only does what anybody might do by hand: recover, resume, begin what is
queued. Which turns can go on follows from their heads, so that nothing is kept but what was tried.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection
from dataclasses import dataclass, field, replace

from .agent import Agent, on_crash_of
from .engine import Engine
from .errors import Closed, StateError, StoreCorrupt, TurnlogError
from .events import TurnQueued
from .ports import ConversationRow
from .recovery import Pause, Policy, proceed
from .settling import recover
from .starting import RESUMED, resume, run_next
from .state import State, Status, Turn

logger = logging.getLogger(__name__)

PAGE = 200
LONGEST_SECONDS = 60.0
"""How long a turn that keeps stopping is left alone at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkReport:
    """What a worker has done so far, and what it does now.

    `recovered` counts what was settled of dead owners' turns, `resumed` and `begun` the turns that
    were taken on (again, and from a queue), `stopped` those that something kept from going on.
    `running` is how many run here now, `waiting` how many wait for somebody, as last seen.
    """

    recovered: int = 0
    resumed: int = 0
    begun: int = 0
    stopped: int = 0
    running: int = 0
    waiting: int = 0

    def __str__(self) -> str:
        return (
            f"running={self.running} waiting={self.waiting} recovered={self.recovered}"
            f" resumed={self.resumed} begun={self.begun} stopped={self.stopped}"
        )


Report = Callable[[WorkReport], None]


def log_report(report: WorkReport) -> None:
    """Say in the program's log what a worker did."""
    logger.info("work: %s", report)


def can_go_on(state: State, policy: Policy) -> bool:
    """Whether a turn that waits would do something if it were resumed by this process.

    What its own process held up can go on. What waits for somebody can where that has come: of
    calls that waited for approval, those that have none wait still.
    """
    turn = state.turn
    if turn is None or turn.paused is None or state.attempt is not None:
        return False
    if turn.paused in RESUMED:
        return True
    asked = "approval" in turn.paused
    waiting = frozenset(call.id for call in state.pending if asked and call.status == "requested")
    return not isinstance(proceed(state, replace(policy, approval=waiting)), Pause)


@dataclass(slots=True)
class _Tried:
    """When a turn was taken on, and how often without coming to its end."""

    turn: str
    not_before: float = 0.0
    times: int = 0


@dataclass(slots=True)
class Worker:
    """Takes on turns of one log until it is told to stop; `most` run here at once.

    `poll` is how long it sleeps where nothing is appended, in seconds; `report` is called with
    what it has done every `every` seconds, and at the end.
    """

    engine: Engine
    most: int
    poll: float
    every: float
    report: Report
    done: WorkReport = field(default_factory=WorkReport)
    _judged: dict[str, int] = field(default_factory=dict[str, int])
    _tried: dict[str, _Tried] = field(default_factory=dict[str, _Tried])

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; what runs then goes on."""
        tasks = [
            asyncio.create_task(self._recover(), name="turnlog recovering"),
            asyncio.create_task(self._take_on(), name="turnlog taking on"),
            asyncio.create_task(self._tell(), name="turnlog reporting"),
        ]
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (stopping, *tasks):
                task.cancel()
            await asyncio.wait([stopping, *tasks])

    async def drain(self, seconds: float) -> None:
        """Wait for what runs here, for so many seconds at the most."""
        running = [asyncio.ensure_future(one.wait()) for one in list(self.engine.live.values())]
        if running:
            await asyncio.wait(running, timeout=seconds)
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def now(self) -> WorkReport:
        """What was done so far, and what runs now."""
        return replace(self.done, running=len(self.engine.live))

    # -- loops -------------------------------------------------------------------------------

    async def _recover(self) -> None:
        while True:
            try:
                found = await recover(self.engine)
            except Closed:
                raise
            except TurnlogError as error:
                logger.warning("work: cannot recover just now: %s", error)
                found = []
            for one in found:
                logger.info("work: %s: %s (%s)", one.conversation, one.action, one.reason)
            settled = sum(one.settled for one in found)
            self.done = replace(self.done, recovered=self.done.recovered + settled)
            await asyncio.sleep(self.poll)

    async def _take_on(self) -> None:
        while True:
            try:
                waiting = [row async for row in self._rows("waiting")]
                queued = [row async for row in self._rows("queued")]
                self.done = replace(self.done, waiting=len(waiting))
                self._forget({row.id for row in (*waiting, *queued)} | self.engine.live.keys())
                for row in (*waiting, *queued):
                    await self._look_at(row)
                await self.engine.store.changed(self.poll)
            except Closed:
                raise
            except TurnlogError as error:
                logger.warning("work: cannot look for turns just now: %s", error)
                await asyncio.sleep(self.poll)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(self.every)
            self.report(self.now())

    def _forget(self, known: Collection[str]) -> None:
        """Keep nothing of conversations that have gone on since."""
        self._judged = {id: version for id, version in self._judged.items() if id in known}
        self._tried = {id: tried for id, tried in self._tried.items() if id in known}

    # -- one turn ----------------------------------------------------------------------------

    async def _rows(self, status: Status) -> AsyncGenerator[ConversationRow]:
        after = ""
        while rows := await self.engine.store.conversations(status=status, after=after, limit=PAGE):
            for row in rows:
                yield row
            after = rows[-1].id

    async def _look_at(self, row: ConversationRow) -> None:
        """Consider a turn; one that is damaged keeps nobody from the others."""
        try:
            await self._consider(row)
        except StoreCorrupt as error:
            self._judged[row.id] = row.version
            self._stopped(row.id, error)

    async def _consider(self, row: ConversationRow) -> None:
        """Take a turn on, where it can go on here and was not looked at as it stands."""
        if len(self.engine.live) >= self.most or self._judged.get(row.id) == row.version:
            return
        head = await self.engine.store.head(row.id)
        # It may have come to its end since it was listed.
        over = head is None or (head.state.turn is None and not head.state.queued)
        if head is None or over or self.engine.runs(row.id) or not await self._is_ours(head.state):
            self._judged[row.id] = row.version
            return
        state = head.state
        turn = state.turn.id if state.turn is not None else state.queued[0].id
        tried = self._tried.get(row.id)
        if tried is None or tried.turn != turn:
            tried = self._tried[row.id] = _Tried(turn)
        if tried.not_before > asyncio.get_running_loop().time():
            return
        if state.turn is None:
            await self._begin(row.id, tried)
        elif can_go_on(state, Policy(tools=on_crash_of(self._agent(state)))):
            await self._resume(row.id, state.turn, tried)
        else:
            self._judged[row.id] = row.version

    def _agent(self, state: State) -> Agent | None:
        name = state.config.agent if state.config is not None else None
        return self.engine.agents.get(name or "")

    async def _is_ours(self, state: State) -> bool:
        """Whether the agent of a conversation is registered here, or it has none.

        A turn that is queued may bring another one along.
        """
        name = state.config.agent if state.config is not None else None
        if state.turn is None and state.queued:
            (recorded,) = await self.engine.store.pick(state.id, [state.queued[0].version])
            assert isinstance(recorded.event, TurnQueued)
            config = recorded.event.config
            name = config.agent if config is not None else name
        return name in (None, *self.engine.agents)

    async def _begin(self, conversation: str, tried: _Tried) -> None:
        self._put_off(tried)
        try:
            begun = await run_next(self.engine, conversation) is not None
            self.done = replace(self.done, begun=self.done.begun + begun)
        except TurnlogError as error:
            self._stopped(conversation, error)

    async def _resume(self, conversation: str, turn: Turn, tried: _Tried) -> None:
        if tried.times and turn.paused == "stopped":
            self.done = replace(self.done, stopped=self.done.stopped + 1)
        self._put_off(tried)
        try:
            await resume(self.engine, conversation, turn.id, actor="turnlog", reason="work")
            self.done = replace(self.done, resumed=self.done.resumed + 1)
        except StateError:
            pass  # somebody else was first
        except TurnlogError as error:
            self._stopped(conversation, error)

    def _stopped(self, conversation: str, error: TurnlogError) -> None:
        logger.warning("work: %s cannot go on just now: %s", conversation, error)
        self.done = replace(self.done, stopped=self.done.stopped + 1)

    def _put_off(self, tried: _Tried) -> None:
        """The next time that this turn is found waiting it has to wait longer."""
        pause = min(LONGEST_SECONDS, self.poll * float(1 << min(tried.times, 10)))
        tried.not_before = asyncio.get_running_loop().time() + (pause if tried.times else 0.0)
        tried.times += 1
