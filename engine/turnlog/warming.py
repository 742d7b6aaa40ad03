"""Warm-up: a connection ahead of the first request, and a provider that has read the context.

The one rule: a warm-up is a convenience. It fails without a turn noticing, it never moves the
conversation, and what it prepared is a hint like any other id from the past (law 8).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from . import events as ev
from .canonical import JsonObject
from .commands import Configure, Start
from .context import requested
from .draft import Draft
from .engine import Engine
from .errors import Closed, ConfigurationError, ProviderError
from .plan import Full, ruled_out
from .ports import Create, Lease, Transport
from .reception import Reception
from .record import NewEvent
from .request import body, is_background, is_stored, model_of, revealed, sendable, settings_of
from .secrets import values_in
from .starting import Setup
from .state import Parent, State

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
TRIES = 8
MOST = 10_000
"""How many warm-ups are remembered that no turn has made use of."""

logger = logging.getLogger(__name__)


async def keep_trying(transport: Transport) -> None:
    """Connect ahead of the first request; what fails is tried again for a while (W-46)."""
    for number in range(TRIES):
        try:
            await transport.warm()
        except (ConfigurationError, Closed) as error:
            logger.debug("not warmed up: %s", error)
            return
        except ProviderError as error:
            logger.debug("warm-up %d failed: %s", number + 1, error)
            await asyncio.sleep(min(LONGEST_SECONDS, FIRST_SECONDS * float(1 << number)))
        else:
            return


async def warm(engine: Engine, conversation: str, setup: Setup, actor: str) -> bool:
    """Connect, and have the provider read the context where no response can be continued from.

    Whether the next turn begins warm. Raises ConfigurationError and InvalidInput, as `send` does.
    """
    engine.transport.check()
    try:
        await engine.transport.warm()
        return await _read(engine, conversation, setup, actor)
    except ProviderError as error:
        logger.debug("warm-up of %s failed: %s", conversation, error)
        return False


async def _read(engine: Engine, conversation: str, setup: Setup, actor: str) -> bool:
    profile = engine.transport.profile
    state = await engine.state(conversation)
    config = await setup.wanted(engine, state)
    if config is None and state.config is not None:
        config = await engine.configuration(state)
    if config is None:
        return True
    background = is_background(settings_of(config, {}))
    via = engine.transport.choose(background=background)
    if via not in profile.warm_by or not _may_read(state):
        return True
    reach = engine.reach(state, model_of(config, {}), via)
    if ruled_out(state, state.parent, reach) is None:
        return True
    outgoing = await _body(engine, state, config)
    attempt = engine.ambient.id("att")
    asked = ev.ProviderNoted(kind="warm_up_asked", attempt=attempt)
    await _begin(engine, conversation, setup, config, asked, actor)
    return await _ask(engine, state, config, outgoing, attempt, via, actor)


def _may_read(state: State) -> bool:
    """Whether the context can be read without what was not sent so far.

    An output in the tail belongs to a call that would have to be left out (law 9).
    """
    return state.turn is None and not state.calls


async def _body(engine: Engine, state: State, config: ev.ConversationConfigured) -> JsonObject:
    window = ev.Range(of="context", start=state.window, stop=state.committed)
    ranges = (window,) if state.window < state.committed else ()
    items = sendable(await requested(engine.store, state, ranges), ())
    plan = Full(ranges=ranges, why="warm-up")
    built = body(config, {}, items, plan, engine.transport.profile)
    return {**built, "generate": False}


async def _begin(
    engine: Engine,
    conversation: str,
    setup: Setup,
    config: ev.ConversationConfigured,
    asked: ev.ProviderNoted,
    actor: str,
) -> None:
    """Say that it is asked before it is asked (law 1), where there may be no conversation yet."""

    begin = Start(metadata=setup.metadata), Configure(config=config)

    async def act(draft: Draft) -> Lease | None:
        # A turn that began meanwhile keeps its own configuration.
        for command in begin if draft.state.turn is None else ():
            draft.do(command)
        draft.take([NewEvent(event=asked)])
        return None

    await engine.commit(conversation, act, actor=actor)


async def _ask(
    engine: Engine,
    state: State,
    config: ev.ConversationConfigured,
    outgoing: JsonObject,
    attempt: str,
    via: str,
    actor: str,
) -> bool:
    secrets = values_in([*config.tools, config.settings])
    reception = Reception(attempt=attempt, version=state.version, secrets=secrets)
    request = Create(body=revealed(outgoing), conversation=state.id, attempt=attempt, via=via)
    try:
        async with aclosing(engine.transport.send(request)) as frames:
            async for frame in frames:
                reception.feed(frame)
    except ProviderError as error:
        lost = ev.ProviderNoted(kind="warm_up_failed", attempt=attempt, text=str(error))
        await engine.note(state.id, lost, actor=actor)
        return False
    outcome = reception.outcome()
    if not isinstance(outcome, ev.ResponseCompleted) or outcome.response is None:
        said = None if outcome is None else outcome.error
        noted = ev.ProviderNoted(kind="warm_up_failed", attempt=attempt, data=said)
        await engine.note(state.id, noted, actor=actor)
        return False
    while len(engine.warmed) >= MOST:
        del engine.warmed[next(iter(engine.warmed))]
    engine.warmed[state.id] = Parent(
        response=outcome.response,
        end=state.committed,
        version=state.version,
        time=engine.ambient.now(),
        store=is_stored(settings_of(config, {}), engine.transport.profile),
        model=model_of(config, {}),
        transport=via,
        connection=reception.connection,
        lane=reception.lane,
    )
    data: JsonObject = {"response": outcome.response, "usage": outcome.usage}
    noted = ev.ProviderNoted(kind="warmed", attempt=attempt, data=data)
    await engine.note(state.id, noted, actor=actor)
    return True
