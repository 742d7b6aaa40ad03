"""Faults from the kernel: a program is run once for each system call that may fail, and judged.

    calls = count(command, files)                   how often the program writes, syncs and reads
    for fault in every(calls, "pwrite64", "EIO"):   each of those calls fails, one run for each
        ran = run(command, files, fault)
        ran.acknowledged, ran.typed, ran.problems   what the program said of it
        ...                                         and what is in the files now is yours to judge

The program under test prints a line for each thing that matters: `ACK id id ...` for what was
answered as durable, `TYPED name` for an error that it expects, `BAD ...` for any other, `LOST ...`
for what it was told of and cannot read, and `DONE` or `LEFT` at its end. Every fault is made by
strace (`-e inject`), which must be there (`can_inject`); nothing of the program is changed. A call
is counted within its thread, as strace counts.

The one rule: only calls on the files that are named fail. The interpreter's own reads and what
goes to a pipe do not.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

WRITES = ("pwrite64", "fdatasync", "fsync", "ftruncate")
"""The calls by which SQLite on Linux changes files, and makes changes last."""

READS = ("pread64",)
"""The calls by which it reads them."""

_LINE = re.compile(r"^(?P<thread>\d+) +(?P<call>\w+)\(")
_INJECTED = "(INJECTED)"


@dataclass(frozen=True, slots=True)
class Fault:
    """A system call fails: the `first` one of a thread to the `last`, or for ever (None)."""

    call: str
    error: str
    first: int
    last: int | None

    @property
    def when(self) -> str:
        """What strace calls it."""
        if self.last is None:
            return f"{self.first}+"
        return f"{self.first}" if self.last == self.first else f"{self.first}..{self.last}"

    def __str__(self) -> str:
        return f"{self.call} {self.error} {self.when}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a run printed, and how many calls of it failed by the fault."""

    code: int
    lines: tuple[str, ...]
    injected: int

    @property
    def acknowledged(self) -> tuple[str, ...]:
        """The ids that were answered as durable, in order."""
        return tuple(id for line in self.lines for id in _words(line, "ACK"))

    @property
    def typed(self) -> Counter[str]:
        """The errors that the program expects, by their names."""
        return Counter(word for line in self.lines for word in _words(line, "TYPED"))

    @property
    def finished(self) -> bool:
        """Whether everything was done at last."""
        return "DONE" in self.lines

    @property
    def problems(self) -> tuple[str, ...]:
        """What may not be, whatever fails: other errors, losses, and an end without a word."""
        found = [line for line in self.lines if line.startswith(("BAD", "LOST"))]
        if self.code:
            found.append(f"it ended with {self.code}")
        if not {"DONE", "LEFT"} & set(self.lines):
            found.append("it did not come to its end")
        return tuple(found)


@dataclass
class Swept:
    """What runs came to: add each, and print it."""

    runs: int = 0
    injected: int = 0
    acknowledged: int = 0
    finished: int = 0
    typed: Counter[str] = field(default_factory=Counter[str])
    points: set[str] = field(default_factory=set[str])
    problems: list[str] = field(default_factory=list[str])

    def add(self, fault: Fault, ran: Ran, problems: Sequence[str] = ()) -> None:
        """Count a run, and what else was found wrong after it."""
        self.runs += 1
        self.injected += ran.injected
        self.acknowledged += len(ran.acknowledged)
        self.finished += ran.finished
        self.typed += ran.typed
        if ran.injected:
            self.points.add(f"{fault.call} {fault.first}")
        self.problems += [f"{fault}: {one}" for one in (*ran.problems, *problems)]

    def __str__(self) -> str:
        errors = ", ".join(f"{count} {name}" for name, count in sorted(self.typed.items()))
        return (
            f"{self.runs} runs with {self.injected} failed calls at {len(self.points)} points:"
            f" {self.acknowledged} events acknowledged, {self.finished} runs went on to their end,"
            f" {len(self.problems)} problems; errors told: {errors or 'none'}"
        )


def can_inject(strace: str = "strace") -> bool:
    """Whether there is an strace here that may trace and inject."""
    option = "inject=fdatasync:error=EIO:when=1..2"
    command = [strace, "-f", "-o", os.devnull, "-e", "trace=fdatasync", "-e", option, "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run(
    command: Sequence[str],
    files: Sequence[str | os.PathLike[str]],
    fault: Fault | None = None,
    *,
    calls: Sequence[str] = (),
    timeout: float = 100,
    strace: str = "strace",
) -> Ran:
    """Run a program whose calls on these files fail; without a fault nothing does.

    Raises OSError (no strace) and subprocess.TimeoutExpired.
    """
    return _run(command, files, fault, calls=calls, timeout=timeout, strace=strace)[0]


def count(
    command: Sequence[str],
    files: Sequence[str | os.PathLike[str]],
    *,
    calls: Sequence[str] = (*WRITES, *READS),
    timeout: float = 100,
    strace: str = "strace",
) -> Mapping[str, int]:
    """How often the program makes each call on these files, in the thread that does so most.

    Raises what `run` raises, and ValueError where the program does not get to its end.
    """
    ran, trace = _run(command, files, None, calls=calls, timeout=timeout, strace=strace)
    if ran.problems or not ran.finished:
        raise ValueError(f"the program does not work without any fault: {ran.lines[-3:]}")
    return counted(trace)


def counted(trace: str) -> dict[str, int]:
    """The same, from what strace wrote."""
    made = Counter((one["thread"], one["call"]) for one in _made(trace))
    most: dict[str, int] = {}
    for (_, call), times in made.items():
        most[call] = max(most.get(call, 0), times)
    return most


def every(
    calls: Mapping[str, int],
    call: str,
    error: str,
    *,
    lengths: Sequence[int | None] = (1, None),
    stride: int = 1,
    offset: int = 0,
) -> Iterator[Fault]:
    """A fault at every call, or at every `stride`th: that lasts for so many calls, or for ever."""
    faults = (
        Fault(call, error, first, None if length is None else first + length - 1)
        for first in range(1, calls.get(call, 0) + 1)
        for length in lengths
    )
    for number, fault in enumerate(faults):
        if number % stride == offset % stride:
            yield fault


def options(
    files: Sequence[str | os.PathLike[str]], fault: Fault | None, calls: Sequence[str] = ()
) -> list[str]:
    """What strace is told."""
    wanted = {*calls, fault.call} if fault is not None else set(calls)
    traced = sorted(wanted) or ["none"]
    told = ["-f", "-e", f"trace={','.join(traced)}"]
    for file in files:
        told += ["-P", os.fspath(file)]
    if fault is not None:
        told += ["-e", f"inject={fault.call}:error={fault.error}:when={fault.when}"]
    return told


def _run(
    command: Sequence[str],
    files: Sequence[str | os.PathLike[str]],
    fault: Fault | None,
    *,
    calls: Sequence[str],
    timeout: float,
    strace: str,
) -> tuple[Ran, str]:
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / "trace"
        done = subprocess.run(
            [strace, *options(files, fault, calls), "-o", str(written), *command],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        trace = written.read_text(errors="replace") if written.exists() else ""
    lines = tuple(done.stdout.splitlines())
    if done.returncode:
        lines += tuple(f"BAD {line}" for line in done.stderr.splitlines()[-1:])
    return Ran(code=done.returncode, lines=lines, injected=trace.count(_INJECTED)), trace


def _made(trace: str) -> Iterator[re.Match[str]]:
    return (found for line in trace.splitlines() if (found := _LINE.match(line)) is not None)


def _words(line: str, kind: str) -> list[str]:
    first, *rest = line.split() or [""]
    return rest if first == kind else []
