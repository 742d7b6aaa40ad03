"""The roll of owners: a row for each that took a lease, written in the transaction that needs it.

The one rule: whoever holds a lease has a row, and the row says by what it is known to live: 0 is
a lock file, anything else a beat that counts up (see `beats`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from ..errors import StoreCorrupt
from . import statements
from .beats import Pulse

Dead = Callable[[str, int | None], bool]
"""Whether an owner is dead; given what its row says, where it has one."""


class Roll:
    """The owners' rows within one transaction, for the owner who writes."""

    def __init__(
        self, connection: sqlite3.Connection, partitions: int, me: str, dead: Dead, pulse: Pulse
    ) -> None:
        self._connection = connection
        self._partitions = partitions
        self._me = me
        self._dead = dead
        self._pulse = pulse
        self.wrote = False

    def live(self) -> None:
        """Have a row that says that this owner lives, before it holds a lease."""
        said = self.said(self._me)
        if not self._pulse.is_said_by(said):
            self._say(said, self._pulse.next())

    def beat(self) -> None:
        """Say that this owner lives, for as long as it holds leases; forget others that do not."""
        if self._owns(self._me):
            self._say(self.said(self._me), self._pulse.next())
        else:
            self._forget(self._me)
            self._pulse.rest()
        self.forget_the_dead()

    def leave(self) -> None:
        """End this owner's life; where it still holds leases, so that everybody knows at once."""
        if self._owns(self._me):
            # Without a lock file, an owner that does not beat is dead.
            self._say(self.said(self._me), 0)
        else:
            self._forget(self._me)

    def is_dead(self, owner: str) -> bool:
        """Whether an owner is dead, by what its row says now: it may have beaten meanwhile."""
        return self._dead(owner, self.said(owner))

    def take_over(self, owner: str | None) -> None:
        """Forget an owner whose lease was taken over, once it holds no other."""
        if owner not in (None, self._me) and not self._owns(owner):
            self._forget(owner)

    def forget_the_dead(self) -> None:
        """Forget owners that are dead and hold no lease."""
        for owner, said in self._connection.execute(statements.OWNERS).fetchall():
            if self._dead(owner, said) and not self._owns(owner):
                self._forget(owner)

    def said(self, owner: str) -> int | None:
        """What an owner's row says, None where it has none."""
        found = self._connection.execute(statements.BEAT, {"owner": owner}).fetchone()
        if found is None:
            return None
        (beat,) = found
        if not isinstance(beat, int):
            raise StoreCorrupt(f"the beat of the owner {owner!r} is no number: {beat!r}")
        return beat

    def _say(self, before: int | None, beat: int) -> None:
        if before is None:
            self._write(statements.ADD_OWNER, {"owner": self._me, "beat": beat})
        else:
            self._write(statements.SET_BEAT, {"of_owner": self._me, "beat": beat})

    def _forget(self, owner: str | None) -> None:
        self._write(statements.DROP_OWNER, {"owner": owner})

    def _write(self, sql: str, parameters: statements.Parameters) -> None:
        self._connection.execute(sql, parameters)
        self.wrote = True

    def _owns(self, owner: str | None) -> bool:
        return any(
            self._connection.execute(statements.OWNS, {"partition": one, "owner": owner}).fetchone()
            for one in range(self._partitions)
        )
