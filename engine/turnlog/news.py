"""Hearing that a conversation has moved, by this process or by another one.

The one rule: news is a hint, and the log is the truth. Whoever listens reads the log after it began
to listen, and again whenever it is told, or after a while, since a process that dies says nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType

from .errors import Closed, TurnlogError
from .ports import Store

TICK_SECONDS = 1.0
"""How long whoever waits for another process goes without looking whether it still lives."""

Heard = Callable[[], None]


class Ear:
    """Waits for news of one conversation; listens from `with` on."""

    def __init__(self, news: News, conversation: str) -> None:
        self._news = news
        self._conversation = conversation
        self._told = asyncio.Event()

    def __enter__(self) -> Ear:
        self._news.here(self._conversation, self._told.set)
        self._news.elsewhere(self._conversation, self._told.set)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._news.forget(self._conversation, self._told.set)

    async def wait(self, seconds: float = TICK_SECONDS) -> bool:
        """Whether the conversation has moved since the last time, within so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._told.wait()
        told = self._told.is_set()
        self._told.clear()
        return told


class News:
    """Who is told of which conversation; follows other processes only while somebody listens."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._here: dict[str, list[Heard]] = {}
        self._elsewhere: dict[str, list[Heard]] = {}
        self._following: asyncio.Task[None] | None = None

    def listen(self, conversation: str) -> Ear:
        """Somebody who waits for news of a conversation, wherever it is written."""
        return Ear(self, conversation)

    def here(self, conversation: str, heard: Heard) -> None:
        """Call a function when this process has written to a conversation."""
        self._here.setdefault(conversation, []).append(heard)

    def elsewhere(self, conversation: str, heard: Heard) -> None:
        """Call a function when another process may have written to a conversation."""
        self._elsewhere.setdefault(conversation, []).append(heard)
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow(), name="turnlog news")

    def forget(self, conversation: str, heard: Heard) -> None:
        """Call a function no more."""
        for listening in (self._here, self._elsewhere):
            left = [one for one in listening.get(conversation, ()) if one != heard]
            listening.pop(conversation, None)
            if left:
                listening[conversation] = left

    def tell(self, conversation: str) -> None:
        """This process has written to a conversation."""
        for heard in self._here.get(conversation, ()):
            heard()

    async def close(self) -> None:
        """Follow no more."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    # -- other processes -----------------------------------------------------------------------

    async def _follow(self) -> None:
        """Pass on what others append; ends a while after the last one has stopped listening."""
        positions: dict[int, int] = {}
        idle = False
        while self._elsewhere or not idle:
            idle = not self._elsewhere
            try:
                if not positions:
                    positions, _ = await self._store.moved({})
                    # Whoever has listened before this knows of nothing that came in between.
                    self._pass_on(self._elsewhere)
                await self._store.changed(TICK_SECONDS, others=True)
                positions, moved = await self._store.moved(positions)
            except Closed:
                return
            except TurnlogError:
                # The database cannot be read just now: whoever waits looks for itself.
                await asyncio.sleep(TICK_SECONDS)
            else:
                self._pass_on(moved)

    def _pass_on(self, conversations: Iterable[str]) -> None:
        for conversation in list(conversations):
            for heard in list(self._elsewhere.get(conversation, ())):
                heard()
