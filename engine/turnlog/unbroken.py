"""Work that is done whole or not at all, whoever goes away meanwhile.

The one rule: what has begun is awaited to its end, and only then is a cancellation raised, so that
who is cancelled never leaves a fact behind that nobody in this process knows of (storage 3.3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


async def unbroken(work: Coroutine[object, object, T]) -> T:
    """Await short work to its end; CancelledError is raised behind it, and not within.

    The work is what the store has to answer: never a provider, a tool, or a person.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()
