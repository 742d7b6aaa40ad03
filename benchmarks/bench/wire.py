"""What the subjects on the wire have in common: what a client is asked, and how it is clocked.

The one rule: only the standard library, and nothing here stands between a client and its deltas.
The clock is the system's (`time.monotonic_ns`), so that readings of the canned provider, which come
in the text of a delta, and of the client can be told apart by nothing but when they were taken.
"""

from __future__ import annotations

import asyncio
import re
import resource
import statistics
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from .canned import DIGITS
from .canned import FIRST as FIRST_COUNT
from .subject import Given, Item, Measured, span, turn_items

FIRST = "first"
THINKING = "first-20"
"""The first delta comes twenty milliseconds behind the beginning of the response."""
WARM = 5
"""How many calls go before those that are measured."""
GO: list[Item] = [{"role": "user", "content": "Go."}]

_TIMES = re.compile(r"t=([0-9]+);([0-9]+);")


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a call: how many deltas, the text of the first one, and when it was there."""

    deltas: int
    first: str
    at: int


class Peer(ABC):
    """A client that is connected, and asks as its users would."""

    facts: dict[str, str]

    def context(self, items: list[Item]) -> Any:
        """The form in which this client takes a context; it is made before the clock runs."""
        return items

    @abstractmethod
    async def ask(self, model: str, context: Any) -> Heard:
        """Ask for one response, in full, and take its deltas one by one to the end."""
        ...


Open = Callable[[str], AbstractAsyncContextManager[Peer]]


# -- what is clocked --------------------------------------------------------------------------


@dataclass(slots=True)
class Clocked:
    """The times of calls, one after another, in nanoseconds."""

    to_wire: list[int] = field(default_factory=list[int])
    to_first: list[int] = field(default_factory=list[int])
    through: list[int] = field(default_factory=list[int])

    def add(self, begun: int, heard: Heard) -> None:
        """A call began, and its first delta came."""
        found = _TIMES.match(heard.first)
        assert found is not None and heard.deltas == FIRST_COUNT, heard
        received, sent = int(found[1]), int(found[2])
        assert begun < received < sent < heard.at, (begun, heard)
        self.to_wire.append(received - begun)
        self.through.append(heard.at - sent)
        self.to_first.append(heard.at - begun)


async def clocked(calls: int, ask: Callable[[], Awaitable[Heard]]) -> Clocked:
    """Make calls, one after the other."""
    found = Clocked()
    for _ in range(calls):
        begun = time.monotonic_ns()
        found.add(begun, await ask())
    return found


def p50_ms(nanoseconds: list[int]) -> float:
    """The median, in milliseconds."""
    return statistics.median(nanoseconds) / 1e6


def first_figures(at_once: Clocked, thinking: Clocked) -> dict[str, float]:
    """Figures of `first`: of answers that come all at once, and of those whose deltas come later.

    `first_p50_ms` is of the former, where the beginning of the response has to be taken care of
    first; `later_first_p50_ms` of the latter, where that is over.
    """
    return {
        "to_wire_p50_ms": p50_ms(at_once.to_wire),
        "first_p50_ms": p50_ms(at_once.through),
        "call_to_first_p50_ms": p50_ms(at_once.to_first),
        "later_first_p50_ms": p50_ms(thinking.through),
    }


def context_items(count: int) -> list[Item]:
    """So many items of turns, and what the user asks now."""
    items = [item for number in range(count // 4 + 1) for item in turn_items(number)]
    return items[:count] + GO


# -- the scenarios of a peer ------------------------------------------------------------------


async def deltas(open_peer: Open, given: Given) -> Measured:
    """Deltas a second: the first answer is not counted, for whatever there is to warm up."""
    count, repeat = given.number("deltas"), given.number("repeat")
    model = f"deltas-{count}"
    async with open_peer(given.text("url")) as peer:
        go = peer.context(GO)
        await peer.ask(model, go)
        with span() as measured:
            heard = [(await peer.ask(model, go)).deltas for _ in range(repeat)]
        assert heard == [count] * repeat, heard
        return Measured(measured.rate(count * repeat), peer.facts)


async def first(open_peer: Open, given: Given) -> Measured:
    """Calls over a connection that is open, one after another."""
    times = given.number("times")
    async with open_peer(given.text("url")) as peer:
        go = peer.context(GO)
        await clocked(WARM, lambda: peer.ask(FIRST, go))
        at_once = await clocked(times, lambda: peer.ask(FIRST, go))
        thinking = await clocked(times, lambda: peer.ask(THINKING, go))
        return Measured(first_figures(at_once, thinking), peer.facts)


async def full_request(open_peer: Open, given: Given) -> Measured:
    """Calls with a whole context, which the client has as objects of its own."""
    async with open_peer(given.text("url")) as peer:
        go, context = peer.context(GO), peer.context(context_items(given.number("items")))
        await clocked(WARM, lambda: peer.ask(FIRST, go))
        found = await clocked(given.number("times"), lambda: peer.ask(FIRST, context))
        return Measured({"to_wire_p50_ms": p50_ms(found.to_wire)}, peer.facts)


# -- many streams at once ---------------------------------------------------------------------


RAMP = 1.0
"""Within how many seconds all the streams begin."""


class Lags:
    """How long after it was sent each delta of many streams was there."""

    def __init__(self) -> None:
        self._at = array("q")
        self._lag = array("q")

    def add(self, delta: str) -> None:
        """A delta is there, or several that were joined: each says when it was sent."""
        now = time.monotonic_ns()
        for place in range(2, len(delta), DIGITS + 3):
            self._at.append(now)
            self._lag.append(now - int(delta[place : place + DIGITS]))

    def __len__(self) -> int:
        return len(self._at)

    def figures(self, expected: int, seconds: int) -> dict[str, float]:
        """Whether the client kept up with so many deltas of streams that last so many seconds.

        It did where all of them were there, the end lagged by less than a second and no more than
        the middle did, and it was over in time: `late_seconds` also tells of a provider that could
        not send them as fast as it should.
        """
        lags = list(self._lag)  # deltas are added in the order of time
        fifth = max(1, len(lags) // 5)
        middle, end = _p99(lags[2 * fifth : 3 * fifth]), _p99(lags[-fifth:])
        took = (self._at[-1] - self._at[0]) / 1e9
        late, missing = max(0.0, took - seconds - RAMP), expected - len(lags)
        kept_up = not missing and late < 1 and end < 1e9 and end < 2 * middle + 1e8
        return {
            "kept_up": float(kept_up),
            "missing": missing,
            "late_seconds": late,
            "lag_p50_ms": p50_ms(lags),
            "lag_p99_ms": _p99(lags) / 1e6,
            "end_lag_p99_ms": end / 1e6,
            "per_s": len(lags) / took,
        }


def _p99(lags: list[int]) -> int:
    return sorted(lags)[len(lags) * 99 // 100]


async def streams(
    given: Given, watch: Callable[[int, str, Lags], Awaitable[None]]
) -> dict[str, float]:
    """Watch many streams, which begin one after another.

    `watch` is given the number of a stream, the model to ask, and where its deltas go.
    """
    conversations, rate = given.number("conversations"), given.number("rate")
    seconds = given.number("seconds")
    model, lags = f"rate-{rate}-{seconds}", Lags()

    async def one(number: int) -> None:
        await asyncio.sleep(RAMP * number / conversations)
        await watch(number, model, lags)

    with span() as measured:
        await asyncio.gather(*(one(number) for number in range(conversations)))
    cores = {"cpu_cores": measured.cpu_seconds / measured.seconds}
    return lags.figures(conversations * rate * seconds, seconds) | cores


def raise_open_files() -> None:
    """Let this process open as many files, and so connections, as it ever may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
