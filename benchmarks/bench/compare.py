"""A run beside one that was kept before.

The one rule: a change is marked only where it leaves what rounds of the two runs span; where there
was but one round, nobody knows the span, and half as much again is taken for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .medians import Case, Figure, Medians
from .results import Result
from .table import Table
from .wording import short, times

UNKNOWN = 1.5
MAIN = ("per_s", "call_to_first_p50_ms", "to_wire_p50_ms", "p50_ms")
"""The figure that stands for a measurement is the first of these that it has, else those below."""
OTHERS = {
    "growth": ("file_bytes", "wal_bytes"),
    "idle": ("each_bytes",),
    "diff": ("append_ms", "middle_ms"),
    "startup": ("import_ms", "help_ms"),
    "streams": ("cpu_cores",),
}

Verdict = Literal["", "better", "worse"]


@dataclass(frozen=True, slots=True)
class Change:
    """A figure then and now, its ratio, and whether that means anything."""

    case: Case
    name: str
    then: Figure
    now: Figure
    ratio: float
    verdict: Verdict


def changes(now: Result, then: Result) -> list[Change]:
    """The ratios of everything that both runs measured."""
    new, old = Medians(now.runs), Medians(then.runs)
    found: list[Change] = []
    for case in new.cases():
        for name in _figures(new, case):
            before, after = _figure(old, case, name), _figure(new, case, name)
            if before is not None and after is not None:
                ratio = after.over(before, apart=True).median
                found.append(
                    Change(case, name, before, after, ratio, _verdict(name, before, after))
                )
    return found


def table(now: Result, then: Result) -> Table:
    """The comparison, with what is to be known before one reads it."""
    notes = [f"Against the run of {then.when[:10]} (turnlog {then.versions.get('turnlog', '?')})."]
    if not now.machine.same_kind(then.machine):
        notes.append(f"ANOTHER MACHINE: {then.machine.cpu}, {then.machine.file_system}.")
    found = changes(now, then)
    marked = sum(bool(one.verdict) for one in found)
    notes.append(f"{marked} of {len(found)} ratios leave the spread.")
    return Table(
        "Beside the last kept run",
        ("scenario", "subject", "figure", "then", "now", "ratio", ""),
        tuple(_line(one) for one in found),
        note=" ".join(notes),
        words=3,
    )


def _figures(found: Medians, case: Case) -> Sequence[str]:
    if case[0] in OTHERS:
        return OTHERS[case[0]]
    return [name for name in MAIN if _figure(found, case, name) is not None][:1]


def _figure(found: Medians, case: Case, name: str) -> Figure | None:
    scenario, subject, value = case
    return found.find(scenario, subject, name, value)


def _verdict(name: str, then: Figure, now: Figure) -> Verdict:
    ratio = now.over(then, apart=True)
    if min(now.rounds, then.rounds) == 1:
        changed = not 1 / UNKNOWN <= ratio.median <= UNKNOWN
    else:
        changed = not ratio.low <= 1 <= ratio.high
    if not changed:
        return ""
    return "better" if (ratio.median > 1) == (name == "per_s") else "worse"


def _line(one: Change) -> tuple[str, ...]:
    scenario, subject, value = one.case
    what = scenario if value is None else f"{scenario} {value:,}"
    then, now = short(one.then.median), short(one.now.median)
    return (what, subject, one.name, then, now, times(one.ratio), one.verdict)
