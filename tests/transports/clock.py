"""An event loop whose time a test moves: real sockets, and hours that pass at once.

`clock.advance(seconds)` makes every timer due that would have been by then, in order, and lets
what they woke run before the next one. Nothing else moves faster: sockets are those of the system.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T")

SETTLE_STEPS = 20
"""How many rounds of the loop what a timer woke gets, before the next timer is due."""


class ClockLoop(asyncio.SelectorEventLoop):
    """A loop that is ahead of the clock of the system by `ahead` seconds."""

    def __init__(self) -> None:
        self.ahead = 0.0
        super().__init__(selectors.DefaultSelector())

    def time(self) -> float:
        """Seconds of a monotonic clock, as far ahead as the test has moved it."""
        return super().time() + self.ahead

    def next_due(self) -> float | None:
        """When the next timer is due, or None where none waits."""
        waiting: list[asyncio.TimerHandle] = getattr(self, "_scheduled")  # noqa: B009
        alive = [timer.when() for timer in waiting if not timer.cancelled()]
        return min(alive, default=None)


async def settle(steps: int = SETTLE_STEPS) -> None:
    """Let everything that can run now run."""
    for _ in range(steps):
        await asyncio.sleep(0)


async def advance(seconds: float) -> None:
    """Move the clock of the running loop on, from timer to timer."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ClockLoop), "run the test under `on_clock`"
    await settle()  # what was started before has timers of its own
    end = loop.time() + seconds
    while (due := loop.next_due()) is not None and due <= end:
        loop.ahead += max(0.0, due - loop.time()) + 1e-6
        await settle()
    loop.ahead += max(0.0, end - loop.time())
    await settle()


def on_clock(
    test: Callable[..., Coroutine[object, object, None]],
) -> Callable[..., None]:
    """Run a test of its own on a loop whose time it moves: `@on_clock async def test_…`."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=ClockLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
