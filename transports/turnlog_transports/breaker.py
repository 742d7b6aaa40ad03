"""A circuit breaker as a value: whether a way that failed may be used, and when to try it.

The one rule: it knows no clock, no dice and no network. Time and the random draw are arguments,
and each step gives another value, so that what follows what is a table of tests.

A breaker is `closed` while the way works, `open` after so many failures in a row, and `probing`
while somebody tries whether it works again. Only the outcome of the probe, or a response that was
begun by that way all the same, ends the last two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

LONGEST = 16
"""How many times the first pause the longest one is: each that ends in a failure doubles it."""

JITTER = 0.2
"""By what part a pause is longer or shorter at random, so that clients do not all come at once."""

Phase = Literal["closed", "open", "probing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Opens after `failures` in a row, for a pause of about `pause` seconds, then longer ones.

    `row` counts the failures in a row, `pauses` the pauses since the way last brought anything
    across, and `until` is when the present one is over.
    """

    failures: int = 1
    pause: float = 60.0
    phase: Phase = "closed"
    row: int = 0
    pauses: int = 0
    until: float = 0.0

    def failed(self, now: float, draw: float) -> Breaker:
        """Somebody used the way and it brought nothing across. `draw` is from 0 to below 1.

        What was sent before the breaker opened may fail behind that, and says nothing new.
        """
        if self.phase != "closed":
            return self
        if self.row + 1 < self.failures:
            return replace(self, row=self.row + 1)
        return self._opened(now, draw, pauses=self.pauses + 1)

    def worked(self) -> Breaker:
        """The way brought a response's first frame: all is forgotten."""
        return Breaker(failures=self.failures, pause=self.pause)

    def due(self, now: float) -> bool:
        """Whether the pause is over, and nobody probes yet."""
        return self.phase == "open" and now >= self.until

    def probed(self) -> Breaker:
        """A probe begins; until it ends, the way stays unused."""
        return replace(self, phase="probing")

    def connected(self) -> Breaker:
        """The probe could connect, so the way is used again.

        A connection is not a response: the pauses count on until there is one.
        """
        return self if self.phase != "probing" else replace(self, phase="closed", row=0)

    def refused(self, now: float, draw: float) -> Breaker:
        """The probe failed: the next pause is longer."""
        if self.phase != "probing":
            return self
        return self._opened(now, draw, pauses=self.pauses + 1)

    def undecided(self, now: float, draw: float) -> Breaker:
        """The probe met what says nothing about the way: another pause, of the same length."""
        return self if self.phase != "probing" else self._opened(now, draw, pauses=self.pauses)

    def _opened(self, now: float, draw: float, *, pauses: int) -> Breaker:
        times = min(2 ** (pauses - 1), LONGEST)
        length = self.pause * times * (1 + JITTER * (2 * draw - 1))
        return replace(self, phase="open", row=0, pauses=pauses, until=now + length)
