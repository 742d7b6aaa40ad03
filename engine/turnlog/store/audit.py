"""Compares what is stored beside a log with what the log makes of it, and names every difference.

The one rule: a finding names the conversation, and the version where an event is to blame. What
cannot be read is a finding as well, and the rest is compared all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..canonical import digest
from ..errors import StoreError
from ..ports import Finding
from . import rows, statements
from .deriving import Derived, derive, findings, last_version
from .log_reads import Query
from .reads import FOREVER, Reads, Rows, Steps
from .rows import Values
from .statements import CALL_COLUMNS, HEAD_COLUMNS, MANY, ROW_COLUMNS, TURN_COLUMNS, Value


def check(reads: Reads, conversation: str) -> Steps[list[Finding]]:
    """Everything that is wrong with a conversation.

    Where its log is, what is beside it cannot be compared with anything.
    """
    derived, found = yield from derive(reads, conversation)
    problems = yield from _blobs(reads, conversation, derived.blobs)
    if not found:
        found = yield from _short(reads, conversation, derived.state.version)
        problems += yield from _beside(reads, conversation, derived)
    return found + [
        Finding(conversation=conversation, version=None, problem=one) for one in problems
    ]


def _short(reads: Reads, conversation: str, version: int) -> Steps[list[Finding]]:
    last = yield from last_version(reads, conversation, FOREVER)
    if last is None or last <= version:
        return []
    problem = f"the event is missing: the head says that there are {last}"
    return findings(conversation, (version + 1,), problem)


def _blobs(reads: Reads, conversation: str, needed: set[bytes]) -> Steps[list[str]]:
    """What is wrong with the large parts of bodies: each is named by the digest of its bytes."""
    problems: list[str] = []
    there: set[bytes] = set()
    after: Value = -FOREVER  # before whatever else is there instead of bytes
    where = reads.of(conversation, limit=MANY)
    while True:
        try:
            found = yield statements.ALL_BLOBS, {**where, "after": after}
        except StoreError as error:
            return [*problems, f"its blobs cannot be read: {error}"]
        if not found or found[-1][0] in there:
            break
        for name, data in found:
            if isinstance(name, bytes):
                there.add(name)
            if not isinstance(data, bytes) or digest(data) != name:
                problems.append(f"the blob {_hex(name)} holds something else")
        after = found[-1][0]
    problems += [f"the blob {_hex(one)} is missing" for one in sorted(needed - there)]
    problems += [f"the blob {_hex(one)} belongs to no event" for one in sorted(there - needed)]
    return problems


def _hex(name: object) -> str:
    return name.hex()[:16] if isinstance(name, bytes) else repr(name)


def _beside(reads: Reads, conversation: str, derived: Derived) -> Steps[list[str]]:
    where = reads.of(conversation)
    problems: list[str] = []
    heads = yield from _rows("head", (statements.HEAD_ROW, reads.of_head(conversation)), problems)
    places = yield from _rows("context", (statements.ALL_ROWS, where), problems)
    every = {**where, "before": FOREVER, "limit": FOREVER}
    turns = yield from _rows("turns", (statements.TURNS, every), problems)
    calls = yield from _rows("calls", (statements.CALLS_OF, where), problems)
    head = {conversation: rows.head_values(derived.state)} if derived.state.version else {}
    if heads is not None:
        stored = _current(head, HEAD_COLUMNS, heads, 0, "head")
        problems += _differences("head", head, stored)
        problems += [one for row in stored.values() for one in _lease(row, derived.epoch)]
    if places is not None:
        found = {row[:2]: _named(ROW_COLUMNS, row) for row in places}
        problems += _differences("context", derived.places(), found)
    if turns is not None:
        stored = _current(derived.turns, TURN_COLUMNS, turns, 1, "state")
        problems += _differences("turn", derived.turns, stored)
    found = {row[1]: _named(CALL_COLUMNS, row) for row in calls or ()}
    problems += _differences("call", derived.calls, found) if calls is not None else ()
    return problems


def _rows(what: str, query: Query, problems: list[str]) -> Steps[Rows | None]:
    """The rows of a query, or None where they cannot be read, which is a problem."""
    try:
        return (yield query)
    except StoreError as error:
        problems.append(f"its {what} cannot be read: {error}")
        return None


def _lease(head: Values, epoch: int) -> Iterator[str]:
    """Who holds a turn follows from nothing in the log, but no epoch is given out twice."""
    stored = head["epoch"]
    if not isinstance(stored, int) or stored < epoch:
        yield f"the head's epoch is {stored!r}, and the log has {epoch}"


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
        written = values[f"{state}_format"]
        if isinstance(written, int) and written != made[f"{state}_format"]:
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
