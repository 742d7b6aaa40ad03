"""The torture: processes with real tools on one file, killed again and again until they are done.

The one rule: whatever was acknowledged stays, and no tool runs twice unasked. `torture` starts
workers (`torture_worker`), kills and freezes them at random times, sets traps for them at every
place where a process may die, looks at the log behind their backs, and judges it in the end.

    async with Simulator([model()] * 100_000) as simulator:
        job = Job(path="log.db", base_url=simulator.base_url, conversations=500, turns=10)
        report = await torture(Torture(job=job), lambda: simulator.creates)
    assert not report.violations and not report.problems, report

It needs a system that can fork (not Windows), and a provider that answers as `victims.model`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, cycle

from ..canonical import JsonObject
from .invariants import violations
from .torture_processes import Workers, is_gone, is_stopped, killed, launched
from .torture_report import Report, judge
from .torture_worker import Job
from .traps import PLACES
from .victims import UNASKED
from .witness import Witness


@dataclass(frozen=True, slots=True, kw_only=True)
class Torture:
    """What is to be done to whom.

    `job` is what the workers do. `pause` bounds how many seconds pass between two kills, of which
    there are at most `kills`; `freezes` is the part of them that is no kill, but a SIGSTOP for a
    while. `look_every` says behind how many kills the log is looked at. `furthest` is how often a
    place is passed at the most before a trap there is sprung.
    """

    job: Job
    processes: int = 3
    transports: tuple[str, ...] = ("auto", "http", "websocket")
    seed: str = "1"
    pause: tuple[float, float] = (0.02, 0.4)
    kills: int | None = None
    freezes: float = 0.1
    look_every: int = 1
    furthest: int = 40


async def torture(
    plan: Torture, requests: Callable[[], Iterable[JsonObject]] = tuple[JsonObject, ...]
) -> Report:
    """Torture a store until all conversations are finished, and say what came of it.

    `requests` gives the bodies of the creates that the provider got.
    """
    report = Report()
    store = await plan.job.open("witness")
    try:
        async with launched(plan.job, report) as workers:
            await Torturer(plan, workers, Witness(store, UNASKED), report).run()
        bodies = [*requests()]
        report.requests = len(bodies)
        effects = [effect for _, effect in plan.job.effects.all()]
        report.violations += await violations(
            store,
            acknowledged=report.acknowledged,
            requests=bodies,
            effects=effects,
            again=UNASKED,
            samples=4,
        )
        await judge(store, plan.job, report)
    finally:
        await store.close()
    return report


def traps(furthest: int) -> Iterator[str]:
    """Every place where a process may die, the first time it is passed, then the second …"""
    return cycle([f"{place}:{at}" for at in range(1, furthest + 1) for place in PLACES])


def stolen(owner: str, before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """What became of leases, with their epochs, whose owner was frozen: nothing should have."""
    lost = sorted(name for name, epoch in before.items() if after.get(name) != epoch)
    return [f"{name} was taken from {owner}, which lives" for name in lost]


@dataclass(slots=True)
class Torturer:
    """The loop: start, kill, freeze, look, and start again."""

    plan: Torture
    workers: Workers
    witness: Witness
    report: Report
    running: dict[str, int] = field(default_factory=dict[str, int])
    stopped: Callable[[int], bool] = is_stopped
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _draw: random.Random = field(init=False)
    _traps: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.plan.seed)
        self._traps = traps(self.plan.furthest)

    async def run(self) -> None:
        """Torture them until one says that all is done."""
        for _ in range(self.plan.processes):
            await self.start()
        while not self.workers.finished.is_set():
            await self.pause()
            await self.start_again()
            await self.strike()
        for pid in self.running.values():
            await self.workers.ended(pid)
        await self.look()

    async def start(self) -> None:
        """Start a worker; every second one will die by itself, unless it is killed first."""
        number = next(self._numbers)
        transport = self.plan.transports[number % len(self.plan.transports)]
        trap = next(self._traps) if number % 2 and not self.is_enough() else ""
        owner, seed = f"victim-{number}", str(self._draw.randrange(1 << 30))
        self.running[owner] = await self.workers.start(owner, seed, transport, trap)

    async def start_again(self) -> None:
        """Start others for those that have died by themselves."""
        for owner, pid in list(self.running.items()):
            if is_gone(pid):
                del self.running[owner]
                await self.start()

    async def pause(self) -> None:
        """Let them work for a while, unless all is done before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._draw.uniform(*self.plan.pause)):
                await self.workers.finished.wait()

    async def strike(self) -> None:
        """Kill one of them, or freeze it."""
        if self.is_enough() or self.workers.finished.is_set():
            return
        owner = self._draw.choice(sorted(self.running))
        if self._draw.random() < self.plan.freezes:
            await self.freeze(owner, self.running[owner])
        else:
            await self.kill(owner)

    def is_enough(self) -> bool:
        """Whether there were as many kills as there should be."""
        kills = self.report.kills + sum(self.report.traps.values())
        return self.plan.kills is not None and kills >= self.plan.kills

    async def kill(self, owner: str) -> None:
        """Kill a worker, look at what it left, and start another."""
        await killed(self.running.pop(owner))
        self.report.kills += 1
        if self.report.kills % self.plan.look_every == 0:
            await self.look()
        await self.start()

    async def look(self) -> None:
        """Hold the log against what was acknowledged and done so far."""
        acknowledged = set(self.report.acknowledged)
        effects = [effect for _, effect in self.plan.job.effects.all()]
        self.report.violations += await self.witness.look(acknowledged, effects)
        self.report.looks += 1

    async def freeze(self, owner: str, pid: int) -> None:
        """Stop a worker for a while: it lives, and nobody may take over what it holds."""
        try:
            os.kill(pid, signal.SIGSTOP)
            for _ in range(100):
                if self.stopped(pid):
                    await self.watch_over(owner)
                    break
                await asyncio.sleep(0.001)
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return

    async def watch_over(self, owner: str) -> None:
        """See to it that nobody takes what a worker holds that is frozen."""
        held = await self.held(owner)
        await asyncio.sleep(self._draw.uniform(0.05, 0.5))
        self.report.problems += stolen(owner, held, await self.held(owner))
        self.report.freezes += 1

    async def held(self, owner: str) -> dict[str, int]:
        """The conversations whose lease an owner has, with the epoch of each."""
        store = self.witness.store
        rows = await store.conversations(status="busy", limit=1000)
        heads = [(row.id, await store.head(row.id)) for row in rows]
        return {id: head.epoch for id, head in heads if head is not None and head.owner == owner}
