"""Whoever watches a turn in this process, and what passes through to them.

The one rule: a slow watcher holds up its own turn, for a bounded time, and then nobody: it is left
behind, and reads what it missed from the log and from what has streamed: every fact and all text.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .record import Recorded
from .updates import Delta, HostedUpdate

Seen: TypeAlias = Recorded | Delta | HostedUpdate

BOUND = 1024
"""How many updates wait for one watcher before the stream waits for it."""

HOLD_SECONDS = 5.0
"""How long a stream waits for a watcher before it leaves it behind."""


@dataclass(slots=True, eq=False)
class Watch:
    """What waits for one watcher: `behind` where it missed something, `over` where all is told."""

    waiting: deque[Seen] = field(default_factory=deque[Seen])
    behind: bool = False
    over: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _room: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self) -> Seen | Literal["behind", "over"]:
        """What comes next: an update, the word that it was left behind, or that nothing comes."""
        while True:
            if self.behind:
                return "behind"
            if (seen := self.now()) is not None:
                return seen
            if self.over:
                return "over"
            self._news.clear()
            await self._news.wait()

    def now(self) -> Seen | None:
        """The next update, where one waits; what came together is taken without awaiting."""
        if not self.waiting:
            return None
        seen = self.waiting.popleft()
        if len(self.waiting) < BOUND:
            self._room.set()
        return seen

    def rejoin(self) -> None:
        """Take part again from now on; what was missed is read elsewhere."""
        self.behind = False
        self.waiting.clear()
        self._room.set()

    def put(self, seen: Seen) -> None:
        """Pass something on; what nobody has taken for too long is let go of, and read again."""
        if self.behind:
            return
        if len(self.waiting) >= 2 * BOUND:
            self.leave()
            return
        self.waiting.append(seen)
        self._news.set()

    def leave(self) -> None:
        """Leave the watcher behind."""
        self.behind = True
        self.waiting.clear()
        self._news.set()
        self._room.set()

    def end(self) -> None:
        """Say that all is told."""
        self.over = True
        self._news.set()

    @property
    def full(self) -> bool:
        """Whether a stream should wait for the watcher."""
        return len(self.waiting) >= BOUND

    async def room(self) -> None:
        """Wait until the watcher has taken enough."""
        while self.full:
            self._room.clear()
            await self._room.wait()


@dataclass(slots=True)
class Watchers:
    """A `Watch` for each watcher of a turn."""

    watches: set[Watch] = field(default_factory=set[Watch])

    def add(self) -> Watch:
        """What happens from now on, for one more watcher."""
        watch = Watch()
        self.watches.add(watch)
        return watch

    def remove(self, watch: Watch) -> None:
        """Somebody watches no longer, and holds up nobody."""
        self.watches.discard(watch)
        watch.leave()

    def tell(self, seen: Iterable[Seen]) -> None:
        """Pass on what happened; never waits."""
        for one in seen:
            for watch in self.watches:
                watch.put(one)

    def show(self, one: Delta | HostedUpdate) -> bool:
        """Pass on what streams; whether the stream should wait for somebody."""
        full = False
        for watch in self.watches:
            watch.put(one)
            full = full or len(watch.waiting) >= BOUND
        return full

    def end(self) -> None:
        """Say to all that the turn is over, or waits."""
        for watch in self.watches:
            watch.end()

    @property
    def full(self) -> bool:
        """Whether a stream should wait for somebody."""
        return any(watch.full for watch in self.watches)

    async def room(self) -> None:
        """Wait for slow watchers, for a bounded time, and leave behind who is too slow."""
        try:
            async with asyncio.timeout(HOLD_SECONDS):
                while self.full:
                    for watch in list(self.watches):
                        await watch.room()
        except TimeoutError:
            for watch in self.watches:
                if watch.full:
                    watch.leave()
