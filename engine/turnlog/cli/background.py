"""An event loop in a thread of its own, and calls into it from the thread of the terminal.

The one rule: an interrupt cancels the call under way, waits until it has ended, and is then raised
here; the loop goes on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Background:
    """A loop that runs while the block does."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="turnlog loop")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it there, and wait here; raises what it raises, and KeyboardInterrupt."""
        over = threading.Event()
        future = asyncio.run_coroutine_threadsafe(_marked(work, over), self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            over.wait()
            raise


async def _marked(work: Coroutine[Any, Any, T], over: threading.Event) -> T:
    try:
        return await work
    finally:
        over.set()
