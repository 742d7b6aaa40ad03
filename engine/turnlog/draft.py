"""An append in the making: commands are decided, recorded and folded, one behind the other.

The one rule: nothing of a draft is true before the store has written all of it (law 1). Pure: the
time, ids and salts come from `Ambient`, which tests replace (law 14).
"""

from __future__ import annotations

import io
import os
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from .canonical import JsonObject
from .decide import Command, decide
from .index import Change, advance_all
from .items import ids_of
from .ports import Append, Lease
from .record import NewEvent, Recorded, Stamp, record
from .state import State


class _Random:
    """Random bytes of the system's, fetched 4 KiB at once and given out once; from any thread.

    Each call of the system lets go of the interpreter and waits to have it back, behind the writer
    that is busy then: 12 of them a turn took longer than all else that is done for it.
    """

    def __init__(self) -> None:
        self.renew()
        with suppress(AttributeError):  # where nothing forks
            os.register_at_fork(after_in_child=self.renew)  # which has the same bytes otherwise

    def renew(self) -> None:
        self._bytes = io.BytesIO(secrets.token_bytes(4096))

    def take(self, count: int) -> bytes:
        """So many bytes that nobody else was or will be given."""
        while len(taken := self._bytes.read(count)) < count:  # whose place moves in one step
            if count > 1024:
                return secrets.token_bytes(count)
            self.renew()
        return taken


_random = _Random()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ambient:
    """Where time and randomness come from: `now` in microseconds since 1970, `token` in bytes."""

    now: Callable[[], int] = field(default=lambda: time.time_ns() // 1000)
    token: Callable[[int], bytes] = field(default=_random.take)

    def id(self, prefix: str) -> str:
        """A new id, ordered by time: `prefix_` and 32 hexadecimal digits."""
        return self.ids(prefix, 1)[0]

    def ids(self, prefix: str, count: int) -> list[str]:
        """So many new ids."""
        begins = f"{prefix}_{self.now() // 1000:012x}"
        return [begins + self.token(10).hex() for _ in range(count)]


@dataclass(slots=True)
class Draft:
    """What one append will write, and the state behind it. `epoch` marks a lease's events.

    `absent` are ids of items with which it is refused where they are in the context already.
    """

    state: State
    ambient: Ambient
    actor: str
    epoch: int | None = None
    expected: int = field(init=False)
    events: list[Recorded] = field(default_factory=list[Recorded])
    changes: list[Change] = field(default_factory=list[Change])
    absent: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        self.expected = self.state.version

    def do(self, command: Command) -> list[Recorded]:
        """Decide a command and fold what follows; raises what `decide` raises."""
        return self.take(decide(self.state, command))

    def take(self, events: Iterable[NewEvent]) -> list[Recorded]:
        """Record and fold events that were decided."""
        decided = list(events)
        if not decided:
            return []
        stamp = Stamp(
            time=self.ambient.now(),
            actor=self.actor,
            epoch=self.epoch,
            ids=self.ambient.ids("evt", len(decided)),
            salts=[self.ambient.token(16) for _ in decided],
        )
        previous = bytes.fromhex(self.state.hash)
        recorded = record(self.state.id, self.state.version, previous, decided, stamp)
        self.state, changes = advance_all(self.state, recorded)
        self.changes += changes
        self.events += recorded
        return recorded

    def expect_new(self, items: Iterable[JsonObject]) -> None:
        """Have the store raise ItemPresent where one of the items is in the context already."""
        self.absent.update(ids_of(items))

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
            absent=frozenset(self.absent),
        )
