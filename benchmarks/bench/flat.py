"""Whether something that was measured again and again stays as it is.

The one rule: pure, and each verdict says by what it was reached. The first quarter of a run is its
warm-up, and counts for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import linear_regression, median
from typing import Literal

HOUR = 3600.0

Points = Sequence[tuple[float, float]]
"""Seconds since the beginning, and what was measured then."""

Word = Literal["flat", "grows", "unclear", "shown"]
"""`unclear` is what jumps about so much, or was looked at so briefly, that nobody can say; what
rightly grows is `shown` and not judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is said of a series, what was found, and where the bound lies."""

    word: Word
    found: str
    bound: str


@dataclass(frozen=True, slots=True)
class Rise:
    """A line by least squares: where it begins, its rise in an hour, and how sure that is.

    `error` is the standard error of the rise.
    """

    begins: float
    an_hour: float
    error: float


def rise(points: Points) -> Rise | None:
    """The line through the last three quarters; None where there is too little for one."""
    kept = behind(points, 0.25)
    if len(kept) < 3:
        return None
    times, values = zip(*kept, strict=True)
    line = linear_regression(times, values)
    off = sum((value - line.intercept - line.slope * time) ** 2 for time, value in kept)
    middle = sum(times) / len(times)
    spread = sum((time - middle) ** 2 for time in times)
    error = math.sqrt(off / (len(kept) - 2) / spread)
    return Rise(line.intercept + line.slope * times[0], line.slope * HOUR, error * HOUR)


def behind(points: Points, share: float, until: float = 1.0) -> list[tuple[float, float]]:
    """The points in a part of the time, given as shares of all of it."""
    end = points[-1][0] if points else 0.0
    return [(when, value) for when, value in points if share * end < when <= until * end]


def rises(points: Points, *, share: float = 0.0, most: float = 0.0, unit: str = "") -> Verdict:
    """Whether the line through the last three quarters rises, in an hour, by more than it may.

    It may by `share` of where it begins, and by `most`. Twice its standard error decides whether
    it is clear on which side of that it lies.
    """
    bound = " and ".join(
        [f"{share:+.0%}"] * bool(share) + [f"{most:+g} {unit}".rstrip()] * (not share or bool(most))
    )
    bound = f"at most {bound} an hour"
    line = rise(points)
    if line is None:
        return Verdict(word="unclear", found="too short", bound=bound)
    may = share * line.begins + most
    found = f"{line.an_hour:+.2f} ± {2 * line.error:.2f} {unit}".rstrip()
    if line.begins and share:
        found += f" ({line.an_hour / line.begins:+.1%})"
    if line.an_hour + 2 * line.error <= may:
        return Verdict(word="flat", found=found, bound=bound)
    clear = line.an_hour - 2 * line.error > may
    return Verdict(word="grows" if clear else "unclear", found=found, bound=bound)


def slower(points: Points, most: float) -> Verdict:
    """Whether the median of the last quarter is more than `most` times that of the second."""
    bound = f"last quarter / second at most {most:g}"
    second, last = behind(points, 0.25, 0.5), behind(points, 0.75)
    if not second or not last:
        return Verdict(word="unclear", found="too short", bound=bound)
    before, after = (median(value for _, value in part) for part in (second, last))
    found = f"{after:.3g} / {before:.3g} = {after / before:.2f}"
    return Verdict(word="flat" if after <= most * before else "grows", found=found, bound=bound)


def below(points: Points, most: float, unit: str) -> Verdict:
    """Whether it was never more than so much, the warm-up included."""
    highest = max((value for _, value in points), default=None)
    bound = f"never above {most:g} {unit}"
    if highest is None:
        return Verdict(word="unclear", found="too short", bound=bound)
    word: Word = "flat" if highest <= most else "grows"
    return Verdict(word=word, found=f"{highest:.2f} {unit}", bound=bound)


def level(points: Points) -> Verdict:
    """Whether it is the same at every look behind the warm-up, or less: for what is exact."""
    bound = "not one more"
    kept = behind(points, 0.25)
    if len(kept) < 2:
        return Verdict(word="unclear", found="too short", bound=bound)
    first, last = kept[0][1], kept[-1][1]
    word: Word = "flat" if last <= first else "grows"
    return Verdict(word=word, found=f"{first:g}, at last {last:g}", bound=bound)


def shown(points: Points, unit: str) -> Verdict:
    """What rightly grows."""
    found = f"{points[0][1]:.3g} to {points[-1][1]:.3g} {unit}" if points else "nothing"
    return Verdict(word="shown", found=found, bound="grows with the turns, rightly")


def per_turn(total: Points, turns: Points, parts: int = 12) -> list[tuple[float, float]]:
    """What each turn added to a total, in so many parts of the time."""
    end = total[-1][0] if total else 0.0
    edges = [_at_or_before(total, turns, end * part / parts) for part in range(parts + 1)]
    found: list[tuple[float, float]] = []
    for before, after in pairwise(edges):
        if after[2] > before[2]:
            found.append((after[0], (after[1] - before[1]) / (after[2] - before[2])))
    return found


def _at_or_before(total: Points, turns: Points, when: float) -> tuple[float, float, float]:
    """The last look at both that was not later."""
    found = (0.0, 0.0, 0.0)
    for (seconds, size), (_, count) in zip(total, turns, strict=True):
        if seconds <= when:
            found = (seconds, size, count)
    return found
