"""Reads of the log, as generators of queries: what to ask is here, how is elsewhere.

The one rule: nothing here does I/O. A generator yields a statement with its parameters and is
sent the rows; readers run it on aiosqlite, the writer inside its transaction. Versions are pinned
before rows are read, so that several queries see one state: the log only grows.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from ..errors import StoreCorrupt, StoreError
from ..events import Fork
from ..record import Recorded, decode
from ..state import State, branch, evolve, start
from . import heads, schema, statements
from .packing import references, unpack
from .partition import partition_of
from .shapes import Shape, rising
from .statements import EVENT_COLUMNS, HEAD_STATE, MANY, Parameters, Value

T = TypeVar("T")
Rows: TypeAlias = Sequence[tuple[Any, ...]]
Query: TypeAlias = tuple[str, Parameters]
Steps: TypeAlias = Generator[Query, Rows, T]

_POSITION = Shape(schema.events, ("position",))

PAGE = 500
FOREVER = 2**62
"""Above every version, ordinal and position."""


def last_position(partition: int) -> Steps[int]:
    """The last position that a partition has, or 0; raises StoreCorrupt where it is damaged."""
    found = yield statements.LAST_POSITION, {"partition": partition}
    return _position(found[0]) if found else 0


def _position(row: tuple[Any, ...]) -> int:
    position: int = _POSITION.fit(row)[0]
    if not 0 < position < FOREVER:
        raise StoreCorrupt(
            f"the last event of the log is at position {position}, which is none:"
            " run `turnlog verify`, and restore a backup"
        )
    return position


class LogReads:
    """The log of a database with so many partitions, and the states that follow from it."""

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
        rising((row[1] for row in found), after)
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
            rising((row[0] for row in found), after)
            events = yield from self.decoded([row[1:] for row in found])
            followed += ((partition, row[0], one) for row, one in zip(found, events, strict=True))
        return followed

    def moved(self, positions: Mapping[int, int]) -> Steps[tuple[dict[int, int], frozenset[str]]]:
        """Where each partition ends, and whose events lie between there and these positions."""
        ends: dict[int, int] = {}
        moved: set[str] = set()
        for partition, last in (yield statements.LAST_POSITIONS, {"partitions": self.partitions}):
            end = ends[partition] = 0 if last is None else _position((last,))
            after = positions.get(partition, end)
            if after < end:
                where = {"partition": partition, "after": after, "until": end}
                moved.update(row[0] for row in (yield statements.MOVED, where))
        return ends, frozenset(moved)

    def decoded(self, found: Rows) -> Steps[list[Recorded]]:
        """Events from their rows; large bodies are put together again."""
        needed: dict[str, set[bytes]] = {}
        for row in found:
            body: object = row[10]
            if isinstance(body, bytes) and body.startswith(b"\0"):
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
            blobs.update((row[0], row[1]) for row in rows if isinstance(row[1], bytes))
        return blobs

    # -- states ----------------------------------------------------------------------------

    def head(self, conversation: str) -> Steps[tuple[State, int, str | None, int | None] | None]:
        """State, epoch, owner and its beat."""
        found = yield statements.HEAD, self.of_head(conversation)
        if not found:
            return None
        beat: int | None
        *row, beat = found[0]
        version, head, format, epoch, owner = _HEAD.fit(row)
        state = heads.unpack(head, format, version=version)
        if state is None:
            state = yield from self.fold(conversation, version)
        return state, epoch, owner, beat

    def fold(self, conversation: str, until: int) -> Steps[State]:
        """The state at a version, from the log alone: its own, and those it was forked from.

        Raises StoreCorrupt where an event of it is missing.
        """
        line = yield from self.ancestry(conversation, until)
        state: State | None = None
        for one, version in reversed(line):
            begun = start(one) if state is None else branch(state, one)
            state = yield from self._folded(begun, version)
        assert state is not None
        return state

    def _folded(self, state: State, until: int) -> Steps[State]:
        after = 0
        while after < until:
            page = yield from self.events(state.id, after, until, PAGE)
            if not page:
                raise StoreCorrupt(f"event {after + 1} of {state.id!r} is missing")
            for one in page:
                state = evolve(state, one)
            after = page[-1].version
        return state

    def ancestry(self, conversation: str, until: int) -> Steps[list[tuple[str, int]]]:
        """A conversation and those it was forked from, each with the version up to which it counts.

        It ends with the first that cannot be read; whoever reads that one is told. Raises
        StoreCorrupt where one is forked from itself.
        """
        line = {conversation: until}
        fork = yield from self._forked(conversation)
        while fork is not None:
            if fork.conversation in line:
                raise StoreCorrupt(f"{fork.conversation!r} is said to be forked from itself")
            line[fork.conversation] = fork.version
            fork = yield from self._forked(fork.conversation)
        return list(line.items())

    def _forked(self, conversation: str) -> Steps[Fork | None]:
        try:
            first = yield from self.events(conversation, 0, 1, 1)
        except StoreError:
            return None
        return getattr(first[0].event, "fork", None) if first else None


_HEAD = Shape(schema.conversations, HEAD_STATE)
_EVENT = Shape(schema.events, EVENT_COLUMNS)


def _event(row: tuple[Any, ...], blobs: Mapping[bytes, bytes]) -> Recorded:
    conversation, version, id, tag, schema, time, actor, turn, epoch, salt, stored, hash = row
    if stored is None or salt is None:
        raise StoreCorrupt(f"event {version} of {conversation!r} was erased")
    _EVENT.fit(row)
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
