"""An append in the making: commands are decided, recorded and folded, one behind the other.

The one rule: nothing of a draft is true before the store has written all of it (law 1). Pure: the
time, ids and salts come from `Ambient`, which tests replace (law 14).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .decide import Command, decide
from .index import Change, advance
from .ports import Append, Lease
from .record import NewEvent, Recorded, Stamp, record
from .state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Ambient:
    """Where time and randomness come from: `now` in microseconds since 1970, `token` in bytes."""

    now: Callable[[], int] = field(default=lambda: time.time_ns() // 1000)
    token: Callable[[int], bytes] = field(default=secrets.token_bytes)

    def id(self, prefix: str) -> str:
        """A new id, ordered by time: `prefix_` and 32 hexadecimal digits."""
        return f"{prefix}_{self.now() // 1000:012x}{self.token(10).hex()}"


@dataclass(slots=True)
class Draft:
    """What one append will write, and the state behind it. `epoch` marks a lease's events."""

    state: State
    ambient: Ambient
    actor: str
    epoch: int | None = None
    expected: int = field(init=False)
    events: list[Recorded] = field(default_factory=list[Recorded])
    changes: list[Change] = field(default_factory=list[Change])

    def __post_init__(self) -> None:
        self.expected = self.state.version

    def do(self, command: Command) -> list[Recorded]:
        """Decide a command and fold what follows; raises what `decide` raises."""
        return self.take(decide(self.state, command))

    def take(self, events: Iterable[NewEvent]) -> list[Recorded]:
        """Record and fold events that were decided."""
        decided = list(events)
        stamp = Stamp(
            time=self.ambient.now(),
            actor=self.actor,
            epoch=self.epoch,
            ids=[self.ambient.id("evt") for _ in decided],
            salts=[self.ambient.token(16) for _ in decided],
        )
        previous = bytes.fromhex(self.state.hash)
        recorded = record(self.state.id, self.state.version, previous, decided, stamp)
        for one in recorded:
            self.state, changes = advance(self.state, one)
            self.changes += changes
        self.events += recorded
        return recorded

    def append(self, lease: Lease | None) -> Append:
        """What the store is asked to write."""
        return Append(
            conversation=self.state.id,
            expected=self.expected,
            events=tuple(self.events),
            head=self.state,
            changes=tuple(self.changes),
            epoch=self.epoch if lease is not None else None,
            lease=lease,
        )
