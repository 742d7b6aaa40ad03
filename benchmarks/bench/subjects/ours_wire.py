"""turnlog on the wire: a turn, streamed, with its log on disk and its checkpoints on.

A watcher gets deltas joined that came while it was busy, or while something had to be durable
first. A delta counts when its text is there; `updates_per_delta` says how many came by themselves.
"""

from __future__ import annotations

import itertools
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import turnlog
from bench import canned
from bench.machine import probe
from bench.subject import Given, Measured, span, versions
from bench.wire import (
    FIRST,
    THINKING,
    WARM,
    Clocked,
    Heard,
    Lags,
    clocked,
    context_items,
    first_figures,
    p50_ms,
    raise_open_files,
)
from bench.wire import streams as many_streams

PART = 250
"""How many items go into one append."""


def _open(given: Given) -> AbstractAsyncContextManager[turnlog.Log]:
    return turnlog.open(
        given.folder / "log.db",
        base_url=given.text("url"),
        transport=given.text("transport"),
        profile="openai",
        api_key="sk-x",
    )


async def _chat(log: turnlog.Log, id: str, model: str) -> turnlog.Conversation:
    return await log.conversation(id, agent=turnlog.Agent(model, model=model))


@dataclass(slots=True)
class Watched:
    """A turn that was watched to its end."""

    heard: Heard
    updates: int


async def _watch(chat: turnlog.Conversation, model: str) -> Watched:
    updates, letters, first, at = 0, 0, "", 0
    async with chat.stream("Go.") as turn:
        async for update in turn:
            if update.type == "text.delta":
                if not updates:
                    at, first = time.monotonic_ns(), update.delta
                updates += 1
                letters += len(update.delta)
    asked = canned.Asked.parse(model)
    assert asked is not None and letters == canned.letters(asked), letters
    return Watched(Heard(asked.count, first, at), updates)


async def _calls(log: turnlog.Log, id: str, model: str, calls: int) -> Clocked:
    chat = await _chat(log, id, model)

    async def ask() -> Heard:
        return (await _watch(chat, model)).heard

    return await clocked(calls, ask)


def _facts(given: Given) -> dict[str, str]:
    return {"transport": given.text("transport"), **versions("turnlog", "websockets", "httpx2")}


async def deltas(given: Given) -> Measured:
    """Turns of one conversation, whose first one is not counted."""
    count, repeat = given.number("deltas"), given.number("repeat")
    model = f"deltas-{count}"
    async with _open(given) as log:
        chat = await _chat(log, "one", model)
        await _watch(chat, model)
        with span() as measured:
            watched = [await _watch(chat, model) for _ in range(repeat)]
    updates = sum(each.updates for each in watched) / count / repeat
    figures = measured.rate(count * repeat) | {"updates_per_delta": updates}
    return Measured(figures, _facts(given))


async def first(given: Given) -> Measured:
    """Turns of one conversation, one after another: `send` until its intent is durable, and on.

    `sync_ms` is what a sync takes here and now, before the calls that wait for one and after them.
    """
    times = given.number("times")
    async with _open(given) as log:
        await _calls(log, "at once", FIRST, WARM)
        before = probe(given.folder)
        at_once = await _calls(log, "at once", FIRST, times)
        after = probe(given.folder)
        await _calls(log, "thinking", THINKING, WARM)
        thinking = await _calls(log, "thinking", THINKING, times)
    figures = first_figures(at_once, thinking) | {"sync_ms": (before + after) / 2}
    return Measured(figures, _facts(given))


async def full_request(given: Given) -> Measured:
    """The first turn of conversations whose items were added beforehand: all of them go out."""
    items, found = context_items(given.number("items"))[:-1], Clocked()
    async with _open(given) as log:
        chats = [await _chat(log, f"full {n}", FIRST) for n in range(given.number("times"))]
        for chat, start in itertools.product(chats, range(0, len(items), PART)):
            await chat.add(*items[start : start + PART])
        await _calls(log, "warm", FIRST, WARM)
        for chat in chats:
            begun = time.monotonic_ns()
            found.add(begun, (await _watch(chat, FIRST)).heard)
    return Measured({"to_wire_p50_ms": p50_ms(found.to_wire)}, _facts(given))


async def streams(given: Given) -> Measured:
    """Many conversations, each with a turn under way and somebody who watches it."""
    raise_open_files()
    async with _open(given) as log:

        async def watch(number: int, model: str, lags: Lags) -> None:
            chat = await _chat(log, f"stream-{number}", model)
            async with chat.stream("Go.") as turn:
                async for update in turn:
                    if update.type == "text.delta":
                        lags.add(update.delta)

        figures = await many_streams(given, watch)
    return Measured(figures, _facts(given))
