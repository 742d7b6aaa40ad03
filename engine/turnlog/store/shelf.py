"""What the memory store keeps, and what one append does to it.

The one rule: everything is under one lock, and an append is decided before anything is changed.
The functions that decide are the SQL store's (`admission`, `places`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from ..errors import InvalidInput, StoreCorrupt
from ..index import CallChanged, Change, TurnClosed, TurnOpened, advance
from ..items import already_present
from ..ports import Append, Appended, CallRow, Finding, Placed, TurnRow
from ..record import Recorded, first_broken
from ..state import State, branch, evolve, start
from .admission import Stored, admit, check, fork_hash, fork_of, is_stored
from .beats import Heart
from .bell import Bell
from .partition import partition_of
from .places import Editor, Row, inherited, of_context, reach
from .rows import beside


@dataclass
class Kept:
    """Everything that is kept of one conversation; `history` holds all rows of each ordinal."""

    state: State
    source: Kept | None = None
    epoch: int = 0
    owner: str | None = None
    events: list[Recorded] = field(default_factory=list[Recorded])
    history: dict[int, list[Row]] = field(default_factory=dict[int, list[Row]])
    turns: dict[str, TurnRow] = field(default_factory=dict[str, TurnRow])
    calls: dict[str, CallRow] = field(default_factory=dict[str, CallRow])

    @property
    def stored(self) -> Stored:
        """What an append is decided by."""
        one = self.state
        return Stored(
            one.version, bytes.fromhex(one.hash), self.epoch, self.owner, one.next, one.base
        )

    def standing(self, ordinal: int, version: int) -> Row | None:
        """The row that stands there at a version, an ancestor's as inherited."""
        for row in reversed(self.history.get(ordinal, ())):
            if row.holds(version):
                return row
        placed = self._above(ordinal)
        return None if placed is None else inherited(placed)

    def placed(self, ordinal: int, version: int) -> Placed | None:
        """What stands there at a version."""
        row = self.standing(ordinal, version)
        return None if row is None else row.placed()

    def _above(self, ordinal: int) -> Placed | None:
        fork = self.state.fork
        if self.source is None or fork is None or ordinal >= self.state.base:
            return None
        return self.source.placed(ordinal, fork.version)

    def check_turns(self, changes: Sequence[Change]) -> None:
        """Raise InvalidInput where a turn would begin twice."""
        for change in changes:
            if isinstance(change, TurnOpened) and change.turn in self.turns:
                raise InvalidInput(f"turn {change.turn!r} of {self.state.id!r} began already")

    def check_absent(self, ids: frozenset[str]) -> None:
        """Raise ItemPresent where an item with one of these ids is in the context."""
        places = range(self.state.next) if ids else ()
        for placed in filter(None, (self.placed(one, self.state.version) for one in places)):
            if placed.item_id in ids:
                raise already_present(str(placed.item_id))

    def change(self, changes: Sequence[Change]) -> None:
        """Apply what an append changes beside the log."""
        self._change_context(changes)
        for change in beside(changes):
            match change:
                case TurnOpened():
                    self.turns[change.turn] = _opened(self.state.id, change)
                case TurnClosed():
                    self._end_turn(change)
                case CallChanged():
                    self._change_call(change)
                case _:
                    assert_never(change)

    def _change_context(self, changes: Sequence[Change]) -> None:
        wanted = of_context(changes)
        low, points = reach(wanted, self.state.next)
        touched = points if low is None else range(low, self.state.next)
        found = (self.standing(ordinal, self.state.version) for ordinal in touched)
        rows = [row for row in found if row is not None]
        editor = Editor(self.state.id, self.state.base, self.state.next, rows)
        editor.apply(wanted)
        for (ordinal, since), until in editor.closed.items():
            history = self.history[ordinal]
            place = next(at for at, row in enumerate(history) if row.since == since)
            history[place] = history[place]._replace(until=until)
        for row in editor.added.values():
            self.history.setdefault(row.ordinal, []).append(row)

    def _end_turn(self, change: TurnClosed) -> None:
        turn = self.turns.get(change.turn)
        if turn is not None:
            self.turns[change.turn] = replace(
                turn, ended=change.version, outcome=change.outcome, state=change.state
            )

    def _change_call(self, change: CallChanged) -> None:
        call = change.call
        self.calls.pop(call.id, None)
        if not call.settled:
            self.calls[call.id] = CallRow(
                conversation=self.state.id,
                call=call.id,
                turn=call.turn,
                name=call.name,
                kind=call.kind,
                status=call.status,
                item_version=call.version,
                time=call.time,
            )


def _opened(conversation: str, change: TurnOpened) -> TurnRow:
    return TurnRow(
        conversation=conversation,
        turn=change.turn,
        key=change.key,
        digest=change.digest,
        started=change.version,
        ended=None,
        outcome=None,
        time=change.time,
        state=None,
    )


class Shelf:
    """All conversations, their log by partition and position, and the owners that live."""

    def __init__(self, partitions: int) -> None:
        self.lock = threading.RLock()
        self.bell = Bell()
        self.kept: dict[str, Kept] = {}
        self.logs: list[list[Recorded]] = [[] for _ in range(partitions)]
        self.alive: set[str] = set()
        self.hearts: dict[str, Heart] = {}
        self.others: dict[str, Bell] = {}

    def append(self, append: Append, me: str, dead: Callable[[str], bool]) -> Appended:
        """Decide, and do all of it; raises what `ports.Store.append` lists."""
        check(append)
        with self.lock:
            version = append.expected + len(append.events)
            kept = self.kept.get(append.conversation)
            if kept is not None and is_stored(append, _found(kept, append)):
                return Appended(version, already=True)
            against, source = self._against(append, kept)
            lease = admit(append, against, me, dead)
            if lease is None:
                return Appended(version, already=True)
            if kept is not None:
                kept.check_absent(append.absent)
            kept = kept or Kept(replace(start(append.conversation), base=append.head.base), source)
            kept.check_turns(append.changes)
            self._do(append, kept)
            kept.epoch, kept.owner = lease
        self.bell.ring()
        for owner, others in list(self.others.items()):
            if owner != me:
                others.ring()
        return Appended(version)

    def _against(self, append: Append, kept: Kept | None) -> tuple[Stored | None, Kept | None]:
        fork = fork_of(append)
        if kept is not None or fork is None:
            return None if kept is None else kept.stored, None
        source = self.kept.get(fork.conversation)
        known = source is not None and 0 < fork.version <= len(source.events)
        stored = source.events[fork.version - 1].hash if source is not None and known else None
        return Stored(hash=fork_hash(fork, stored)), source

    def _do(self, append: Append, kept: Kept) -> None:
        if not append.events:
            return
        if kept.source is not None and not kept.events:
            kept.state = replace(kept.state, fork=append.head.fork, next=append.head.base)
        kept.change(append.changes)
        kept.events += append.events
        kept.state = append.head
        self.kept[append.conversation] = kept
        self.logs[partition_of(append.conversation, len(self.logs))] += append.events

    def said(self, owner: str) -> int | None:
        """The beat of an owner, None where it is known by other means."""
        heart = self.hearts.get(owner)
        return None if heart is None else heart.beat()

    def moved(self, positions: Mapping[int, int]) -> tuple[dict[int, int], frozenset[str]]:
        """Where each partition ends, and whose events lie between there and these positions."""
        with self.lock:
            ends = {partition: len(log) for partition, log in enumerate(self.logs)}
            above = [
                one.conversation
                for partition, end in ends.items()
                for one in self.logs[partition][positions.get(partition, end) :]
            ]
        return ends, frozenset(above)

    def check(self, kept: Kept) -> list[Finding]:
        """Compare what is kept beside the log with the log."""
        name = kept.state.id
        try:
            derived = self._derived(kept)
        except StoreCorrupt as error:
            return [Finding(conversation=name, version=None, problem=str(error))]
        parts = ("state", "history", "turns", "calls")
        return [
            Finding(conversation=name, version=None, problem=f"the {part} differ from the log")
            for part in parts
            if getattr(derived, part) != getattr(kept, part)
        ]

    def _derived(self, kept: Kept) -> Kept:
        state = self.state_before(kept)
        broken = first_broken(kept.events, bytes.fromhex(state.hash))
        if broken is not None:
            raise StoreCorrupt(f"event {broken.version} does not follow from the one before it")
        fork = kept.state.fork
        derived = Kept(replace(state, fork=fork), kept.source)
        for one in kept.events:
            after, changes = advance(state, one)
            derived.change(changes)
            derived.state = state = after
        return derived

    def state_before(self, kept: Kept) -> State:
        """The state before the first event."""
        fork = kept.state.fork
        if kept.source is None or fork is None:
            return start(kept.state.id)
        source = self.state_before(kept.source)
        for one in kept.source.events[: fork.version]:
            source = evolve(source, one)
        return branch(source, kept.state.id)

    def every(self) -> Iterator[Kept]:
        """All conversations in the order of their ids."""
        yield from (self.kept[name] for name in sorted(self.kept))


def _found(kept: Kept, append: Append) -> dict[str, tuple[int, bytes]]:
    there = kept.events[append.expected : append.expected + len(append.events)]
    return {one.id: (one.version, one.hash) for one in there}
