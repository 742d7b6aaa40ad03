"""What stands where in a context, and since which version.

The one rule: rows are only closed and added, never moved or dropped, so that the context at any
older version stays readable. A row that would begin and end at one version never was.

A fork inherits the places below its base. Its own rows lie over them; where it has emptied an
inherited place, a tombstone (a row without an item) says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, assert_never

from ..index import Change, Close, Put, Shift
from ..ports import Placed

INHERITED = 0
"""The `since` of a place that an ancestor's row fills; versions of one's own begin at 1."""

ContextChange = Put | Close | Shift


class Row(NamedTuple):
    """A row of the context: what stands at `ordinal` at versions from `since` to before `until`."""

    ordinal: int
    since: int
    until: int | None
    holder: str | None
    item_version: int | None
    key: str | None
    item_id: str | None
    call_id: str | None
    response: str | None

    def holds(self, version: int) -> bool:
        """Whether the row is what stands there at a version."""
        return self.since <= version and (self.until is None or version < self.until)

    def placed(self) -> Placed | None:
        """The place for callers, or None for a tombstone."""
        if self.holder is None or self.item_version is None or self.key is None:
            return None
        return Placed(
            ordinal=self.ordinal,
            holder=self.holder,
            item_version=self.item_version,
            key=self.key,
            item_id=self.item_id,
            call_id=self.call_id,
            response=self.response,
        )


def inherited(placed: Placed) -> Row:
    """An ancestor's place, as a fork has it before its first change there."""
    return Row(
        placed.ordinal,
        INHERITED,
        None,
        placed.holder,
        placed.item_version,
        placed.key,
        placed.item_id,
        placed.call_id,
        placed.response,
    )


def own(put: Put, conversation: str) -> Row:
    """The row of an item that a conversation itself puts somewhere."""
    return Row(
        put.ordinal,
        put.version,
        None,
        conversation,
        put.item_version,
        put.key,
        put.item_id,
        put.call_id,
        put.response,
    )


def _tombstone(ordinal: int, version: int) -> Row:
    return Row(ordinal, version, None, None, None, None, None, None, None)


class Reach(NamedTuple):
    """Which standing rows must be known to apply changes: from `low` on, or only at `points`."""

    low: int | None
    points: frozenset[int]


def reach(changes: Sequence[ContextChange], end: int) -> Reach:
    """What changes touch of a context whose next ordinal is `end`."""
    touched = frozenset(one.ordinal for one in changes if one.ordinal < end)
    if any(isinstance(one, Shift) and one.ordinal < end for one in changes):
        return Reach(min(touched), frozenset())
    return Reach(None, touched)


def of_context(changes: Iterable[Change]) -> list[ContextChange]:
    """The changes that concern the context."""
    return [one for one in changes if isinstance(one, (Put, Close, Shift))]


class Editor:
    """Applies changes to the rows that stand, and collects what is to be written.

    `end` is the next ordinal, and `standing` needs to hold what `reach` names, inherited places
    included. `closed` then says which stored rows end, as (ordinal, since) -> until, and `added`
    holds the new ones. Every ordinal from `base` to before `end` has a row from the version on at
    which the end went beyond it, a tombstone where need be: an older end is found by bisection.
    """

    def __init__(
        self, conversation: str, base: int, end: int, standing: Iterable[Row] = ()
    ) -> None:
        self._conversation = conversation
        self._base = base
        self._end = end
        self._standing = {row.ordinal: row for row in standing}
        self.closed: dict[tuple[int, int], int] = {}
        self.added: dict[tuple[int, int], Row] = {}

    def apply(self, changes: Iterable[ContextChange]) -> None:
        """Apply changes in their order."""
        for change in changes:
            match change:
                case Put():
                    self._put(change)
                case Close():
                    self._leave(change.ordinal, change.version)
                    self._bury(change.ordinal, change.version)
                case Shift():
                    self._shift(change)
                case _:
                    assert_never(change)

    def inherited(self, base: int) -> list[Row]:
        """What stands below an ordinal, as a fork has it before its first change there."""
        below = (row.placed() for row in self._standing.values() if row.ordinal < base)
        return [inherited(placed) for placed in below if placed is not None]

    def _put(self, put: Put) -> None:
        self._leave(put.ordinal, put.version)
        self._end = max(self._end, put.ordinal + 1)
        self._enter(own(put, self._conversation))

    def _shift(self, shift: Shift) -> None:
        version = shift.version
        moving = [row for row in self._standing.values() if row.ordinal >= shift.ordinal]
        for row in moving:
            self._leave(row.ordinal, version)
        for ordinal in range(shift.ordinal, self._base):
            self._bury(ordinal, version)
        for ordinal in range(self._end, self._end + shift.by):
            self._enter(_tombstone(ordinal, version))
        self._end += shift.by
        for row in moving:
            if row.item_version is not None:
                place = row.ordinal + shift.by
                self._leave(place, version)
                self._enter(row._replace(ordinal=place, since=version, until=None))

    def _bury(self, ordinal: int, version: int) -> None:
        """Where an ancestor's item would show through, say that nothing stands there."""
        if ordinal < self._base:
            self._enter(_tombstone(ordinal, version))

    def _enter(self, row: Row) -> None:
        self._standing[row.ordinal] = row
        self.added[row.ordinal, row.since] = row

    def _leave(self, ordinal: int, version: int) -> None:
        row = self._standing.pop(ordinal, None)
        if row is None or row.since == INHERITED:
            return
        place = (ordinal, row.since)
        if place not in self.added:
            self.closed[place] = version
        elif row.since == version:
            del self.added[place]
        else:
            self.added[place] = row._replace(until=version)
