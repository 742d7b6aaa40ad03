"""The explorer of power loss on values: lines that strace might have written, disks, and verdicts.

Nothing here needs strace: where a run is recorded, a program stands in that puts a trace down and
runs what it is given.
"""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import pytest

import turnlog
from turnlog.errors import StoreCorrupt
from turnlog.testing import scripted, text
from turnlog.testing.power import Trace, explore, record, traces
from turnlog.testing.power_images import acknowledged, images
from turnlog.testing.power_looks import logged, opened
from turnlog.testing.power_trace import (
    Ack,
    Create,
    Link,
    Operation,
    Rename,
    Sync,
    Truncate,
    Unlink,
    Write,
    parse,
)

HOME = PurePath("/data")


# -- reading a trace -----------------------------------------------------------------------


def hexed(value: str) -> str:
    """Text as strace's `-xx` writes it."""
    return "".join(f"\\x{byte:02x}" for byte in value.encode())


def at(path: str, descriptor: str = "3") -> str:
    """A descriptor with its path, as `-y` writes it."""
    return f"{descriptor}<{hexed(path)}>"


def made(path: str, flags: str = "O_RDWR|O_CREAT") -> str:
    """A line that opens a file."""
    here = at("/data", "AT_FDCWD")
    return f'7  openat({here}, "{hexed(path)}", {flags}, 0644) = {at(path)}'


def read(*lines: str, existing: Sequence[str] = ()) -> list[Operation]:
    return parse([f"{line}\n" for line in lines], HOME, existing=existing)


def test_a_file_is_made_written_synced_and_acknowledged() -> None:
    assert read(
        made("/data/a"),
        f'7  write({at("/data/a")}, "{hexed("one")}", 3) = 3',
        f'7  pwrite64({at("/data/a")}, "{hexed("two")}", 3, 10) = 3',
        f"7  fdatasync({at('/data/a')}) = 0",
        f"7  fsync({at('/data', '4')}) = 0",
        f'7  write({at("/dev/null", "1")}, "{hexed("ACK x y")}", 7) = 7',
        "7  +++ exited with 0 +++",
    ) == [
        Create("a"),
        Write("a", None, b"one"),
        Write("a", 10, b"two"),
        Sync("a", 3),
        Sync("", 4),
        Ack(("x", "y")),
    ]


def test_only_files_in_the_directory_itself_count() -> None:
    assert (
        read(
            made("/data/a-shm"),
            made("/data/locks/a"),
            made("/elsewhere/a"),
            made("/data/locks", "O_RDONLY|O_DIRECTORY"),
            f'7  pwrite64({at("/data/a-shm")}, "{hexed("x")}", 1, 0) = 1',
            f'7  write({at("/elsewhere/a")}, "{hexed("x")}", 1) = 1',
            f"7  ftruncate({at('/data/locks/a')}, 0) = 0",
            f"7  fsync({at('/elsewhere/a')}) = 0",
            f'7  unlink("{hexed("locks/a")}") = 0',
            f'7  unlinkat({at("/data", "AT_FDCWD")}, "{hexed("locks")}", AT_REMOVEDIR) = 0',
            f'7  rename("{hexed("locks")}", "{hexed("/data/more")}") = 0',
        )
        == []
    )


def test_what_failed_or_went_to_a_removed_file_did_nothing() -> None:
    assert read(
        f'7  openat({at("/data", "AT_FDCWD")}, "{hexed("/data/b")}", O_RDONLY) = -1 ENOENT (No)',
        f'7  pwrite64({at("/data/a")}, "{hexed("x")}", 1, 0) = -1 ENOSPC (No space)',
        f'7  pwrite64({at("/data/a")}(deleted), "{hexed("x")}", 1, 0) = 1',
        f"7  fsync({at('/data/a (deleted)')}) = 0",
        "7  fsync(9) = 0",
        "7  mystery(1) = 0",
        "7  --- SIGCHLD {si_signo=SIGCHLD} ---",
        f'7  pwrite64({at("/data/a")}, "{hexed("xyz")}", 3, 0) = 2',
        existing=["a"],
    ) == [Write("a", 0, b"xy")]


def test_files_get_lengths_and_names() -> None:
    here = at("/data", "AT_FDCWD")
    assert read(
        f'creat("{hexed("a")}", 0644) = {at("/data/a")}',
        made("/data/a", "O_WRONLY|O_TRUNC"),
        made("/data/a", "O_RDWR"),
        f"ftruncate({at('/data/a')}, 5) = 0",
        f'truncate("{hexed("a")}", 6) = 0',
        f'rename("{hexed("a")}", "{hexed("/data/b")}") = 0',
        f'renameat2({here}, "{hexed("b")}", {here}, "{hexed("c")}", RENAME_NOREPLACE) = 0',
        f'rename("{hexed("d")}", "{hexed("/elsewhere/d")}") = 0',
        f'linkat({here}, "{hexed("c")}", {here}, "{hexed("e")}", 0) = 0',
        f'link("{hexed("c")}", "{hexed("/elsewhere/c")}") = 0',
        f'link("{hexed("/elsewhere/c")}", "{hexed("f")}") = 0',
        f'unlinkat({here}, "{hexed("c")}", 0) = 0',
        f'unlink("{hexed("c")}") = 0',
        existing=["a", "d"],
    ) == [
        Truncate("a", 0),
        Truncate("a", 0),
        Truncate("a", 5),
        Truncate("a", 6),
        Rename("a", "b"),
        Rename("b", "c"),
        Unlink("d"),
        Link("c", "e"),
        Unlink("c"),
    ]


def test_parts_are_written_as_one() -> None:
    parts = f'[{{iov_base="{hexed("on")}", iov_len=2}}, {{iov_base="{hexed("e")}", iov_len=1}}]'
    assert read(
        f"7  writev({at('/data/a')}, {parts}, 2) = 3",
        f"7  pwritev({at('/data/a')}, {parts}, 2, 4) = 3",
        f"7  pwritev2({at('/data/a')}, {parts}, 2, 5, RWF_DSYNC) = 3",
        existing=["a"],
    ) == [Write("a", None, b"one"), Write("a", 4, b"one"), Write("a", 5, b"one")]


def test_a_sync_covers_what_was_over_when_it_began() -> None:
    """Threads and processes come between; each line goes on with what its own one began."""
    assert read(
        f'7  pwrite64({at("/data/a")}, "{hexed("x")}", 1, 0) = 1',
        f"7  fdatasync({at('/data/a')} <unfinished ...>",
        f'8  pwrite64({at("/data/a")}, "{hexed("y")}", 1, 1) = 1',
        f'8  pwrite64({at("/data/a")}, "{hexed("z")}", 1, 2 <unfinished ...>',
        "7  <... fdatasync resumed>) = 0",
        "8  <... pwrite64 resumed>) = 1",
        "9  <... fdatasync resumed>) = 0",
        existing=["a"],
    ) == [Write("a", 0, b"x"), Write("a", 1, b"y"), Sync("a", 1), Write("a", 2, b"z")]


def test_an_acknowledgement_counts_from_where_it_begins() -> None:
    said = f'7  write({at("/dev/null", "1")}, "{hexed("ACK x")}", 5'
    assert read(
        f"{said} <unfinished ...>",
        f'8  write({at("/data/a")}, "{hexed("y")}", 1 <unfinished ...>',
        "7  <... write resumed>) = 5",
        "8  <... write resumed>) = 1",
        f'8  write({at("/dev/null", "1")}, "{hexed("working")}", 7 <unfinished ...>',
        existing=["a"],
    ) == [Ack(("x",)), Write("a", None, b"y")]


def test_what_strace_left_out_is_refused() -> None:
    with pytest.raises(ValueError, match="larger -s"):
        read(f'7  write({at("/data/a")}, "{hexed("x")}"..., 9) = 9')


# -- disks ---------------------------------------------------------------------------------


def doing(*operations: Operation) -> list[Operation]:
    return list(operations)


def found(
    operations: Sequence[Operation],
    kind: str,
    files: Mapping[str, bytes] | None = None,
    torn: int = 40,
) -> list[dict[str, bytes]]:
    """The files in the images of one kind behind all of the operations."""
    drawn = images(operations, files, torn=torn, at={len(operations)})
    return [dict(one.files) for one in drawn if one.kind == kind]


def test_a_dead_process_leaves_everything_and_a_power_cut_what_was_synced() -> None:
    done = doing(
        Create("a"),
        Write("a", 0, b"one"),
        Sync("a"),
        Sync(""),
        Write("a", None, b"two"),
        Truncate("b", 1),
        Write("b", 3, b"!"),
    )
    assert found(done, "process", {"b": b"old"}) == [{"a": b"onetwo", "b": b"o\0\0!"}]
    assert found(done, "cut", {"b": b"old"}) == [{"a": b"one", "b": b"old"}]


def test_a_sync_makes_durable_what_it_covers_and_no_more() -> None:
    done = doing(Write("a", 0, b"one"), Write("a", 3, b"two"), Sync("a", 1))
    assert found(done, "cut", {"a": b""}) == [{"a": b"one"}]


def test_names_are_durable_with_the_directory() -> None:
    done = doing(Create("a"), Write("a", 0, b"x"), Sync("a"), Rename("b", "c"), Unlink("d"))
    before = {"b": b"b", "d": b"d"}
    assert found(done, "cut", before) == [before]
    assert found(doing(*done, Sync("", 1)), "cut", before) == [{"a": b"x", **before}]
    assert found(doing(*done, Sync("")), "cut", before) == [{"a": b"x", "c": b"b"}]
    assert found(doing(*done, Sync("")), "torn", before) == []


def test_names_change_in_their_order() -> None:
    done = doing(Create("a"), Rename("a", "b"), Unlink("b"), Create("b"))
    seen = {tuple(one) for one in found(done, "torn")}
    assert seen == {(), ("a",), ("b",)}


def test_a_file_with_two_names_is_one_file() -> None:
    done = doing(Link("a", "b"), Sync(""), Unlink("a"), Write("b", 0, b"1" * 2048))
    for one in found(done, "torn", {"a": b"0" * 2048}):
        assert one.get("a", one["b"]) == one["b"]
    assert found(done, "cut", {"a": b"0"}) == [{"a": b"0", "b": b"0"}]
    assert found(done, "process", {"a": b"0"}) == [{"b": b"1" * 2048}]


def test_any_part_of_what_was_not_synced_may_be_there() -> None:
    done = doing(Write("a", 256, b"1" * 1024), Write("a", 2048, b"2"))
    seen = [one["a"] for one in found(done, "torn", {"a": b"0" * 512}, torn=400)]
    assert b"0" * 512 in seen
    assert b"0" * 256 + b"1" * 1024 + bytes(768) + b"2" in seen
    assert b"0" * 512 + bytes(1536) + b"2" in seen, "a later write without an earlier one"
    assert b"0" * 512 + b"1" * 512 in seen, "one sector of a write"
    for one in seen:
        assert one[:256] == b"0" * 256
        sectors = [one[256:512], one[512:1024], one[1024:1280]]
        assert all(len(set(sector)) <= 1 for sector in sectors), "no sector is a mixture"


def test_images_are_the_same_for_the_same_seed() -> None:
    done = doing(Write("a", 0, bytes(range(256)) * 16), Ack(("x",)), Write("a", 0, b"!" * 4096))
    files = {"a": b""}
    assert list(images(done, files)) == list(images(done, files))
    assert list(images(done, files, seed=1)) != list(images(done, files))
    after = [(one.kind, one.after, one.acked) for one in images(done, files, torn=1)]
    assert after[:3] == [("process", 0, 0), ("cut", 0, 0), ("process", 1, 0)]
    assert after[-1] == ("torn", 3, 1)
    assert list(images([], at={7})) == []


def test_an_id_is_acknowledged_once() -> None:
    assert acknowledged([Ack(("x", "y")), Create("a"), Ack(("y", "z"))]) == ["x", "y", "z"]


# -- verdicts ------------------------------------------------------------------------------


def words(directory: Path) -> list[str]:
    """A store of the smallest kind: each line is an id; what is not a whole line is not there."""
    file = directory / "words"
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    if any(b"\0" in line for line in lines):
        raise ValueError("a hole")
    return [line.decode() for line in lines]


def writing(*, synced: bool) -> Trace:
    """A run that writes three lines and acknowledges each."""
    done: list[Operation] = [Create("words"), Sync("")]
    for word in ("one", "two", "three"):
        done += [Write("words", None, f"{word}\n".encode())]
        done += [Sync("words")] if synced else []
        done += [Ack((word,))]
    return Trace(operations=done, files={})


def test_what_is_synced_before_it_is_acknowledged_survives() -> None:
    explored = explore(writing(synced=True), words, durability="power")
    assert explored.faults == ()
    assert (explored.operations, explored.acknowledged, explored.lost) == (11, 3, 0)
    assert explored.images > explored.distinct > explored.empty > 0
    assert str(explored).startswith("power: 11 operations, 3 ids acknowledged, ")


def test_what_is_acknowledged_too_early_is_found() -> None:
    explored = explore(writing(synced=False), words, durability="power")
    assert {one.kind for one in explored.faults} == {"cut", "torn"}
    assert any("3 acknowledged ids are not there" in one.problem for one in explored.faults)
    assert explored.lost == 3


def test_with_process_only_the_end_may_be_lost_and_nothing_damaged() -> None:
    explored = explore(writing(synced=False), words, durability="process", torn=20)
    assert {one.problem for one in explored.faults} == {"ValueError: a hole"}
    assert {one.kind for one in explored.faults} == {"torn"}


def test_a_middle_that_is_missing_is_found() -> None:
    def holes(directory: Path) -> list[str]:
        return [word for word in words(directory) if len(words(directory)) == 3 or word != "one"]

    explored = explore(writing(synced=True), holes, durability="process")
    problem = "what is there is not a beginning of what was committed"
    assert problem in {one.problem for one in explored.faults}


def test_a_process_that_loses_what_it_acknowledged_is_found_with_process_too() -> None:
    """It said so before it wrote."""
    early = doing(Create("words"), Ack(("one",)), Write("words", None, b"one\n"), Sync("words"))
    explored = explore(Trace(operations=early, files={}), words, durability="process")
    assert {one.kind for one in explored.faults} == {"process"}


def test_a_sample_looks_at_less_and_at_the_end() -> None:
    seen: list[int] = []

    def count(directory: Path) -> list[str]:
        seen.append(len(words(directory)))
        return words(directory)

    trace = writing(synced=True)
    few = explore(trace, count, durability="power", at=2)
    assert few.images < explore(trace, words, durability="power").images
    assert seen[0] == 3
    assert explore(trace, words, durability="power", at=10**6).faults == ()
    assert explore(trace, words, durability="power", at=[4], torn=0).images == 2


def test_what_the_whole_run_leaves_has_to_be_sound() -> None:
    done = doing(Create("words"), Write("words", 1, b"one\n"))
    with pytest.raises(ValueError, match="a hole"):
        explore(Trace(operations=done, files={}), words, durability="process")


# -- recording -----------------------------------------------------------------------------


def standing_in(tmp_path: Path, trace: str) -> str:
    """A program that is called like strace, puts down this trace, and runs the command."""
    (tmp_path / "canned").write_text(trace)
    script = tmp_path / "strace"
    copy = f'cp "{tmp_path / "canned"}" "$2"'
    script.write_text(f'#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n{copy}\nshift 2\n"$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_a_run_is_recorded(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "old").write_text("old")
    new = home / "new"
    write = f'7  write({at(str(new))}, "{hexed("hello")}", 5) = 5\n'
    strace = standing_in(tmp_path, f"{made(str(new))}\n{write}")
    command = [sys.executable, "-S", "-c", f"open({str(new)!r}, 'w').write('hello')"]
    assert traces(strace)
    trace = record(command, home, strace=strace)
    assert trace == Trace(
        operations=[Create("new"), Write("new", None, b"hello")], files={"old": b"old"}
    )
    with pytest.raises(ValueError, match=r"not understood: \['new', 'old'\]"):
        record(["sh", "-c", f"echo more >> {new}; rm {home / 'old'}"], home, strace=strace)
    with pytest.raises(subprocess.CalledProcessError):
        record(["false"], home, strace=strace)


def test_where_there_is_no_strace_nothing_can_be_traced(tmp_path: Path) -> None:
    assert not traces(str(tmp_path / "none"))
    assert not traces(sys.executable)


# -- looking at databases ------------------------------------------------------------------


async def talk(path: Path) -> list[str]:
    """A database with one conversation; the ids of its events."""
    async with turnlog.open(path, transport=scripted([text("Hello.")])) as log:
        chat = await log.conversation("ana", model="gpt-5")
        await chat.run("x" * 20_000)
        return [one.id for one in await chat.events()]


def spoiled(path: Path, statement: str) -> None:
    """Do something to a database that nobody does."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_look_at_a_database_says_what_is_in_it(tmp_path: Path) -> None:
    ids = asyncio.run(talk(tmp_path / "log.db"))
    assert logged("log.db")(tmp_path) == ids
    assert opened("log.db")(tmp_path) == ids
    assert logged("log.db")(tmp_path)[: len(ids)] == ids, "and a new turn behind"


def test_a_database_that_was_not_made_yet_is_empty_and_can_be_made(tmp_path: Path) -> None:
    assert logged("none.db")(tmp_path) == []
    (tmp_path / "log.db").touch()
    assert logged("log.db")(tmp_path) == []
    assert opened("log.db")(tmp_path) == []


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DELETE FROM sqlite_master WHERE name = 'ix_turns_key'", "SQLite finds it damaged"),
        ("DELETE FROM events WHERE version = 2", "position 3 of partition 0 has a gap before"),
        ("UPDATE conversations SET version = 1", "it does not verify"),
    ],
    ids=["file", "gap", "head"],
)
def test_a_look_finds_what_is_damaged(statement: str, problem: str, tmp_path: Path) -> None:
    asyncio.run(talk(tmp_path / "log.db"))
    spoiled(tmp_path / "log.db", statement)
    with pytest.raises(StoreCorrupt, match=problem):
        logged("log.db")(tmp_path)


def test_a_start_after_the_crash_finds_what_is_damaged(tmp_path: Path) -> None:
    asyncio.run(talk(tmp_path / "log.db"))
    spoiled(tmp_path / "log.db", "UPDATE turns SET outcome = 'failed'")
    with pytest.raises(StoreCorrupt, match="does not keep what a store promises"):
        opened("log.db")(tmp_path)
