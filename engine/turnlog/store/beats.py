"""Owners that beat: a number that counts up, where owners share no lock file.

The one rule: a beat is judged by the clock of whoever looks at it, and by no other. An owner is
late when its beat was the same for so long; at a first look nobody is, since clocks of two
machines cannot be compared (design section 5).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..errors import InvalidInput

Kind = Literal["locks", "beats"]
Clock = Callable[[], float]

Leased: TypeAlias = list[tuple[str, str, int | None]]
"""Conversations whose lease is held, with its owner and what that one's row says."""

_KNOWN = 100_000
"""Of how many owners it is remembered what was seen of them: more than there are at any time, since
the one that is forgotten first is the one that was the same for longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """How an owner shows that it lives, and when others are taken for dead.

    With `locks` it holds a lock file as long as it lives; with `beats` it counts up every
    `beat_seconds`. Others that beat are dead when theirs was the same for `late_seconds`.
    """

    owners: Kind = "locks"
    beat_seconds: float = 5.0
    late_seconds: float = 30.0
    clock: Clock = time.monotonic

    def __post_init__(self) -> None:
        if self.owners not in ("locks", "beats"):
            raise InvalidInput(f"owners are 'locks' or 'beats', not {self.owners!r}")
        if not 0 < 2 * self.beat_seconds <= self.late_seconds:
            raise InvalidInput(
                "an owner has to beat at least twice before it is late: late_seconds"
                f" ({self.late_seconds}) must be twice beat_seconds ({self.beat_seconds}) or more"
            )


LOCKS = Life()


class Watch:
    """What was seen of the beats of others, and when; for use from any thread."""

    def __init__(self, late_seconds: float, clock: Clock) -> None:
        self._seconds = late_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[int, float]] = {}

    def left(self, owner: str, beat: int) -> float:
        """For how many seconds more an owner that shows this beat now is taken to live."""
        now = self._clock()
        with self._lock:
            before, since = self._seen.get(owner, (None, now))
            if before != beat:
                since = now
                self._seen.pop(owner, None)
                self._seen[owner] = beat, now
                if len(self._seen) > _KNOWN:
                    del self._seen[next(iter(self._seen))]
        return max(0.0, since + self._seconds - now)

    def forgive(self) -> None:
        """Begin anew with everybody: for a while nobody could have beaten."""
        with self._lock:
            self._seen.clear()

    def late(self, owner: str, beat: int) -> bool:
        """Whether an owner that shows this beat now is taken for dead."""
        return not self.left(owner, beat)


async def certain(
    look: Callable[[], Awaitable[Leased]], watch: Watch, patience: float, me: str
) -> Leased:
    """What is leased, once every owner that beats has beaten since the first look, or is late.

    It is looked at again after `patience` seconds, or as soon as one is late.
    """
    leased = await look()
    first = {owner: beat for _, owner, beat in leased}
    while True:
        same = {(owner, beat) for _, owner, beat in leased if beat and first.get(owner) == beat}
        left = [watch.left(owner, beat) for owner, beat in same if owner != me]
        if not any(left):
            return leased
        await asyncio.sleep(min((patience, *filter(None, left))))
        leased = await look()


class Pulse:
    """An owner's own beat: what its row says, and when it is to be counted up.

    Where owners hold lock files the row says 0, and nothing is ever due.
    """

    def __init__(self, life: Life) -> None:
        self._life = life
        self._beat = 0
        self._due: float | None = None

    def start(self, behind: int) -> None:
        """Count on from what an earlier owner of the same name said."""
        if self._life.owners == "beats":
            self._beat = behind

    @property
    def beats(self) -> bool:
        """Whether there may be a row that beats."""
        return self._beat > 0

    def is_said_by(self, beat: int | None) -> bool:
        """Whether a row with this beat (None: no row) says that this owner lives."""
        return beat == self._beat and (self._due is not None or self._life.owners == "locks")

    def next(self) -> int:
        """What the row is to say now. No number is said twice."""
        if self._life.owners == "beats":
            self._beat += 1
            self._due = self._life.clock() + self._life.beat_seconds
        return self._beat

    def wait(self) -> float | None:
        """In how many seconds it is due, or None where it is not."""
        return None if self._due is None else max(0.0, self._due - self._life.clock())

    def take(self) -> bool:
        """Whether it is due now; if so, not again before its time."""
        if self.wait() != 0.0:
            return False
        self._due = self._life.clock() + self._life.beat_seconds
        return True

    def rest(self) -> None:
        """Say nothing more until a lease is taken again."""
        self._due = None


class Heart:
    """The beat of an owner in memory, which nobody has to count."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._base = 1
        self._since: float | None = life.clock()

    def beat(self) -> int:
        """What its row would say now."""
        if self._since is None:
            return self._base
        return self._base + int((self._life.clock() - self._since) / self._life.beat_seconds)

    def stop(self) -> None:
        """Beat no more, for now or for ever."""
        self._base, self._since = self.beat(), None

    def go_on(self) -> None:
        """Beat again."""
        self._base, self._since = self._base + 1, self._life.clock()
