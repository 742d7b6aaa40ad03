"""Every read of the SQL store: of the log, of contexts and their items, and the lists here.

The one rule: a list is read in the order of its key, a page at a time, partition by partition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from ..ports import CallRow, ConversationRow, TurnRow
from . import heads, statements
from .beats import Leased
from .context_reads import Lineage
from .item_reads import ItemReads
from .log_reads import FOREVER, PAGE, Query, Rows, Steps
from .rows import TURN, call_row, conversation_row, turn_row
from .shapes import rising
from .wanted import Wanted

Orphaned: TypeAlias = Callable[[str | None, int | None], bool]
"""Whether an owner, if there is one, is dead; its beat is given, where its row is there."""

__all__ = [
    "FOREVER",
    "PAGE",
    "Lineage",
    "Orphaned",
    "Query",
    "Reads",
    "Rows",
    "Steps",
]


class Reads(ItemReads):
    """The reads of a database."""

    def turn(self, conversation: str, by: str, value: str) -> Steps[TurnRow | None]:
        """The latest turn with this id or key."""
        where = self.of(conversation, limit=1, **{by: value})
        found = yield from self._turns((statements.TURN_BY[by], where))
        return found[0] if found else None

    def turns(self, conversation: str, before: int | None, limit: int) -> Steps[list[TurnRow]]:
        """Turns that began before a version, the latest first."""
        where = self.of(conversation, before=FOREVER if before is None else before, limit=limit)
        found = yield from self._turns((statements.TURNS, where))
        rising((-one.started for one in found), -FOREVER if before is None else -before)
        return found

    def _turns(self, query: Query) -> Steps[list[TurnRow]]:
        found = yield query
        turns: list[TurnRow] = []
        for row in found:
            conversation, *_, ended, _, packed, format = TURN.fit(row)
            state = None
            if ended is not None:
                state = heads.unpack(packed, format, version=ended)
                if state is None:
                    state = yield from self.fold(conversation, ended)
            turns.append(turn_row(row, state))
        return turns

    def conversations(
        self, after: str, limit: int, wanted: Wanted, orphaned: Orphaned
    ) -> Steps[list[ConversationRow]]:
        """Conversations of all partitions in the order of their ids."""
        found: list[ConversationRow] = []
        for partition in range(self.partitions):
            found += yield from self._listed(partition, after, limit, wanted, orphaned)
        return sorted(found, key=lambda row: row.id)[:limit]

    def _listed(
        self,
        partition: int,
        after: str,
        limit: int,
        wanted: Wanted,
        orphaned: Orphaned,
    ) -> Steps[list[ConversationRow]]:
        found: list[ConversationRow] = []
        query = statements.LIST if wanted.status in (None, "idle") else statements.LIST_ACTIVE
        page = limit if not wanted.metadata else max(limit, PAGE)
        while len(found) < limit:
            rows = yield (
                query,
                {
                    "partition": partition,
                    "after": after,
                    "limit": page,
                    "status": wanted.status,
                    "since": wanted.since,
                    "until": wanted.until,
                },
            )
            rising((row[0] for row in rows), after)
            listed = (conversation_row(row[:-1], orphaned(*row[-2:])) for row in rows)
            found += (one for one in listed if wanted.has_metadata(one.metadata))
            if len(rows) < page:
                break
            after = rows[-1][0]
        return found[:limit]

    def leased(self) -> Steps[Leased]:
        """Conversations whose lease is held, with its owner and what that one's beat is."""
        found: list[tuple[str, str, int | None]] = []
        for partition in range(self.partitions):
            rows = yield statements.LEASED, {"partition": partition}
            found += ((row[0], row[1], row[2]) for row in rows)
        return sorted(found)

    def pending(self, after: tuple[str, str], limit: int) -> Steps[list[CallRow]]:
        """Open calls of all partitions, in the order of conversation and call."""
        found: list[tuple[Any, ...]] = []
        for partition in range(self.partitions):
            rows = yield (
                statements.PENDING,
                {
                    "partition": partition,
                    "conversation": after[0],
                    "call": after[1],
                    "limit": limit,
                },
            )
            rising(((row[0], row[1]) for row in rows), after)
            found += rows
        return [call_row(row) for row in sorted(found, key=lambda row: row[:2])[:limit]]
