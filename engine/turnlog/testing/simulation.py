"""Deterministic simulation: processes on one loop, virtual time, and faults at database calls.

    from turnlog.testing.simulation import Simulation, explore

    async def scenario(simulation: Simulation) -> None:
        process = simulation.process("first")
        store = await process.run(process.store(path))
        ...

    explored = explore(scenario, seeds=range(4))
    assert not explored.failures

Every call of the database is two points, before and after it, which are numbered from 1. At a
point the process can crash, whoever waits can be cancelled, or the disk can fail. The one rule: a
schedule (a seed and its faults) says all that happens, so that what it finds can be run again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Literal, TypeAlias, TypeVar, assert_never

from ..draft import Ambient
from ..store import open_store
from ..store.owners import abandon
from ..store.sql import SqlStore
from .simulation_driver import Inline
from .simulation_loop import PLACE, Crashed, SimulatedLoop, Stuck

__all__ = [
    "KINDS",
    "Explored",
    "Failure",
    "Fault",
    "Gone",
    "Kind",
    "Process",
    "Schedule",
    "Simulation",
    "Stuck",
    "explore",
]

T = TypeVar("T")

Kind = Literal["crash", "cancel", "error", "stop"]

KINDS: tuple[Kind, ...] = ("crash", "cancel", "error")
"""What is explored unless something else is asked for; `stop` needs owners that beat."""

EPOCH = 1_700_000_000_000_000
"""When a simulation begins, in microseconds since 1970."""

STOPPED = 60.0
"""For how many seconds a process is stopped."""

PAUSES = 0.25
"""At what part of the points others run before the database goes on."""


class Gone(Exception):
    """The process died, or its work was cancelled, before it had a result."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at a point.

    `crash`: the process is gone. `cancel`: one of the tasks that it was given to run is cancelled.
    `error`: the disk fails; before a call, it is not carried out, and after it, it was. `stop`: the
    process is stopped for a minute, and wakes again; it keeps what it has locked.
    """

    kind: Kind
    point: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """All that decides a run."""

    seed: int
    faults: tuple[Fault, ...] = ()


class Process:
    """A process of a simulation; what it starts is its own, and ends with it."""

    def __init__(self, simulation: Simulation, name: str, *, spared: bool) -> None:
        self.name = name
        self.spared = spared
        self.alive = True
        self.driver = Inline(self)
        self._simulation = simulation
        self._context = copy_context()
        self._context.run(PLACE.set, self)
        self._death: asyncio.Future[None] = simulation.loop.create_future()
        self._tasks: list[asyncio.Task[object]] = []

    @property
    def loop(self) -> SimulatedLoop:
        """The loop of the simulation."""
        return self._simulation.loop

    async def run(self, work: Coroutine[object, object, T]) -> T:
        """Run something here, which may be cancelled; raises Gone, and what it raises."""
        context = self._context.copy()
        task = self.loop.create_task(work, context=context)
        self._tasks.append(task)
        ends: list[asyncio.Future[T] | asyncio.Future[None]] = [task, self._death]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() or task.cancelled():
            raise Gone(self.name)
        return task.result()

    async def store(
        self,
        path: str | os.PathLike[str],
        *,
        readonly: bool = False,
        partitions: int = 1,
        owners: Literal["locks", "beats"] = "locks",
    ) -> SqlStore:
        """Open a database from here, as an owner with the name of the process."""
        self._simulation.files.add(os.fspath(path))
        store = await open_store(
            path,
            readonly=readonly,
            durability="process",
            partitions=partitions,
            owner=self.name,
            owners=owners,
            clock=self.loop.time,
            driver=self.driver,
        )
        assert isinstance(store, SqlStore)
        return store

    def kill(self) -> None:
        """End it as SIGKILL does: nothing of it runs on, and the system takes back what it had."""
        if not self.alive:
            return
        self.alive = False
        self.loop.freeze(self)
        self._simulation.keep_files()
        self.driver.die()
        abandon(self.name)
        self._death.set_result(None)

    def cancel(self) -> None:
        """Cancel one of the tasks that it was given to run."""
        waiting = [task for task in self._tasks if not task.done()]
        if waiting:
            self.loop.random.choice(waiting).cancel()

    # -- what the database goes through ------------------------------------------------------

    def through(self, sql: str, call: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        """Carry out a call of the database, between two points."""
        self._simulation.point(self, f"before {sql}")
        cursor = call()
        try:
            self._simulation.point(self, f"after {sql}")
        except sqlite3.Error:
            cursor.close()  # nobody gets it, so that nobody would end the statement
            raise
        return cursor

    def alone(self) -> bool:
        """Whether nobody writes now, in any process."""
        return self._simulation.alone()

    def done(self) -> None:
        """Let others write."""
        self._simulation.done()


class Simulation:
    """One run: `with Simulation(Schedule(seed=1)) as simulation: simulation.run(scenario)`.

    `points` is how many there were so far, `trace` what they were, and `struck` the faults that
    came to pass. `directory` is a directory of its own, which is removed at the end.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.loop = SimulatedLoop(schedule.seed)
        self.files: set[str] = set()
        self.points = 0
        self.trace: list[str] = []
        self.struck: list[Fault] = []
        self.processes: list[Process] = []
        self._faults: Mapping[int, Fault] = {fault.point: fault for fault in schedule.faults}
        self._random = Random(schedule.seed)
        self._writing = False
        self._stack = contextlib.ExitStack()
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.ambient = Ambient(now=self._now, token=self._random.randbytes)

    def _now(self) -> int:
        return EPOCH + round(self.loop.time() * 1_000_000)

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            self._faults = {}
            self.loop.bury()
            for process in self.processes:
                process.driver.die()
                abandon(process.name)

    def run(self, scenario: Scenario) -> None:
        """Run a scenario, which is in no process; raises what it raises, and Stuck."""
        self.loop.run_until_complete(scenario(self))

    def process(self, name: str, *, spared: bool = False) -> Process:
        """A new process; its name is that of an owner, and must be new.

        One that is `spared` has no points: it looks at what others left.
        """
        process = Process(self, name, spared=spared)
        self.processes.append(process)
        return process

    def keep_files(self) -> None:
        """Have somebody else keep the files open: who closes one last would tidy it up."""
        for file in sorted(self.files):
            connection = sqlite3.connect(file, isolation_level=None)
            self._stack.callback(connection.close)
            connection.execute("PRAGMA schema_version").fetchall()

    # -- points ------------------------------------------------------------------------------

    def point(self, process: Process, what: str) -> None:
        """Pass a point; raises Crashed where the process is gone, and what the fault raises."""
        self._check(process)
        if process.spared:
            return
        self.points += 1
        words = " ".join(what.split()[:4])
        self.trace.append(f"{self.loop.time():.6f} {process.name} {words}")
        fault = self._faults.get(self.points)
        if fault is not None or self.loop.random.random() < PAUSES:
            self._pause(self.loop.moment())
        self._check(process)
        if fault is not None:
            self._strike(process, fault)

    def _check(self, process: Process) -> None:
        if not process.alive:
            raise Crashed(process.name)

    def _pause(self, seconds: float) -> None:
        if asyncio.current_task(self.loop) is None:
            self.loop.pass_time(seconds)

    def _strike(self, process: Process, fault: Fault) -> None:
        self.struck.append(fault)
        match fault.kind:
            case "crash":
                process.kill()
                raise Crashed(process.name)
            case "cancel":
                process.cancel()
            case "error":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error
            case "stop":
                self.loop.freeze(process)
                self._pause(STOPPED)
                self.loop.thaw(process)
            case _:
                assert_never(fault.kind)

    def alone(self) -> bool:
        """Whether nobody wrote; from now on somebody does."""
        alone, self._writing = not self._writing, True
        return alone

    def done(self) -> None:
        """Let others write."""
        self._writing = False


# -- every point ---------------------------------------------------------------------------

Scenario: TypeAlias = Callable[[Simulation], Coroutine[object, object, None]]
"""What is simulated: it makes processes, has them do something, and raises where that is wrong."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A schedule under which a scenario failed, and how."""

    schedule: Schedule
    error: Exception


@dataclass(slots=True)
class Explored:
    """What was explored: how many schedules, faults that came to pass, and what went wrong."""

    seeds: int = 0
    points: int = 0
    schedules: int = 0
    struck: int = 0
    failures: list[Failure] = field(default_factory=list[Failure])

    def __str__(self) -> str:
        return (
            f"{self.seeds} seeds, {self.points} points, {self.schedules} schedules,"
            f" {self.struck} faults, {len(self.failures)} failures"
        )

    def check(self) -> None:
        """Raise the first failure."""
        for failure in self.failures:
            raise failure.error


def explore(
    scenario: Scenario,
    *,
    seeds: Iterable[int],
    kinds: Iterable[Kind] = KINDS,
    stride: int = 1,
    first: int = 0,
    again: int = 0,
) -> Explored:
    """Run a scenario without a fault, and then with each kind of fault at each point.

    With a `stride`, only each so-manieth point is taken, counted over all kinds, from `first` on.
    Each schedule is run `again` so many times with a crash at a later point too.
    """
    found = Explored()
    for seed in seeds:
        points = _play(scenario, Schedule(seed), found)
        found.seeds, found.points = found.seeds + 1, found.points + points
        faults = [Fault(kind, 1 + point) for kind in kinds for point in range(points)]
        for fault in faults[first::stride]:
            schedule = Schedule(seed, (fault,))
            more = _play(scenario, schedule, found)
            for second in _later(schedule, fault.point + 1, more, again):
                _play(scenario, Schedule(seed, (fault, second)), found)
    return found


def _later(schedule: Schedule, low: int, high: int, times: int) -> Iterator[Fault]:
    random = Random(str(schedule))
    for _ in range(times if low <= high else 0):
        yield Fault("crash", random.randint(low, high))


def _play(scenario: Scenario, schedule: Schedule, found: Explored) -> int:
    found.schedules += 1
    with Simulation(schedule) as simulation:
        try:
            simulation.run(scenario)
        except Exception as error:  # whatever it is, it is what was looked for
            error.add_note(f"under {schedule}, at {simulation.trace[-1:]}")
            found.failures.append(Failure(schedule, error))
    found.struck += len(simulation.struck)
    return simulation.points
