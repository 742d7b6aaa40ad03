"""The power goes: one run is recorded, and every disk that it may leave behind is opened.

TURNLOG_POWER=all looks behind every operation, also of a run that is large enough for SQLite to
move its log by itself; otherwise a sample is drawn by TURNLOG_POWER_SEED (1).
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import turnlog
from turnlog.store import Durability
from turnlog.testing import scripted, text
from turnlog.testing.power import Explored, Trace, explore, record, traces
from turnlog.testing.power_looks import logged, opened
from turnlog.testing.power_trace import Ack, Operation, Sync

WORKLOAD = Path(__file__).with_name("power_workload.py")
ALL = os.environ.get("TURNLOG_POWER") == "all"
SEED = int(os.environ.get("TURNLOG_POWER_SEED", "1"))

pytestmark = pytest.mark.skipif(not traces(), reason="there is no strace here that may trace")

PATIENCE = 3600 if ALL else 120

LARGE = 4_000_000
"""Characters that fill more pages than SQLite keeps in its write-ahead log."""


def run(directory: Path, durability: Durability, size: int = 20_000) -> Trace:
    """The operations of the workload on a database that it makes."""
    command = [sys.executable, str(WORKLOAD), str(directory / "log.db"), durability, "1", str(size)]
    return record(command, directory)


def lying(trace: Trace, name: str) -> Trace:
    """The same run on a system that says it synced one of the files, and did nothing."""
    lie = Sync(name, 0)
    done = [lie if isinstance(one, Sync) and one.name == name else one for one in trace.operations]
    return replace(trace, operations=done)


def acknowledging(trace: Trace) -> list[int]:
    """The places behind the first acknowledgements."""
    said = [n for n, one in enumerate(trace.operations, 1) if isinstance(one, Ack) and one.ids]
    return said[:3]


def making(trace: Trace) -> Trace:
    """The part of a run in which the database was made, up to what was acknowledged first."""
    done: list[Operation] = []
    for one in trace.operations:
        if isinstance(one, Ack):
            break
        done.append(one)
    return replace(trace, operations=done)


def nothing_wrong(what: str, explored: Explored) -> None:
    print(f"{what}: {explored}")
    assert explored.faults == (), explored.faults[:5]


def explored_all_over(trace: Trace, durability: Durability) -> Explored:
    """Every image with plain SQLite; some as a program opens them that goes on after the crash,
    and among these all in which the database was only being made.
    """
    look, start = logged("log.db"), opened("log.db")
    many, more, few = (None, None, 40) if ALL else (12, 2, 1)
    begun = explore(making(trace), start, durability=durability, torn=1, seed=SEED, at=more)
    nothing_wrong("opened while it was made", begun)
    nothing_wrong("opened", explore(trace, start, durability=durability, seed=SEED, at=few))
    explored = explore(trace, look, durability=durability, seed=SEED, at=many)
    nothing_wrong("looked at", explored)
    return explored


@pytest.mark.timeout(PATIENCE)
def test_power_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    trace = run(tmp_path, "power")
    assert explored_all_over(trace, "power").acknowledged > 50
    early = acknowledging(trace)
    for name in ("log.db", "log.db-wal", ""):
        lie = lying(trace, name)
        lied = explore(lie, logged("log.db"), durability="power", torn=0, at=early)
        assert lied.faults, f"nobody noticed that {name or 'the directory'!r} was not synced"


@pytest.mark.timeout(PATIENCE)
def test_process_loses_an_end_and_is_never_damaged(tmp_path: Path) -> None:
    trace = run(tmp_path, "process")
    assert explored_all_over(trace, "process").acknowledged > 50
    claimed = explore(trace, logged("log.db"), durability="power", torn=0, at=acknowledging(trace))
    assert {one.kind for one in claimed.faults} == {"cut"}
    assert claimed.lost > 0


@pytest.mark.skipif(not ALL, reason="TURNLOG_POWER=all looks at a large run, too")
@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("durability", ["power", "process"])
def test_a_log_that_is_moved_while_it_is_written(durability: Durability, tmp_path: Path) -> None:
    trace = run(tmp_path, durability, LARGE)
    explored = explore(trace, logged("log.db"), durability=durability, seed=SEED, at=60)
    nothing_wrong("large", explored)


BACKUP = """
import asyncio, os, sys, turnlog
async def main(source, target):
    async with turnlog.open(source) as log:
        await log.backup(target)
    os.write(1, b"ACK copied\\n")
asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_copy_is_whole_or_not_there(tmp_path: Path) -> None:
    """And it is there from when `backup` returned."""
    home, source = tmp_path / "copies", tmp_path / "log.db"
    home.mkdir()
    async with turnlog.open(source, transport=scripted([text("Hello.")])) as log:
        chat = await log.conversation("ana", model="gpt-5")
        await chat.run("Hi.")
        ids = [one.id for one in await chat.events()]

    def copied(directory: Path) -> list[str]:
        if not (directory / "copy.db").exists():
            return []
        assert logged("copy.db")(directory) == ids
        return ["copied"]

    trace = record([sys.executable, "-c", BACKUP, str(source), str(home / "copy.db")], home)
    explored = explore(trace, copied, durability="power", seed=SEED, at=None if ALL else 8)
    nothing_wrong("copied", explored)
    assert explored.acknowledged == 1


PLAIN = """
import os
def sync(file): os.fsync(file); os.write(1, b"ACK %d\\n" % os.fstat(file).st_size)
file = os.open("new", os.O_CREAT | os.O_RDWR)
os.writev(file, [b"one", b"two"]); sync(file)
os.pwrite(file, b"!", 9); os.ftruncate(file, 8); sync(file)
os.pwritev(file, [b"a", b"b"], 0)
os.rename("new", "renamed"); os.write(file, b""); os.close(file)
home = os.open(".", os.O_RDONLY)
os.fsync(home)
file = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, dir_fd=home)
os.write(file, b"line"); os.fdatasync(file)
os.rename("log", "old", src_dir_fd=home, dst_dir_fd=home)
os.unlink("old", dir_fd=home)
os.write(file, b"nobody sees it")
os.mkdir("more"); os.open("more/file", os.O_CREAT | os.O_WRONLY); os.unlink("more/file")
os.rmdir("more")
os.link("renamed", "linked"); os.write(os.open("linked", os.O_WRONLY | os.O_APPEND), b"both")
open("gone", "w").close(); os.truncate("gone", 3); os.remove("gone")
os.open("empty", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
"""


def test_every_way_to_change_a_file_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`record` compares what it computed with what is there: nothing else need be asserted."""
    (tmp_path / "empty").write_text("not any more")
    monkeypatch.chdir(tmp_path)
    trace = record([sys.executable, "-S", "-c", PLAIN], tmp_path)
    assert [one.ids for one in trace.operations if isinstance(one, Ack)] == [("6",), ("8",)]
