"""What the processes of the torture talk about: tools with effects outside, and a model.

The one rule: an effect is one line in a file, appended and synced, that names the tool, the call's
idempotency key and its run. Which tools a turn calls follows from its number alone, so that the
model needs no memory, and whoever sends a turn again sends the same.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from ..agent import Agent
from ..canonical import JsonObject, objects, text
from ..items import output_text, type_of
from ..running import Deferred, ToolContext
from ..tools import Tool, tool
from .deeds import Effect
from .scripts import Reply, call, calls
from .scripts import text as says
from .traps import Trap

UNASKED: Final = frozenset({"again", "probed"})
"""The tools that may run again unasked: one does no harm, one asks whether it has acted."""
TWICE: Final = frozenset({"again"})
"""The tools that may have their effect more than once."""

MORE = "more"


@dataclass(frozen=True, slots=True)
class Effects:
    """The file in which tools leave what they did, whatever becomes of their process."""

    path: Path

    def leave(self, tool: str, context: ToolContext[None]) -> None:
        """Act: one line, whole and on the disk when this returns."""
        file = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        try:
            os.write(file, f"{tool} {context.idempotency_key} {context.run}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)

    def all(self) -> Iterator[tuple[str, Effect]]:
        """Every effect so far, with its tool."""
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                name, key, run = line.split()
                yield name, Effect(key=key, run=int(run))

    def times(self) -> Counter[str]:
        """How often each call had its effect, by idempotency key."""
        return Counter(effect.key for _, effect in self.all())


def done(key: str) -> str:
    """What a tool answers that has acted, or somebody who knows that it has."""
    return f"done {key}"


Act: TypeAlias = Callable[[str, ToolContext[None]], str]
"""Has the effect of a tool in a run of it, and says what it answers."""


def agent_of(effects: Effects, trap: Trap) -> Agent:
    """A tool of each kind; the process may die right before its effect, and right behind it."""

    def act(name: str, context: ToolContext[None]) -> str:
        trap.step("before-effect")
        effects.leave(name, context)
        trap.step("after-effect")
        return done(context.idempotency_key)

    def has_acted(ctx: ToolContext[None]) -> str | None:
        key = ctx.idempotency_key
        return done(key) if effects.times()[key] else None

    tools = [*_after_a_crash(act, has_acted), *_in_their_own_time(act)]
    return Agent("victim", model="gpt-5", tools=tools, max_retries=1000)


def _after_a_crash(act: Act, has_acted: Callable[[ToolContext[None]], str | None]) -> list[Tool]:
    """A tool for each way to go on after a crash."""

    @tool(on_crash="ask")
    async def plain(ctx: ToolContext[None], n: int) -> str:
        """Act; somebody has to look where it is not known whether it did."""
        return act("plain", ctx)

    @tool(on_crash="rerun")
    def again(ctx: ToolContext[None], n: int) -> str:
        """Act, in a thread; twice does no harm."""
        return act("again", ctx)

    @tool(on_crash="give_up")
    async def once(ctx: ToolContext[None], n: int) -> str:
        """Act once or not at all."""
        return act("once", ctx)

    @tool(on_crash="probe", probe=has_acted)
    async def probed(ctx: ToolContext[None], n: int) -> str:
        """Act where it has not acted so far."""
        return act("probed", ctx)

    return [plain, again, once, probed]


def _in_their_own_time(act: Act) -> list[Tool]:
    """Tools that take a while, wait for somebody, or lead to more; each asks after a crash."""

    @tool
    async def slow(ctx: ToolContext[None], n: int) -> str:
        """Act, tell how far it is, and take a while until it is over."""
        await ctx.progress(half=1)
        said = act("slow", ctx)
        await asyncio.sleep(0.02)
        return said

    @tool(needs_approval=True)
    async def agreed(ctx: ToolContext[None], n: int) -> str:
        """Act where somebody agreed."""
        return act("agreed", ctx)

    @tool
    async def later(ctx: ToolContext[None], n: int) -> str:
        """Act, and leave the answer to somebody else."""
        act("later", ctx)
        raise Deferred

    @tool
    async def twofold(ctx: ToolContext[None], n: int) -> str:
        """Act, and ask for more."""
        return f"{act('twofold', ctx)} {MORE}"

    return [slow, agreed, later, twofold]


ALL_DONE = "All of it is done."
NOTHING = "There is nothing to do."

# -- the model -----------------------------------------------------------------------------

WISHES = (
    (),
    ("twofold",),
    ("plain", "again"),
    ("once", "slow"),
    ("agreed", "again"),
    ("later", "once"),
    ("probed", "plain"),
)
"""Which tools a turn calls at once, by its number."""


def said(name: str, number: int) -> str:
    """What is said to a conversation in the turn of this number, from 1."""
    return f"turn {number} of {name}"


def model(delay: float = 0.001) -> Callable[[JsonObject], Reply]:
    """A model that calls what the number of the turn asks for, and then has done.

    `delay` is in seconds before each frame, so that there is time to die.
    """

    def answer(body: JsonObject) -> Reply:
        last = objects(body, "input")[-1]
        if type_of(last) == "function_call_output":
            more = (text(last, "output") or "").endswith(MORE)
            return (call("again", n=2) if more else says(ALL_DONE)).but(delay=delay)
        number = int(output_text(last).split()[1])
        wishes = WISHES[number % len(WISHES)]
        asked = calls(*(call(name, n=number) for name in wishes))
        return (asked if wishes else says(NOTHING)).but(delay=delay)

    return answer
