"""How the events of the context change the head.

The one rule: what changes at or before a response's place rules it out as a parent (law 9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from . import events as ev
from .canonical import JsonObject
from .head import MAX_EDITS, Call, Edit, State, changed, still_holds
from .items import answers
from .record import Recorded
from .tail import cut, put, shift, split


def on_item(state: State, version: int, event: ev.ItemEvent) -> State:
    """The state after the caller changed the context."""
    match event:
        case ev.ItemAdded(ordinal=ordinal):
            if ordinal is None:
                return to_tail(state, version)
            return _touched(_inserted(state, ordinal, version), ordinal, version)
        case ev.ItemEdited(ordinal=ordinal):
            tail = put(cut(state.tail, ordinal), ordinal, version)
            state = _unanswered(state, ordinal, version, event.item)
            state = changed(state, tail=tail if ordinal >= state.committed else state.tail)
            return _touched(state, ordinal, version)
        case ev.ItemRemoved(ordinal=ordinal):
            state = _unanswered(state, ordinal, version, None)
            return _touched(changed(state, tail=cut(state.tail, ordinal)), ordinal, version)
        case ev.ContextCompacted():
            return _compacted(state, version, event)
        case ev.OutputTruncated():
            return state
        case _:
            assert_never(event)


def _compacted(state: State, version: int, event: ev.ContextCompacted) -> State:
    """Every older chain begins where the context begins, and the window does so no longer."""
    state, end = _touched(state, 0, version), event.ordinal + event.items
    return changed(
        state,
        window=event.ordinal,
        committed=max(state.committed, end),
        tail=tuple(run for run in split(state.tail, end) if run.ordinal >= end),
        parent=None,
    )


def to_tail(state: State, version: int) -> State:
    """One more item at the end of the tail."""
    return changed(state, tail=put(state.tail, state.next, version), next=state.next + 1)


def joined(state: State, added: Sequence[Recorded]) -> State:
    """The state after events that each put an item at the end: `evolve` for all of them at once."""
    first, last = added[0], added[-1]
    tail = put(state.tail, state.next, first.version, len(added))
    return changed(
        state,
        version=last.version,
        hash=last.hash.hex(),
        updated=last.time,
        tail=tail,
        next=state.next + len(added),
    )


def _inserted(state: State, ordinal: int, version: int) -> State:
    """One more item before `ordinal`; everything from there on moves by one."""
    in_chain = ordinal < state.committed
    tail = shift(state.tail, ordinal, 1)
    return changed(
        state,
        tail=tail if in_chain else put(tail, ordinal, version),
        committed=state.committed + in_chain,
        next=state.next + 1,
        window=state.window + (ordinal < state.window),
        calls=moved(state.calls, ordinal, 1),
    )


def _unanswered(state: State, ordinal: int, version: int, item: JsonObject | None) -> State:
    """The caller took away the output of a call: the chain that asked for it cannot go on (law 7).

    A full request leaves the call out with its output, so the edit is that of the call's own place,
    which is among the outputs of the newest response.
    """
    call = next((one for one in state.calls if one.ordinal == ordinal), None)
    if call is None or (item is not None and answers(item, call.kind, call.call_id)):
        return state
    return _touched(state, state.committed - 1, version)


def _touched(state: State, ordinal: int, version: int) -> State:
    """Something at `ordinal` is not what the provider's chain holds (law 9)."""
    if ordinal >= state.committed:
        return state
    kept = tuple(edit for edit in state.edits if edit.ordinal < ordinal)
    edits = (*kept, Edit(ordinal=ordinal, version=version))
    if len(edits) > MAX_EDITS:
        edits = (Edit(ordinal=edits[0].ordinal, version=edits[1].version), *edits[2:])
    state = changed(state, edits=edits)
    holds = state.parent is not None and still_holds(state, state.parent)
    return changed(state, parent=state.parent if holds else None)


def moved(calls: Sequence[Call], ordinal: int, by: int) -> tuple[Call, ...]:
    """The calls, with every output from `ordinal` on moved."""
    return tuple(
        replace(call, ordinal=call.ordinal + by)
        if call.ordinal is not None and call.ordinal >= ordinal
        else call
        for call in calls
    )
