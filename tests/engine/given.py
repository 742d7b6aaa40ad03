"""What the tests of the engine are given: logs on scripts, agents, and a clock that leaps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Literal, TypeVar

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject, objects
from turnlog.conversation import Conversation
from turnlog.draft import Ambient
from turnlog.items import output_text, refusal_text, type_of
from turnlog.ports import Transport
from turnlog.recovery import OnUnknown
from turnlog.store import MemoryStore
from turnlog.testing import Reply, Scripted, scripted
from turnlog.updates import Delta, Update

PATIENCE = 10.0
E = TypeVar("E", bound=ev.Event)


_minutes = count(28_000_000)


def leaping() -> Ambient:
    """A clock on which every look is a minute later, so that no delay is really waited for."""
    return Ambient(now=lambda: next(_minutes) * 60_000_000)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@turnlog.tool(needs_approval=True)
async def pay(amount: float) -> str:
    """Pay an amount."""
    return f"paid {amount:g}"


def agent(
    *tools: turnlog.Tool | Callable[..., object] | JsonObject, **options: object
) -> turnlog.Agent:
    """An agent named `test`, with the model gpt-5."""
    model = options.pop("model", "gpt-5")
    return turnlog.Agent("test", model=model, tools=tools or (add,), **options)  # type: ignore[arg-type]


@asynccontextmanager
async def opened(
    transport: Transport | Sequence[Reply | Callable[[JsonObject], Reply]],
    *agents: turnlog.Agent,
    path: str = ":memory:",
    store: MemoryStore | None = None,
    ambient: Ambient | None = None,
    on_unknown: OnUnknown | None = None,
    durability: Literal["power", "process"] = "process",
) -> AsyncGenerator[turnlog.Log]:
    """A log, in memory unless there is a path, on a transport or a script."""
    way = scripted(transport) if isinstance(transport, (list, tuple)) else transport
    async with turnlog.open(
        path,
        agents=agents,
        transport=way,  # type: ignore[arg-type]
        store=store,
        ambient=ambient or leaping(),
        on_unknown=on_unknown,
        durability=durability,
    ) as log:
        yield log


@asynccontextmanager
async def talking(
    script: Sequence[Reply | Callable[[JsonObject], Reply]],
    agent_: turnlog.Agent | None = None,
    *,
    store: MemoryStore | None = None,
    checks: bool = True,
    ambient: Ambient | None = None,
    on_unknown: OnUnknown | None = None,
) -> AsyncGenerator[tuple[Conversation, Scripted]]:
    """A conversation `c` with an agent, on a script, and the transport that answers."""
    chosen = agent_ or agent()
    transport = scripted(script, checks=checks)
    async with opened(
        transport, chosen, store=store, ambient=ambient, on_unknown=on_unknown
    ) as log:
        chat = await log.conversation("c", agent=chosen)
        yield chat, transport
        if await store_knows(chat):
            assert (await log.verify()).findings == ()


async def store_knows(chat: Conversation) -> bool:
    """Whether the conversation was written."""
    return bool(await chat.events())


async def all_of(chat: Conversation, *kinds: type[E]) -> list[E]:
    """The events of these kinds, in order."""
    return [one.event for one in await chat.events() if isinstance(one.event, kinds)]


async def tags(chat: Conversation) -> list[str]:
    """What happened, in the words of the log."""
    return [one.tag for one in await chat.events()]


def said(body: JsonObject) -> list[str]:
    """The input of a request, one word for each item."""
    return [_word(item) for item in objects(body, "input")]


def _word(item: JsonObject) -> str:
    if type_of(item) != "message":
        return type_of(item)
    return output_text(item) or refusal_text(item)


async def collect(updates: AsyncIterator[Update]) -> list[Update]:
    """All updates, with a limit to how long they may take."""
    async with asyncio.timeout(PATIENCE):
        return [update async for update in updates]


def texts(updates: Sequence[Update]) -> str:
    """The text that the deltas of an answer make."""
    return "".join(
        update.delta
        for update in updates
        if isinstance(update, Delta) and update.type == "text.delta"
    )


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until something is so."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


async def recorded(chat: Conversation, tag: str) -> None:
    """Let others run until the log says something."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if tag in await tags(chat):
                return
            await asyncio.sleep(0)
