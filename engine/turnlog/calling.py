"""Running the tools of a turn: approvals, one run after its start is recorded, and the answer.

The one rule: a tool runs at most once unasked; its start is in the log before it is called, and
only calls of a completed response get here (laws 4 and 12, W-30).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from .agent import Agent, on_crash_of
from .canonical import JsonObject, text
from .commands import Defer, Progress, Resolve, StartCall
from .decide_calls import STARTABLE
from .draft import Draft
from .held import Held
from .items import function_output, refused_output
from .ports import Lease
from .recovery import OnUnknown, Policy
from .running import ToolContext, ToolResult
from .state import Call, State
from .tools import Tool, run_tool

GIVEN_UP = "The outcome is unknown: the process stopped while the tool ran."


@dataclass(slots=True)
class Calling:
    """The tools of one turn. `stack` keeps what the agent's `deps` made until the turn is over."""

    held: Held
    agent: Agent | None
    stack: AsyncExitStack
    _deps: object = None
    _has_deps: bool = False
    _approval: dict[str, bool] = field(default_factory=dict[str, bool])

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
        try:
            async with asyncio.TaskGroup() as group:
                for call in state.pending:
                    if call.id in calls:
                        item = await self.held.engine.call_item(state, call)
                        group.create_task(self._run_within(limit, call, item))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def _run_within(self, limit: asyncio.Semaphore, call: Call, item: JsonObject) -> None:
        async with limit:
            tool = self._tool(call)
            if tool is not None and await self._started(call.id):
                result = await run_tool(tool, self._context(call, tool), _arguments(item))
                await self.held.do(self._answer(call, item, result))

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

    def _answer(self, call: Call, item: JsonObject, result: ToolResult) -> Defer | Resolve:
        if result.deferred:
            return Defer(call=call.id)
        return self._resolve(call, function_output(item, result.output), failed=result.failed)

    async def give_up(self, calls: Sequence[str]) -> None:
        """Tell the model the truth: nobody knows whether these calls were carried out (law 12)."""
        state = await self.held.state()
        for call in state.pending:
            if call.id in calls:
                item = await self.held.engine.call_item(state, call)
                output = refused_output(item, GIVEN_UP)
                await self.held.do(self._resolve(call, output, failed=True))

    def _resolve(self, call: Call, output: JsonObject, *, failed: bool) -> Resolve:
        return Resolve(
            call=call.id,
            how="answered",
            key=self.held.engine.ambient.id("itm"),
            item=output,
            failed=failed,
            by_runner=True,
        )

    # -- what a tool gets --------------------------------------------------------------------

    def _tool(self, call: Call) -> Tool | None:
        if self.agent is None or call.kind != "function_call":
            return None
        return self.agent.toolset.get(call.name or "")

    def _context(self, call: Call, tool: Tool) -> ToolContext[object]:
        async def report(data: JsonObject) -> None:
            await self.held.do(Progress(call=call.id, data=data))

        return ToolContext(
            deps=self._deps,
            conversation=self.held.conversation,
            turn=self.held.turn,
            tool=tool.name,
            idempotency_key=call.id,
            call_id=call.call_id,
            run=call.runs + 1,
            report=report,
        )

    async def _open_deps(self) -> None:
        """Have the agent's factory make what tools get, once for each turn that calls one."""
        if not self._has_deps and self.agent is not None:
            self._deps = await self.stack.enter_async_context(opened(self.agent.deps))
            self._has_deps = True


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
