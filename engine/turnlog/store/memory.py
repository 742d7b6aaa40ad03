"""The store in memory: the same contract, for tests and for what may be forgotten.

The one rule: nothing waits and nothing is copied: values are frozen, and everything is under one
lock, so that it works on any event loop and thread. `beside` is a second owner over the same
data; `abandon` is the death of one.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from ..errors import Closed, NotSupported
from ..item import Item, by_holder, gathered
from ..ports import Append, Appended, CallRow, ConversationRow, Finding, Head, Placed, TurnRow
from ..record import Recorded
from ..state import Status
from .beats import LOCKS, Heart, Leased, Life, Watch, certain
from .bell import Bell
from .shelf import Kept, Shelf
from .wanted import Wanted, the_one


class MemoryStore:
    """`ports.Store` without a file."""

    def __init__(
        self,
        *,
        owner: str | None = None,
        partitions: int = 1,
        shelf: Shelf | None = None,
        life: Life = LOCKS,
    ) -> None:
        self.owner = owner or secrets.token_hex(16)
        self.shelf = shelf or Shelf(partitions)
        self.life = life
        self._watch = Watch(life.late_seconds, life.clock)
        self._heart = Heart(life)
        if life.owners == "beats":
            self.shelf.hearts[self.owner] = self._heart
        else:
            self.shelf.alive.add(self.owner)
        self._others = self.shelf.others[self.owner] = Bell()
        self._closed = False

    def beside(self, *, owner: str | None = None, life: Life | None = None) -> MemoryStore:
        """Another owner over the same data, which shows as this one that it lives."""
        return MemoryStore(owner=owner, shelf=self.shelf, life=life or self.life)

    def stand_still(self) -> None:
        """Beat no more, as a process that is stopped; `go_on` wakes it."""
        self._heart.stop()

    def go_on(self) -> None:
        """Beat again."""
        self._heart.go_on()

    def abandon(self) -> None:
        """Die: leases stay where they are, and others may take them over.

        An owner that beats is known to be dead only after its time.
        """
        self._heart.stop()
        self._end()

    async def close(self) -> None:
        """End the owner's life; the data stays for those beside it. Idempotent."""
        self.shelf.hearts.pop(self.owner, None)
        self._end()

    def _end(self) -> None:
        self._closed = True
        self.shelf.alive.discard(self.owner)
        self.shelf.others.pop(self.owner, None)
        self._others.ring()
        self.shelf.bell.ring()

    async def append(self, append: Append) -> Appended:
        """Write all of it, or nothing (`ports.Store.append`)."""
        return self._open().append(append, self.owner, self._dead)

    async def head(self, conversation: str) -> Head | None:
        """The head of a conversation (`ports.Store.head`)."""
        shelf = self._open()
        with shelf.lock:
            kept = shelf.kept.get(conversation)
            if kept is None:
                return None
            orphaned = self._orphaned(kept)
            return Head(
                state=kept.state,
                epoch=kept.epoch,
                owner=kept.owner,
                alive=kept.owner is not None and not orphaned,
                mine=kept.owner == self.owner,
                certain=not (orphaned and kept.owner in shelf.hearts),
            )

    async def events(
        self, conversation: str, *, after: int = 0, until: int | None = None, limit: int = 500
    ) -> list[Recorded]:
        """Events in order (`ports.Store.events`)."""
        return self._events(conversation)[after:until][:limit]

    async def pick(self, conversation: str, versions: Sequence[int]) -> list[Recorded]:
        """The events at these versions (`ports.Store.pick`)."""
        events = self._events(conversation)
        return [events[one - 1] for one in versions if 0 < one <= len(events)]

    async def context(
        self,
        conversation: str,
        *,
        start: int = 0,
        stop: int | None = None,
        version: int | None = None,
        last: int | None = None,
    ) -> list[Placed]:
        """What stands in a range at a version (`ports.Store.context`)."""
        shelf = self._open()
        with shelf.lock:
            kept = shelf.kept.get(conversation)
            if kept is None:
                return []
            end = kept.state.next if stop is None else min(stop, kept.state.next)
            at = kept.state.version if version is None else min(version, kept.state.version)
            found: list[Placed] = []
            for ordinal in reversed(range(start, end)):
                if last is not None and len(found) >= last:
                    break
                placed = kept.placed(ordinal, at)
                if placed is not None:
                    found.append(placed)
            return found[::-1]

    async def items(
        self,
        conversation: str,
        *,
        start: int = 0,
        stop: int | None = None,
        version: int | None = None,
        last: int | None = None,
    ) -> list[Item]:
        """The items that stand in a range at a version (`ports.Store.items`)."""
        places = await self.context(
            conversation, start=start, stop=stop, version=version, last=last
        )
        found = {
            (holder, version): self._events(holder)[version - 1].event
            for holder, versions in by_holder(places).items()
            for version in versions
        }
        return gathered(places, found)

    async def find(
        self,
        conversation: str,
        *,
        key: str | None = None,
        item_id: str | None = None,
        call_id: str | None = None,
    ) -> list[Placed]:
        """Where an item stands now (`ports.Store.find`)."""
        by, value = the_one({"key": key, "item_id": item_id, "call_id": call_id})
        places = await self.context(conversation)
        return [placed for placed in places if getattr(placed, by) == value]

    async def turn(
        self, conversation: str, *, id: str | None = None, key: str | None = None
    ) -> TurnRow | None:
        """A turn (`ports.Store.turn`)."""
        by, value = the_one({"turn": id, "key": key})
        return next((row for row in self._turns(conversation) if getattr(row, by) == value), None)

    async def turns(
        self, conversation: str, *, before: int | None = None, limit: int = 50
    ) -> list[TurnRow]:
        """Turns, the latest first (`ports.Store.turns`)."""
        turns = self._turns(conversation)
        return [row for row in turns if before is None or row.started < before][:limit]

    async def conversations(
        self,
        *,
        after: str | None = None,
        limit: int = 50,
        status: Status | None = None,
        metadata: Mapping[str, str] | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> list[ConversationRow]:
        """Conversations in the order of their ids (`ports.Store.conversations`)."""
        wanted = Wanted(status=status, metadata=metadata or {}, since=since, until=until)
        shelf = self._open()
        with shelf.lock:
            found = [
                self._row(kept)
                for kept in shelf.every()
                if kept.state.id > (after or "") and wanted.fits(kept.state)
            ]
        return found[:limit]

    async def orphans(self) -> list[str]:
        """Conversations whose lease a dead owner holds (`ports.Store.orphans`)."""
        leased = await certain(self._leased, self._watch, self.life.beat_seconds, self.owner)
        dead = {owner for owner in {owner for _, owner, _ in leased} if self._dead(owner)}
        return [conversation for conversation, owner, _ in leased if owner in dead]

    async def _leased(self) -> Leased:
        shelf = self._open()
        with shelf.lock:
            leased = [(kept.state.id, kept.owner) for kept in shelf.every()]
            return [(id, owner, shelf.said(owner)) for id, owner in leased if owner is not None]

    async def pending(
        self, *, after: tuple[str, str] | None = None, limit: int = 50
    ) -> list[CallRow]:
        """Open calls of all conversations (`ports.Store.pending`)."""
        shelf = self._open()
        with shelf.lock:
            calls = [call for kept in shelf.kept.values() for call in kept.calls.values()]
        calls.sort(key=lambda call: (call.conversation, call.call))
        above = after or ("", "")
        return [call for call in calls if (call.conversation, call.call) > above][:limit]

    async def follow(
        self, positions: Mapping[int, int], *, limit: int = 500
    ) -> list[tuple[int, int, Recorded]]:
        """The log by position (`ports.Store.follow`)."""
        shelf = self._open()
        with shelf.lock:
            found = [
                (partition, position, one)
                for partition, log in enumerate(shelf.logs)
                for position, one in enumerate(
                    log[positions.get(partition, 0) :][:limit], positions.get(partition, 0) + 1
                )
            ]
        return found[:limit]

    async def moved(self, positions: Mapping[int, int]) -> tuple[dict[int, int], frozenset[str]]:
        """Which conversations have events above positions (`ports.Store.moved`)."""
        return self._open().moved(positions)

    async def changed(self, seconds: float, *, others: bool = False) -> None:
        """Return when something was perhaps appended (`ports.Store.changed`)."""
        shelf = self._open()
        await (self._others.next(seconds) if others else shelf.bell.wait(seconds))
        self._open()

    async def check(self, conversation: str) -> list[Finding]:
        """Compare what is cached with the log (`ports.Store.check`)."""
        shelf = self._open()
        with shelf.lock:
            kept = shelf.kept.get(conversation)
            return [] if kept is None else shelf.check(kept)

    async def backup(self, target: str) -> None:
        """Raise NotSupported: there is no file to copy."""
        self._open()
        raise NotSupported("a log in memory has no file to copy: use log.export()")

    # -- beside the contract ---------------------------------------------------------------

    def _open(self) -> Shelf:
        if self._closed:
            raise Closed("the store is closed")
        return self.shelf

    def _events(self, conversation: str) -> list[Recorded]:
        kept = self._open().kept.get(conversation)
        return [] if kept is None else kept.events

    def _turns(self, conversation: str) -> list[TurnRow]:
        kept = self._open().kept.get(conversation)
        turns = [] if kept is None else list(kept.turns.values())
        return sorted(turns, key=lambda row: row.started, reverse=True)

    def _orphaned(self, kept: Kept) -> bool:
        return kept.owner is not None and self._dead(kept.owner)

    def _dead(self, owner: str) -> bool:
        said = self.shelf.said(owner)
        if owner == self.owner or said is None:
            return owner != self.owner and owner not in self.shelf.alive
        return self._watch.late(owner, said)

    def _row(self, kept: Kept) -> ConversationRow:
        state = kept.state
        return ConversationRow(
            id=state.id,
            version=state.version,
            status=state.status,
            agent=state.config.agent if state.config else None,
            model=state.config.model if state.config else None,
            turns=state.turns,
            items=state.next,
            metadata=state.metadata,
            created=state.created,
            updated=state.updated,
            fork_of=state.fork.conversation if state.fork else None,
            turn=state.turn.id if state.turn else None,
            orphaned=self._orphaned(kept) or (state.status == "busy" and kept.owner is None),
        )
