"""Tells everybody who waits that something was appended, on whatever event loop they wait.

The one rule: a ring is a hint, and reading again is the truth (storage 3.7).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading


class Bell:
    """A notification from any thread to waiters on any event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[asyncio.Future[None]] = set()
        self._rings = 0
        self._heard = 0

    async def wait(self, within: float) -> bool:
        """Whether the bell rang within so many seconds from now."""
        return await self._wait(within, self._rings)

    async def next(self, within: float) -> bool:
        """Whether it rang since this said so last, or rings within so many seconds."""
        rang = await self._wait(within, self._heard)
        if rang:
            self._heard = self._rings
        return rang

    async def _wait(self, within: float, heard: int) -> bool:
        waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._rings != heard:
                return True
            self._waiting.add(waiter)
        try:
            done, _ = await asyncio.wait([waiter], timeout=max(0.0, within))
            return bool(done)
        finally:
            with self._lock:
                self._waiting.discard(waiter)

    def ring(self) -> None:
        """Wake everybody who waits now."""
        with self._lock:
            self._rings += 1
            waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            # A loop that was closed under its waiter has nobody left to wake.
            with contextlib.suppress(RuntimeError):
                waiter.get_loop().call_soon_threadsafe(waiter.set_result, None)
