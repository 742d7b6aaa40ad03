"""Results as files: what was measured, of which versions, on which machine.

The one rule: a file says the same thing in the same bytes, one measurement a line, so that what
changed between two of them can be read in a difference.
"""

from __future__ import annotations

import json
import platform
import re
import sqlite3
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from .machine import Machine
from .medians import case, place
from .runner import Run

BENCHMARKS = Path(__file__).resolve().parent.parent
RESULTS = BENCHMARKS / "results"
_VERSION = re.compile(r"\d+(\.\w+)+")
_DIGITS = 6


class BadResult(Exception):
    """A file is not a result; the text says why."""


@dataclass(frozen=True, slots=True)
class Result:
    """One run of the benchmark. A `partial` one leaves scenarios or subjects out."""

    when: str
    quick: bool
    partial: bool
    versions: dict[str, str]
    machine: Machine
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """The name of its file."""
        kind = "-quick" if self.quick else ""
        return f"{self.when[:10]}-{self.machine.label}{kind}.json"


def write(result: Result) -> str:
    """A result as text."""
    head = asdict(replace(result, runs=()))
    del head["runs"]
    runs = ",\n".join(f"  {_line(run)}" for run in ordered(result.runs))
    return f'{json.dumps(head, indent=1)[:-2]},\n "runs": [\n{runs}\n ]\n}}\n'


def read(text: str) -> Result:
    """What `write` wrote. Raises BadResult."""
    try:
        return TypeAdapter(Result).validate_json(text, strict=True, extra="forbid")
    except ValidationError as problem:
        raise BadResult(str(problem)) from None


def save(result: Result, file: Path) -> None:
    """Keep a result in a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(write(result), encoding="utf-8")


def load(file: Path) -> Result:
    """A result from a file. Raises BadResult."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as problem:
        raise BadResult(str(problem)) from None
    try:
        return read(text)
    except BadResult as problem:
        raise BadResult(f"{file.name}: {problem}") from None


def kept(folder: Path = RESULTS, *, quick: bool | None = None) -> list[Result]:
    """The results that are kept, of one kind or of both, from the oldest."""
    found = [load(file) for file in sorted(folder.glob("[0-9]*.json"))]
    return sorted(
        (one for one in found if quick is None or one.quick == quick), key=lambda one: one.when
    )


def newest(folder: Path = RESULTS) -> Result | None:
    """The result to show: the last full one, else the last quick one."""
    found = sorted(kept(folder), key=lambda one: (not one.quick, one.when))
    return found[-1] if found else None


def ordered(runs: Iterable[Run]) -> list[Run]:
    """Records in the plan's order, whatever order they were measured in."""
    return sorted(runs, key=lambda run: (place(case(run)), run.counted, run.round))


def versions_of(runs: Iterable[Run]) -> dict[str, str]:
    """Versions of everything that was measured: what records say of libraries, and our revision."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for name, value in run.facts.items():
            if _VERSION.fullmatch(value):
                found.setdefault(name, set()).add(value)
    peers = {name: ", ".join(sorted(values)) for name, values in sorted(found.items())}
    own = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    return {**own, **peers, "turnlog": revision()}


def revision(folder: Path = BENCHMARKS) -> str:
    """Git's name of the commit that is checked out, marked where files differ from it."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def failures(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """What failed: the scenario, the subject and why, each once."""
    found = [(run.scenario, run.subject, run.failure) for run in ordered(runs) if run.failure]
    return list(dict.fromkeys(found))


def _line(run: Run) -> str:
    figures = {name: _rounded(value) for name, value in run.figures.items()}
    return json.dumps({**asdict(run), "figures": figures})


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
