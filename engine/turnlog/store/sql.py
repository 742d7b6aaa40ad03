"""The store on SQLite: one writer thread, readers for each event loop, one file.

The one rule: this class only puts together what the modules beside it do. What is decided is in
`admission`, what is written in `transaction`, what is read in `reads`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import Closed, StoreReadOnly
from ..item import Item
from ..ports import Append, Appended, CallRow, ConversationRow, Finding, Head, Placed, TurnRow
from ..record import Recorded
from ..state import Status
from .audit import check
from .backing import back_up
from .beats import Leased, certain
from .bell import Bell
from .opening import Settings, address
from .partition import partition_of
from .readers import Readers
from .reads import Reads, Steps
from .rows import prepare
from .wanted import Wanted, the_one
from .whole import check_whole
from .writer import Writer

T = TypeVar("T")

_POLL = 0.1
"""How often other processes' appends are looked for, in seconds."""


class SqlStore:
    """`ports.Store` on an SQLite file; made by `open_store`."""

    def __init__(
        self, settings: Settings, reads: Reads, readers: Readers, writer: Writer | None, bell: Bell
    ) -> None:
        self.owner = settings.owner
        self._settings = settings
        self._path = settings.path
        self._reads = reads
        self._readers = readers
        self._writer = writer
        self._bell = bell
        self._process = os.getpid()
        self._closed = False

    # -- writing ---------------------------------------------------------------------------

    async def append(self, append: Append) -> Appended:
        """Write all of it, or nothing (`ports.Store.append`)."""
        writer = self._writing()
        partition = partition_of(append.conversation, self._reads.partitions)
        prepared = prepare(append, partition)
        size = sum(len(one.body) for one in append.events)
        return await writer.submit(lambda transaction: transaction.write(prepared), size)

    async def rebuild(self, conversation: str) -> Appended:
        """Write what stands beside a log anew, from the log (law 2).

        Raises NotFound, StoreCorrupt (the log itself is broken), and what `append` raises.
        """
        writer = self._writing()
        return await writer.submit(lambda transaction: transaction.rebuild(conversation))

    def _writing(self) -> Writer:
        self._usable()
        if self._writer is None:
            raise StoreReadOnly("the log was opened read-only: open it without readonly=True")
        return self._writer

    def _usable(self) -> None:
        if self._closed:
            raise Closed("the store is closed")
        if os.getpid() != self._process:
            raise Closed("the store belongs to the parent process: open one of your own")

    # -- reading ---------------------------------------------------------------------------

    async def _read(self, steps: Steps[T]) -> T:
        self._usable()
        return await self._readers.run(steps)

    async def head(self, conversation: str) -> Head | None:
        """The head of a conversation (`ports.Store.head`)."""
        found = await self._read(self._reads.head(conversation))
        if found is None:
            return None
        state, epoch, owner, beat = found
        dead = self._orphaned(owner, beat)
        return Head(
            state=state,
            epoch=epoch,
            owner=owner,
            alive=owner is not None and not dead,
            mine=owner == self.owner,
            certain=not (dead and beat),
        )

    async def events(
        self, conversation: str, *, after: int = 0, until: int | None = None, limit: int = 500
    ) -> list[Recorded]:
        """Events in order (`ports.Store.events`)."""
        return await self._read(self._reads.events(conversation, after, until, limit))

    async def pick(self, conversation: str, versions: Sequence[int]) -> list[Recorded]:
        """The events at these versions (`ports.Store.pick`)."""
        return await self._read(self._reads.pick(conversation, versions))

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
        return await self._read(self._reads.context(conversation, start, stop, version, last))

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
        return await self._read(self._reads.items(conversation, start, stop, version, last))

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
        return await self._read(self._reads.find(conversation, by, value))

    async def turn(
        self, conversation: str, *, id: str | None = None, key: str | None = None
    ) -> TurnRow | None:
        """A turn (`ports.Store.turn`)."""
        by, value = the_one({"turn": id, "key": key})
        return await self._read(self._reads.turn(conversation, by, value))

    async def turns(
        self, conversation: str, *, before: int | None = None, limit: int = 50
    ) -> list[TurnRow]:
        """Turns, the latest first (`ports.Store.turns`)."""
        return await self._read(self._reads.turns(conversation, before, limit))

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
        return await self._read(
            self._reads.conversations(after or "", limit, wanted, self._orphaned)
        )

    def _orphaned(self, owner: str | None, beat: int | None) -> bool:
        return owner is not None and self._settings.dead(owner, beat)

    async def orphans(self) -> list[str]:
        """Conversations whose lease a dead owner holds (`ports.Store.orphans`)."""
        watch, patience = self._settings.watch, self._settings.life.beat_seconds
        leased = await certain(self._leased, watch, patience, self.owner)
        owners = {(owner, beat) for _, owner, beat in leased}
        dead = {owner for owner, beat in owners if self._settings.dead(owner, beat)}
        return [conversation for conversation, owner, _ in leased if owner in dead]

    async def _leased(self) -> Leased:
        return await self._read(self._reads.leased())

    async def pending(
        self, *, after: tuple[str, str] | None = None, limit: int = 50
    ) -> list[CallRow]:
        """Open calls of all conversations (`ports.Store.pending`)."""
        return await self._read(self._reads.pending(after or ("", ""), limit))

    async def follow(
        self, positions: Mapping[int, int], *, limit: int = 500
    ) -> list[tuple[int, int, Recorded]]:
        """The log by position (`ports.Store.follow`)."""
        return await self._read(self._reads.follow(positions, limit))

    async def moved(self, positions: Mapping[int, int]) -> tuple[dict[int, int], frozenset[str]]:
        """Which conversations have events above positions (`ports.Store.moved`)."""
        return await self._read(self._reads.moved(positions))

    async def changed(self, seconds: float, *, others: bool = False) -> None:
        """Return when something was perhaps appended (`ports.Store.changed`)."""
        self._usable()
        if others and self._writer is not None:
            with self._writer.watching():
                await self._writer.others.next(seconds)
            self._usable()
        else:
            await self._changed(seconds)

    async def _changed(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        seen = await self._readers.data_version()
        while (left := end - loop.time()) > 0:
            if await self._bell.wait(min(left, _POLL)):
                return
            if await self._readers.data_version() != seen:
                return

    async def check(self, conversation: str) -> list[Finding]:
        """Compare what is cached with the log (`ports.Store.check`).

        Without a conversation's id (`""`): what belongs to none, and SQLite's own check.
        """
        self._usable()
        steps = check(self._reads, conversation) if conversation else check_whole(self._reads)
        return await self._readers.run(steps, snapshot=True)

    async def backup(self, target: str) -> None:
        """Write a copy to a new file (`ports.Store.backup`)."""
        self._usable()
        self._readers.place.check()
        await asyncio.to_thread(back_up, address(self._path, "ro"), str(self._path), Path(target))

    async def close(self) -> None:
        """Finish, release the owner, and close (`ports.Store.close`)."""
        self._closed = True
        if os.getpid() != self._process:
            return
        try:
            await self._readers.close()
        finally:
            if self._writer is not None:
                self._writer.stop()
        if self._writer is not None:
            await asyncio.shield(asyncio.wrap_future(self._writer.done))
