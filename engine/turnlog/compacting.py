"""Compaction by the provider: the window begins anew with what it made of the context.

The one rule: nothing is lost. What was compacted stays in the log and in the context before the
window; the compacted items follow it as they came, unpruned (protocol 1.7).
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from . import events as ev
from .canonical import Json, JsonObject, obj, objects, text
from .commands import Compacted
from .context import requested
from .draft import Draft
from .engine import Engine
from .errors import Busy, InvalidInput, NotSupported, ProviderRefused, VersionConflict, Waiting
from .items import legal, to_input
from .plan import ruled_out
from .ports import Compact, Frame, Lease
from .request import model_of
from .state import State
from .unbroken import unbroken


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What a compaction came to: the items that the window now begins with, and what it used."""

    version: int
    items: tuple[JsonObject, ...]
    usage: JsonObject | None


async def compact(engine: Engine, conversation: str, *, actor: str) -> Compaction:
    """Have the provider compact the committed context; the tail stays as it is.

    Raises NotSupported, Busy while a turn is open, Waiting where an output was not sent so far,
    InvalidInput where there is nothing to compact, ProviderRefused, what the transport raises, and
    VersionConflict where the context changed while the provider worked.
    """
    profile = engine.transport.profile
    if not profile.compact:
        raise NotSupported(
            f"the profile {profile.name!r} has no compaction: give one whose provider can"
        )
    engine.transport.check()
    state = (await engine.head(conversation)).state
    _check_idle(state)
    config = await engine.configuration(state)
    body = await _body(engine, state, config)
    data = {name: body[name] for name in ("model", "previous_response_id") if name in body}
    asked = ev.ProviderNoted(kind="compaction_asked", data=data)
    await engine.note(conversation, asked, actor=actor)  # before it is asked (law 1)
    answer = await _asked(engine, body)
    return await unbroken(_record(engine, state, answer, actor))


def _check_idle(state: State) -> None:
    if state.turn is not None:
        raise Busy(
            f"turn {state.turn.id} is open: wait for it, or cancel it, before you compact",
            turn=state.turn.id,
        )
    if state.calls:
        calls = ", ".join(call.name or call.kind for call in state.calls)
        raise Waiting(
            f"the outputs of {calls} were not sent so far: send a turn before you compact"
        )
    if state.window >= state.committed:
        raise InvalidInput(
            f"there is nothing to compact in {state.id!r}: no response has completed"
        )


async def _body(engine: Engine, state: State, config: ev.ConversationConfigured) -> JsonObject:
    """A stored response stands for the whole window; without one, the window itself goes out."""
    model = model_of(config, {})
    body: dict[str, Json] = {"model": model}
    if config.instructions is not None:
        body["instructions"] = config.instructions
    parent = state.parent
    reach = engine.reach(state, model)
    stored = parent is not None and parent.store and parent.end == state.committed
    if parent is not None and stored and ruled_out(state, parent, reach) is None:
        return {**body, "previous_response_id": parent.response}
    window = ev.Range(of="context", start=state.window, stop=state.committed)
    items = await requested(engine.store, state, [window])
    return {**body, "input": legal([to_input(item) for item in items], ())}


async def _asked(engine: Engine, body: JsonObject) -> JsonObject:
    last: Frame | None = None
    async with aclosing(engine.transport.send(Compact(body=body))) as frames:
        async for frame in frames:
            last = frame
    assert last is not None, "a transport yields a frame or raises"
    if last.problem is not None:
        problem = last.problem
        raise ProviderRefused(
            f"the provider refused to compact: {problem.message}",
            status=problem.status,
            code=problem.code,
            retry_after=problem.retry_after,
        )
    answer = last.data if "output" in last.data else obj(last.data, "response")
    if not objects(answer, "output"):
        raise ProviderRefused("the provider answered a compaction without any output")
    return answer


async def _record(engine: Engine, before: State, answer: JsonObject, actor: str) -> Compaction:
    items, said = objects(answer, "output"), answer.get("usage")
    usage = said if isinstance(said, dict) else None

    async def act(draft: Draft) -> Lease | None:
        now = draft.state
        if (now.committed, now.edits, now.turns) != (before.committed, before.edits, before.turns):
            raise VersionConflict(now.id, expected=before.version, actual=now.version)
        draft.do(
            Compacted(
                items=engine.keyed(*items),
                response=text(answer, "id"),
                usage=usage,
            )
        )
        return None

    draft = await engine.commit(before.id, act, actor=actor)
    return Compaction(version=draft.state.version, items=tuple(items), usage=usage)
