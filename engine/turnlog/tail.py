"""The tail of a context: items not yet in a completed request, as runs of versions.

The one rule: the runs are ordered, and no two of them share an ordinal. Ordinals and event versions
mostly follow each other, so a tail of many items is a few runs, and the head stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Items of the tail that follow each other both by ordinal and by event version."""

    ordinal: int
    version: int
    count: int


def put(tail: Sequence[Run], ordinal: int, version: int, count: int = 1) -> tuple[Run, ...]:
    """The tail with one more item; it joins the run before it where both numbers follow.

    `count` are put at its end at once, where nothing stands behind `ordinal`.
    """
    before, after = tuple(tail), tuple[Run, ...]()
    if tail and tail[-1].ordinal >= ordinal:
        before = tuple(run for run in tail if run.ordinal < ordinal)
        after = tuple(run for run in tail if run.ordinal > ordinal)
    if before and (last := before[-1]).ordinal + last.count == ordinal:
        if last.version + last.count == version:
            longer = Run(ordinal=last.ordinal, version=last.version, count=last.count + count)
            return (*before[:-1], longer, *after)
    return (*before, Run(ordinal=ordinal, version=version, count=count), *after)


def split(tail: Sequence[Run], ordinal: int) -> list[Run]:
    """The same tail, with a run beginning at `ordinal` wherever one goes through it."""
    runs: list[Run] = []
    for run in tail:
        head = ordinal - run.ordinal
        if 0 < head < run.count:
            runs.append(replace(run, count=head))
            run = Run(ordinal=ordinal, version=run.version + head, count=run.count - head)
        runs.append(run)
    return runs


def cut(tail: Sequence[Run], ordinal: int) -> tuple[Run, ...]:
    """The tail without the item at `ordinal`."""
    return tuple(run for run in split(split(tail, ordinal), ordinal + 1) if run.ordinal != ordinal)


def shift(tail: Sequence[Run], ordinal: int, by: int) -> tuple[Run, ...]:
    """The tail with everything from `ordinal` on moved."""
    return tuple(
        replace(run, ordinal=run.ordinal + by) if run.ordinal >= ordinal else run
        for run in split(tail, ordinal)
    )
