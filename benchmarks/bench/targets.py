"""What turnlog is to reach, row by row, and whether a run reached it.

The one rule: a row is judged by its own number in one run. What was not measured is said and never
guessed, and a ratio that rounds of the run put on both sides of its bound is marked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import checks
from .checks import Check, Checks
from .machine import Machine
from .medians import Medians, NotMeasured


@dataclass(frozen=True, slots=True)
class Row:
    """A target, and what was reached. `met` is None where it was not measured.

    `equal` says that rounds of this run were on both sides of a bound; `alike` that whatever was
    missed is no more than what is read as equal.
    """

    what: str
    target: str
    reached: str
    met: bool | None
    equal: bool
    alike: bool = False


def rows(found: Medians, machine: Machine) -> list[Row]:
    """The table of targets for one run."""
    return [_row(what, target, check(found, machine)) for what, target, check in TARGETS]


def verdict(row: Row) -> str:
    """Whether a target is met, in words."""
    if row.met is None:
        return "not measured"
    said = "met" if row.met else "equal" if row.alike else "NOT met"
    return said + (", within the spread" if row.equal else "")


def summed(rows: Sequence[Row]) -> str:
    """How many targets are met, in words."""
    met, alike = sum(row.met is True for row in rows), sum(row.alike for row in rows)
    equal = f", {alike} {'is' if alike == 1 else 'are'} equal" if alike else ""
    return f"{met} of {len(rows)} targets are met{equal}"


def _row(what: str, target: str, given: Checks) -> Row:
    seen: list[Check] = []
    missing = ""
    try:
        for one in given:
            seen.append(one)
    except NotMeasured as problem:
        missing = f"not measured: {problem}"
    met = all(one.met for one in seen) and (None if missing else True)
    reached = "; ".join([*(one.text for one in seen), *([missing] if missing else [])])
    alike = met is False and all(one.met or one.alike for one in seen)
    return Row(what, target, reached, met, any(one.equal for one in seen), alike)


TARGETS: Sequence[tuple[str, str, Callable[[Medians, Machine], Checks]]] = (
    (
        "store: a turn's four items in one append, one conversation",
        "the best session peer",
        checks.turns,
    ),
    (
        "the same, each item its own durable append",
        "0.6 of raw, and the best session peer",
        checks.items,
    ),
    (
        "100 conversations at once, one process",
        "3 times the best session peer, and 0.5 of raw group commit",
        checks.hundred,
    ),
    ("1,000 conversations at once", "no lower than at 100; p99 under 4 times p50", checks.thousand),
    (
        "append at 10, 1,000, 10,000, 100,000 items",
        "largest/smallest: bytes written 1.1, latency 1.3",
        checks.length,
    ),
    (
        "file growth and WAL bytes a turn, chain, index and head included",
        "2 times and 4 times raw",
        checks.growth,
    ),
    (
        "opening a conversation of 10 … 100,000 items in an open log, ready to send",
        "largest/smallest 1.3, and under twice one indexed read on aiosqlite",
        checks.opening,
    ),
    (
        "last 50 items of 100,000; all of 10,000",
        "under 2 times aiosqlite; under 1.5 times raw with orjson",
        checks.reading,
    ),
    ("opening one of 100,000 conversations in a file", "1.5 times one of ten", checks.among),
    ("an open log with 10,000 idle conversations", "1 KiB each; no history held", checks.idle),
    (
        "deltas a second from the WebSocket to the watcher's loop",
        "0.5 of raw with orjson, and above every peer",
        checks.over_websocket,
    ),
    ("the same from SSE", "above every peer", checks.over_sse),
    (
        "`send` to the request on the wire, intent durable first, over raw",
        "one fsync + 0.5 ms at p50",
        checks.to_wire,
    ),
    ("first delta from socket to watcher, over raw", "0.15 ms at p50", checks.first),
    ("full request of 1,000 items: `send` to wire", "under 3 times raw", checks.full_request),
    (
        "1,000 conversations streaming at 50 deltas a second each",
        "kept up on one core",
        checks.streams,
    ),
    (
        "difference of 10,000 items against the log: append at the end / edit in the middle",
        "2 ms / 20 ms",
        checks.diff,
    ),
    (
        "`import turnlog`; `turnlog --help`",
        "150 ms with nothing of the transports loaded; 250 ms",
        checks.startup,
    ),
)
