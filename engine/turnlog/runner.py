"""The owner of a running turn: it sends requests and runs tools until the turn ends or waits.

The one rule: each step follows from the state by `recovery.proceed`, is recorded before it is
taken, and happens under a lease. A turn is run by the log, not by who watches it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import assert_never

from . import events as ev
from .agent import Agent
from .calling import Calling
from .canonical import JsonObject
from .commands import EndTurn, PauseTurn
from .context import every
from .draft import Draft
from .engine import Engine, Outgoing
from .errors import StaleEpoch, TooLarge, TurnlogError
from .held import Held
from .ports import Head, Lease
from .reception import Reception
from .recovery import End, GiveUp, OnUnknown, Pause, Policy, Probe, RunCalls, Send, Step, proceed
from .request import is_background, settings_of
from .secrets import values_in
from .sending import Sending
from .settling import ending, overfull, settle_here
from .state import Attempt, State
from .stopping import stop
from .updates import Delta
from .watchers import Watchers

logger = logging.getLogger(__name__)


OVERTAKEN = "overtaken"
"""Why a runner stops whose lease another owner has."""


class Runner:
    """Runs one turn in this process, under a lease that it holds; watchers come and go.

    `then` is what follows when it has let go of the turn: the next one may be waiting.
    """

    def __init__(
        self,
        held: Held,
        *,
        config: ev.ConversationConfigured,
        settings: JsonObject,
        agent: Agent | None,
        then: Callable[[], Coroutine[None, None, None]],
    ) -> None:
        self.held = held
        self._then = then
        self._config = config
        self._settings = settings
        self._secrets = values_in([*config.tools, config.settings, settings])
        self._stack = AsyncExitStack()
        self._calling = Calling(held, agent, self._stack)
        self._reception: Reception | None = None
        self._work: asyncio.Task[None] | None = None
        self._main: asyncio.Task[None] | None = None
        self._stopped: str | None = None
        self._released = False

    @property
    def turn(self) -> str:
        """The turn's id."""
        return self.held.turn

    @property
    def released(self) -> bool:
        """Whether the lease was given back: what is left is to tidy up."""
        return self._released

    @property
    def watchers(self) -> Watchers:
        """Whoever watches the turn here."""
        return self.held.watchers

    @property
    def _engine(self) -> Engine:
        return self.held.engine

    # -- from outside ------------------------------------------------------------------------

    def start(self, state: State, first: Outgoing | None = None) -> None:
        """Begin to run; `first` is a request that is committed and not sent so far."""
        self._engine.live[self.held.conversation] = self
        self._engine.heads[self.held.conversation] = state
        self._engine.news.elsewhere(self.held.conversation, self._look)
        if first is not None:
            # Begun here, it is on the wire before `send` returns and its caller goes on.
            self._work = asyncio.create_task(self._exchange(first))
        self._main = asyncio.create_task(self._run(), name=f"turnlog {self.turn}")
        self._main.add_done_callback(_retrieved)

    def release(self) -> None:
        """The lease was given back; the turn is nobody's, or the next owner's."""
        self._released = True

    def overhear(self, head: Head) -> None:
        """Another process has written: it may have asked for the end, or taken the turn over."""
        turn = head.state.turn
        if head.epoch > self.held.epoch or turn is None or turn.id != self.turn:
            self._overtaken()
        elif turn.cancel == "now":
            self._halt("cancelled")

    def _overtaken(self) -> None:
        """The turn is another owner's, or over: nothing more of it is ours to write (law 11)."""
        self._released = True
        self._halt(OVERTAKEN)

    def _look(self) -> None:
        """Somebody else may have written to the conversation."""
        self._engine.run_errand(self._engine.catch_up(self.held.conversation), "catching up")

    async def wait(self) -> None:
        """Wait until the turn ended or waits; raises what stopped the runner, if anything did."""
        assert self._main is not None
        await asyncio.shield(self._main)

    async def stop(self, reason: str) -> None:
        """Stop what is under way; the turn is settled with a recorded outcome."""
        self._halt(reason)
        assert self._main is not None
        await asyncio.wait([self._main])

    def _halt(self, reason: str) -> None:
        self._stopped = self._stopped or reason
        if self._work is not None:
            self._work.cancel()

    def streamed(self) -> list[Delta]:
        """What has streamed of the attempt under way, a delta for each part."""
        return self._reception.so_far() if self._reception is not None else []

    # -- the loop ----------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            async with self._stack:
                if self._work is not None:
                    await self._finish(self._work)
                elif self._stopped is None and (attempt := (await self.held.state()).attempt):
                    await self._work_on(self._hear_on(attempt))
                while self._stopped is None and not await self._step():
                    pass
                if self._stopped is not None:
                    await self._settle(self._stopped)
        except Exception as error:
            if isinstance(error, StaleEpoch):
                self._overtaken()
            if self._stopped == OVERTAKEN:
                # What follows is for the other owner to do, and ours cannot be said any more.
                logger.warning("turn %s was taken over by another owner: %s", self.turn, error)
                return
            # Something broke: let go of the turn, so that it can be resumed when that is mended.
            with suppress(TurnlogError):
                await self._settle("stopped")
            raise
        finally:
            self._end()

    def _end(self) -> None:
        engine, conversation, last = self._engine, self.held.conversation, None
        if engine.live.get(conversation) is self:
            del engine.live[conversation]
            last = engine.heads.pop(conversation, None)
        engine.news.forget(conversation, self._look)
        self.held.watchers.end()
        engine.news.tell(conversation)
        if last is not None and last.turn is None and last.queued:
            engine.run_errand(self._then(), "next turn")
        engine.make_room()

    async def _settle(self, reason: str) -> None:
        if not self._released:
            if reason == "cancelled":
                await stop(self._engine, (await self.held.state()).attempt)
            await settle_here(
                self._engine,
                self.held.conversation,
                self.held.epoch,
                reason=reason,
                reception=self._reception,
            )

    async def _work_on(self, work: Coroutine[None, None, None]) -> None:
        """Do something that `stop` may cut short; nothing is begun behind it."""
        await self._finish(asyncio.create_task(work))

    async def _finish(self, task: asyncio.Task[None]) -> None:
        """Wait until what was begun is over, or cut short."""
        self._work = task
        try:
            await asyncio.wait([task])
        finally:
            self._work = None
            task.cancel()
        if not task.cancelled():
            task.result()

    def _is_open(self, state: State) -> bool:
        return state.turn is not None and state.turn.id == self.turn

    async def _step(self) -> bool:
        """Take the next step; whether it was the last."""
        state = await self.held.state()
        if not self._is_open(state):
            return True
        if self._calling.unasked(state):
            await self._work_on(self._calling.ask(state))
            return False
        policy = self._calling.policy(self._on_unknown)
        step = proceed(state, policy)
        match step:
            case Send():
                await self._work_on(self._send(step))
            case RunCalls():
                await self._work_on(self._calling.run(step.calls))
            case GiveUp():
                await self._work_on(self._calling.give_up(step.calls))
            case Probe():
                await self._work_on(self._calling.probe(step.calls))
            case Pause() | End():
                return await self._close(policy)
            case _:
                assert_never(step)
        return False

    @property
    def _on_unknown(self) -> OnUnknown:
        return self._engine.on_unknown_for(self._config)

    async def _close(self, policy: Policy) -> bool:
        """End or pause the turn, unless something happened meanwhile that lets it go on."""
        closed = False

        async def act(draft: Draft) -> Lease | None:
            nonlocal closed
            closed = await self._closing(draft, proceed(draft.state, policy))
            return "release" if closed else None

        await self.held.commit(act)
        return closed

    async def _closing(self, draft: Draft, step: Step) -> bool:
        """Put the end or the pause of the turn into a draft; whether the step is one."""
        match step:
            case End():
                draft.do(await ending(self._engine, draft.state, step))
                return True
            case Pause():
                draft.do(PauseTurn(reason=step.reason, calls=step.calls))
                return True
            case _:
                return False

    # -- requests ----------------------------------------------------------------------------

    async def _send(self, step: Send) -> None:
        await self._delay(step)
        outgoing: Outgoing | None = None

        async def act(draft: Draft) -> Lease:
            nonlocal outgoing
            try:
                outgoing = await self._engine.prepare(draft, step, self._config, self._settings)
            except TooLarge as error:
                draft.do(await overfull(self._engine, draft.state, error))
                return "release"
            if outgoing is None and not draft.state.pending:
                draft.do(EndTurn(outcome="failed", reason="there is nothing left to send"))
                return "release"
            return "keep"

        await self.held.commit(act)
        if outgoing is not None:
            await self._exchange(outgoing)

    async def _delay(self, step: Send) -> None:
        """Wait as long as the log says, but not before another way is tried."""
        if not step.delay_ms:
            return
        state = await self.held.state()
        background = is_background(settings_of(self._config, self._settings))
        if state.transport == self._engine.way(state, background=background):
            left = (step.not_before - self._engine.ambient.now()) / 1e6
            # Another machine's clock may have been ahead: never longer than the delay itself.
            await asyncio.sleep(min(max(0.0, left), step.delay_ms / 1000))

    async def _exchange(self, outgoing: Outgoing) -> None:
        self._reception = Reception(
            attempt=outgoing.attempt, version=outgoing.version, secrets=self._secrets
        )
        await Sending(self.held, self._reception, self._heard).run(outgoing)

    async def _hear_on(self, attempt: Attempt) -> None:
        """Go on hearing a background response, whose text so far is in the log."""
        self._reception = Reception(
            attempt=attempt.id,
            version=attempt.version,
            secrets=self._secrets,
            response=attempt.response,
        )
        log = await every(self._engine.store, self.held.conversation, attempt.version)
        self._reception.prime(
            one.event for one in log if isinstance(one.event, ev.OutputCheckpointed)
        )
        await Sending(self.held, self._reception, self._heard).resume()

    async def _heard(self, draft: Draft) -> Lease:
        """End a turn whose model asks for nothing more in the append of its last response."""
        if draft.state.pending or self._stopped is not None:
            return "keep"
        step = proceed(draft.state, Policy(on_unknown=self._on_unknown))
        closed = isinstance(step, End) and await self._closing(draft, step)
        return "release" if closed else "keep"


def _retrieved(task: asyncio.Task[None]) -> None:
    """A runner's error is raised to who waits for the turn; with nobody waiting it is logged."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("a turn was stopped: %s", error, exc_info=error)
