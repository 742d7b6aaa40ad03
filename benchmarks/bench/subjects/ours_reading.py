"""What turnlog takes to open and to read, and what stays in memory of what nobody uses.

The one rule: only what people call is timed. A conversation is filled by `add`, and by turns that
are answered in this process, so that it has a configuration and a response to continue from.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal

import turnlog
from turnlog.canonical import JsonObject
from turnlog.context import Item
from turnlog.conversation import Conversation
from turnlog.diff import Kept
from turnlog.diff import diff as differences
from turnlog.log import Log
from turnlog.ports import Create, Frame, Late, Profile, Request
from turnlog.record import Recorded
from turnlog.state import Parent

from ..subject import Given, Measured, latency, resident_bytes, turn_items, versions

AGENT = turnlog.Agent("bench", model="bench", instructions="Be brief, and be right.")
ID = "conversation"
STRETCH = 1000
"""How many items each turn brings that fills a conversation, its own two included."""
WARM_UP = 1000
"""How many conversations were used before memory is looked at."""
AT_ONCE = 500
"""How many conversations are filled at once: they share what a commit costs."""


class Canned:
    """A provider in this process that answers at once, and remembers nothing."""

    profile = Profile(name="canned", key_env=None)

    def __init__(self) -> None:
        self._answered = 0

    def choose(
        self, *, before: str | None = None, failed: bool = False, background: bool = False
    ) -> str:
        return "canned"

    def check(self) -> None:
        pass

    def remembers(self, parent: Parent, *, via: str, conversation: str) -> bool:
        return False

    def on_late(self, tell: Callable[[Late], None]) -> None:
        pass

    async def warm(self) -> None:
        pass

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        assert isinstance(request, Create)
        self._answered += 1
        id = f"resp_{self._answered:08d}"
        message = {**turn_items(self._answered)[3], "id": f"msg_of_{id}"}
        response: JsonObject = {
            "id": id,
            "object": "response",
            "status": "in_progress",
            "output": [],
        }
        created: JsonObject = {"type": "response.created", "response": response}
        done: JsonObject = {**response, "status": "completed", "output": [message]}
        completed: JsonObject = {"type": "response.completed", "response": done}
        yield Frame(type="response.created", data=created)
        yield Frame(type="response.completed", data=completed, terminal="completed")

    async def close(self) -> None:
        pass


def _open(folder: Path, durability: Literal["power", "process"] = "power") -> turnlog.log.Opening:
    path = folder / "turnlog.db"
    return turnlog.open(path, agents=[AGENT], transport=Canned(), durability=durability)


async def _filled(folder: Path, items: int) -> None:
    """A conversation of so many items, the last turn of which was answered."""
    async with _open(folder, "process") as log:
        chat = await log.conversation(ID, agent="bench")
        rest = items
        while rest > 0:
            count = min(rest, STRETCH)
            added = [
                item
                for turn in range((items - rest) // 4, (items - rest + count) // 4 + 1)
                for item in turn_items(turn)
            ][: (count - 2) // 4 * 4]
            added += [{"role": "user", "content": "And?"}] * (count - 2 - len(added))
            if added:
                await chat.add(*added)
            await chat.run("Where is my order?")
            rest -= count


async def _timed(what: Callable[[], Awaitable[object]], times: int) -> list[float]:
    """How long it takes each time, in seconds, after a few that are not counted."""
    found: list[float] = []
    for _ in range(times + 5):
        begun = time.perf_counter()
        await what()
        found.append(time.perf_counter() - begun)
    return found[5:]


def _facts() -> dict[str, str]:
    return {"journal_mode": "wal", "synchronous": "FULL", **versions("turnlog", "aiosqlite")}


async def _ready(log: Log, id: str) -> Conversation:
    """A handle with which to send: the head was read, and with it all that a delta depends on."""
    return await log.get(id)


async def _check_ready(log: Log, id: str) -> None:
    """Whether the head says all of it: where to continue, which configuration, what is open."""
    state = await (await log.get(id)).state()
    assert state.agent == "bench" and state.head.config is not None
    assert state.pending == () and state.status == "idle"


# -- opening -------------------------------------------------------------------------------


async def opening(given: Given) -> Measured:
    """Open a conversation of so many items, in an open log."""
    await _filled(given.folder, given.number("items"))
    async with _open(given.folder) as log:
        await _check_ready(log, ID)
        assert (await (await log.get(ID)).state()).items == given.number("items")
        times = await _timed(lambda: _ready(log, ID), given.number("times"))
    return Measured(latency(times), _facts())


async def among(given: Given) -> Measured:
    """Open one of so many conversations of a file, another one each time."""
    count = given.number("conversations")
    async with _open(given.folder, "process") as log:
        for start in range(0, count, AT_ONCE):
            some = range(start, min(count, start + AT_ONCE))
            await asyncio.gather(*(_begun(log, number) for number in some))
    chance = random.Random(count)
    async with _open(given.folder) as log:
        await _check_ready(log, _name(0))
        times = await _timed(
            lambda: _ready(log, _name(chance.randrange(count))), given.number("times")
        )
    return Measured(latency(times), _facts())


def _name(number: int) -> str:
    return f"conversation-{number:06d}"


async def _begun(log: Log, number: int) -> None:
    chat = await log.conversation(_name(number), agent="bench")
    await chat.add(*turn_items(number))


# -- reading -------------------------------------------------------------------------------


async def last(given: Given) -> Measured:
    """Read the last 50 items of so many."""
    await _filled(given.folder, given.number("items"))
    async with _open(given.folder) as log:
        chat = await log.get(ID)
        assert len(await chat.items(last=50)) == 50
        times = await _timed(lambda: chat.items(last=50), given.number("times"))
    return Measured(latency(times), _facts())


async def load(given: Given) -> Measured:
    """Read all of so many items."""
    await _filled(given.folder, given.number("items"))
    async with _open(given.folder) as log:
        chat = await log.get(ID)
        assert len(await chat.items()) == given.number("items")
        times = await _timed(lambda: chat.items(), given.number("times"))
    return Measured(latency(times), _facts())


# -- memory --------------------------------------------------------------------------------


async def idle(given: Given) -> Measured:
    """What stays of a conversation that was used for a turn, and is held by its handle."""
    count = given.number("conversations")
    async with _open(given.folder) as log:
        # What a log keeps however many there are, as pages of the file, is filled before.
        handles = await _used(log, "first", WARM_UP)
        before = resident_bytes()
        handles += await _used(log, "then", count)
        each = (resident_bytes() - before) / count
        held = sum(isinstance(one, (Item, Recorded)) for one in gc.get_objects())
        assert len(handles) == WARM_UP + count
        traced = await _traced(log, count // 5)
    figures = {"each_bytes": each, "each_traced_bytes": traced, "held_items": float(held)}
    return Measured(figures, _facts())


async def _used(log: Log, name: str, count: int) -> list[Conversation]:
    """The handles of so many new conversations, with each of which a turn was run."""
    handles: list[Conversation] = []
    for start in range(0, count, 100):
        places = range(start, min(start + 100, count))
        some = (log.conversation(f"{name}-{place}", agent="bench") for place in places)
        handles += await asyncio.gather(*some)
        await asyncio.gather(*(chat.run(turn_items(0)[0]) for chat in handles[start:]))
    gc.collect()
    return handles


async def _traced(log: Log, count: int) -> float:
    """The bytes that Python allocates for each, and does not give back."""
    tracemalloc.start()
    # More than are remembered (`recent.KEPT`): what replaces those is traced, and they were not.
    handles = await _used(log, "warm", 300)
    before, _ = tracemalloc.get_traced_memory()
    handles += await _used(log, "traced", count)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / count


# -- differences ---------------------------------------------------------------------------


def diff(given: Given) -> Measured:
    """Find what differs between what the log has and a list that the caller has."""
    count = given.number("items")
    logged = [item for turn in range(count // 4 + 1) for item in turn_items(turn)][:count]
    # A caller's list shares nothing with the log, not even its strings.
    appended = [*json.loads(json.dumps(logged)), {"role": "user", "content": "And?"}]
    middle = json.loads(json.dumps(logged))
    middle[count // 2 - 1]["content"][0]["text"] = "Something else."
    figures: dict[str, float] = {}
    for name, wanted in (("append", appended), ("middle", middle)):
        figures[f"{name}_ms"] = _differing(logged, wanted, given.number("times"))
    return Measured(figures, versions("turnlog"))


def _differing(logged: Sequence[JsonObject], wanted: Sequence[JsonObject], times: int) -> float:
    found: list[float] = []
    for _ in range(times):
        begun = time.perf_counter()
        result = differences(logged, wanted)
        found.append(time.perf_counter() - begun)
        assert sum(not isinstance(one, Kept) for one in result) == 1
    return latency(found)["p50_ms"]


# -- starting ------------------------------------------------------------------------------


def startup(given: Given) -> Measured:
    """Start Python, import turnlog, and show the help of its command."""
    times = given.number("times")
    program = "import turnlog, sys; print(sum('turnlog_transports' in m for m in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    commands = {
        "python_ms": [sys.executable, "-c", "pass"],
        "import_ms": [sys.executable, "-c", "import turnlog"],
        "help_ms": [str(Path(sys.executable).with_name("turnlog")), "--help"],
    }
    figures = {name: _run(command, times) for name, command in commands.items()}
    figures["transports_loaded"] = float(loaded.stdout)
    return Measured(figures, versions("turnlog"))


def _run(command: Sequence[str], times: int) -> float:
    found: list[float] = []
    for _ in range(times + 1):
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - begun)
    return latency(found[1:])["p50_ms"]
