"""Whether an event could have happened where it stands: what an import asks of every line.

The one rule: whatever `decide` can give is lawful, and it is `decide` that is asked wherever an
event has a command of its own; a history that passes is one that the engine can go on with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from . import events as ev
from .commands import (
    AddItems,
    Approve,
    Command,
    Defer,
    DoubtCalls,
    EditItem,
    Keyed,
    Prepare,
    Progress,
    QueueTurn,
    RemoveItem,
    Resolve,
    StartCall,
)
from .decide import decide
from .errors import InvalidInput, TurnlogError
from .head import State
from .index import CallChanged, Change, Put, TurnOpened
from .record import Recorded


def check_lawful(state: State, one: Recorded) -> None:
    """Raise InvalidInput where an event cannot follow the state before it."""
    try:
        command = _command(state, one)
        if command is not None:
            decide(state, command)
    except TurnlogError as error:
        raise InvalidInput(f"{one.tag} cannot have happened here: {error}") from error
    problem = next(_problems(state, one), None)
    if problem is not None:
        raise InvalidInput(f"{one.tag} cannot have happened here: {problem}")


def check_names(state: State, changes: Sequence[Change]) -> None:
    """Raise InvalidInput where a name that a database has to find is no text.

    Bodies may hold lone surrogates, and are kept as they are; a column cannot.
    """
    names = [name for change in changes for name in _names(change)]
    if state.config is not None:
        names += [state.config.agent, state.config.model]
    for name in names:
        try:
            (name or "").encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"{name!r:.40} is not valid text: {error}") from error


def _names(change: Change) -> tuple[str | None, ...]:
    match change:
        case Put():
            return change.key, change.item_id, change.call_id, change.response
        case TurnOpened():
            return change.key, change.digest
        case CallChanged(call=call):
            return call.id, call.name, call.kind
        case _:
            return ()


# -- events that have a command of their own -----------------------------------------------


def _command(state: State, one: Recorded) -> Command | None:
    """What was asked for where this event was the answer."""
    match one.event:
        case ev.ItemAdded() as event:
            return AddItems(items=(Keyed(key=event.key, item=event.item),), ordinal=event.ordinal)
        case ev.ItemEdited() as event:
            return EditItem(ordinal=event.ordinal, key=event.key, item=event.item)
        case ev.ItemRemoved() as event:
            return RemoveItem(ordinal=event.ordinal, key=event.key)
        case ev.RequestPrepared() as event:
            return Prepare(request=event)
        case ev.TurnQueued() as event:
            return QueueTurn(turn=one.turn or "", queued=event)
        case (
            ev.CallApproved()
            | ev.CallRejected()
            | ev.CallStarted()
            | ev.CallProgressed()
            | ev.CallAnswered()
            | ev.CallDeferred()
            | ev.CallUncertain()
            | ev.CallAbandoned()
        ) as event:
            return _of_call(state, event)
        case _:
            return None


def _of_call(
    state: State,
    event: ev.CallApproved
    | ev.CallRejected
    | ev.CallStarted
    | ev.CallProgressed
    | ev.CallAnswered
    | ev.CallDeferred
    | ev.CallUncertain
    | ev.CallAbandoned,
) -> Command:
    match event:
        case ev.CallApproved():
            call = state.call(event.call)
            return Approve(call=event.call, rerun=call is not None and call.status == "uncertain")
        case ev.CallStarted():
            return StartCall(call=event.call)
        case ev.CallProgressed():
            return Progress(call=event.call, data=event.data)
        case ev.CallDeferred():
            return Defer(call=event.call)
        case ev.CallUncertain():
            return DoubtCalls(calls=(event.call,), reason=event.reason)
        case ev.CallRejected():
            return Resolve(call=event.call, how="rejected", key=event.key, item=event.item)
        case ev.CallAbandoned():
            return Resolve(call=event.call, how="abandoned", key=event.key, item=event.item)
        case ev.CallAnswered():
            return Resolve(
                call=event.call, how="answered", key=event.key, item=event.item, by_runner=True
            )
        case _:
            assert_never(event)


# -- what no command says alone ------------------------------------------------------------


def _problems(state: State, one: Recorded) -> Iterator[str]:
    """Why an event cannot follow, as far as `decide` has not been asked."""
    match one.event:
        case ev.ContextCompacted() as event:
            if min(event.ordinal, event.items) < 0 or event.ordinal + event.items > state.next:
                yield f"the context has {state.next} places"
            yield from _no_request(state)
        case (
            ev.TurnQueued()
            | ev.TurnStarted()
            | ev.TurnCancelRequested()
            | ev.TurnPaused()
            | ev.TurnResumed()
            | ev.TurnEnded()
        ) as event:
            yield from _of_turn(state, one.turn, event)
        case ev.RequestPrepared() as event:
            yield from _of_open_turn(state, one.turn)
            yield from _unasked(state)
            yield from (_of_range(part) for part in event.ranges if not _fits(state, part))
        case ev.CallRequested() as event:
            if event.item not in {output.key for output in state.claims}:
                yield f"no response asked for it with the item {event.item!r}"
            if state.call(event.call) is not None:
                yield f"the call {event.call!r} is there already"
        case (
            ev.OutputRecorded()
            | ev.ResponseCompleted()
            | ev.ResponseIncomplete()
            | ev.ResponseFailed()
            | ev.ResponseRejected()
            | ev.ResponseInterrupted()
            | ev.ResponseUnknown()
        ) as event:
            if state.attempt is None or state.attempt.id != event.attempt:
                yield f"the attempt {event.attempt!r} is not open"
        case _:
            pass


def _of_turn(state: State, turn: str | None, event: ev.TurnEvent) -> Iterator[str]:
    match event:
        case ev.TurnQueued():
            if turn is None or turn == _id(state) or state.in_queue(turn) is not None:
                yield f"turn {turn!r} cannot wait here"
        case ev.TurnStarted():
            if turn is None or state.turn is not None:
                yield f"turn {turn!r} cannot start while {_id(state)!r} is open"
        case ev.TurnCancelRequested() | ev.TurnResumed():
            yield from _of_open_turn(state, turn)
        case ev.TurnPaused():
            yield from _of_open_turn(state, turn)
            yield from _no_request(state)
        case ev.TurnEnded():
            if turn is None or state.in_queue(turn) is None:
                yield from _ends(state, turn)
        case _:
            assert_never(event)


def _ends(state: State, turn: str | None) -> Iterator[str]:
    yield from _of_open_turn(state, turn)
    yield from _no_request(state)
    yield from _unasked(state)
    if state.pending:
        yield f"the call {state.pending[0].id!r} has no output (law 7)"


def _id(state: State) -> str | None:
    return state.turn.id if state.turn is not None else None


def _of_open_turn(state: State, turn: str | None) -> Iterator[str]:
    if turn is None or turn != _id(state):
        yield f"turn {turn!r} is not open"


def _no_request(state: State) -> Iterator[str]:
    if state.attempt is not None:
        yield "a request is out"


def _unasked(state: State) -> Iterator[str]:
    """Every client-owned output of the last response is a call (law 7)."""
    asked = {call.item for call in state.calls}
    for output in state.claims:
        if output.key not in asked:
            yield f"nobody requested the call {output.key!r} of the last response"


def _fits(state: State, part: ev.Range) -> bool:
    last = state.next if part.of == "context" else state.version + 1
    return 0 <= part.start <= part.stop <= last


def _of_range(part: ev.Range) -> str:
    return f"the {part.of} does not reach from {part.start} to {part.stop}"
