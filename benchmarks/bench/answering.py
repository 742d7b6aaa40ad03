"""An answer on its way: a pattern with its marks replaced, in pieces, and at its times.

The one rule: a time is read right before the bytes that carry it are made, and those are written at
once.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Iterator

from .canned import (
    DIGITS,
    ID_MARK,
    RECEIVED_MARK,
    SENT_MARK,
    TEXT_MARK,
    Asked,
    as_message,
    as_sent_event,
    chunk,
    pattern,
)

SLOTS = 10
"""How often the timer looks in the time between two deltas of a stream: streams take turns."""

_ID, _RECEIVED, _SENT = (mark.encode() for mark in (ID_MARK, RECEIVED_MARK, SENT_MARK))
_LAST_CHUNK = b"0\r\n\r\n"

_PREFIX = secrets.token_hex(13)
_numbers = itertools.count(1)


class Answer:
    """One answer: over a WebSocket's lane, or `streamed` as server-sent events."""

    def __init__(self, asked: Asked, lane: str | None, received: int, *, streamed: bool) -> None:
        self.asked = asked
        self.over = False
        self._pattern = pattern(asked, as_sent_event if streamed else as_message, lane)
        self._id = f"{_PREFIX}{next(_numbers):024x}".encode()  # in this answer, and no other one
        self._received = _digits(received)
        self._wrap: Callable[[bytes], bytes] = chunk if streamed else bytes
        self._last = _LAST_CHUNK if streamed else b""
        self._times: list[bytes] = []

    def begin(self) -> bytes:
        """What comes before the deltas."""
        return self._wrap(self._pattern.begin.replace(_ID, self._id))

    def pieces(self) -> Iterator[bytes]:
        """The whole answer, as fast as it is taken."""
        yield self.begin()
        for piece in self._pattern.deltas:
            yield self._wrap(piece.replace(_ID, self._id))
        yield self._wrap(self._pattern.end.replace(_ID, self._id)) + self._last

    def rest(self) -> bytes:
        """The deltas and the end, with the times in them."""
        rest = b"".join((*self._pattern.deltas, self._pattern.end))
        rest = rest.replace(_ID, self._id).replace(_RECEIVED, self._received)
        return self._wrap(rest.replace(_SENT, _clock())) + self._last

    def next(self) -> bytes:
        """The next delta, with its time; behind the last one, the end."""
        if len(self._times) == self.asked.count:
            return self._end()
        delta = self._pattern.deltas[len(self._times)].replace(_ID, self._id, 1)
        now = _clock()
        self._times.append(now)
        return self._wrap(delta.replace(_SENT, now, 1))

    def _end(self) -> bytes:
        self.over = True
        text = b"".join(b"t=%b;" % each for each in self._times)
        end = self._pattern.end.replace(_ID, self._id)
        return self._wrap(end.replace(TEXT_MARK.encode() * len(text), text)) + self._last


class Ticker:
    """One timer for all the streams of a rate, which take turns between two of its deltas."""

    def __init__(self, rate: int) -> None:
        self._slots: list[list[Callable[[], bool]]] = [[] for _ in range(SLOTS)]
        self._places = itertools.cycle(range(SLOTS))
        self._step = 1 / rate / SLOTS
        self._running = False

    def add(self, send: Callable[[], bool]) -> None:
        """Call `send` whenever its turn comes, for as long as it says that there is more."""
        self._slots[next(self._places)].append(send)
        if not self._running:
            self._running = True
            self._tick(0, asyncio.get_running_loop().time())

    def _tick(self, slot: int, due: float) -> None:
        self._slots[slot] = [send for send in self._slots[slot] if send()]
        self._running = any(self._slots)
        if self._running:
            # Due by the clock, not by when the last tick was done: a late one is made up for.
            due += self._step
            asyncio.get_running_loop().call_at(due, self._tick, (slot + 1) % SLOTS, due)


def _digits(reading: int) -> bytes:
    return b"%0*d" % (DIGITS, reading)


def _clock() -> bytes:
    return _digits(time.monotonic_ns())
