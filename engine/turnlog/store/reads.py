"""Every read of the SQL store, as a generator of queries: what to ask is here, how is elsewhere.

The one rule: nothing here does I/O. A generator yields a statement with its parameters and is
sent the rows; readers run it on aiosqlite, the writer inside its transaction. Versions are pinned
before rows are read, so that several queries see one state: the log only grows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from ..errors import StoreCorrupt
from ..ports import CallRow, ConversationRow, Placed, TurnRow
from ..record import Recorded, decode
from ..state import State, branch, evolve, start
from . import heads, statements
from .packing import references, unpack
from .partition import partition_of
from .places import Row
from .rows import call_row, conversation_row, turn_row
from .statements import MANY, Parameters, Value
from .wanted import Wanted

T = TypeVar("T")
Rows: TypeAlias = Sequence[tuple[Any, ...]]
Query: TypeAlias = tuple[str, Parameters]
Steps: TypeAlias = Generator[Query, Rows, T]

PAGE = 500
FOREVER = 2**62
"""Above every version, ordinal and position."""


class Lineage(NamedTuple):
    """A conversation among its ancestors: read at `version`, below the ordinal `stop`."""

    conversation: str
    version: int
    stop: int


class Reads:
    """The reads of a database with so many partitions."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions

    def of(self, conversation: str, **more: Value) -> dict[str, Value]:
        """The parameters that name a conversation's rows, and more."""
        partition = partition_of(conversation, self.partitions)
        return {"partition": partition, "conversation": conversation, **more}

    def of_head(self, conversation: str) -> dict[str, Value]:
        """The parameters that name a conversation's head."""
        return {"partition": partition_of(conversation, self.partitions), "id": conversation}

    # -- events ----------------------------------------------------------------------------

    def events(
        self, conversation: str, after: int, until: int | None, limit: int
    ) -> Steps[list[Recorded]]:
        """Events in order."""
        found = yield (
            statements.EVENTS,
            self.of(
                conversation,
                after=after,
                until=FOREVER if until is None else until,
                limit=limit,
            ),
        )
        return (yield from self.decoded(found))

    def pick(self, conversation: str, versions: Sequence[int]) -> Steps[list[Recorded]]:
        """The events at these versions, in the order of the versions."""
        found: list[tuple[Any, ...]] = []
        distinct = list(dict.fromkeys(versions))
        for place in range(0, len(distinct), MANY):
            some = statements.many("version", distinct[place : place + MANY])
            found += yield statements.PICK, self.of(conversation, **some)
        by_version = {one.version: one for one in (yield from self.decoded(found))}
        return [by_version[one] for one in versions if one in by_version]

    def follow(
        self, positions: Mapping[int, int], limit: int
    ) -> Steps[list[tuple[int, int, Recorded]]]:
        """Events of all partitions above their positions."""
        followed: list[tuple[int, int, Recorded]] = []
        for partition in range(self.partitions):
            left = limit - len(followed)
            if left <= 0:
                break
            after = positions.get(partition, 0)
            found = yield (
                statements.FOLLOW,
                {"partition": partition, "after": after, "limit": left},
            )
            events = yield from self.decoded([row[1:] for row in found])
            followed += ((partition, row[0], one) for row, one in zip(found, events, strict=True))
        return followed

    def decoded(self, found: Rows) -> Steps[list[Recorded]]:
        """Events from their rows; large bodies are put together again."""
        needed: dict[str, set[bytes]] = {}
        for row in found:
            body: bytes | None = row[10]
            if body is not None and body.startswith(b"\0"):
                needed.setdefault(row[0], set()).update(references(body))
        blobs: dict[str, dict[bytes, bytes]] = {}
        for conversation, digests in needed.items():
            blobs[conversation] = yield from self._blobs(conversation, sorted(digests))
        return [_event(row, blobs.get(row[0], {})) for row in found]

    def _blobs(self, conversation: str, digests: Sequence[bytes]) -> Steps[dict[bytes, bytes]]:
        blobs: dict[bytes, bytes] = {}
        for place in range(0, len(digests), MANY):
            some = statements.many("digest", digests[place : place + MANY])
            rows = yield statements.BLOBS, self.of(conversation, **some)
            blobs.update((row[0], row[1]) for row in rows)
        return blobs

    # -- states ----------------------------------------------------------------------------

    def head(self, conversation: str) -> Steps[tuple[State, int, str | None] | None]:
        """State, epoch and owner."""
        found = yield statements.HEAD, self.of_head(conversation)
        if not found:
            return None
        version, head, format, epoch, owner = found[0]
        state = heads.unpack(head, format, version=version)
        if state is None:
            state = yield from self.fold(conversation, version)
        return state, epoch, owner

    def fold(self, conversation: str, until: int) -> Steps[State]:
        """The state at a version, from the log alone.

        Raises StoreCorrupt where an event of it is missing.
        """
        state, after = start(conversation), 0
        while after < until:
            page = yield from self.events(conversation, after, until, PAGE)
            if not page:
                raise StoreCorrupt(f"event {after + 1} of {conversation!r} is missing")
            if not after:
                state = yield from self.beginning(page[0])
            for one in page:
                state = evolve(state, one)
            after = page[-1].version
        return state

    def beginning(self, first: Recorded) -> Steps[State]:
        """The state before the first event: empty, or that of a fork (its ancestors folded)."""
        fork = getattr(first.event, "fork", None)
        if fork is None:
            return start(first.conversation)
        source = yield from self.fold(fork.conversation, fork.version)
        return branch(source, first.conversation)

    # -- the context -----------------------------------------------------------------------

    def lineage(self, conversation: str, version: int | None) -> Steps[list[Lineage]]:
        """A conversation and its ancestors, as far as they are seen at a version."""
        rows = yield statements.LINEAGE, self.of_head(conversation)
        if not rows:
            return []
        last, stop, base, source, at = rows[0]
        if version is not None and version < last:
            stop = yield from self._end(conversation, base, stop, version)
            last = version
        line = [Lineage(conversation, last, stop)]
        while source is not None and base:
            line.append(Lineage(source, at, base))
            rows = yield statements.LINEAGE, self.of_head(source)
            _, _, inherited, source, at = rows[0]
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
            rows.update((row[0], Row(*row)) for row in found)
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
                known.update((row[0], Row(*row)) for row in rows)
                if len(rows) == limit:
                    low = max(low, rows[-1][0])
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
            for row in (Row(*row) for row in rows):
                if row.ordinal >= one.stop:
                    continue
                above = yield from self.standing(line[:depth], row.ordinal, row.ordinal + 1)
                if not above:
                    found += _placed([row])
        return sorted(found, key=lambda placed: placed.ordinal)

    # -- lists -----------------------------------------------------------------------------

    def turn(self, conversation: str, by: str, value: str) -> Steps[TurnRow | None]:
        """The latest turn with this id or key."""
        where = self.of(conversation, limit=1, **{by: value})
        found = yield from self._turns((statements.TURN_BY[by], where))
        return found[0] if found else None

    def turns(self, conversation: str, before: int | None, limit: int) -> Steps[list[TurnRow]]:
        """Turns that began before a version, the latest first."""
        where = self.of(conversation, before=FOREVER if before is None else before, limit=limit)
        return (yield from self._turns((statements.TURNS, where)))

    def _turns(self, query: Query) -> Steps[list[TurnRow]]:
        found = yield query
        turns: list[TurnRow] = []
        for row in found:
            conversation, ended, packed, format = row[0], row[6], row[8], row[9]
            state = None
            if ended is not None:
                state = heads.unpack(packed, format, version=ended)
                if state is None:
                    state = yield from self.fold(conversation, ended)
            turns.append(turn_row(row, state))
        return turns

    def conversations(
        self, after: str, limit: int, wanted: Wanted, orphaned: Callable[[str | None], bool]
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
        orphaned: Callable[[str | None], bool],
    ) -> Steps[list[ConversationRow]]:
        found: list[ConversationRow] = []
        page = limit if not wanted.metadata else max(limit, PAGE)
        while len(found) < limit:
            rows = yield (
                statements.LIST,
                {
                    "partition": partition,
                    "after": after,
                    "limit": page,
                    "status": wanted.status,
                    "since": wanted.since,
                    "until": wanted.until,
                },
            )
            listed = (conversation_row(row, orphaned(row[-1])) for row in rows)
            found += (one for one in listed if wanted.has_metadata(one.metadata))
            if len(rows) < page:
                break
            after = rows[-1][0]
        return found[:limit]

    def leased(self) -> Steps[list[tuple[str, str]]]:
        """Conversations whose lease is held, with its owner."""
        found: list[tuple[str, str]] = []
        for partition in range(self.partitions):
            rows = yield statements.LEASED, {"partition": partition}
            found += ((row[0], row[1]) for row in rows)
        return sorted(found)

    def pending(self, after: tuple[str, str], limit: int) -> Steps[list[CallRow]]:
        """Open calls of all partitions, in the order of conversation and call."""
        found: list[tuple[Any, ...]] = []
        for partition in range(self.partitions):
            found += yield (
                statements.PENDING,
                {
                    "partition": partition,
                    "conversation": after[0],
                    "call": after[1],
                    "limit": limit,
                },
            )
        return [call_row(row) for row in sorted(found, key=lambda row: row[:2])[:limit]]


def _placed(rows: Iterable[Row]) -> list[Placed]:
    return [placed for row in rows if (placed := row.placed()) is not None]


def _event(row: tuple[Any, ...], blobs: Mapping[bytes, bytes]) -> Recorded:
    conversation, version, id, tag, schema, time, actor, turn, epoch, salt, stored, hash = row
    if stored is None or salt is None:
        raise StoreCorrupt(f"event {version} of {conversation!r} was erased")
    body = unpack(stored, blobs)
    return Recorded(
        conversation=conversation,
        version=version,
        id=id,
        tag=tag,
        schema=schema,
        time=time,
        actor=actor,
        turn=turn,
        epoch=epoch,
        salt=salt,
        body=body,
        hash=hash,
        event=decode(tag, schema, body),
    )
