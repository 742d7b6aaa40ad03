"""Work that is done whole or not at all, whoever goes away meanwhile.

The one rule: what has begun is awaited to its end, and only then is a cancellation raised, so that
who is cancelled never leaves a fact behind that nobody in this process knows of (storage 3.3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")

_unbroken = WeakSet[asyncio.Task[Any]]()
"""The tasks that nobody has to cancel. One within another would take two more turns of the loop."""


def begun(work: Coroutine[object, object, T]) -> asyncio.Task[T]:
    """A task of such work, which nobody cancels, and whatever is `unbroken` in it is part of."""
    task = asyncio.create_task(work)
    _unbroken.add(task)
    return task


async def unbroken(work: Coroutine[object, object, T]) -> T:
    """Await short work to its end; CancelledError is raised behind it, and not within.

    The work is what the store has to answer: never a provider, a tool, or a person.
    """
    if asyncio.current_task() in _unbroken:  # as it is for what goes on inside it
        return await work
    task = begun(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()
