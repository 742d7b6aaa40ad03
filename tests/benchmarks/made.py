"""Records of a benchmark that nobody ran: every figure is a number that is easy to reckon with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bench.machine import Machine
from bench.medians import Medians
from bench.plan import SCENARIOS, Scenario
from bench.results import Result
from bench.runner import Run

MACHINE = Machine("Some CPU", 2, 8.0, "Linux 6", "ext4", (0.9, 1.1))

FIGURES: Mapping[str, Mapping[str, float]] = {
    "turns": {"per_s": 1000, "cpu_us": 300},
    "items": {"per_s": 500, "cpu_us": 600},
    "many": {"per_s": 4000, "cpu_us": 100, "p50_ms": 10, "p99_ms": 20},
    "length": {"p50_ms": 0.5, "p99_ms": 1, "least_ms": 0.4, "written_bytes": 20480},
    "growth": {"file_bytes": 4096, "wal_bytes": 20480},
    "opening": {"p50_ms": 0.1},
    "last": {"p50_ms": 1},
    "load": {"p50_ms": 30},
    "among": {"p50_ms": 0.1},
    "idle": {"each_bytes": 500, "each_traced_bytes": 400, "held_items": 0},
    "diff": {"append_ms": 1, "middle_ms": 10},
    "startup": {"python_ms": 10, "import_ms": 100, "help_ms": 200, "transports_loaded": 0},
    "deltas": {"per_s": 100_000, "cpu_us": 10},
    "first": {"to_wire_p50_ms": 0.2, "first_p50_ms": 0.1, "call_to_first_p50_ms": 0.4},
    "full_request": {"to_wire_p50_ms": 6},
    "streams": {"kept_up": 1, "cpu_cores": 0.5, "lag_p50_ms": 1, "lag_p99_ms": 9},
}
"""What everybody reaches; turnlog's rates are four times these."""

COUNTS = {"fsyncs": 1.0, "wal_written_bytes": 20480.0}


def runs(scenarios: Mapping[str, Mapping[str, float]] = FIGURES, rounds: int = 3) -> list[Run]:
    """Rounds of everything that the plan has, each a hundredth above the one before it."""
    return [run for one in SCENARIOS if one.name in scenarios for run in _of(one, rounds)]


def _of(scenario: Scenario, rounds: int) -> Iterator[Run]:
    for number in range(rounds):
        for value in scenario.values or (None,):
            for subject in scenario.subjects:
                yield run(scenario.name, subject, value, number)


def run(
    scenario: str,
    subject: str,
    value: int | None = None,
    round: int = 0,
    figures: Mapping[str, float] | None = None,
) -> Run:
    """One record; without figures it has the usual ones."""
    over = next(one.over for one in SCENARIOS if one.name == scenario)
    facts = {"journal_mode": "wal", "synchronous": "FULL", "orjson": "3.13.0"}
    given = _usual(scenario, subject, round) if figures is None else dict(figures)
    parameters: dict[str, int | str] = {} if value is None else {over: value}
    return Run(scenario, subject, parameters, round, True, figures=given, facts=facts)


def _usual(scenario: str, subject: str, round: int) -> dict[str, float]:
    usual = {
        name: value * 4 if name == "per_s" and subject.startswith("turnlog") else value
        for name, value in FIGURES[scenario].items()
    }
    return {name: float(f"{value * (1 + round / 100):.6g}") for name, value in usual.items()}


def changed(scenario: str, subject: str, **figures: float) -> list[Run]:
    """The usual records, but for figures of one subject in one scenario."""
    return [
        _changed(one, figures) if (one.scenario, one.subject) == (scenario, subject) else one
        for one in runs()
    ]


def _changed(one: Run, figures: Mapping[str, float]) -> Run:
    one.figures.update(figures)
    return one


def medians(given: list[Run] | None = None) -> Medians:
    """The medians of records, of the usual ones without any."""
    return Medians(runs() if given is None else given)


def result(
    given: list[Run] | None = None, *, when: str = "2026-01-02T03:04:05+00:00", quick: bool = False
) -> Result:
    """A result of the usual records, or of others."""
    told = tuple(runs() if given is None else given)
    return Result(when, quick, False, {"python": "3.11.7", "turnlog": "abc"}, MACHINE, told)
