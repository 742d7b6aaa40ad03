"""Running the tools of a turn: approvals, one run after its start is recorded, and the answer.

The one rule: a tool runs at most once unasked; its start is in the log before it is called, and
only calls of a completed response get here (laws 4 and 12, W-30).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from . import events as ev
from .agent import Agent, on_crash_of
from .canonical import Json, JsonObject, text
from .commands import Approve, Defer, Note, Progress, Resolve, StartCall
from .context import every
from .decide_calls import STARTABLE
from .draft import Draft
from .engine import Engine
from .errors import StaleEpoch, TurnlogError
from .held import Held
from .items import function_output, refused_output
from .ports import Lease
from .recovery import OnUnknown, Policy
from .running import ToolContext, ToolResult
from .state import Call, State
from .tools import Probed, Tool, run_tool

logger = logging.getLogger(__name__)

GIVEN_UP = "The outcome is unknown: the process stopped while the tool ran."
NOT_DONE = "the probe said that it did not happen"

_latecomers = set[asyncio.Task[None]]()
"""Notes that are being written, of tools for which nobody waits any more."""


@dataclass(slots=True)
class Calling:
    """The tools of one turn. `stack` keeps what the agent's `deps` made until the turn is over."""

    held: Held
    agent: Agent | None
    stack: AsyncExitStack
    _deps: object = None
    _has_deps: bool = False
    _approval: dict[str, bool] = field(default_factory=dict[str, bool])
    _asked: set[str] = field(default_factory=set[str])

    def unasked(self, state: State) -> list[Call]:
        """The calls of which it is not known so far whether they need approval.

        None of a turn whose calls the caller runs.
        """
        if state.turn is not None and state.turn.manual:
            return []
        return [
            call
            for call in state.pending
            if call.id not in self._approval and call.status == "requested"
        ]

    async def ask(self, state: State) -> None:
        """Ask for each new call if it needs approval: the application's code, which may wait."""
        for call in self.unasked(state):
            self._approval[call.id] = await self._needs_approval(state, call)

    def policy(self, on_unknown: OnUnknown) -> Policy:
        """What the tools that are bound here allow."""
        return Policy(
            on_unknown=on_unknown,
            tools=on_crash_of(self.agent),
            approval=frozenset(id for id, needed in self._approval.items() if needed),
            asked=frozenset(self._asked),
        )

    async def _needs_approval(self, state: State, call: Call) -> bool:
        tool = self._tool(call)
        if tool is None:
            return False
        await self._open_deps()
        item = await self.held.engine.call_item(state, call)
        return await tool.approval_needed(self._context(call, tool), _arguments(item))

    async def run(self, calls: Sequence[str]) -> None:
        """Run these calls, at most `max_parallel_tools` at once."""
        assert self.agent is not None
        await self._open_deps()
        limit = asyncio.Semaphore(self.agent.max_parallel_tools)
        state = await self.held.state()
        async with _together() as group:
            for call in state.pending:
                if call.id in calls:
                    item = await self.held.engine.call_item(state, call)
                    group.create_task(self._run_within(limit, call, item))

    async def _run_within(self, limit: asyncio.Semaphore, call: Call, item: JsonObject) -> None:
        async with limit:
            tool = self._tool(call)
            if tool is None or not await self._started(call.id):
                return
            reported = await self._reported(call)
            context = self._context(call, tool, run=call.runs + 1, reported=reported)
            late = Late(self.held.engine, self.held.conversation, call.id, context.run)
            result = await run_tool(tool, context, _arguments(item), late.tell)
            try:
                await self._answered(call, item, result)
            except StaleEpoch:
                # Somebody took this process for dead: what the tool did is worth knowing (law 12).
                await late.record(result)
                raise

    async def _started(self, id: str) -> bool:
        """Record the start of a call; not where somebody has settled it meanwhile."""
        started = False

        async def act(draft: Draft) -> Lease:
            nonlocal started
            call = draft.state.call(id)
            started = call is not None and call.status in STARTABLE
            if started:
                draft.do(StartCall(call=id))
            return "keep"

        await self.held.commit(act)
        return started

    async def _answered(self, call: Call, item: JsonObject, result: ToolResult) -> None:
        """Record what a run came to; whoever abandoned the call meanwhile has not told the model.

        What is settled already is not deferred.
        """
        answer = self._answer(call, item, result)

        async def act(draft: Draft) -> Lease:
            now = draft.state.call(call.id)
            if not (result.deferred and now is not None and now.settled):
                draft.do(answer)
            return "keep"

        await self.held.commit(act)

    def _answer(self, call: Call, item: JsonObject, result: ToolResult) -> Defer | Resolve:
        if result.deferred:
            return Defer(call=call.id)
        return self._resolve(call, function_output(item, result.output), failed=result.failed)

    # -- after a crash -----------------------------------------------------------------------

    async def probe(self, calls: Sequence[str]) -> None:
        """Ask what became of these calls, all at once; each is asked about once in a run."""
        await self._open_deps()
        state = await self.held.state()
        self._asked.update(calls)
        async with _together() as group:
            for call in state.pending:
                tool = self._tool(call)
                if call.id in calls and tool is not None:
                    item = await self.held.engine.call_item(state, call)
                    group.create_task(self._probe(call, item, tool))

    async def _probe(self, call: Call, item: JsonObject, tool: Tool) -> None:
        context = self._context(call, tool, run=call.runs, reported=await self._reported(call))
        found = await tool.probed(context, _arguments(item))

        async def act(draft: Draft) -> Lease:
            now = draft.state.call(call.id)
            if now is not None and now.status == "uncertain":
                draft.do(self._learned(call, item, found))
            return "keep"

        await self.held.commit(act)

    def _learned(
        self, call: Call, item: JsonObject, found: Probed
    ) -> Note | Approve | Defer | Resolve:
        """What follows from the word of a probe: nothing but a note, where nobody knows."""
        if found.doubt is not None:
            data: JsonObject = {"call": call.id, "reason": found.doubt}
            return Note(events=(ev.ProviderNoted(kind="probe_failed", data=data),))
        if found.result is None:
            return Approve(call=call.id, reason=NOT_DONE, rerun=True)
        return self._answer(call, item, found.result)

    async def give_up(self, calls: Sequence[str]) -> None:
        """Tell the model the truth: nobody knows whether these calls were carried out (law 12)."""
        state = await self.held.state()
        for call in state.pending:
            if call.id in calls:
                item = await self.held.engine.call_item(state, call)
                output = refused_output(item, GIVEN_UP)
                await self.held.do(self._resolve(call, output, failed=True))

    def _resolve(self, call: Call, output: JsonObject, *, failed: bool) -> Resolve:
        fitting = self.held.engine.limits.fitting(output)
        return Resolve(
            call=call.id,
            how="answered",
            key=self.held.engine.ambient.id("itm"),
            item=fitting,
            failed=failed or fitting is not output,
            by_runner=True,
        )

    # -- what a tool gets --------------------------------------------------------------------

    def _tool(self, call: Call) -> Tool | None:
        if self.agent is None or call.kind != "function_call":
            return None
        return self.agent.toolset.get(call.name or "")

    async def _reported(self, call: Call) -> tuple[JsonObject, ...]:
        """What earlier runs of a call reported."""
        if call.runs == 0:
            return ()
        log = await every(self.held.engine.store, self.held.conversation, call.version)
        return tuple(
            one.event.data
            for one in log
            if isinstance(one.event, ev.CallProgressed) and one.event.call == call.id
        )

    def _context(
        self, call: Call, tool: Tool, *, run: int = 1, reported: tuple[JsonObject, ...] = ()
    ) -> ToolContext[object]:
        async def report(data: JsonObject) -> None:
            await self.held.do(Progress(call=call.id, data=data))

        return ToolContext(
            deps=self._deps,
            conversation=self.held.conversation,
            turn=self.held.turn,
            tool=tool.name,
            idempotency_key=call.id,
            call_id=call.call_id,
            run=run,
            reported=reported,
            report=report,
        )

    async def _open_deps(self) -> None:
        """Have the agent's factory make what tools get, once for each turn that calls one."""
        if not self._has_deps and self.agent is not None:
            self._deps = await self.stack.enter_async_context(opened(self.agent.deps))
            self._has_deps = True


@asynccontextmanager
async def _together() -> AsyncGenerator[asyncio.TaskGroup]:
    """Tasks that end together; the first error is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors


@dataclass(frozen=True, slots=True)
class Late:
    """A run for which nobody waits any more: what it comes to is noted, and told to no model.

    The call has its output by then, or is somebody else's.
    """

    engine: Engine
    conversation: str
    call: str
    run: int

    def tell(self, result: ToolResult) -> None:
        """Have a result noted, in the background."""
        task = asyncio.get_running_loop().create_task(self.record(result))
        _latecomers.add(task)
        task.add_done_callback(_latecomers.discard)

    async def record(self, result: ToolResult) -> None:
        """Note a result; one that is deferred says nothing. Raises nothing of turnlog's."""
        if result.deferred:
            return
        output: Json = result.output
        data: JsonObject = {
            "call": self.call,
            "run": self.run,
            "output": output,
            "failed": result.failed,
        }
        try:
            await self.engine.note(
                self.conversation, ev.ProviderNoted(kind="late_tool_result", data=data)
            )
        except TurnlogError as error:
            logger.warning("what call %s came to late was not recorded: %s", self.call, error)


def _arguments(item: JsonObject) -> str:
    return text(item, "arguments") or ""


@asynccontextmanager
async def opened(deps: Callable[[], object] | None) -> AsyncGenerator[object]:
    """What a factory makes: a value, an awaitable of one, or an async context manager."""
    made = deps() if deps is not None else None
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, AbstractAsyncContextManager):
        async with made as entered:  # pyright: ignore[reportUnknownVariableType]
            yield entered
    else:
        yield made
