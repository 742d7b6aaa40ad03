"""Measure turnlog beside floors and peers: `python -m bench`, see benchmarks/README.md.

The one rule: progress goes to stderr and tables to stdout; what was measured is kept under
`.bench/` whatever happens then.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from . import compare, machine, page, results, tables, targets
from .environments import ROOT
from .medians import Medians
from .plan import SCENARIOS, SUBJECTS, Scenario
from .results import BadResult, Result
from .runner import WORK, Run, plan, run_all
from .table import as_text

LAST = ROOT / "last.json"
ENDS = (signal.SIGINT, signal.SIGTERM)
"""Either ends a run early with what it has; a shell has background jobs ignore the first."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit code."""
    options = _parser().parse_args(arguments, Options())
    before = [(one, signal.signal(one, signal.default_int_handler)) for one in ENDS]
    try:
        return _main(options)
    except BadResult as problem:
        print(problem, file=sys.stderr)
        return 2
    finally:
        for one, handler in before:
            signal.signal(one, handler)


@dataclass(slots=True)
class Options:
    """What the command line says."""

    quick: bool = False
    only: list[str] = field(default_factory=list[str])
    subjects: list[str] = field(default_factory=list[str])
    rounds: int | None = None
    keep: bool = False
    folder: Path = WORK
    page: str | None = None
    check: bool = False
    results: Path | None = None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    say = parser.add_argument
    say("--quick", action="store_true", help="about two minutes: shorter, fewer sizes, one round")
    say("--only", type=_scenarios, metavar="SCENARIO,...", help="of these scenarios")
    say("--subjects", type=_subjects, metavar="NAME;...", help="of these subjects")
    say("--rounds", type=int, metavar="N", help="how often each is measured")
    say("--keep", action="store_true", help="keep the result, and write docs/performance.md")
    say("--folder", type=Path, help="where files are made: on a disk")
    say("--page", nargs="?", const="", metavar="FILE", help="only write docs/performance.md")
    say("--check", action="store_true", help="end with 1 where a target is not met")
    say("--results", type=Path, metavar="FILE", help="measure nothing; show a result")
    return parser


def _scenarios(text: str) -> list[str]:
    return _known(text.split(","), [one.name for one in SCENARIOS])


def _subjects(text: str) -> list[str]:
    # There is a comma in the name of one.
    return _known(text.split(";"), list(SUBJECTS))


def _known(names: Sequence[str], known: Collection[str]) -> list[str]:
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of: {'; '.join(known)}")
    return list(names)


def _main(options: Options) -> int:
    if options.page is not None:
        page.write(results.load(Path(options.page)) if options.page else _newest())
        return 0
    result = results.load(options.results) if options.results else _measured(options)
    before = [one for one in results.kept(quick=result.quick) if one.when < result.when]
    rows = targets.rows(Medians(result.runs), result.machine)
    print("\n".join(_report(result, rows, before[-1] if before else None)))
    if options.keep:
        _keep(result)
    return int(options.check and _missed(result, rows))


def _missed(result: Result, rows: Sequence[targets.Row]) -> bool:
    """Whether a target is not met, nor equal; a full run is to have measured all of them."""
    whole = not (result.quick or result.partial)
    return any(not row.alike and (row.met is False or (row.met is None and whole)) for row in rows)


def _newest() -> Result:
    found = results.newest()
    if found is None:
        raise BadResult(f"there is no result in {results.RESULTS}")
    return found


# -- measuring -----------------------------------------------------------------------------


def _measured(options: Options) -> Result:
    scenarios = [one for one in SCENARIOS if not options.only or one.name in options.only]
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    sync = [machine.probe(options.folder)]
    runs: list[Run] = []
    whole = not (options.only or options.subjects)
    try:
        for run in _progress(scenarios, options):
            runs.append(run)
    except KeyboardInterrupt:
        whole = False
    sync.append(machine.probe(options.folder))
    result = Result(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        quick=options.quick,
        partial=not whole,
        versions=results.versions_of(runs),
        machine=machine.look(options.folder, tuple(sync)),
        runs=tuple(runs),
    )
    results.save(result, LAST)
    return result


def _progress(scenarios: Sequence[Scenario], options: Options) -> Iterator[Run]:
    """The records as they come; what is measured now, and how long the rest takes, is told."""
    planned = [
        run
        for scenario in scenarios
        for run in plan(scenario, quick=options.quick, only=options.subjects, rounds=options.rounds)
    ]
    left = Left(planned, time.monotonic)

    def say(text: str) -> None:
        print(f"[{left.words()}] {text}", file=sys.stderr, flush=True)

    for run in run_all(
        scenarios,
        quick=options.quick,
        only=options.subjects,
        rounds=options.rounds,
        folder=options.folder,
        say=say,
    ):
        left.took(run)
        if run.failure is not None:
            say(f"{run.subject}: {run.failure}")
        yield run


class Left:
    """How long the measurements that are left take, by those that are done."""

    def __init__(self, planned: Sequence[Run], clock: Callable[[], float]) -> None:
        self._all = len(planned)
        self._left = list(planned)
        self._took: dict[str, list[float]] = {}
        self._clock = clock
        self._since = clock()

    def took(self, run: Run) -> None:
        """A measurement is done."""
        now = self._clock()
        self._took.setdefault(run.scenario, []).append(now - self._since)
        self._since = now
        del self._left[:1]

    def words(self) -> str:
        """How much is done, and about how long the rest takes."""
        done = f"{self._all - len(self._left)}/{self._all}"
        known = {name: sum(each) / len(each) for name, each in self._took.items()}
        if not known:
            return done
        usual = sum(known.values()) / len(known)
        seconds = sum(known.get(run.scenario, usual) for run in self._left)
        left = f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
        return f"{done}, about {left} left"


# -- telling -------------------------------------------------------------------------------


def _report(result: Result, rows: Sequence[targets.Row], before: Result | None) -> Iterator[str]:
    """All tables of a run."""
    found = Medians(result.runs)
    yield as_text(tables.targets(rows))
    for table in tables.all_tables(found):
        yield as_text(table)
    for scenario, subject, failure in results.failures(result.runs):
        yield f"{scenario} of {subject} failed: {failure}"
    if before is not None:
        yield as_text(compare.table(result, before))
    missed = sum(row.met is False and not row.alike for row in rows)
    yield f"{targets.summed(rows)}, {missed} are not, the rest was not measured."


def _keep(result: Result) -> None:
    if result.partial:
        print(f"A part is not kept; it is in {LAST}.", file=sys.stderr)
        return
    file = results.RESULTS / result.name
    results.save(result, file)
    shown = results.newest()
    page.write(shown or result)
    print(f"Kept as {file}; {page.PAGE} is written.", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
