"""The simulation: every call of the database is a point at which something may happen.

TURNLOG_SIMULATION=all takes every point of every scenario, and a number each so-manieth one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Coroutine, Sequence

import pytest

from turnlog.errors import StoreUnavailable
from turnlog.testing.simulation import (
    KINDS,
    Explored,
    Fault,
    Gone,
    Kind,
    Process,
    Scenario,
    Schedule,
    Simulation,
    Stuck,
    explore,
)
from turnlog.testing.simulation_loop import HORIZON

from .sim_hasty import hasty
from .sim_worlds import SAME, SMALL, TINY, TWO, appends, beating, empty, scenario

GIVEN = os.environ.get("TURNLOG_SIMULATION", "")
LONG = bool(GIVEN)
STRIDE = int(GIVEN) if GIVEN.isdecimal() else 1


def explored(
    scenario: Scenario,
    stride: int,
    *,
    seed: int = 1,
    kinds: Sequence[Kind] = KINDS,
    again: int = 0,
) -> Explored:
    """Explore, and say how much that was."""
    stride = STRIDE if LONG else stride
    found = explore(
        scenario, seeds=[seed], kinds=kinds, stride=stride, first=seed % stride, again=again
    )
    print(found)
    return found


# -- what is looked for --------------------------------------------------------------------


@pytest.mark.timeout(0 if LONG else 120)
@pytest.mark.parametrize("seed", range(8) if LONG else [1])
def test_every_crash_leaves_what_was_acknowledged(seed: int) -> None:
    """All of the points of two callers that append, whatever TURNLOG_SIMULATION says."""
    found = explore(appends(), seeds=[seed], kinds=KINDS if LONG else ["crash"])
    print(found)
    found.check()
    assert found.struck == found.schedules - 1 == found.points * (3 if LONG else 1)


def test_a_writer_that_acknowledges_before_it_commits_is_found() -> None:
    """The planted bug; it shows before a COMMIT, and where others read meanwhile."""
    found = explore(appends(hasty), seeds=[1], kinds=["crash"])
    print("planted:", found)
    assert found.failures
    for failure in found.failures:
        assert "was acknowledged and is there 0 times" in str(failure.error)
    assert any("before COMMIT" in failure.error.__notes__[0] for failure in found.failures)
    with pytest.raises(AssertionError, match="I1"):
        found.check()


@pytest.mark.timeout(0 if LONG else 120)
def test_callers_are_cancelled_and_the_disk_fails() -> None:
    explored(appends(), 17).check()


@pytest.mark.timeout(0 if LONG else 120)
def test_a_second_crash_comes_while_the_first_is_put_right() -> None:
    explored(appends(), 47, seed=2, again=1).check()


@pytest.mark.timeout(0 if LONG else 120)
@pytest.mark.parametrize(
    ("roles", "stride"), [(TINY, 151), (SMALL, 601), (TWO, 1201)], ids=["tiny", "small", "two"]
)
def test_every_turn_is_done_and_every_tool_runs_once(
    roles: dict[str, list[Callable[..., Coroutine[object, object, None]]]], stride: int
) -> None:
    """Conversations at once, tools, approvals, handles that collide, followers, two processes."""
    explored(scenario(roles), stride).check()


@pytest.mark.timeout(0 if LONG else 120)
def test_who_is_dead_is_seen_by_its_beat() -> None:
    explored(scenario(TINY, open=beating), 401).check()


@pytest.mark.timeout(0 if LONG else 120)
def test_an_owner_that_was_stopped_for_a_minute_writes_nothing_when_it_wakes() -> None:
    """Another one has taken its turn over meanwhile, and nobody lets a tool run again."""
    run = scenario(SAME, open=beating, wakes=True)
    found = explored(run, 401, kinds=["stop"])
    found.check()
    assert found.struck


# -- the simulation itself -----------------------------------------------------------------


def trace(seed: int, *faults: Fault) -> list[str]:
    with Simulation(Schedule(seed, faults)) as simulation:
        simulation.run(scenario(TINY))
    return simulation.trace


def test_the_same_seed_leads_to_the_same_run() -> None:
    once = trace(7, Fault("crash", 150))
    assert once == trace(7, Fault("crash", 150))
    assert once != trace(8, Fault("crash", 150))


def simulated(scenario: Scenario, *faults: Fault) -> Simulation:
    """A run of a scenario."""
    with Simulation(Schedule(1, faults)) as simulation:
        simulation.run(scenario)
    return simulation


def test_hours_pass_at_once() -> None:
    async def run(simulation: Simulation) -> None:
        before = simulation.loop.time(), simulation.ambient.now()
        await asyncio.sleep(1800)
        async with asyncio.timeout(3600):
            await asyncio.sleep(60)
        assert simulation.loop.time() - before[0] == pytest.approx(1860)
        assert simulation.ambient.now() - before[1] == pytest.approx(1_860_000_000)

    simulated(run)


def test_what_waits_for_nothing_is_stuck() -> None:
    async def run(simulation: Simulation) -> None:
        await simulation.loop.create_future()

    with pytest.raises(Stuck, match="nothing is left to run"):
        simulated(run)


def test_what_never_ends_is_stuck() -> None:
    async def run(simulation: Simulation) -> None:
        while True:
            await asyncio.sleep(HORIZON / 10)

    with pytest.raises(Stuck, match="not over after 3600 seconds"):
        simulated(run)


def test_what_does_not_end_when_it_is_cancelled_is_stuck() -> None:
    over = False

    async def stubborn() -> None:
        while not over:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)

    async def run(simulation: Simulation) -> None:
        simulation.loop.create_task(stubborn(), name="stubborn")

    with pytest.raises(Stuck, match=r"it does not end: <coroutine object .*stubborn"):
        simulated(run)
    over = True


def test_what_blocks_is_done_on_the_loop() -> None:
    async def run(simulation: Simulation) -> None:
        assert await asyncio.to_thread(sum, [1, 2]) == 3
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)
        for blocking in (lambda: done.append(1), lambda: 1 / 0):
            gone = asyncio.ensure_future(asyncio.to_thread(blocking))
            await asyncio.sleep(1e-9)
            gone.cancel()
            await asyncio.wait([gone])
        await asyncio.sleep(1)

    done: list[int] = []
    assert simulated(run).loop.problems == []
    assert done == [1]


def test_what_nobody_is_told_of_is_noted() -> None:
    async def run(simulation: Simulation) -> None:
        simulation.loop.call_soon(divmod, 1, 0)
        await asyncio.sleep(0.1)

    (problem,) = simulated(run).loop.problems
    assert "ZeroDivisionError" in problem


def test_a_process_that_was_killed_does_nothing_more() -> None:
    said: list[str] = []

    async def speak() -> None:
        while True:
            said.append("I live")
            await asyncio.sleep(1)

    async def run(simulation: Simulation) -> None:
        process = simulation.process("one")
        speaking = asyncio.create_task(process.run(speak()))
        await asyncio.sleep(2.5)
        process.kill()
        process.kill()
        process.cancel()
        with pytest.raises(Gone):
            await speaking
        await asyncio.sleep(10)
        assert len(said) == 3

    simulated(run)


def test_only_what_a_process_was_given_is_cancelled() -> None:
    async def run(simulation: Simulation) -> None:
        process = simulation.process("one")
        process.cancel()
        waiting = asyncio.create_task(process.run(asyncio.sleep(60)))
        await asyncio.sleep(1)
        process.cancel()
        with pytest.raises(Gone):
            await waiting
        assert process.alive
        assert await process.run(asyncio.sleep(1, "done")) == "done"

    simulated(run)


def test_a_process_that_dies_lets_go_of_its_lock_and_of_its_transaction() -> None:
    async def run(simulation: Simulation) -> None:
        first, second = simulation.process("first"), simulation.process("second")
        path = simulation.directory / "log.db"
        path.write_bytes(empty().read_bytes())
        await first.run(first.store(path))
        connection = first.driver.connect(str(path), 0)
        connection.execute("BEGIN IMMEDIATE")
        first.kill()
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            sqlite3.Connection.execute(connection, "SELECT 1")
        store = await second.run(second.store(path))
        assert await second.run(store.orphans()) == []
        await second.run(store.close())

    simulated(run)


async def _reads_behind_its_end(process: Process) -> None:
    reader = await process.driver.read(":memory:", 0)
    assert await reader.execute_fetchall("SELECT 1") == [(1,)]
    await reader.close()
    await reader.close()
    with pytest.raises(ValueError, match="closed"):
        await reader.execute_fetchall("SELECT 1")


def test_a_reader_that_was_closed_says_so() -> None:
    async def run(simulation: Simulation) -> None:
        process = simulation.process("one")
        await process.run(_reads_behind_its_end(process))

    simulated(run)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_strikes_at_its_point(kind: Kind) -> None:
    """The disk fails before the call, or after it."""

    async def run(simulation: Simulation) -> None:
        process = simulation.process("one")
        store = process.store(simulation.directory / "log.db")
        with contextlib.suppress(Gone, StoreUnavailable):
            await process.run(store)
        assert process.alive == (kind != "crash")

    for point in (1, 2):
        found = simulated(run, Fault(kind, point))
        assert found.struck == [Fault(kind, point)]


def test_nobody_else_runs_while_a_task_calls_the_database_itself() -> None:
    async def run(simulation: Simulation) -> None:
        connection = simulation.process("one").driver.connect(":memory:", 0)
        with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
            connection.execute("SELECT 1")
        assert simulation.loop.time() == 0.0

    simulated(run, Fault("error", 1))


def test_every_point_is_taken_with_each_kind() -> None:
    async def run(simulation: Simulation) -> None:
        process = simulation.process("one")
        reader = await process.run(process.driver.read(":memory:", 0))
        with contextlib.suppress(Gone, sqlite3.Error):
            await process.run(reader.execute_fetchall("SELECT 1"))
        await asyncio.sleep(1)
        assert len(simulation.struck) == len(simulation.schedule.faults)

    found = explore(run, seeds=range(3), again=1)
    found.check()
    assert (found.seeds, found.points) == (3, 6)
    # A second crash comes later, where there is a later point: behind a cancellation at the first.
    assert found.schedules == 3 * (1 + 3 * 2 + 1)
    assert found.struck == 3 * (3 * 2 + 2)
    assert str(found).endswith("0 failures")


def test_what_goes_wrong_names_its_schedule() -> None:
    async def run(simulation: Simulation) -> None:
        raise ZeroDivisionError

    found = explore(run, seeds=[4])
    (failure,) = found.failures
    assert failure.schedule == Schedule(4)
    assert "Schedule(seed=4, faults=())" in failure.error.__notes__[0]
    with pytest.raises(ZeroDivisionError):
        found.check()
