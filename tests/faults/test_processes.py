"""Processes on one file, killed again and again; whatever was acknowledged is there, once.

TURNLOG_KILL_SECONDS says for how long (3); TURNLOG_KILL_SEED what is drawn.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject, objects
from turnlog.items import output_text, type_of
from turnlog.ports import Endpoint
from turnlog.record import Recorded
from turnlog.testing import Reply, call, calls
from turnlog.testing import text as says
from turnlog_transports import fallback
from turnlog_transports.profiles import OPENAI
from turnlog_transports.simulator import Simulator

from .given import inputs, sound
from .workers import agent_of

SECONDS = float(os.environ.get("TURNLOG_KILL_SECONDS", "3"))
SEED = os.environ.get("TURNLOG_KILL_SEED", "1")
NAMES = ("ana", "bob")


def two_effects(body: JsonObject) -> Reply:
    """Ask for both effects of an input, then say that they are done."""
    last = objects(body, "input")[-1]
    if type_of(last) == "function_call_output":
        return says("Both are done.").but(delay=0.002)
    n = int(output_text(last).split()[-1])
    return calls(call("once", n=n), call("again", n=n)).but(delay=0.002)


@dataclass(slots=True)
class Workers:
    """The process that forks workers, and what those have said so far."""

    launcher: Process
    acked: set[str] = field(default_factory=set[str])
    bad: list[str] = field(default_factory=list[str])
    _pids: asyncio.Queue[int] = field(default_factory=asyncio.Queue[int])

    async def start(self, name: str, seed: int) -> int:
        """Start a worker of a conversation; its process id."""
        assert self.launcher.stdin is not None
        self.launcher.stdin.write(f"{name} {seed}\n".encode())
        return await self._pids.get()

    async def listen(self) -> None:
        """Take down what is said, until nobody is left who could say anything."""
        assert self.launcher.stdout is not None
        async for line in self.launcher.stdout:
            word, *rest = line.decode().split()
            if word == "PID":
                self._pids.put_nowait(int(rest[0]))
            elif word == "ACK":
                self.acked.update(rest)
            else:
                self.bad.append(line.decode())


@asynccontextmanager
async def launched(path: Path, base_url: str) -> AsyncGenerator[Workers]:
    """A launcher of workers, whose output is read to its end."""
    script = Path(__file__).with_name("workers.py")
    launcher = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(path), base_url, stdin=PIPE, stdout=PIPE, limit=1 << 24
    )
    workers = Workers(launcher)
    listening = asyncio.create_task(workers.listen())
    yield workers
    assert launcher.stdin is not None
    launcher.stdin.close()
    await launcher.wait()
    await listening


async def killed(pid: int) -> None:
    """Kill a process, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        while True:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            await asyncio.sleep(0.001)


async def test_workers_are_killed_at_any_time(tmp_path: Path) -> None:
    path, draw, kills = tmp_path / "log.db", random.Random(SEED), 0
    async with turnlog.open(path):
        pass
    async with Simulator([two_effects] * 100_000) as simulator:
        async with launched(path, simulator.base_url) as workers:
            running = {name: await workers.start(name, number) for number, name in enumerate(NAMES)}
            loop = asyncio.get_running_loop()
            end = loop.time() + SECONDS
            while loop.time() < end:
                await asyncio.sleep(draw.uniform(0.02, 0.4))
                name = draw.choice(NAMES)
                await killed(running[name])
                kills += 1
                await look(path, set(workers.acked))
                running[name] = await workers.start(name, draw.randrange(1 << 30))
            for pid in running.values():
                await killed(pid)
        assert workers.bad == []
        turns = await finish(path, simulator.base_url, workers.acked)
    print(f"{kills} kills, {len(workers.acked)} events acknowledged, {turns} turns, seed {SEED}")


async def look(path: Path, acked: set[str]) -> None:
    """What must be so while others write: I1, I2, I3 and I6."""
    async with turnlog.open(path, readonly=True) as log:
        versions: Counter[str] = Counter()
        ids: set[str] = set()
        position = 0
        async for one in log.follow(wait=False):
            position += 1
            assert one.checkpoint == f"0:{position}"
            versions[one.event.conversation] += 1
            assert one.event.version == versions[one.event.conversation]
            ids.add(one.event.id)
        assert len(ids) == position
        assert acked <= ids
        for name in versions:
            report = await log.verify(name)
            assert report.ok, report.findings


async def finish(path: Path, base_url: str, acked: set[str]) -> int:
    """Recover and resume everything; then the whole of what was said and done must be right."""
    agent = agent_of(str(path))
    transport = fallback.open_transport(Endpoint(base_url=base_url, profile=OPENAI))
    turns = 0
    async with turnlog.open(path, agents=[agent], transport=transport) as log:
        await log.recover()
        assert await log.recover() == []
        asked: dict[str, str | None] = {}
        for name in NAMES:
            chat = await log.get(name)
            for row in await chat.turns(last=1):
                await (await (await chat.turn(row.turn)).resume()).peek()
            rows = await chat.turns(last=100_000)
            turns += len(rows)
            assert {row.outcome for row in rows} <= {"completed", "failed"}
            assert [row.key for row in rows] == [str(n + 1) for n in range(len(rows))]
            events = await sound(log, chat, reruns=True)
            said = inputs(await chat.items())
            assert said == [f"input {n + 1}" for n in range(len(rows))]
            asked |= started(events)
        assert await log.pending() == []
        check_effects(path, asked)
    await look(path, acked)
    return turns


def started(events: list[Recorded]) -> dict[str, str | None]:
    """The calls that were started, once or again, with the names of their tools."""
    names = {
        one.event.key: one.event.item for one in events if isinstance(one.event, ev.OutputRecorded)
    }
    asked = {
        one.event.call: str(names[one.event.item].get("name"))
        for one in events
        if isinstance(one.event, ev.CallRequested)
    }
    runs = Counter(one.event.call for one in events if isinstance(one.event, ev.CallStarted))
    assert all(times == 1 for id, times in runs.items() if asked[id] == "once")
    return {id: asked[id] for id in runs}


def check_effects(path: Path, asked: dict[str, str | None]) -> None:
    """No effect without a recorded start, none of `once` twice, and each under its call's key."""
    lines = Path(f"{path}.effects").read_text().splitlines()
    effects = Counter(line.split()[1] for line in lines)
    for line in lines:
        tool, key = line.split()
        assert asked[key] == tool
        assert tool == "again" or effects[key] == 1
