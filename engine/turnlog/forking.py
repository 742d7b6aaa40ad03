"""Forks: another future of the same past, as a pointer; nothing is copied (design section 5).

The one rule: a fork takes committed context only. Calls without an output enter as abandoned, and
the outputs that no request has taken so far go along.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import events as ev
from .commands import Configure, Resolve, Start
from .context import load, state_at, turn_row
from .draft import Draft
from .engine import Engine
from .errors import InvalidInput, RequestOpen, VersionConflict
from .items import refused_output
from .ports import Lease
from .state import Call, State, branch

CARRIED = "carried over from the conversation that this one was forked from"
FORKED = "forked: the call belongs to the conversation that this one was forked from"


async def fork_point(
    engine: Engine, conversation: str, *, before: str | None, at: int | None
) -> State:
    """The state to fork from: before a turn, at a version, or as it is now.

    Raises NotFound, and RequestOpen at a version where a request is out, naming the nearest legal
    one.
    """
    if before is not None and at is not None:
        raise InvalidInput("fork before a turn, or at a version, not both")
    version = at
    if before is not None:
        version = (await turn_row(engine.store, conversation, before)).started - 1
    if version is None:
        version = (await engine.head(conversation)).state.version
    state = await state_at(engine.store, conversation, version)
    if state.attempt is not None:
        nearest = state.attempt.version - 1
        raise RequestOpen(
            f"a request is open at version {version} of {conversation!r}:"
            f" the nearest version to fork at is {nearest}",
            nearest=nearest,
        )
    return state


async def make_fork(
    engine: Engine, source: State, id: str, config: ev.ConversationConfigured | None, actor: str
) -> None:
    """Write the first events of a fork. Raises InvalidInput where its id is taken."""
    outputs = await _outputs(engine, source)

    async def act(draft: Draft) -> Lease | None:
        point = ev.Fork(conversation=source.id, version=source.version, hash=source.hash)
        draft.do(Start(metadata=source.metadata, fork=point))
        if config is not None:
            draft.do(Configure(config=config))
        for resolve in outputs:
            draft.do(resolve)
        return None

    try:
        await engine.commit(id, act, actor=actor, initial=branch(source, id))
    except VersionConflict:
        raise InvalidInput(
            f"there is a conversation {id!r} already: fork under another id"
        ) from None


async def _outputs(engine: Engine, source: State) -> Sequence[Resolve]:
    return [await _output(engine, source, call) for call in source.calls]


async def _output(engine: Engine, source: State, call: Call) -> Resolve:
    """The call's own output where it has one that no request has taken, else an abandonment."""
    key = engine.ambient.id("itm")
    if call.ordinal is not None:
        places = await engine.store.context(
            source.id, start=call.ordinal, stop=call.ordinal + 1, version=source.version
        )
        if places:
            (item,) = await load(engine.store, places)
            how = "answered" if call.status not in ("rejected", "abandoned") else call.status
            return Resolve(call=call.id, how=how, key=key, item=item.raw, reason=CARRIED)
    raw = await engine.call_item(source, call)
    return Resolve(
        call=call.id, how="abandoned", key=key, item=refused_output(raw, FORKED), reason="forked"
    )


async def config_at(engine: Engine, state: State) -> ev.ConversationConfigured | None:
    """The configuration that was in force at a state."""
    return await engine.configuration(state) if state.config is not None else None
