"""Where the time of an append and of a `send` goes: `python -m bench.stages [times]`.

The one rule: it looks from outside, at when functions of the engine begin and end, and so it may
break where they are renamed. What is printed is the median and the least of each stage, in
microseconds; benchmarks/limits.md uses it to say what a target that is not met would take.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import turnlog
from turnlog import index
from turnlog.commands import AddItems, Keyed, Start
from turnlog.decide import decide
from turnlog.draft import Ambient, Draft
from turnlog.engine import Engine
from turnlog.record import Stamp, encode, record
from turnlog.runner import Runner
from turnlog.sending import Sending
from turnlog.state import State, start
from turnlog.store import SqlStore, open_store
from turnlog.store.rows import prepare
from turnlog.store.writer import Writer

from .subject import Item, turn_items

Marks = dict[str, float]


def mark(marks: Marks, of: Any, name: str, before: str = "", after: str = "") -> None:
    """Note when a method begins and when it ends, the first time after `marks` was cleared."""
    method = getattr(of, name)

    def note(what: str) -> None:
        if what:
            marks.setdefault(what, perf_counter())

    async def awaited(*given: Any, **named: Any) -> Any:
        note(before)
        found = await method(*given, **named)
        note(after)
        return found

    def called(*given: Any, **named: Any) -> Any:
        note(before)
        found = method(*given, **named)
        note(after)
        return found

    setattr(of, name, awaited if inspect.iscoroutinefunction(method) else called)


def show(title: str, rows: Sequence[Marks], order: Sequence[str]) -> None:
    """A line for each stage: from the mark before it to its own."""
    print(f"\n{title}\n{'':<44}{'median us':>10}{'least us':>10}")
    for before, after in pairwise(order):
        took = [(row[after] - row[before]) * 1e6 for row in rows]
        print(f"  {after:<42}{statistics.median(took):>10.0f}{min(took):>10.0f}")
    took = [(row[order[-1]] - row[order[0]]) * 1e6 for row in rows]
    print(f"  {'all of it':<42}{statistics.median(took):>10.0f}{min(took):>10.0f}")


def added(items: Sequence[Item], ambient: Ambient) -> AddItems:
    """The command that adds a turn's items."""
    return AddItems(items=tuple(map(Keyed, ambient.ids("itm", len(items)), items)))


def pure(times: int) -> None:
    """What is done for an append before the store is asked, piece by piece."""
    ambient = Ambient()
    draft = Draft(start("c"), ambient, "user")
    draft.do(Start())
    state, rows = draft.state, list[Marks]()
    for number in range(times):
        items, marks = turn_items(number), Marks()
        marks["begin"] = perf_counter()
        new = decide(state, added(items, ambient))
        marks["decided"] = perf_counter()
        for one in new:
            encode(one.event)
        marks["encoded (canonical JSON, four events)"] = perf_counter()
        stamp = Stamp(
            time=ambient.now(),
            actor="user",
            epoch=None,
            ids=ambient.ids("evt", len(new)),
            salts=[ambient.token(16) for _ in new],
        )
        recorded = record("c", state.version, bytes.fromhex(state.hash), new, stamp)
        marks["recorded (encoded again, SHA-256, chained)"] = perf_counter()
        index.advance_all(state, recorded)
        marks["folded"] = perf_counter()
        draft = Draft(state, ambient, "user")
        draft.do(added(items, ambient))
        append, state = draft.append(None), draft.state
        marks["all of that once more, as a draft"] = perf_counter()
        prepare(append, 0)
        marks["made into rows (head included)"] = perf_counter()
        rows.append(marks)
    show("Before the store, a turn's four items", rows, list(rows[0]))


async def appending(folder: Path, times: int) -> None:
    """An append of four items to one conversation, from stage to stage."""
    marks, rows, ambient = Marks(), list[Marks](), Ambient()
    mark(marks, Writer, "_group", before="the writer has it")
    mark(marks, Writer, "_write", before="a transaction has begun")
    mark(marks, Writer, "_commit", before="written", after="committed")
    store = await open_store(folder / "append.db", durability="power")
    state: State = start("c")
    for number in range(times):
        marks.clear()
        marks["begin"] = perf_counter()
        draft = Draft(state, ambient, "user")
        draft.do(Start())
        draft.do(added(turn_items(number), ambient))
        marks["drafted"] = perf_counter()
        await store.append(draft.append(None))
        state = draft.state
        marks["told to the caller"] = perf_counter()
        rows.append(dict(marks))
    await store.close()
    order = ["begin", "drafted", "the writer has it", "a transaction has begun", "written"]
    show("An append", rows, [*order, "committed", "told to the caller"])


async def sending(folder: Path, url: str, times: int) -> None:
    """A `send` over a warm WebSocket, from stage to stage."""
    marks, rows = Marks(), list[Marks]()
    mark(marks, Engine, "prepare", before="up to the request", after="request planned and built")
    mark(marks, SqlStore, "append", before="drafted", after="told to the engine")
    mark(marks, Writer, "_commit", before="written", after="committed")
    mark(marks, Runner, "start", before="the turn runs")
    mark(marks, Sending, "run", before="its task runs")
    opening = turnlog.open(
        folder / "send.db", base_url=url, transport="websocket", profile="openai", api_key="sk-x"
    )
    async with opening as log:
        chat = await log.conversation("c", model="first")
        for _ in range(times):
            marks.clear()
            marks["begin"] = perf_counter()
            async with chat.stream("Where is it?") as turn:
                async for _ in turn:
                    pass
            rows.append(dict(marks))
    order = ["begin", "up to the request", "request planned and built", "drafted", "written"]
    order += ["committed", "told to the engine", "the turn runs", "its task runs"]
    show("A send", rows[times // 5 :], order)


def main(times: int) -> None:
    """Look at all three, and print them."""
    pure(times)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        asyncio.run(appending(Path(name), times))
        command = [sys.executable, "-m", "bench.server"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as provider:
            assert provider.stdout is not None
            try:
                asyncio.run(sending(Path(name), provider.stdout.readline().strip(), times))
            finally:
                provider.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m bench.stages", description="Where the time of an append and a send goes."
    )
    parser.add_argument("times", type=int, nargs="?", default=300, help="how often each (300)")
    main(parser.parse_args().times)
