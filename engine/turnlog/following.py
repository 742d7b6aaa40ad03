"""Following a background response: it goes on without anybody listening, and is heard again.

The one rule: asking again costs nothing and starts nothing, so that a response which still runs is
not given up for a connection that broke (protocol 1.7).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from .canonical import integer
from .engine import Engine
from .errors import NotSupported, ProviderError
from .ports import Frame, Retrieve
from .reception import Reception
from .settling import retrieved
from .state import Attempt
from .stopping import stop

DEAF_TRIES = 5
"""How often a stream may be asked for again without news, before it is polled."""

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 10.0
DEAF_SECONDS = 600.0
"""How long nobody need answer a poll, before the response is given up."""

POLL_FOR_SECONDS = 24 * 3600.0
"""How long a response that runs is polled; it may have been queued for hours."""

GONE = "the provider does not know the response any more"
SILENT = "the provider could not be asked what became of the response"

Take = Callable[[Frame], Awaitable[None]]


async def follow(
    engine: Engine,
    conversation: str,
    attempt: Attempt,
    response: str,
    reception: Reception,
    take: Take,
) -> Reception | str:
    """Hear a background response to its end: resume its stream, or poll where it is too old.

    `take` is given the frames that are missing from `reception`. Returns what holds the outcome
    (the reception itself, or another where the response was fetched whole), or why there is none.
    """
    deaf = 0
    while reception.terminal is None and deaf < DEAF_TRIES:
        before = reception.sequence
        if not await _resumed(engine, response, reception, take):
            break
        deaf = deaf + 1 if reception.sequence == before else 0
        await asyncio.sleep(_pause(deaf) if deaf else 0.0)
    if reception.terminal is not None:
        return reception
    found = await _polled(engine, conversation, attempt, response)
    if found == SILENT:
        await stop(engine, attempt)  # another one follows: they must not run beside each other
    return found


async def _resumed(engine: Engine, response: str, reception: Reception, take: Take) -> bool:
    """Hear the stream on from its last frame; whether it may be asked for again."""
    after = reception.sequence if reception.sequence is not None else 0
    request = Retrieve(response=response, starting_after=after)
    try:
        async with aclosing(engine.transport.send(request)) as frames:
            async for frame in frames:
                if frame.problem is not None and frame.problem.status is not None:
                    return frame.problem.status >= 500  # the question was refused
                number = integer(frame.data, "sequence_number")
                if number is None and frame.type and frame.terminal is None:
                    return False  # no stream that can be taken up where it stood
                if number is None or number > (reception.sequence or 0):
                    await take(frame)
    except NotSupported:
        return False
    except ProviderError:
        return True
    return True


async def _polled(
    engine: Engine, conversation: str, attempt: Attempt, response: str
) -> Reception | str:
    """Ask until the response has ended, or for as long as it is worth it."""
    waited, silent, deaf = 0.0, 0.0, 0
    while waited < POLL_FOR_SECONDS and silent < DEAF_SECONDS:
        asked: float | None = None
        try:
            found = await retrieved(engine, conversation, attempt, response)
        except ProviderError:
            deaf += 1
        else:
            if found is None or found.gone:
                return GONE
            refused = found.problem
            if found.terminal is not None and refused is None:
                return found
            deaf = deaf + 1 if refused is not None else 0
            asked = refused.retry_after if refused is not None else None
        pause = max(_pause(deaf or 3), asked or 0.0)
        waited, silent = waited + pause, silent + pause if deaf else 0.0
        await asyncio.sleep(pause)
    return SILENT


def _pause(tries: int) -> float:
    return min(LONGEST_SECONDS, FIRST_SECONDS * float(1 << min(tries - 1, 10)))
