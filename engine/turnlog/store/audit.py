"""Compares what is cached beside a log with what the log says, and rebuilds it (law 2).

The one rule: nothing cached is believed. Everything is derived from the events with the functions
that the writer's changes come from (`index.advance`), and compared row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from ..canonical import GENESIS
from ..errors import NotFound, StoreCorrupt
from ..index import CallChanged, TurnClosed, TurnOpened, advance
from ..ports import Finding
from ..record import Recorded, first_broken
from ..state import State, start
from . import rows, statements
from .places import Editor, inherited, of_context
from .reads import FOREVER, PAGE, Reads, Steps
from .rows import Values
from .statements import CALL_COLUMNS, HEAD_COLUMNS, ROW_COLUMNS, TURN_COLUMNS


@dataclass
class Derived:
    """What the log says should be beside it. `hash` and `epoch` are the last ones in the log."""

    state: State
    editor: Editor
    hash: bytes = GENESIS
    epoch: int = 0
    turns: dict[str, Values] = field(default_factory=dict[str, Values])
    calls: dict[str, Values] = field(default_factory=dict[str, Values])

    def places(self) -> dict[tuple[int, int], Values]:
        """The rows of the context."""
        return {place: rows.place_values(row) for place, row in self.editor.added.items()}

    def feed(self, one: Recorded) -> None:
        """Follow one more event."""
        self.state, changes = advance(self.state, one)
        self.hash, self.epoch = one.hash, max(self.epoch, one.epoch or 0)
        self.editor.apply(of_context(changes))
        for change in rows.beside(changes):
            match change:
                case TurnOpened():
                    self.turns[change.turn] = rows.opened(change)
                case TurnClosed():
                    if change.turn in self.turns:
                        self.turns[change.turn].update(rows.ended(change))
                case CallChanged(call=call):
                    self.calls.pop(call.id, None)
                    if not call.settled:
                        self.calls[call.id] = rows.call_values(call)
                case _:
                    assert_never(change)


def derive(reads: Reads, conversation: str) -> Steps[tuple[Derived, Finding | None]]:
    """Follow a log to its end, or to the first event that is wrong."""
    derived = Derived(start(conversation), Editor(conversation, 0, 0))
    position, version = 0, 0
    while True:
        where = reads.of(conversation, after=version, until=FOREVER, limit=PAGE)
        found = yield statements.EVENTS, where
        if not found:
            return derived, None
        beside = yield statements.POSITIONS, {**where, "until": found[-1][1]}
        for row, (_, at, digest) in zip(found, beside, strict=True):
            version += 1
            try:
                if row[1] != version:
                    raise StoreCorrupt("the event is missing")
                (one,) = yield from reads.decoded([row])
                if version == 1:
                    yield from _begin(reads, derived, one)
                _verify(one, derived.hash, digest, above=at > position)
            except StoreCorrupt as error:
                return derived, Finding(
                    conversation=conversation, version=version, problem=str(error)
                )
            position = at
            derived.feed(one)


def _begin(reads: Reads, derived: Derived, first: Recorded) -> Steps[None]:
    state = yield from reads.beginning(first)
    derived.state, derived.hash = state, bytes.fromhex(state.hash)
    fork = getattr(first.event, "fork", None)
    if fork is None:
        return
    if fork.hash != state.hash:
        raise StoreCorrupt(f"the hash of {fork.conversation!r} at the fork is another one")
    line = yield from reads.lineage(fork.conversation, fork.version)
    places = yield from reads.standing(line, 0, state.base)
    standing = [inherited(one) for row in places if (one := row.placed()) is not None]
    derived.editor = Editor(first.conversation, state.base, state.base, standing)


def _verify(one: Recorded, previous: bytes, digest: bytes, *, above: bool) -> None:
    if first_broken([one], previous) is not None:
        raise StoreCorrupt("the hash does not follow from the event and the hash before it")
    if one.body_digest() != digest:
        raise StoreCorrupt("the digest beside the body is not that of the body")
    if not above:
        raise StoreCorrupt("the position is not above that of the event before it")


def check(reads: Reads, conversation: str) -> Steps[list[Finding]]:
    """Everything that is wrong with a conversation."""
    derived, broken = yield from derive(reads, conversation)
    if broken is not None:
        return [broken]
    where = reads.of(conversation)
    heads = yield statements.HEAD_ROW, reads.of_head(conversation)
    found = yield statements.ALL_ROWS, where
    places = {row[:2]: _named(ROW_COLUMNS, row) for row in found}
    turns = yield statements.TURNS, {**where, "before": FOREVER, "limit": FOREVER}
    calls = yield statements.CALLS_OF, where
    head = {conversation: rows.head_values(derived.state)} if derived.state.version else {}
    problems = [
        *_differences("head", head, _current(head, HEAD_COLUMNS, heads, 0, "head")),
        *_differences("context", derived.places(), places),
        *_differences(
            "turn", derived.turns, _current(derived.turns, TURN_COLUMNS, turns, 1, "state")
        ),
        *_differences("call", derived.calls, {row[1]: _named(CALL_COLUMNS, row) for row in calls}),
    ]
    return [Finding(conversation=conversation, version=None, problem=one) for one in problems]


def _named(columns: Sequence[str], row: tuple[Any, ...]) -> Values:
    return dict(zip(columns, row, strict=True))


def _current(
    derived: Mapping[Any, Values],
    columns: Sequence[str],
    found: Sequence[tuple[Any, ...]],
    key: int,
    state: str,
) -> dict[Any, Values]:
    """Rows by their keys. A state in the format of another turnlog is not read: it is made anew
    from the log when it is needed, so that nothing of it can be wrong.
    """
    stored: dict[Any, Values] = {}
    for row in found:
        values = _named(columns, row)
        made = derived.get(row[key], values)
        if values[f"{state}_format"] not in (None, made[f"{state}_format"]):
            values = {**values, state: made[state], f"{state}_format": made[f"{state}_format"]}
        stored[row[key]] = values
    return stored


def _differences(
    what: str, derived: Mapping[Any, Values], stored: Mapping[Any, Values]
) -> Iterator[str]:
    """What the rows that should be there differ in from the rows that are."""
    for key in derived.keys() - stored.keys():
        yield f"{what} {key!r} is missing"
    for key in stored.keys() - derived.keys():
        yield f"{what} {key!r} is not in the log"
    for key in derived.keys() & stored.keys():
        names = [name for name in derived[key] if derived[key][name] != stored[key].get(name)]
        if names:
            yield f"{what} {key!r} differs from the log in {', '.join(names)}"


def rebuild(reads: Reads, conversation: str) -> Steps[Derived]:
    """What has to stand beside a log.

    Raises StoreCorrupt where the log itself is broken, and NotFound where there is none.
    """
    derived, broken = yield from derive(reads, conversation)
    if broken is not None:
        raise StoreCorrupt(f"event {broken.version} of {conversation!r}: {broken.problem}")
    if not derived.state.version:
        raise NotFound(f"there is no conversation {conversation!r}")
    return derived
