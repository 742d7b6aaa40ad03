"""Places at which a process may be made to die: around each commit, frame and effect of a tool.

The one rule: a trap is the end, without a goodbye: SIGKILL, so that nothing can be tidied up. The
engine knows nothing of traps; they stand in a store and a transport that are wrapped around the
real ones, and in the tools of the torture.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Self, cast

from ..errors import InvalidInput
from ..ports import Append, Appended, Frame, Request, Store, Transport

PLACES = (
    "before-commit",
    "during-commit",
    "after-commit",
    "before-send",
    "after-frame",
    "before-effect",
    "after-effect",
)
"""Where a process may die. During a commit, it is handed over, and nobody knows."""


def _say_nothing(words: str) -> None:
    """Nobody wants to know where it ended."""


@dataclass(slots=True)
class Trap:
    """The end at the `at`-th time that a place is passed; without a place, never.

    `told` hears which trap it was, right before `kill` (process, signal) is called.
    """

    place: str = ""
    at: int = 1
    told: Callable[[str], None] = _say_nothing
    kill: Callable[[int, int], None] = os.kill
    _passed: int = field(default=0, init=False)

    @classmethod
    def parse(cls, words: str, told: Callable[[str], None] = _say_nothing) -> Self:
        """A trap as `str` writes it: `after-commit:7`, or nothing; raises InvalidInput."""
        place, _, at = words.partition(":")
        if place and not (place in PLACES and at.isdecimal()):
            raise InvalidInput(f"{words!r} is no trap: write one of {', '.join(PLACES)}, as in x:7")
        return cls(place, int(at or 1), told)

    def __str__(self) -> str:
        return f"{self.place}:{self.at}" if self.place else ""

    def is_due(self, place: str) -> bool:
        """Whether this is where it ends: count one passing of a place."""
        self._passed += place == self.place
        return place == self.place and self._passed == self.at

    def step(self, place: str) -> None:
        """Pass a place, and die there if it is the one."""
        if self.is_due(place):
            self.spring()

    def spring(self) -> None:
        """The end."""
        self.told(str(self))
        self.kill(os.getpid(), signal.SIGKILL)


class TrappedStore:
    """A store around each of whose commits there may be a trap; all else is the real one's."""

    def __init__(self, store: Store, trap: Trap) -> None:
        self._store = store
        self._trap = trap

    async def append(self, append: Append) -> Appended:
        """Write, unless the process dies before, meanwhile or behind it."""
        self._trap.step("before-commit")
        if self._trap.is_due("during-commit"):
            writing = asyncio.ensure_future(self._store.append(append))
            await asyncio.sleep(0)  # so that it is handed over
            self._trap.spring()
            return await writing
        appended = await self._store.append(append)
        self._trap.step("after-commit")
        return appended

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


class TrappedTransport:
    """A transport with traps before each request and behind each frame."""

    def __init__(self, transport: Transport, trap: Trap) -> None:
        self._transport = transport
        self._trap = trap

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Send, unless the process dies before it, or behind a frame of the answer."""
        self._trap.step("before-send")
        async with aclosing(self._transport.send(request)) as frames:
            async for frame in frames:
                yield frame
                self._trap.step("after-frame")

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


def trapped(store: Store, transport: Transport, trap: Trap) -> tuple[Store, Transport]:
    """A store and a transport in which the trap is set."""
    return (
        cast(Store, TrappedStore(store, trap)),
        cast(Transport, TrappedTransport(transport, trap)),
    )
