"""Room for what waits to be written: callers wait for it, each in its turn.

The one rule: what is counted is given back once, by the writer when it has answered, or by a
caller who goes away before anything was handed over. Memory does not grow with what is asked.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import Closed, InvalidInput, StoreUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """How much may wait for the writer: so many appends, of so many bytes of bodies together.

    Who finds no room waits for it, for so many `seconds` at most. One append alone may be larger.
    """

    jobs: int = 10_000
    size: int = 64 * 1024 * 1024
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise InvalidInput(f"a backlog has room for one append at least, not {self.jobs}")


BACKLOG = Backlog()


@dataclass(slots=True, eq=False)
class _Waiter:
    size: int
    future: asyncio.Future[None]
    has_room: bool = False

    def tell(self, error: Closed | None = None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


class Room:
    """What waits for the writer, and who waits to be let in; for use from any thread."""

    def __init__(self, limits: Backlog) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._since: deque[float] = deque()
        self._size = 0
        self._waiting: deque[_Waiter] = deque()
        self._closed = False

    async def take(self, size: int) -> None:
        """Wait for room.

        Raises StoreUnavailable where there is none for too long, and Closed.
        """
        with self._lock:
            if self._closed:
                raise Closed("the store is closed")
            if not self._waiting and self._fits(size):
                self._enter(size)
                return
            waiter = _Waiter(size, asyncio.get_running_loop().create_future())
            self._waiting.append(waiter)
        try:
            async with asyncio.timeout(self._limits.seconds):
                await waiter.future
        except TimeoutError as error:
            behind = self._leave(waiter)
            raise StoreUnavailable(
                f"the writer is {behind:.0f} seconds behind, and nothing was written:"
                " try again later, and send less at once"
            ) from error
        except BaseException:
            self._leave(waiter)
            raise

    def give(self, sizes: Iterable[int]) -> None:
        """Give back the room of what was answered."""
        with self._lock:
            for size in sizes:
                self._since.popleft()
                self._size -= size
            self._let_in()

    def close(self) -> None:
        """Let nobody in any more; those who wait are told."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            _tell(waiter, Closed("the store was closed, and nothing was written"))

    # -- under the lock --------------------------------------------------------------------

    def _fits(self, size: int) -> bool:
        few = len(self._since) < self._limits.jobs
        return not self._since or (few and self._size + size <= self._limits.size)

    def _enter(self, size: int) -> None:
        self._since.append(time.monotonic())
        self._size += size

    def _let_in(self) -> None:
        while self._waiting and self._fits(self._waiting[0].size):
            waiter = self._waiting.popleft()
            if _tell(waiter):
                waiter.has_room = True
                self._enter(waiter.size)

    def _leave(self, waiter: _Waiter) -> float:
        """Wait no more; for how many seconds the oldest append has waited for the writer."""
        with self._lock:
            behind = time.monotonic() - self._since[0] if self._since else 0.0
            if waiter.has_room:
                self._since.pop()
                self._size -= waiter.size
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            self._let_in()
            return behind


def _tell(waiter: _Waiter, error: Closed | None = None) -> bool:
    """Whether a waiter's event loop is there to be told."""
    try:
        waiter.future.get_loop().call_soon_threadsafe(waiter.tell, error)
    except RuntimeError:  # its loop was closed under it
        return False
    return True
