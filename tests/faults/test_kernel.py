"""Every write, sync and read of the database fails in turn, for once, for a while and for ever.

`TURNLOG_FAULTS=all` runs every point; otherwise a few. After each: what was acknowledged is there,
once; an append is there whole or not at all; everything verifies; and the same appends, tried again
by a process without the fault, are all there once.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from turnlog.store import SqlStore, open_store
from turnlog.testing.kernel import READS, WRITES, Fault, Swept, can_inject, count, every, run

from .kernel_workload import appends

ALL = os.environ.get("TURNLOG_FAULTS") == "all"
WORKLOAD = str(Path(__file__).with_name("kernel_workload.py"))
SWEEPS = (
    ("pwrite64", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("fdatasync", "EIO"),
    ("fsync", "EIO"),
    ("ftruncate", "EIO"),
    ("pread64", "EIO"),
)
RUNS = 5
"""How many runs there are without `TURNLOG_FAULTS=all`."""

pytestmark = [
    pytest.mark.skipif(not can_inject(), reason="needs an strace that may trace"),
    pytest.mark.timeout(3600 if ALL else 120),
]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables and nothing in them."""
    path = tmp_path_factory.mktemp("kernel") / "log.db"

    async def make() -> None:
        await (await open_store(path)).close()

    asyncio.run(make())
    return path


def files_of(path: Path) -> list[Path]:
    return [path, path.with_name(f"{path.name}-wal")]


async def judged(path: Path, acknowledged: tuple[str, ...]) -> list[str]:
    """What may not be, whatever failed; then everything is appended again, and looked at again."""
    problems: list[str] = []
    store = await open_store(path)
    assert isinstance(store, SqlStore)
    try:
        stored = [one.id for one in await store.events("c", limit=10_000)]
        if stored[: len(acknowledged)] != list(acknowledged):
            problems.append(f"acknowledged {acknowledged}, and stored is {stored}")
        if len(stored) % 2:
            problems.append("half of an append is stored")
        problems += [one.problem for id in ("", "c") for one in await store.check(id)]
        again = [(await store.append(one)).already for one in appends("c")]
        if again != [place < len(stored) // 2 for place in range(len(again))]:
            problems.append(f"of {stored}, what was there already is said to be {again}")
        wanted = [one.id for append in appends("c") for one in append.events]
        if [one.id for one in await store.events("c", limit=10_000)] != wanted:
            problems.append("after all was appended again, something else is stored")
        problems += [one.problem for id in ("", "c") for one in await store.check(id)]
    finally:
        await store.close()
    return problems


async def test_every_write_sync_and_read_fails(empty: Path, tmp_path: Path) -> None:
    command = [sys.executable, WORKLOAD]
    at = tmp_path / "log.db"
    shutil.copy(empty, at)
    calls = await asyncio.to_thread(
        count, [*command, str(at)], files_of(at), calls=(*WRITES, *READS)
    )
    faults: list[Fault] = [fault for call, error in SWEEPS for fault in every(calls, call, error)]
    chosen = faults if ALL else faults[len(faults) // RUNS // 2 :: len(faults) // RUNS]
    swept = Swept()
    for number, fault in enumerate(chosen):
        path = tmp_path / f"{number}" / "log.db"
        path.parent.mkdir()
        shutil.copy(empty, path)
        ran = await asyncio.to_thread(run, [*command, str(path)], files_of(path), fault)
        swept.add(fault, ran, await judged(path, ran.acknowledged))
        shutil.rmtree(path.parent)
    print(f"\n{len(faults)} faults at {dict(calls)}: {swept}")
    assert not swept.problems, "\n".join(swept.problems)
    assert swept.injected and swept.finished
