"""Time for the simulated provider: when a step is taken, and when a background event is made.

The one rule: the provider knows no clock, so that all waiting is here; and nothing waits by
looking again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from .generation import Source, Step
from .job import Job


async def play(
    source: Source, pause: Callable[[float], Awaitable[object]] = asyncio.sleep
) -> AsyncGenerator[Step]:
    """The steps of what is streamed, each when it is due; `pause` waits for so many seconds."""
    while not source.over:
        await pause(source.delay)
        step = source.take()
        if step is not None:
            yield step
        elif not source.over:
            await changed(source)


async def changed(source: Source | Job) -> None:
    """Return at the next change of something."""
    told = asyncio.Event()
    forget = source.watch(told.set)
    try:
        await told.wait()
    finally:
        forget()


async def make(job: Job) -> None:
    """Make a background response in its time."""
    while not job.over:
        if job.held:
            await changed(job)
        else:
            await asyncio.sleep(job.delay)
            job.advance()


class Makers:
    """The tasks in which background responses are made; to be stopped in the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, job: Job) -> None:
        """Make a background response from now on."""
        task = asyncio.create_task(make(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Stop making anything."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
