"""Follows a log from its beginning, and says what it makes of everything that is beside it (law 2).

The one rule: nothing stored is believed. Every hash is computed again, and state, context, turns
and calls come from the events with the functions that the writer's changes come from
(`index.advance`). What cannot be read is said of its event, and the rest is followed all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, assert_never

from ..canonical import GENESIS
from ..errors import NotFound, StoreCorrupt, StoreError
from ..index import CallChanged, TurnClosed, TurnOpened, advance
from ..ports import Finding
from ..record import Recorded
from ..state import State, branch, start
from . import rows, statements
from .packing import references
from .places import Editor, of_context
from .reads import FOREVER, PAGE, Reads, Steps
from .rows import Values
from .shapes import rising


@dataclass
class Derived:
    """What the log says should be beside it. `hash` and `epoch` are the last ones in the log."""

    state: State
    editor: Editor
    hash: bytes = GENESIS
    epoch: int = 0
    turns: dict[str, Values] = field(default_factory=dict[str, Values])
    calls: dict[str, Values] = field(default_factory=dict[str, Values])
    blobs: set[bytes] = field(default_factory=set[bytes])

    def places(self) -> dict[tuple[int, int], Values]:
        """The rows of the context."""
        return {place: rows.place_values(row) for place, row in self.editor.added.items()}

    def feed(self, one: Recorded) -> None:
        """Follow one more event."""
        self.state, changes = advance(self.state, one)
        self.epoch = max(self.epoch, one.epoch or 0)
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


Followed: TypeAlias = tuple[Derived, list[Finding]]


def derive(reads: Reads, conversation: str, until: int = FOREVER) -> Steps[Followed]:
    """Follow a log to a version, and say of every event of it what is wrong.

    What is derived ends before the first event that is wrong; the chain is followed to the end.
    """
    # One after the other, and not each from within the next: a fork may have very many ancestors.
    source: Followed | None = None
    for one, version in reversed((yield from _ancestry(reads, conversation, until))):
        source = yield from _follow(reads, one, version, source)
    assert source is not None
    return source


def _ancestry(reads: Reads, conversation: str, until: int) -> Steps[list[tuple[str, int]]]:
    """A conversation and those it was forked from; none of them where it has no beginning."""
    try:
        return (yield from reads.ancestry(conversation, until))
    except StoreCorrupt:
        return [(conversation, until)]


def _follow(
    reads: Reads, conversation: str, until: int, source: Followed | None
) -> Steps[Followed]:
    """Follow one log; it is forked from the source, if it is a fork."""
    derived = Derived(start(conversation), Editor(conversation, 0, 0))
    found: list[Finding] = []
    version, order = 0, _Order(conversation)
    while page := (yield from _page(reads, conversation, version, until)):
        for one_version, row in page:
            missing = range(version + 1, one_version)
            found += findings(conversation, missing[:MOST], "the event is missing")
            version = one_version
            try:
                one = yield from _event(reads, derived, row, source, after_gap=bool(missing))
            except StoreCorrupt as error:
                found += findings(conversation, (version,), str(error))
                derived.hash = yield from _stored_hash(reads, conversation, version)
                continue
            found += order.problems(version, row)
            derived.hash = one.hash
            if not found:
                derived.feed(one)
    return derived, found


MOST = 100
"""How many missing events are named one by one: one that is misread may seem to be far away."""

Numbered = tuple[int, "tuple[Any, ...] | StoreError"]


def _page(reads: Reads, conversation: str, after: int, until: int) -> Steps[list[Numbered]]:
    """The next events as rows; where they cannot be read together, one by one."""
    where = reads.of(conversation, after=after, until=until, limit=PAGE)
    try:
        found = yield statements.AUDIT, where
        numbered: list[Numbered] = [(row[1], row) for row in found if isinstance(row[1], int)]
        rising((version for version, _ in numbered), after)
        return numbered
    except StoreError as error:
        last = yield from last_version(reads, conversation, until)
        page: list[Numbered] = [(1, error)] if last is None and not after else []
    for version in range(after + 1, min(last or after, after + PAGE) + 1):
        try:
            found = yield statements.AUDIT, {**where, "after": version - 1, "until": version}
            page += [(version, row) for row in found if row[1] == version]
        except StoreError as error:
            page.append((version, error))
    return page


def last_version(reads: Reads, conversation: str, until: int) -> Steps[int | None]:
    """The last version of a log of which not all can be read, or None where nobody knows it."""
    known: list[int] = []
    for query in (
        (statements.LAST_VERSION, reads.of(conversation)),
        (statements.VERSION, reads.of_head(conversation)),
    ):
        try:
            found = yield query
            known += [row[0] for row in found if isinstance(row[0], int)]
        except StoreError:
            continue
    return min(max(known), until) if known else None


def _event(
    reads: Reads,
    derived: Derived,
    row: tuple[Any, ...] | StoreError,
    source: Followed | None,
    *,
    after_gap: bool,
) -> Steps[Recorded]:
    """The event of a row, verified; raises StoreCorrupt where anything of it is wrong."""
    if isinstance(row, StoreError):
        raise StoreCorrupt(f"the event cannot be read: {row}")
    *event, _, stored_digest = row
    try:
        (one,) = yield from reads.decoded([tuple(event)])
    except StoreError as error:
        raise StoreCorrupt(str(error)) from error
    finally:
        derived.blobs |= references(row[10]) if isinstance(row[10], bytes) else set()
    if one.version == 1:
        _begin(derived, one, source)
    if not after_gap and one.expected_hash(derived.hash) != one.hash:
        raise StoreCorrupt("the hash does not follow from the event and the hash before it")
    if one.body_digest() != stored_digest:
        raise StoreCorrupt("the digest beside the body is not that of the body")
    return one


class _Order:
    """Positions rise with the versions. Where they do not, one event is out of line: the one before
    the fall, where all would rise without it, else the one behind it.
    """

    def __init__(self, conversation: str) -> None:
        self._conversation = conversation
        self._before: tuple[int, int] = (0, 0)
        self._last: tuple[int, int] = (0, 0)

    def problems(self, version: int, row: tuple[Any, ...] | StoreError) -> list[Finding]:
        """What is wrong with the position of the next event, or by it with that of the last one."""
        position = None if isinstance(row, StoreError) else row[-2]
        if not isinstance(position, int):
            return findings(self._conversation, (version,), f"{position!r} is no position")
        blamed = None
        if position > self._last[1]:
            self._before = self._last
        elif position > self._before[1]:
            blamed = self._last[0]
        else:
            blamed = version
        if blamed != version:
            self._last = (version, position)
        return [] if blamed is None else findings(self._conversation, (blamed,), _OUT_OF_LINE)


_OUT_OF_LINE = "the position is not between those of the events around it"


def _stored_hash(reads: Reads, conversation: str, version: int) -> Steps[bytes]:
    """The hash that an event says it has: what comes behind it is held against that."""
    try:
        found = yield statements.HASH_AT, reads.of(conversation, version=version)
    except StoreError:
        found = ()
    stored = found[0][0] if found else None
    return stored if isinstance(stored, bytes) else b""


def _begin(derived: Derived, first: Recorded, followed: Followed | None) -> None:
    """What a fork begins with: its source as the log has it, which has to verify as well."""
    fork = getattr(first.event, "fork", None)
    if fork is None:
        return
    if followed is None:
        raise StoreCorrupt("it is said to be forked from itself")
    source, wrong = followed
    if wrong:
        raise StoreCorrupt(
            f"the conversation it was forked from, {fork.conversation!r}, is damaged at version"
            f" {wrong[0].version}: {wrong[0].problem}"
        )
    if source.state.version != fork.version:
        raise StoreCorrupt(
            f"event {source.state.version + 1} of {fork.conversation!r}, from which it was forked,"
            " is missing"
        )
    state = branch(source.state, first.conversation)
    if fork.hash != state.hash:
        raise StoreCorrupt(f"the hash of {fork.conversation!r} at the fork is another one")
    derived.state, derived.hash = state, bytes.fromhex(state.hash)
    standing = source.editor.inherited(state.base)
    derived.editor = Editor(first.conversation, state.base, state.base, standing)


def findings(conversation: str, versions: Sequence[int], problem: str) -> list[Finding]:
    return [
        Finding(conversation=conversation, version=version, problem=problem) for version in versions
    ]


def rebuild(reads: Reads, conversation: str) -> Steps[Derived]:
    """What has to stand beside a log.

    Raises StoreCorrupt where the log itself is broken, and NotFound where there is none.
    """
    derived, broken = yield from derive(reads, conversation)
    if broken:
        first = broken[0]
        raise StoreCorrupt(f"event {first.version} of {conversation!r}: {first.problem}")
    if not derived.state.version:
        raise NotFound(f"there is no conversation {conversation!r}")
    return derived
