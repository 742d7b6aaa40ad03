"""What several rounds of the same measurement say together.

The one rule: a figure keeps the least and the greatest that was seen, so that whatever is computed
of it says how far it can be trusted.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from .plan import SCENARIOS
from .runner import Run

OVER = {scenario.name: scenario.over for scenario in SCENARIOS}
SUBJECTS = {scenario.name: scenario.subjects for scenario in SCENARIOS}


class NotMeasured(LookupError):
    """There is no such figure; the text says of what."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A median, with the least and the greatest beside it, and what each round found."""

    median: float
    low: float
    high: float
    by_round: Mapping[int, float] = field(default_factory=dict[int, float])

    @property
    def rounds(self) -> int:
        """Of how many rounds it is."""
        return max(1, len(self.by_round))

    @property
    def spread(self) -> float:
        """From the least to the greatest, as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0

    def over(self, other: Figure, *, apart: bool = False) -> Figure:
        """The ratio to another; `apart` where that is of another run.

        It is the median of what the rounds give, each for itself: subjects take turns, and a
        machine that is slow for a minute is slow for both.
        """
        return self._with(other, _ratio, apart)

    def less(self, other: Figure) -> Figure:
        """The difference to another, round by round too."""
        return self._with(other, _difference)

    def _with(
        self, other: Figure, apply: Callable[[float, float], float], apart: bool = False
    ) -> Figure:
        if not apart and self.by_round and self.by_round.keys() == other.by_round.keys():
            return middle(
                {round: apply(one, other.by_round[round]) for round, one in self.by_round.items()}
            )
        return Figure(
            apply(self.median, other.median),
            apply(self.low, other.high),
            apply(self.high, other.low),
        )


def _ratio(one: float, other: float) -> float:
    return one / other if other else float("inf")


def _difference(one: float, other: float) -> float:
    return one - other


def middle(by_round: Mapping[int, float]) -> Figure:
    """The figure that the values of some rounds make."""
    values = by_round.values()
    return Figure(statistics.median(values), min(values), max(values), by_round)


Case = tuple[str, str, int | None]
"""A scenario, a subject, and the value of what the scenario goes over."""


class Medians:
    """Every figure of a run's records, by scenario, subject and value."""

    def __init__(self, runs: Iterable[Run]) -> None:
        seen: defaultdict[Case, dict[str, dict[int, float]]] = defaultdict(dict)
        self._facts: dict[Case, dict[str, str]] = {}
        for run in runs:
            for name, value in run.figures.items():
                seen[case(run)].setdefault(name, {})[run.round] = value
            if run.facts:
                self._facts.setdefault(case(run), run.facts)
        self._figures = {
            one: {name: middle(values) for name, values in names.items()}
            for one, names in seen.items()
        }
        self._cases = sorted(self._figures, key=place)

    def find(
        self, scenario: str, subject: str, name: str, value: int | None = None
    ) -> Figure | None:
        """A figure, or None where it was not measured."""
        return self._figures.get((scenario, subject, value), {}).get(name)

    def get(self, scenario: str, subject: str, name: str, value: int | None = None) -> Figure:
        """A figure. Raises NotMeasured."""
        found = self.find(scenario, subject, name, value)
        if found is None:
            at = "" if value is None else f" at {value:,}"
            raise NotMeasured(f"{scenario}{at} of {subject}")
        return found

    def subjects(self, scenario: str) -> list[str]:
        """Who was measured, in the plan's order."""
        return list(dict.fromkeys(who for name, who, _ in self.cases() if name == scenario))

    def values(self, scenario: str, subject: str | None = None) -> list[int]:
        """The values at which someone was measured, from the least."""
        found = {
            value
            for name, who, value in self._figures
            if name == scenario and value is not None and subject in (None, who)
        }
        return sorted(found)

    def cases(self) -> list[Case]:
        """All that was measured, in the plan's order."""
        return self._cases

    def durable(self, scenario: str, subject: str) -> str:
        """How the subject's database syncs, as `WAL/FULL`; "" where it did not say."""
        for (name, who, _), facts in self._facts.items():
            if (name, who) == (scenario, subject) and "journal_mode" in facts:
                return f"{facts['journal_mode'].upper()}/{facts.get('synchronous', '?').upper()}"
        return ""


def place(one: Case) -> tuple[int, int, int]:
    """Where a case stands in the plan; what the plan no longer has comes last."""
    scenario, subject, value = one
    subjects = SUBJECTS.get(scenario, ())
    return (
        list(SUBJECTS).index(scenario) if scenario in SUBJECTS else len(SUBJECTS),
        subjects.index(subject) if subject in subjects else len(subjects),
        value or 0,
    )


def case(run: Run) -> Case:
    """Which measurement a record is a round of."""
    over = OVER.get(run.scenario, "")
    return (run.scenario, run.subject, int(run.parameters[over]) if over else None)
