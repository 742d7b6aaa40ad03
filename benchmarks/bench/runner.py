"""Measurements, one process after the other: what the plan says, as records.

The one rule: whatever a subject does, it costs its own row and nothing else. What fails is a record
that says why.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .calls import TRACE, count
from .environments import BENCHMARKS, ROOT, Unavailable, interpreter
from .machine import file_system
from .plan import QUICK, SUBJECTS, Scenario, Subject

CPU = 0
TIMEOUT = 900.0
WORK = ROOT / "work"
IN_MEMORY = ("tmpfs", "ramfs")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement: of whom, with what, and what was found or why nothing was.

    A `counted` one ran slowly, under strace: its figures are counts. `round` counts from 0.
    """

    scenario: str
    subject: str
    parameters: dict[str, int | str]
    round: int
    pinned: bool
    counted: bool = False
    figures: dict[str, float] = field(default_factory=dict[str, float])
    facts: dict[str, str] = field(default_factory=dict[str, str])
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """What a process of a measurement printed, and how it ended: None where time ran out."""

    stdout: str
    stderr: str
    code: int | None


def run_all(
    scenarios: Iterable[Scenario],
    *,
    quick: bool = False,
    only: Collection[str] = (),
    rounds: int | None = None,
    folder: Path = WORK,
    timeout: float = TIMEOUT,
    say: Say = print,
) -> Generator[Run]:
    """Measure scenarios: for each round each value of `over`, and each subject in turn.

    `only` names subjects; none names all. `rounds` is one for a quick run where not given. Files
    are made in `folder`, which should be on a disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if file_system(folder) in IN_MEMORY:
        say(f"{folder} is in memory: what is synced there is not written to a disk")
    with ExitStack() as stack:
        bench = _Bench(folder, timeout, say, stack)
        for scenario in scenarios:
            planned = list(plan(scenario, quick=quick, only=only, rounds=rounds))
            for number, run in enumerate(planned, 1):
                say(f"{scenario.name} {number}/{len(planned)}: {label(run)}")
                yield bench.measure(scenario, run)


def plan(
    scenario: Scenario, *, quick: bool, only: Collection[str] = (), rounds: int | None = None
) -> Generator[Run]:
    """The measurements of a scenario, in order, before anything was found."""
    given = scenario.quick if quick else scenario.full
    if given is None:
        return
    for round in range(rounds or (1 if quick else scenario.rounds)):
        yield from _once(scenario, given, quick, only, round)
    if scenario.counted and not quick and shutil.which(TRACE[0]):
        for run in _once(scenario, given, quick, only, 0):
            yield replace(run, counted=True)


def _once(
    scenario: Scenario,
    given: Mapping[str, int | str],
    quick: bool,
    only: Collection[str],
    round: int,
) -> Generator[Run]:
    values = scenario.quick_values if quick else scenario.values
    for value in values if scenario.over else (None,):
        for name in scenario.subjects:
            if name not in (only or (QUICK if quick else scenario.subjects)):
                continue
            if value is not None and value not in scenario.few.get(name, values):
                continue
            over = {} if value is None else {scenario.over: value}
            parameters = {**given, **SUBJECTS[name].parameters, **over}
            yield Run(scenario.name, name, parameters, round, scenario.pinned)


def label(run: Run) -> str:
    """A measurement in a few words."""
    given = ", ".join(f"{name}={value}" for name, value in run.parameters.items())
    return f"{run.subject}{' (counted)' if run.counted else ''}, {given}"


@dataclass(slots=True)
class _Bench:
    folder: Path
    timeout: float
    say: Say
    stack: ExitStack
    providers: dict[bool, str] = field(default_factory=dict[bool, str])
    pythons: dict[str, Path | Unavailable] = field(default_factory=dict[str, "Path | Unavailable"])

    def measure(self, scenario: Scenario, run: Run) -> Run:
        """One measurement; a failure is part of what comes back."""
        try:
            python = self._python(SUBJECTS[run.subject].environment)
            url = {"url": self._provider(run.pinned)} if scenario.provider else {}
            os.sync()
            with tempfile.TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as own:
                return measured(run, SUBJECTS[run.subject], python, url, Path(own), self.timeout)
        except Unavailable as problem:
            return replace(run, failure=str(problem))

    def _python(self, environment: str) -> Path:
        if environment not in self.pythons:
            try:
                self.pythons[environment] = interpreter(environment, say=self.say)
            except Unavailable as problem:
                self.pythons[environment] = problem
        found = self.pythons[environment]
        if isinstance(found, Unavailable):
            raise found
        return found

    def _provider(self, pinned: bool) -> str:
        if pinned not in self.providers:
            self.providers[pinned] = self.stack.enter_context(_provider(pinned))
        return self.providers[pinned]


@contextmanager
def _provider(pinned: bool) -> Generator[str]:
    """The canned provider, for the rest of a run: its base URL."""
    command = [*_pin(pinned), sys.executable, "-m", "bench.server"]
    with subprocess.Popen(command, env=_variables(), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        try:
            if not url:
                raise Unavailable("the canned provider did not start")
            yield url
        finally:
            server.terminate()


def measured(
    run: Run,
    subject: Subject,
    python: Path,
    url: Mapping[str, str],
    own: Path,
    timeout: float,
) -> Run:
    """A measurement in a process of its own, in an empty directory; a failure is part of it."""
    files, trace = own / "files", own / "calls"
    files.mkdir()
    tracer = [*TRACE, str(trace)] if run.counted else []
    parameters = json.dumps({**run.parameters, **url})
    wanted = ["-m", "bench.subject", subject.module, run.scenario, parameters]
    ended = run_process([*tracer, *_pin(run.pinned), str(python), *wanted], files, timeout)
    failure = _failure(ended, timeout)
    if failure is not None:
        return replace(run, failure=failure)
    try:
        found: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
        figures: dict[str, float] = found["figures"]
        facts: dict[str, str] = found["facts"]
    except (IndexError, KeyError, TypeError, ValueError):
        return replace(run, failure="it printed no figures")
    if run.counted:
        with trace.open(errors="replace") as lines:
            figures = count(lines, int(run.parameters["turns"]))
    return replace(run, figures=figures, facts=facts)


def _failure(ended: Process, timeout: float) -> str | None:
    if ended.code is None:
        return f"it took more than {timeout:g} s"
    if ended.code:
        said = [line for line in ended.stderr.splitlines() if line.strip()]
        return (said or [f"it ended with {ended.code}"])[-1].strip()
    return None


def run_process(command: Sequence[str], folder: Path, timeout: float) -> Process:
    """Run a command in a folder; where its time runs out it ends with all that it started."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=_variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
            return Process(stdout, stderr, None)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Process(stdout, stderr, process.returncode)


def _pin(pinned: bool) -> Sequence[str]:
    return ("taskset", "-c", str(CPU)) if pinned and shutil.which("taskset") else ()


def _variables() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
