"""What is wrong with a database, beside what is wrong with a conversation of it.

The one rule: what names a conversation is told of that conversation, and it is then looked at like
any other; the rest is told of none (`ports.Finding.conversation` is empty).
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import StoreError
from ..ports import Finding
from . import statements
from .log_reads import Query
from .reads import PAGE, Reads, Rows, Steps

WHOLE = ""
"""What stands for the database in the place of a conversation; none has an empty id."""


def check_whole(reads: Reads) -> Steps[list[Finding]]:
    """SQLite's own findings, the positions, the leases, and rows that belong to no conversation."""
    found: list[Finding] = []
    told = yield from _asked("the database", (statements.INTEGRITY, {}), found)
    found += [_of(WHOLE, f"SQLite says: {line}") for row in told for line in _lines(row[0])]
    yield from _positions(reads, found)
    unowned = yield from _asked("the leases", (statements.UNOWNED, {}), found)
    for id, owner in unowned:
        found.append(_of(str(id), f"its lease is held by {owner!r}, who is not among the owners"))
    for name, sql in statements.STRAY.items():
        stray = yield from _asked(f"the table {name}", (sql, {}), found)
        found += [_of(str(id), f"it has rows in {name}, and no head") for (id,) in stray]
    return found


def _of(conversation: str, problem: str) -> Finding:
    return Finding(conversation=conversation, version=None, problem=problem)


def _asked(what: str, query: Query, found: list[Finding]) -> Steps[Rows]:
    """The rows of a query; none where they cannot be read, which is a finding."""
    try:
        return (yield query)
    except StoreError as error:
        found.append(_of(WHOLE, f"{what} cannot be checked: {error}"))
        return ()


def _lines(told: object) -> list[str]:
    return [line for line in str(told).splitlines() if line and line != "ok"]


# -- positions -----------------------------------------------------------------------------


def _positions(reads: Reads, found: list[Finding]) -> Steps[None]:
    """Positions begin at 1 and have no gaps."""
    spans = yield from _asked("the positions", (statements.SPANS, {}), found)
    for partition, *span in spans:
        if partition not in range(reads.partitions):
            found.append(_of(WHOLE, f"there are events in partition {partition!r}, which is none"))
            continue
        count, first, last = span
        if (count, first) != (last, 1):
            found += yield from _gaps(partition)


def _gaps(partition: int) -> Steps[list[Finding]]:
    """Which positions are missing, and which are none."""
    found: list[Finding] = []
    before = 0
    where = {"partition": partition, "limit": PAGE}
    while page := (
        yield from _asked(
            "the log", (statements.PLACES_OF_EVENTS, {**where, "after": before}), found
        )
    ):
        for (position,) in page:
            found += [_of(WHOLE, problem) for problem in _gap(partition, before, position)]
            if not isinstance(position, int) or position <= before:
                return found
            before = position
    return found


def _gap(partition: int, before: int, position: object) -> Iterator[str]:
    if not isinstance(position, int):
        yield f"partition {partition} has an event at {position!r}, which is no position"
    elif position <= before:
        yield f"in partition {partition}, position {position} comes behind {before}"
    elif position > before + 1:
        until = f" to {position - 1}" if position > before + 2 else ""
        yield f"in partition {partition}, nothing is at position {before + 1}{until}"
