"""Reads of the items of a context: what stands where, and its body, in one query a page.

The one rule: what comes is what `context` and `pick` together give; where rows are not as plain
as most are, they are asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..events import Event
from ..item import Item, by_holder, gathered
from ..ports import Placed
from . import statements
from .bodies import add_items
from .context_reads import ContextReads, Lineage, place_of
from .log_reads import FOREVER, Rows, Steps
from .shapes import rising

LONG = 1000
"""How many items a page holds: at most 16 MiB, and mostly less than 1."""


class ItemReads(ContextReads):
    """The items of contexts."""

    def items(
        self,
        conversation: str,
        start: int,
        stop: int | None,
        version: int | None,
        last: int | None,
    ) -> Steps[list[Item]]:
        """The items that stand in a range at a version, or the last of them."""
        if last is not None:
            return (yield from self._last_items(conversation, start, stop, version, last))
        line = yield from self.lineage(conversation, version)
        if not line:
            return []
        end = line[0].stop if stop is None else min(stop, line[0].stop)
        found: dict[int, Item] = {}
        for one in reversed(line):
            yield from self._items_of(one, start, min(end, one.stop), found)
        return [found[ordinal] for ordinal in sorted(found)]

    def _items_of(self, one: Lineage, start: int, stop: int, found: dict[int, Item]) -> Steps[None]:
        """What one of a lineage holds itself, page by page, over what its ancestors hold."""
        while start < stop:
            rows = yield (
                statements.ITEMS,
                self.of(one.conversation, start=start, stop=stop, version=one.version, limit=LONG),
            )
            rising((row[0] for row in rows), start - 1)
            end = stop if len(rows) < LONG else rows[-1][0] + 1
            if odd := add_items(rows, found):
                yield from self._add_slowly(one, odd[0], odd[-1] + 1, found)
            start = end

    def _add_slowly(
        self, one: Lineage, start: int, stop: int, found: dict[int, Item]
    ) -> Steps[None]:
        rows = yield (
            statements.PLACES,
            self.of(one.conversation, start=start, stop=stop, version=one.version),
        )
        places: list[Placed] = []
        for row in map(place_of, rows):
            found.pop(row.ordinal, None)
            if (placed := row.placed()) is not None:
                places.append(placed)
        found.update((item.ordinal, item) for item in (yield from self.loaded(places)))

    def _last_items(
        self, conversation: str, start: int, stop: int | None, version: int | None, last: int
    ) -> Steps[list[Item]]:
        """The last items, page by page from behind; most of the time there is one page."""
        found: dict[int, Item] = {}
        end = FOREVER if stop is None else stop
        at = FOREVER if version is None else version
        while len(found) < last:
            limit = min(last - len(found), LONG)
            where = self.of(conversation, start=start, stop=end, version=at, limit=limit)
            rows = yield statements.LAST_ITEMS, where
            if rows and not _no_fork(rows):
                return (yield from self._last_slowly(conversation, start, stop, version, last))
            if not rows or rows[0][2] is None:
                break
            if add_items([row[2:] for row in rows], found):
                return (yield from self._last_slowly(conversation, start, stop, version, last))
            rising((-row[2] for row in rows), -end)
            if len(rows) < limit:
                break
            at, end = min(at, rows[0][0]), rows[-1][2]
        return [found[ordinal] for ordinal in sorted(found)]

    def _last_slowly(
        self, conversation: str, start: int, stop: int | None, version: int | None, last: int
    ) -> Steps[list[Item]]:
        places = yield from self.context(conversation, start, stop, version, last)
        return (yield from self.loaded(places))

    def loaded(self, places: Sequence[Placed]) -> Steps[list[Item]]:
        """The items at places, in order; raises StoreCorrupt where one is missing."""
        found: dict[tuple[str, int], Event] = {}
        for holder, versions in by_holder(places).items():
            for one in (yield from self.pick(holder, versions)):
                found[holder, one.version] = one.event
        return gathered(places, found)


def _no_fork(rows: Rows) -> bool:
    """Whether all that stands there is the conversation's own; where in doubt, it is not."""
    version, base = rows[0][:2]
    return type(version) is int and base == 0
