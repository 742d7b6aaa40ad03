"""What each target asks of a run's figures: the bounds, and how near the run came.

The one rule: a check is a pure function of figures, and gives up (`NotMeasured`) where one that it
needs is not there; what it found until then stands.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .machine import Machine
from .medians import Figure, Medians, NotMeasured
from .plan import OVER_SSE, OVER_WEBSOCKET, SESSIONS
from .wording import short, times

OURS, RAW, GROUP = "turnlog", "raw sqlite3", "raw sqlite3, group commit"
VERB = "turnlog chat.add"
"""The verb around the store, which no target is about, and which is said beside them."""
WEBSOCKET, SSE = "turnlog WebSocket", "turnlog SSE"
RAW_WEBSOCKET, RAW_SSE = "raw websockets + orjson", "raw httpx2 SSE + orjson"
WIRES = ((WEBSOCKET, RAW_WEBSOCKET, "WebSocket"), (SSE, RAW_SSE, "SSE"))


@dataclass(frozen=True, slots=True)
class Check:
    """One bound of a target, and whether a figure keeps it.

    `equal` says that rounds of this run were on both sides of the bound; `alike` that it was missed
    by no more than what is read as equal.
    """

    text: str
    met: bool
    equal: bool
    alike: bool = False


Checks = Iterator[Check]

ALIKE = 1.5
"""Ratios between two subjects that are under this are read as equal: runs spread by so much."""


def _at_least(value: Figure, bound: float, text: str) -> Check:
    return Check(text, value.median >= bound, value.low < bound <= value.high)


def _at_most(value: Figure, bound: float, text: str) -> Check:
    return Check(text, value.median <= bound, value.low <= bound < value.high)


def _best(
    found: Medians, scenario: str, peers: Iterable[str], value: int | None = None
) -> tuple[str, Figure]:
    """The fastest of the peers that were measured, whatever it syncs. Raises NotMeasured."""
    rates = [(found.find(scenario, peer, "per_s", value), peer) for peer in peers]
    measured = [(rate, peer) for rate, peer in rates if rate is not None]
    if not measured:
        raise NotMeasured(f"{scenario} of any peer")
    rate, peer = max(measured, key=lambda one: one[0].median)
    return peer, rate


def _rate(
    found: Medians, scenario: str, ours: str, other: str, least: float, value: int | None = None
) -> Check:
    """Our rate over another's, which is named with its own rate and how it syncs."""
    rate = found.get(scenario, other, "per_s", value)
    ratio = found.get(scenario, ours, "per_s", value).over(rate)
    kept = found.durable(scenario, other)
    beside = ", ".join([f"{short(rate.median)}/s", *([kept] if kept else [])])
    return _at_least(ratio, least, f"{times(ratio.median)} {other} ({beside})")


# -- the store -----------------------------------------------------------------------------


def turns(found: Medians, _: Machine) -> Checks:
    """One conversation, a turn in one append."""
    yield _said(_as_fast(found, "turns"), _ours(found, "turns"))


def items(found: Medians, _: Machine) -> Checks:
    """One conversation, item by item."""
    yield _said(_rate(found, "items", OURS, RAW, 0.6), _ours(found, "items"))
    yield _as_fast(found, "items")


def _as_fast(found: Medians, scenario: str) -> Check:
    """Whether we are as fast as the fastest peer that keeps sessions."""
    peer, _rate_of_it = _best(found, scenario, SESSIONS)
    check = _rate(found, scenario, OURS, peer, 1)
    return replace(check, alike=_rate(found, scenario, OURS, peer, 1 / ALIKE).met)


def _ours(found: Medians, scenario: str, value: int | None = None) -> str:
    """Our own rate at the store, and that of the verb around it."""
    verb = found.find(scenario, VERB, "per_s", value)
    beside = "" if verb is None else f" (`chat.add` {short(verb.median)}/s)"
    return f"{short(found.get(scenario, OURS, 'per_s', value).median)}/s{beside}: "


def _said(check: Check, before: str) -> Check:
    return replace(check, text=before + check.text)


def hundred(found: Medians, _: Machine) -> Checks:
    """A hundred conversations at once."""
    peer, _rate_of_it = _best(found, "many", SESSIONS, 100)
    yield _said(_rate(found, "many", OURS, peer, 3, 100), _ours(found, "many", 100))
    yield _rate(found, "many", OURS, GROUP, 0.5, 100)


def thousand(found: Medians, _: Machine) -> Checks:
    """A thousand, beside a hundred."""
    more = found.get("many", OURS, "per_s", 1000)
    ratio = more.over(found.get("many", OURS, "per_s", 100))
    text = f"{short(more.median)}/s: {times(ratio.median)} that at 100"
    check = _at_least(ratio, 1, text)
    yield replace(check, alike=_at_least(ratio, 1 / ALIKE, text).met)
    p99, p50 = (found.get("many", OURS, f"{name}_ms", 1000) for name in ("p99", "p50"))
    text = f"p99 {short(p99.median)} ms, {times(p99.over(p50).median)} p50"
    yield _at_most(p99.over(p50), 4, text)


def _flat(found: Medians, scenario: str, name: str) -> tuple[Figure, Figure, str]:
    """The greatest and the least of a figure over what it was measured at, and in which words."""
    values = found.values(scenario, OURS)
    if len(values) < 2:
        raise NotMeasured(f"{scenario} of {OURS} at two sizes")
    figures = sorted(
        (found.get(scenario, OURS, name, value) for value in values), key=lambda one: one.median
    )
    return figures[-1], figures[0], f"{values[0]:,} to {values[-1]:,}"


def length(found: Medians, _: Machine) -> Checks:
    """An append, over the length of the conversation."""
    most, least, sizes = _flat(found, "length", "written_bytes")
    ratio = most.over(least)
    text = f"{sizes}: bytes {times(ratio.median)} ({short(most.median / 1024)} KiB at most)"
    yield _at_most(ratio, 1.1, text)
    most, least, _sizes = _flat(found, "length", "p50_ms")
    ratio = most.over(least)
    text = f"latency {times(ratio.median)} ({short(most.median)} ms at most)"
    yield _at_most(ratio, 1.3, text)


def growth(found: Medians, _: Machine) -> Checks:
    """Bytes that a turn adds."""
    for name, most, what in (("file_bytes", 2, "file"), ("wal_bytes", 4, "WAL")):
        ours = found.get("growth", OURS, name)
        ratio = ours.over(found.get("growth", RAW, name))
        text = f"{what} {times(ratio.median)} ({short(ours.median / 1024)} KiB)"
        yield _at_most(ratio, most, text)


# -- opening and reading -------------------------------------------------------------------


def opening(found: Medians, _: Machine) -> Checks:
    """Opening a conversation, over its length, and beside one indexed read."""
    most, least, sizes = _flat(found, "opening", "p50_ms")
    ratio = most.over(least)
    text = f"{sizes}: {times(ratio.median)} ({short(most.median)} ms at most)"
    yield _at_most(ratio, 1.3, text)
    ratios = [
        found.get("opening", OURS, "p50_ms", value).over(
            found.get("opening", "aiosqlite", "p50_ms", value)
        )
        for value in found.values("opening", OURS)
    ]
    worst = max(ratios, key=lambda one: one.median)
    yield _at_most(worst, 2, f"{times(worst.median)} one indexed read on aiosqlite")


def reading(found: Medians, _: Machine) -> Checks:
    """The end of a conversation, and all of one."""
    for scenario, floor, most, what in (
        ("last", "aiosqlite", 2, "last 50"),
        ("load", RAW, 1.5, "all"),
    ):
        value = max(found.values(scenario, OURS), default=None)
        ours = found.get(scenario, OURS, "p50_ms", value)
        ratio = ours.over(found.get(scenario, floor, "p50_ms", value))
        text = f"{what} of {value:,}: {times(ratio.median)} {floor} ({short(ours.median)} ms)"
        yield _at_most(ratio, most, text)


def among(found: Medians, _: Machine) -> Checks:
    """Opening a conversation, over how many there are."""
    values = found.values("among", OURS)
    if len(values) < 2:
        raise NotMeasured(f"among of {OURS} at two sizes")
    few, many = (found.get("among", OURS, "p50_ms", value) for value in (values[0], values[-1]))
    ratio = many.over(few)
    text = f"{values[0]:,} to {values[-1]:,}: {times(ratio.median)} ({short(many.median)} ms)"
    yield _at_most(ratio, 1.5, text)


def idle(found: Medians, _: Machine) -> Checks:
    """What an idle conversation holds, as the system sees it and as Python does."""
    each = found.get("idle", OURS, "each_bytes")
    yield _at_most(each, 1024, f"{short(each.median)} bytes of resident memory each")
    traced = found.get("idle", OURS, "each_traced_bytes")
    yield _at_most(traced, 1024, f"{short(traced.median)} bytes that Python allocated")
    held = found.get("idle", OURS, "held_items")
    yield _at_most(held, 0, f"{short(held.median)} items held")


# -- the wire ------------------------------------------------------------------------------


def over_websocket(found: Medians, _: Machine) -> Checks:
    """Deltas a second from a WebSocket."""
    ours = found.get("deltas", WEBSOCKET, "per_s")
    check = _rate(found, "deltas", WEBSOCKET, RAW_WEBSOCKET, 0.5)
    yield _said(check, f"{short(ours.median)}/s: ")
    peers = [one for one in OVER_WEBSOCKET if one not in (WEBSOCKET, RAW_WEBSOCKET)]
    yield _rate(found, "deltas", WEBSOCKET, _best(found, "deltas", peers)[0], 1)


def over_sse(found: Medians, _: Machine) -> Checks:
    """Deltas a second from server-sent events."""
    ours = found.get("deltas", SSE, "per_s")
    peers = [one for one in OVER_SSE if one not in (SSE, RAW_SSE)]
    check = _rate(found, "deltas", SSE, _best(found, "deltas", peers)[0], 1)
    yield _said(check, f"{short(ours.median)}/s: ")


def to_wire(found: Medians, machine: Machine) -> Checks:
    """A call to its request on the wire, beside a sync as it was when the calls were made."""
    for ours, raw, wire in WIRES:
        more = _more(found, ours, raw, "to_wire_p50_ms")
        beside = found.find("first", ours, "sync_ms")
        sync = beside.median if beside else statistics.median(machine.sync_ms)
        text = f"{wire} +{short(more.median)} ms (an fsync takes {short(sync)} ms)"
        yield _at_most(more, sync + 0.5, text)


def first(found: Medians, _: Machine) -> Checks:
    """The first delta to its watcher, also where the response began well before it."""
    for ours, raw, wire in WIRES:
        more = _more(found, ours, raw, "first_p50_ms")
        later = found.find("first", ours, "later_first_p50_ms")
        raws = found.find("first", raw, "later_first_p50_ms")
        beside = f" ({short(later.less(raws).median)} once it has begun)" if later and raws else ""
        yield _at_most(more, 0.15, f"{wire} +{short(more.median)} ms{beside}")


def _more(found: Medians, ours: str, raw: str, name: str) -> Figure:
    return found.get("first", ours, name).less(found.get("first", raw, name))


def full_request(found: Medians, _: Machine) -> Checks:
    """A call with its whole context to the wire."""
    for ours, raw, wire in WIRES:
        took = found.get("full_request", ours, "to_wire_p50_ms")
        ratio = took.over(found.get("full_request", raw, "to_wire_p50_ms"))
        text = f"{wire} {times(ratio.median)} raw ({short(took.median)} ms)"
        yield _at_most(ratio, 3, text)


def streams(found: Medians, _: Machine) -> Checks:
    """A thousand streams at once."""
    for ours, raw, wire in WIRES:
        kept_up = found.get("streams", ours, "kept_up", 1000)
        cores = found.get("streams", ours, "cpu_cores", 1000)
        floor = found.find("streams", raw, "kept_up", 1000)
        beside = "" if floor is None else f" ({raw} {_keeps_up(floor.median)})"
        yield _at_least(kept_up, 1, f"{wire} {_keeps_up(kept_up.median)}")
        yield _at_most(cores, 1, f"{short(cores.median)} cores{beside}")


def _keeps_up(share: float) -> str:
    return "kept up" if share >= 1 else "fell behind"


# -- the rest ------------------------------------------------------------------------------


def diff(found: Medians, _: Machine) -> Checks:
    """A difference of lists."""
    for name, most in (("append", 2), ("middle", 20)):
        took = found.get("diff", OURS, f"{name}_ms")
        yield _at_most(took, most, f"{name} {short(took.median)} ms")


def startup(found: Medians, _: Machine) -> Checks:
    """An import, and the command's help."""
    took, loaded = (found.get("startup", OURS, one) for one in ("import_ms", "transports_loaded"))
    yield _at_most(took, 150, f"import {short(took.median)} ms")
    yield _at_most(loaded, 0, f"{short(loaded.median)} modules of the transports")
    took = found.get("startup", OURS, "help_ms")
    yield _at_most(took, 250, f"help {short(took.median)} ms")
