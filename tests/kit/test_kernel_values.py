"""What the kit says of faults from the kernel, from values alone: no strace is needed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from turnlog.testing.kernel import (
    Fault,
    Ran,
    Swept,
    can_inject,
    count,
    counted,
    every,
    options,
    run,
)

TRACE = """\
7 pwrite64(3, "", 24, 0) = 24
7 pwrite64(3, "", 4096, 24) = -1 EIO (Input/output error) (INJECTED)
8 pwrite64(4, "", 4096, 0) = 4096
7 fdatasync(3) = 0
8 <... fdatasync resumed>) = 0
7 +++ exited with 0 +++
"""


def test_a_fault_is_told_as_strace_has_it() -> None:
    assert Fault("fsync", "EIO", 3, 3).when == "3"
    assert Fault("fsync", "EIO", 3, 5).when == "3..5"
    assert str(Fault("fsync", "EIO", 3, None)) == "fsync EIO 3+"
    assert options(["a.db"], Fault("fsync", "EIO", 3, None), ["pread64"]) == [
        "-f", "-e", "trace=fsync,pread64", "-P", "a.db", "-e", "inject=fsync:error=EIO:when=3+",
    ]  # fmt: skip
    assert options([], None) == ["-f", "-e", "trace=none"]


def test_every_call_fails_once_and_for_ever() -> None:
    assert [str(one) for one in every({"fsync": 2}, "fsync", "EIO")] == [
        "fsync EIO 1", "fsync EIO 1+", "fsync EIO 2", "fsync EIO 2+",
    ]  # fmt: skip
    some = every({"fsync": 5}, "fsync", "EIO", lengths=(2,), stride=2, offset=1)
    assert [one.when for one in some] == ["2..3", "4..5"]
    assert not list(every({}, "fsync", "EIO"))


def test_calls_are_counted_in_the_thread_that_makes_most() -> None:
    assert counted(TRACE) == {"pwrite64": 2, "fdatasync": 1}


def test_what_a_run_says() -> None:
    fine = Ran(code=0, lines=("ACK a b", "TYPED StoreMoved", "", "ACK c", "DONE"), injected=1)
    assert fine.acknowledged == ("a", "b", "c")
    assert fine.typed == {"StoreMoved": 1}
    assert fine.finished and not fine.problems
    assert not Ran(code=0, lines=("LEFT",), injected=1).problems
    bad = Ran(code=1, lines=("BAD ValueError no", "LOST a"), injected=0)
    assert bad.problems == (
        "BAD ValueError no", "LOST a", "it ended with 1", "it did not come to its end",
    )  # fmt: skip
    swept = Swept()
    swept.add(Fault("fsync", "EIO", 1, 1), fine)
    swept.add(Fault("fsync", "EIO", 2, None), bad, ["half of it is there"])
    assert str(swept) == (
        "2 runs with 1 failed calls at 1 points: 3 events acknowledged, 1 runs went on to their"
        " end, 5 problems; errors told: 1 StoreMoved"
    )
    assert swept.problems[-1] == "fsync EIO 2+: half of it is there"
    assert str(Swept()).endswith("errors told: none")


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """What is called as strace is, and writes the same trace whatever the program does."""
    path = tmp_path / "strace"
    path.write_text(
        f"#!{sys.executable}\n"
        "import subprocess, sys\n"
        "place = sys.argv.index('-o')\n"
        f"open(sys.argv[place + 1], 'w').write({TRACE!r})\n"
        "sys.exit(subprocess.run(sys.argv[place + 2 :]).returncode)\n"
    )
    path.chmod(0o755)
    return str(path)


def test_a_program_is_run_and_counted(stand_in: str, tmp_path: Path) -> None:
    program = [sys.executable, "-c", "print('ACK a'); print('DONE')"]
    ran = run(program, ["a.db"], Fault("fsync", "EIO", 1, 1), strace=stand_in)
    assert (ran.acknowledged, ran.injected, ran.problems) == (("a",), 1, ())
    assert count(program, ["a.db"], strace=stand_in) == {"pwrite64": 2, "fdatasync": 1}
    failing = [sys.executable, "-c", "raise SystemExit('no such disk')"]
    ran = run(failing, [], strace=stand_in)
    assert ran.problems[0] == "BAD no such disk"
    with pytest.raises(ValueError, match="without any fault"):
        count(failing, [], strace=stand_in)
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\n")
    silent.chmod(0o755)
    assert run(program, [], strace=str(silent)).problems == ("it did not come to its end",)


def test_it_is_known_whether_strace_is_there(tmp_path: Path) -> None:
    assert not can_inject(str(tmp_path / "nowhere"))
    assert can_inject("true")
    assert not can_inject("false")
