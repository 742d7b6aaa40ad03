"""Following a background response: it goes on without anybody listening, and is heard again.

The one rule: asking again costs nothing and starts nothing, so that a response which still runs is
never given up for a connection that broke (protocol 1.7).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from .engine import Engine
from .errors import NotSupported, ProviderError
from .ports import Cancel, Frame, Retrieve
from .reception import Reception
from .settling import retrieved
from .state import Attempt

DEAF_TRIES = 5
"""How often a stream may be asked for again without a single frame, before it is polled."""

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 10.0
STOP_SECONDS = 10.0
"""How long a provider has to say that it will stop; the turn is cancelled whatever it says."""

POLL_FOR_SECONDS = 24 * 3600.0
"""How long a response that runs is polled; it may have been queued for hours."""


async def follow(
    engine: Engine,
    conversation: str,
    attempt: Attempt,
    response: str,
    reception: Reception,
    take: Callable[[Frame], Awaitable[None]],
) -> Reception | None:
    """Hear a background response to its end: resume its stream, or poll where it is too old.

    `take` is given the frames that are missing from `reception`. Returns what holds the outcome:
    the reception itself, another where the response was fetched whole, or None where the provider
    does not know it any more.
    """
    deaf = 0
    while reception.terminal is None and deaf < DEAF_TRIES:
        heard = reception.heard
        if not await _resumed(engine, response, reception, take):
            break
        deaf = 0 if reception.heard > heard else deaf + 1
        await asyncio.sleep(_pause(deaf) if deaf else 0.0)
    if reception.terminal is not None:
        return reception
    return await _polled(engine, conversation, attempt, response)


async def _resumed(
    engine: Engine, response: str, reception: Reception, take: Callable[[Frame], Awaitable[None]]
) -> bool:
    """Hear the stream on from its last frame; whether it may be asked for again."""
    after = reception.sequence if reception.sequence is not None else 0
    request = Retrieve(response=response, starting_after=after)
    try:
        async with aclosing(engine.transport.send(request)) as frames:
            async for frame in frames:
                if frame.problem is not None and frame.problem.status is not None:
                    return frame.problem.status >= 500  # the question was refused
                await take(frame)
    except NotSupported:
        return False
    except ProviderError:
        return True
    return True


async def _polled(
    engine: Engine, conversation: str, attempt: Attempt, response: str
) -> Reception | None:
    """Ask until the response has ended; None where the provider does not know it."""
    waited, deaf = 0.0, 0
    while waited < POLL_FOR_SECONDS and deaf < DEAF_TRIES:
        try:
            found = await retrieved(engine, conversation, attempt, response)
        except ProviderError:
            found, deaf = None, deaf + 1
        else:
            if found is None or found.gone:
                return None
            if found.terminal is not None and found.terminal.terminal != "error":
                return found
            deaf = deaf + 1 if found.terminal is not None else 0
        pause = _pause(deaf or 3)
        waited += pause
        await asyncio.sleep(pause)
    return None


def _pause(tries: int) -> float:
    return min(LONGEST_SECONDS, FIRST_SECONDS * float(1 << (tries - 1)))


async def stop(engine: Engine, attempt: Attempt) -> None:
    """Ask the provider to stop a background response; whether it does is for it to know."""
    if not attempt.background or attempt.response is None:
        return
    try:
        async with asyncio.timeout(STOP_SECONDS):
            async with aclosing(engine.transport.send(Cancel(response=attempt.response))) as frames:
                async for _ in frames:
                    pass
    except (ProviderError, NotSupported, TimeoutError):
        return
