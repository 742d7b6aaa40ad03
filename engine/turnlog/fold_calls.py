"""How the life of a client-owned call changes the head.

The one rule: an output stands in the tail once, whoever gave it, until a completed request holds it
(law 7).
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from . import events as ev
from .fold_context import to_tail
from .head import Call, CallStatus, State, changed
from .record import Recorded
from .tail import cut, put


def on_call(state: State, recorded: Recorded, event: ev.CallEvent) -> State:
    """The state after a step in the life of a call."""
    if isinstance(event, ev.CallRequested):
        return _requested(state, recorded, event)
    call = state.call(event.call)
    if call is None:
        return state
    if isinstance(event, (ev.CallRejected, ev.CallAnswered, ev.CallAbandoned)):
        return _settled(state, recorded.version, call, event)
    if isinstance(event, ev.CallStarted):
        state = _unpaused(state)
    return _with_call(state, _progressed(call, event))


def _requested(state: State, recorded: Recorded, event: ev.CallRequested) -> State:
    output = next((one for one in state.claims if one.key == event.item), None)
    if output is None:
        return state
    call = Call(
        id=event.call,
        item=output.key,
        version=output.version,
        call_id=output.call_id,
        kind=output.kind,
        name=output.name,
        turn=recorded.turn,
        time=recorded.time,
    )
    return changed(state, calls=(*state.calls, call))


def _settled(
    state: State,
    version: int,
    call: Call,
    event: ev.CallRejected | ev.CallAnswered | ev.CallAbandoned,
) -> State:
    """The output joins the tail, or takes the place of an earlier one (a late answer)."""
    status: dict[type[ev.Event], CallStatus] = {
        ev.CallRejected: "rejected",
        ev.CallAnswered: "answered",
        ev.CallAbandoned: "abandoned",
    }
    ordinal = state.next if call.ordinal is None else call.ordinal
    if call.ordinal is None:
        state = to_tail(state, version)
    else:
        state = changed(state, tail=put(cut(state.tail, ordinal), ordinal, version))
    return _with_call(state, replace(call, status=status[type(event)], ordinal=ordinal))


def _progressed(
    call: Call,
    event: ev.CallApproved
    | ev.CallStarted
    | ev.CallProgressed
    | ev.CallDeferred
    | ev.CallUncertain,
) -> Call:
    match event:
        case ev.CallApproved():
            return replace(call, status="approved", approved=True)
        case ev.CallStarted():
            return replace(call, status="started", runs=event.run)
        case ev.CallDeferred():
            return replace(call, status="deferred")
        case ev.CallUncertain():
            return replace(call, status="uncertain", timed_out=event.timed_out)
        case ev.CallProgressed():
            return call
        case _:
            assert_never(event)


def _with_call(state: State, now: Call) -> State:
    return changed(state, calls=tuple(now if call.id == now.id else call for call in state.calls))


def _unpaused(state: State) -> State:
    return changed(state, turn=state.turn and replace(state.turn, paused=None))
