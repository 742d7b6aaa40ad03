"""Reads of a context: what stands where at a version, through all ancestors of a fork.

The one rule: a range is read as a range, never more, however long the conversation and its
ancestors are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..errors import StoreCorrupt
from ..ports import Placed
from . import schema, statements
from .log_reads import FOREVER, LogReads, Steps
from .places import Row
from .shapes import Shape
from .statements import LINE_COLUMNS, MANY, ROW_COLUMNS

_LINE = Shape(schema.conversations, LINE_COLUMNS)
_PLACE = Shape(schema.context, ROW_COLUMNS)


def place_of(row: tuple[Any, ...]) -> Row:
    """A place from its row; raises StoreCorrupt."""
    return Row(*_PLACE.fit(row))


class Lineage(NamedTuple):
    """A conversation among its ancestors: read at `version`, below the ordinal `stop`."""

    conversation: str
    version: int
    stop: int


class ContextReads(LogReads):
    """The contexts of a database."""

    def lineage(self, conversation: str, version: int | None) -> Steps[list[Lineage]]:
        """A conversation and its ancestors, as far as they are seen at a version."""
        rows = yield statements.LINEAGE, self.of_head(conversation)
        if not rows:
            return []
        last, stop, base, source, at = _LINE.fit(rows[0])
        if version is not None and version < last:
            stop = yield from self._end(conversation, base, stop, version)
            last = version
        line = [Lineage(conversation, last, stop)]
        while source is not None and base:
            if at is None or any(one.conversation == source for one in line):
                raise StoreCorrupt(
                    f"{source!r} is said to be forked from itself: run `turnlog verify`"
                )
            line.append(Lineage(source, at, base))
            rows = yield statements.LINEAGE, self.of_head(source)
            if not rows:
                raise StoreCorrupt(f"the conversation {source!r}, which has forks, is missing")
            _, _, inherited, source, at = _LINE.fit(rows[0])
            base = min(base, inherited)
        return line

    def _end(self, conversation: str, low: int, high: int, version: int) -> Steps[int]:
        """The next ordinal at an older version: each has a row since the end went beyond it."""
        while low < high:
            middle = (low + high) // 2
            rows = yield statements.APPEARED, self.of(conversation, ordinal=middle, limit=1)
            if rows and rows[0][0] <= version:
                low = middle + 1
            else:
                high = middle
        return low

    def standing(self, line: Sequence[Lineage], start: int, stop: int) -> Steps[list[Row]]:
        """What stands in a range, tombstones included; the nearest of a lineage wins."""
        rows: dict[int, Row] = {}
        for one in reversed(line):
            found = yield (
                statements.PLACES,
                self.of(
                    one.conversation, start=start, stop=min(stop, one.stop), version=one.version
                ),
            )
            rows.update((row[0], place_of(row)) for row in found)
        return [rows[ordinal] for ordinal in sorted(rows)]

    def context(
        self,
        conversation: str,
        start: int,
        stop: int | None,
        version: int | None,
        last: int | None,
    ) -> Steps[list[Placed]]:
        """What stands in a range at a version, or the last of it."""
        line = yield from self.lineage(conversation, version)
        if not line:
            return []
        end = line[0].stop if stop is None else min(stop, line[0].stop)
        if last is not None:
            return (yield from self._last(line, start, end, last))
        rows = yield from self.standing(line, start, end)
        return _placed(rows)

    def _last(
        self, line: Sequence[Lineage], start: int, end: int, last: int
    ) -> Steps[list[Placed]]:
        """The last places before `end`: pages from behind, merged as far as all is known."""
        found: list[Placed] = []
        while len(found) < last and start < end:
            low, limit, known = start, last - len(found), dict[int, Row]()
            for one in reversed(line):
                rows = yield (
                    statements.PLACES_BACK,
                    self.of(
                        one.conversation,
                        start=start,
                        stop=min(end, one.stop),
                        version=one.version,
                        limit=limit,
                    ),
                )
                known.update((row[0], place_of(row)) for row in rows)
                if len(rows) == limit:
                    low = max(low, rows[-1][0])
            if not low < end:
                raise StoreCorrupt("the places of a context do not rise: an index is damaged")
            found = [*_placed(known[one] for one in sorted(known) if one >= low), *found]
            end = low
        return found[-last:] if last > 0 else []

    def find(self, conversation: str, by: str, value: str) -> Steps[list[Placed]]:
        """Where an item stands now, by its key, item id or call id."""
        line = yield from self.lineage(conversation, None)
        found: list[Placed] = []
        for depth, one in enumerate(line):
            rows = yield (
                statements.FIND[by],
                self.of(one.conversation, version=one.version, **{by: value}),
            )
            for row in map(place_of, rows):
                if row.ordinal >= one.stop:
                    continue
                above = yield from self.standing(line[:depth], row.ordinal, row.ordinal + 1)
                if not above:
                    found += _placed([row])
        return sorted(found, key=lambda placed: placed.ordinal)

    def present(self, conversation: str, ids: Sequence[str], base: int) -> Steps[str | None]:
        """One of these ids of items that stands there now; a fork inherits what is below `base`."""
        own = [Lineage(conversation, FOREVER, FOREVER)]
        for one in (yield from self.lineage(conversation, None)) if base else own:
            for place in range(0, len(ids), MANY):
                some = statements.many("item_id", ids[place : place + MANY])
                where = self.of(one.conversation, version=one.version, **some)
                for (id,) in (yield statements.PRESENT, where):
                    # What an ancestor has may be gone from the fork.
                    if not base or (yield from self.find(conversation, "item_id", id)):
                        return str(id)
        return None


def _placed(rows: Iterable[Row]) -> list[Placed]:
    return [placed for row in rows if (placed := row.placed()) is not None]
