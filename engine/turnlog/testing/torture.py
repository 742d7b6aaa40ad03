"""The torture: processes with real tools on one file, killed again and again until they are done.

The one rule: whatever was acknowledged stays, and no tool runs twice unasked. `torture` starts
workers (`torture_worker`), kills and freezes them at random times, sets traps for them at every
place where a process may die, looks at the log behind their backs, and judges it in the end.

    async with Simulator([model()] * 100_000) as simulator:
        report = await torture(Torture(path="log.db", base_url=simulator.base_url), …)

It needs a system that can fork (not Windows), and a provider that answers as `victims.model`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, cycle

from ..canonical import JsonObject
from .invariants import violations
from .torture_processes import Workers, is_gone, is_stopped, killed, launched
from .torture_report import Report, judge
from .torture_worker import Job
from .traps import PLACES
from .victims import AGAIN
from .witness import Witness


def _nothing() -> Iterable[JsonObject]:
    return ()


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


async def torture(plan: Torture, requests: Callable[[], Iterable[JsonObject]] = _nothing) -> Report:
    """Torture a store until all conversations are finished, and say what came of it.

    `requests` gives the bodies of the creates that the provider got.
    """
    report = Report()
    store = await plan.job.open("witness")
    try:
        async with launched(plan.job, report) as workers:
            await Torturer(plan, workers, Witness(store, AGAIN), report).run()
        bodies = [*requests()]
        report.requests = len(bodies)
        effects = [effect for _, effect in plan.job.effects.all()]
        report.violations += await violations(
            store,
            acknowledged=report.acknowledged,
            requests=bodies,
            effects=effects,
            again=AGAIN,
            samples=4,
        )
        await judge(store, plan.job, report)
    finally:
        await store.close()
    return report


def traps(furthest: int) -> Iterator[str]:
    """Every place where a process may die, the first time it is passed, then the second …"""
    return cycle([f"{place}:{at}" for at in range(1, furthest + 1) for place in PLACES])


@dataclass(slots=True)
class Torturer:
    """The loop: start, kill, freeze, look, and start again."""

    plan: Torture
    workers: Workers
    witness: Witness
    report: Report
    _running: dict[str, int] = field(default_factory=dict[str, int])
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _draw: random.Random = field(init=False)
    _traps: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.plan.seed)
        self._traps = traps(self.plan.furthest)

    async def run(self) -> None:
        """Torture them until one says that all is done."""
        for _ in range(self.plan.processes):
            await self._start()
        while not await self._done():
            await self._start_again()
            if self._is_enough():
                continue
            owner = self._draw.choice(sorted(self._running))
            if self._draw.random() < self.plan.freezes:
                await self._freeze(owner, self._running[owner])
            else:
                await self._kill(owner)
        for pid in self._running.values():
            await killed(pid)
        await self._look()

    async def _start(self) -> None:
        """Start a worker; every second one will die by itself, unless it is killed first."""
        number = next(self._numbers)
        transport = self.plan.transports[number % len(self.plan.transports)]
        trap = next(self._traps) if number % 2 and not self._is_enough() else ""
        owner, seed = f"victim-{number}", str(self._draw.randrange(1 << 30))
        self._running[owner] = await self.workers.start(owner, seed, transport, trap)

    async def _start_again(self) -> None:
        """Start others for those that have died by themselves."""
        for owner, pid in list(self._running.items()):
            if is_gone(pid):
                del self._running[owner]
                await self._start()

    async def _done(self) -> bool:
        """Let them work for a while; whether one says that all is done."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._draw.uniform(*self.plan.pause)):
                await self.workers.finished.wait()
        return self.workers.finished.is_set()

    def _is_enough(self) -> bool:
        kills = self.report.kills + sum(self.report.traps.values())
        return self.plan.kills is not None and kills >= self.plan.kills

    async def _kill(self, owner: str) -> None:
        await killed(self._running.pop(owner))
        self.report.kills += 1
        if self.report.kills % self.plan.look_every == 0:
            await self._look()
        await self._start()

    async def _look(self) -> None:
        """Hold the log against what was acknowledged and done so far."""
        acknowledged = set(self.report.acknowledged)
        effects = [effect for _, effect in self.plan.job.effects.all()]
        self.report.violations += await self.witness.look(acknowledged, effects)
        self.report.looks += 1

    async def _freeze(self, owner: str, pid: int) -> None:
        """Stop a worker for a while: it lives, and nobody may take over what it holds."""
        try:
            os.kill(pid, signal.SIGSTOP)
            for _ in range(100):
                if is_stopped(pid):
                    await self._watch_over(owner)
                    break
                await asyncio.sleep(0.001)
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return

    async def _watch_over(self, owner: str) -> None:
        held = await self._held(owner)
        await asyncio.sleep(self._draw.uniform(0.05, 0.5))
        for name in sorted(held.items() - (await self._held(owner)).items()):
            self.report.problems.append(f"{name} was stolen from {owner}, which lives")
        self.report.freezes += 1

    async def _held(self, owner: str) -> dict[str, int]:
        """The conversations whose lease an owner has, with the epoch of each."""
        store = self.witness.store
        rows = await store.conversations(status="busy", limit=1000)
        heads = [(row.id, await store.head(row.id)) for row in rows]
        return {id: head.epoch for id, head in heads if head is not None and head.owner == owner}
