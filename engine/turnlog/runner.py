"""The owner of a running turn: it sends requests and runs tools until the turn ends or waits.

The one rule: each step follows from the state by `recovery.proceed`, is recorded before it is
taken, and happens under a lease; a stale epoch stops everything (law 11). A turn is run by the log,
not by who watches it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    suppress,
)
from typing import TypeAlias

from . import events as ev
from .agent import Agent, on_crash_of
from .canonical import JsonObject, text
from .commands import Defer, EndTurn, Finish, Note, PauseTurn, Progress, Resolve, StartCall
from .draft import Draft
from .engine import Act, Engine, Outgoing
from .errors import Closed, Lost, NotSent, TurnlogError, Unheard
from .items import function_output, refused_output
from .ports import Create, Lease
from .reception import Reception
from .record import Recorded
from .recovery import End, GiveUp, Pause, Policy, RunCalls, Send, proceed
from .request import revealed
from .running import ToolContext, ToolResult
from .secrets import values_in
from .settling import finish, settle_here
from .state import Call, State
from .tools import Tool, run_tool
from .updates import Delta, HostedUpdate

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 0.25
CHECKPOINT_POINTS = 2048
"""Text is checkpointed at the latest after this long, or this many code points (law 1)."""

Seen: TypeAlias = Recorded | Delta | HostedUpdate
Watch: TypeAlias = "asyncio.Queue[Seen | None]"


class Runner:
    """Runs one turn in this process. `epoch` is its lease's; watchers come and go."""

    def __init__(
        self,
        engine: Engine,
        conversation: str,
        turn: str,
        epoch: int,
        *,
        config: ev.ConversationConfigured,
        settings: JsonObject,
        agent: Agent | None,
    ) -> None:
        self.engine = engine
        self.conversation = conversation
        self.turn = turn
        self.epoch = epoch
        self.reception: Reception | None = None
        self.watches: set[Watch] = set()
        self._config = config
        self._settings = settings
        self._secrets = values_in([*config.tools, config.settings, settings])
        self._agent = agent
        self._deps: object = None
        self._approval: dict[str, bool] = {}
        self._work: asyncio.Task[None] | None = None
        self._main: asyncio.Task[None] | None = None
        self._stopped: str | None = None
        self._flush: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- from outside ------------------------------------------------------------------------

    def start(self, state: State, first: Outgoing | None = None) -> None:
        """Begin to run; `first` is a request that is committed and not sent so far."""
        self.engine.live[self.conversation] = self
        self.engine.heads[self.conversation] = state
        self._main = asyncio.create_task(self._run(first), name=f"turnlog {self.turn}")
        self._main.add_done_callback(_retrieved)

    async def wait(self) -> None:
        """Wait until the turn ended or waits; raises what stopped the runner, if anything did."""
        assert self._main is not None
        await asyncio.shield(self._main)

    async def stop(self, reason: str) -> None:
        """Stop what is under way; the turn is settled with a recorded outcome."""
        self._stopped = self._stopped or reason
        if self._work is not None:
            self._work.cancel()
        assert self._main is not None
        await asyncio.wait([self._main])

    def watch(self) -> Watch:
        """A queue of what happens from now on; None is its end."""
        watch: Watch = asyncio.Queue()
        self.watches.add(watch)
        return watch

    def streamed(self) -> list[Delta]:
        """What has streamed of the attempt under way, a delta for each part."""
        return self.reception.so_far() if self.reception is not None else []

    def tell(self, events: Sequence[Recorded]) -> None:
        """Pass facts on to the watchers."""
        for watch in self.watches:
            for one in events:
                watch.put_nowait(one)

    # -- the loop ----------------------------------------------------------------------------

    async def _run(self, first: Outgoing | None) -> None:
        try:
            async with AsyncExitStack() as stack:
                if first is not None:
                    await self._work_on(self._exchange(first))
                if self._agent is not None and self._stopped is None:
                    self._deps = await stack.enter_async_context(opened(self._agent.deps))
                while self._stopped is None and not await self._step():
                    pass
                if self._stopped is not None:
                    await self._settle(self._stopped)
        except Exception:
            await self._leave()
            raise
        finally:
            self._end()

    async def _leave(self) -> None:
        """Something broke: let go of the turn, so that it can be resumed when that is mended."""
        with suppress(TurnlogError):
            await self._settle("stopped")

    def _end(self) -> None:
        if self.engine.live.get(self.conversation) is self:
            del self.engine.live[self.conversation]
            self.engine.heads.pop(self.conversation, None)
        for watch in self.watches:
            watch.put_nowait(None)

    async def _settle(self, reason: str) -> None:
        state = await self.engine.state(self.conversation)
        if state.turn is None or state.turn.id != self.turn or state.turn.paused is not None:
            return
        await settle_here(
            self.engine,
            self.conversation,
            self.epoch,
            reason=reason,
            retrieve=False,
            reception=self.reception,
        )

    async def _work_on(self, work: Coroutine[None, None, None]) -> None:
        """Do something that `stop` may cut short."""
        self._work = asyncio.create_task(work)
        try:
            await asyncio.wait([self._work])
        finally:
            task, self._work = self._work, None
            if not task.done():
                task.cancel()
        if not task.cancelled():
            _raise(task.exception())

    async def _step(self) -> bool:
        """Take the next step; whether it was the last."""
        state = await self.engine.state(self.conversation)
        if state.turn is None or state.turn.id != self.turn:
            return True
        policy = await self._policy(state)
        step = proceed(state, policy)
        match step:
            case Send():
                await self._work_on(self._send(step))
            case RunCalls():
                await self._work_on(self._run_calls(step.calls))
            case GiveUp():
                await self._work_on(self._give_up(step.calls))
            case Pause() | End():
                return await self._close(policy)
        return False

    async def _close(self, policy: Policy) -> bool:
        """End or pause the turn, unless something happened meanwhile that lets it go on."""
        closed = False

        async def act(draft: Draft) -> Lease | None:
            nonlocal closed
            step = proceed(draft.state, policy)
            closed = isinstance(step, (Pause, End))
            turn = draft.state.turn
            if isinstance(step, Pause) and turn is not None and turn.paused != step.reason:
                draft.do(PauseTurn(reason=step.reason, calls=step.calls))
            elif isinstance(step, End):
                draft.do(await self._end_turn(draft.state, step))
            return "release" if closed else None

        await self._commit(act)
        return closed

    async def _end_turn(self, state: State, step: End) -> EndTurn:
        why = f"the call was not carried out: the turn was {step.outcome}"
        last = state.turn.last if state.turn is not None else None
        error: dict[str, str | int] = {}
        if step.outcome == "failed" and last is not None:
            error = {"message": step.reason or last.kind, "outcome": last.kind}
            error |= {"code": last.code} if last.code else {}
            error |= {"status": last.status} if last.status else {}
        return EndTurn(
            outcome=step.outcome,
            reason=step.reason,
            abandon=await self.engine.abandoned(state, why),
            error=error or None,
        )

    async def _policy(self, state: State) -> Policy:
        """What the tools that are bound here allow; asks for each new call if it needs approval."""
        for call in state.pending:
            if call.id not in self._approval and call.status == "requested":
                self._approval[call.id] = await self._needs_approval(state, call)
        return Policy(
            on_unknown=self.engine.on_unknown_for(self._config),
            tools=on_crash_of(self._agent),
            approval=frozenset(id for id, needed in self._approval.items() if needed),
        )

    async def _needs_approval(self, state: State, call: Call) -> bool:
        tool = self._tool(call)
        if tool is None:
            return False
        item = await self.engine.call_item(state, call)
        return await tool.approval_needed(self._context(call, tool), text(item, "arguments") or "")

    async def _commit(self, act: Act) -> Draft:
        return await self.engine.commit(self.conversation, act, epoch=self.epoch)

    # -- requests ----------------------------------------------------------------------------

    async def _send(self, step: Send) -> None:
        await self._delay(step)
        outgoing: Outgoing | None = None

        async def act(draft: Draft) -> Lease:
            nonlocal outgoing
            outgoing = await self.engine.prepare(draft, step, self._config, self._settings)
            return "keep"

        await self._commit(act)
        if outgoing is not None:
            await self._exchange(outgoing)

    async def _delay(self, step: Send) -> None:
        """Wait as long as the log says, but not before another way is tried."""
        state = await self.engine.state(self.conversation)
        if state.transport == self.engine.transport.name:
            await asyncio.sleep(max(0.0, (step.not_before - self.engine.ambient.now()) / 1e6))

    async def _exchange(self, outgoing: Outgoing) -> None:
        """Send a committed request, and record what came of it (law 5)."""
        reception = Reception(
            attempt=outgoing.attempt, version=outgoing.version, secrets=self._secrets
        )
        self.reception = reception
        outcome: ev.OutcomeEvent | None = None
        try:
            await self._receive(outgoing, reception)
        except NotSent as error:
            outcome = _never_sent(outgoing.attempt, error)
        except (Unheard, Lost) as error:
            outcome = reception.interrupted(str(error))
        except Closed:
            outcome = reception.interrupted("closed")
        finally:
            await self._quiet()
        await self._finish(reception, outcome)

    async def _receive(self, outgoing: Outgoing, reception: Reception) -> None:
        request = Create(body=revealed(outgoing.body), parent=outgoing.parent)
        async with aclosing(self.engine.transport.send(request)) as frames:
            async for frame in frames:
                update = reception.feed(frame)
                if update is not None:
                    for watch in self.watches:
                        watch.put_nowait(update)
                self._keep_up(reception)

    async def _finish(self, reception: Reception, outcome: ev.OutcomeEvent | None) -> None:
        async def act(draft: Draft) -> Lease:
            draft.do(Note(events=tuple(notes)))
            draft.do(finished)
            return "release" if await self._ended_at_once(draft) else "keep"

        finished = finish(self.engine, reception) if outcome is None else Finish(outcome=outcome)
        notes = reception.take_notes()
        if not isinstance(finished.outcome, ev.ResponseCompleted):
            notes += reception.take_checkpoints()
        await self._commit(act)

    async def _ended_at_once(self, draft: Draft) -> bool:
        """End a turn whose model asks for nothing more, in the append of its last response."""
        completed = isinstance(draft.events[-1].event, ev.ResponseCompleted)
        if not completed or draft.state.pending or self._stopped is not None:
            return False
        step = proceed(draft.state, Policy())
        if isinstance(step, End):
            draft.do(await self._end_turn(draft.state, step))
        return isinstance(step, End)

    # -- checkpoints -------------------------------------------------------------------------

    def _keep_up(self, reception: Reception) -> None:
        """Get notes and text into the log, without waiting for it (law 1)."""
        if reception.notes or reception.unsaved() >= CHECKPOINT_POINTS:
            self._flush_now(reception)
        elif self._timer is None and reception.unsaved():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(CHECKPOINT_SECONDS, self._flush_now, reception)

    def _flush_now(self, reception: Reception) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._flush is None or self._flush.done():
            self._flush = asyncio.create_task(self._save(reception))

    async def _save(self, reception: Reception) -> None:
        events = (*reception.take_notes(), *reception.take_checkpoints())

        async def act(draft: Draft) -> Lease:
            draft.do(Note(events=events))
            return "keep"

        await self._commit(act)

    async def _quiet(self) -> None:
        """Wait for what is being saved; nothing more is saved behind it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._flush is not None:
            flush, self._flush = self._flush, None
            await flush

    # -- calls -------------------------------------------------------------------------------

    def _tool(self, call: Call) -> Tool | None:
        if self._agent is None or call.kind != "function_call":
            return None
        return self._agent.toolset.get(call.name or "")

    def _context(self, call: Call, tool: Tool) -> ToolContext[object]:
        async def report(data: JsonObject) -> None:
            await self._on_call(Progress(call=call.id, data=data))

        return ToolContext(
            deps=self._deps,
            conversation=self.conversation,
            turn=self.turn,
            tool=tool.name,
            idempotency_key=call.id,
            call_id=call.call_id,
            run=call.runs + 1,
            report=report,
        )

    async def _on_call(self, command: StartCall | Progress | Defer | Resolve) -> None:
        async def act(draft: Draft) -> Lease:
            draft.do(command)
            return "keep"

        await self._commit(act)

    async def _run_calls(self, calls: Sequence[str]) -> None:
        """Run these calls, at most `max_parallel_tools` at once (W-30: only completed ones)."""
        assert self._agent is not None
        limit = asyncio.Semaphore(self._agent.max_parallel_tools)
        try:
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    group.create_task(self._run_call(call, limit))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def _run_call(self, id: str, limit: asyncio.Semaphore) -> None:
        async with limit:
            state = await self.engine.state(self.conversation)
            call = state.call(id)
            tool = self._tool(call) if call is not None else None
            if call is None or tool is None:
                return
            item = await self.engine.call_item(state, call)
            await self._on_call(StartCall(call=id))
            context = self._context(call, tool)
            result = await run_tool(tool, context, text(item, "arguments") or "")
            await self._on_call(self._answer(call, item, result))

    def _answer(self, call: Call, item: JsonObject, result: ToolResult) -> Defer | Resolve:
        if result.deferred:
            return Defer(call=call.id)
        return Resolve(
            call=call.id,
            how="answered",
            key=self.engine.ambient.id("itm"),
            item=function_output(item, result.output),
            failed=result.failed,
            by_runner=True,
        )

    async def _give_up(self, calls: Sequence[str]) -> None:
        """Tell the model the truth: nobody knows whether the call was carried out (law 12)."""
        state = await self.engine.state(self.conversation)
        for call in state.pending:
            if call.id not in calls:
                continue
            item = await self.engine.call_item(state, call)
            output = refused_output(item, "The outcome is unknown: the process stopped meanwhile.")
            await self._on_call(
                Resolve(
                    call=call.id,
                    how="answered",
                    key=self.engine.ambient.id("itm"),
                    item=output,
                    failed=True,
                    by_runner=True,
                )
            )


@asynccontextmanager
async def opened(deps: Callable[[], object] | None) -> AsyncGenerator[object]:
    """What tools get as `deps`, made by the agent's factory, for as long as the turn runs."""
    made = deps() if deps is not None else None
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, AbstractAsyncContextManager):
        async with made as entered:  # pyright: ignore[reportUnknownVariableType]
            yield entered
    else:
        yield made


def _never_sent(attempt: str, error: NotSent) -> ev.ResponseRejected:
    """Nothing reached the provider; only a refused key makes another try useless (W-32)."""
    return ev.ResponseRejected(
        attempt=attempt,
        error={"message": str(error)} | ({"status": error.status} if error.status else {}),
        reason="not_sent",
        retryable=error.status != 401,
    )


def _raise(error: BaseException | None) -> None:
    if error is not None:
        raise error


def _retrieved(task: asyncio.Task[None]) -> None:
    """A runner's error is raised to who waits for the turn; with nobody waiting it is logged."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("a turn was stopped: %s", error, exc_info=error)
