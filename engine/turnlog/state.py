"""The fold: the head of a conversation, and how each event changes it.

The one rule: state is a pure fold over events (law 2). `evolve` copies, never reads a clock, and is
one match for each family of events that ends in `assert_never`. The values of the head are in
`head.py` and are imported from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

from . import events as ev
from .fold_calls import on_call
from .fold_context import on_item
from .fold_requests import on_outcome, on_request
from .head import (
    FORMAT,
    MAX_EDITS,
    SETTLED,
    Attempt,
    Call,
    CallStatus,
    Config,
    Edit,
    Outcome,
    OutcomeKind,
    Output,
    Parent,
    Queued,
    State,
    Status,
    Turn,
    branch,
    changed,
    start,
    still_holds,
)
from .record import Recorded
from .tail import Run

__all__ = [
    "FORMAT",
    "MAX_EDITS",
    "SETTLED",
    "Attempt",
    "Call",
    "CallStatus",
    "Config",
    "Edit",
    "Outcome",
    "OutcomeKind",
    "Output",
    "Parent",
    "Queued",
    "Run",
    "State",
    "Status",
    "Turn",
    "branch",
    "evolve",
    "replay",
    "start",
    "still_holds",
]


def replay(state: State, events: Iterable[Recorded]) -> State:
    """Fold events into a state."""
    for one in events:
        state = evolve(state, one)
    return state


def evolve(state: State, recorded: Recorded) -> State:
    """The state after one more event."""
    state = changed(
        state, version=recorded.version, hash=recorded.hash.hex(), updated=recorded.time
    )
    match recorded.event:
        case (
            ev.ConversationStarted()
            | ev.ConversationConfigured()
            | ev.ConversationClosed()
            | ev.ContentErased()
        ) as event:
            return _conversation(state, recorded, event)
        case (
            ev.ItemAdded()
            | ev.ItemEdited()
            | ev.ItemRemoved()
            | ev.OutputTruncated()
            | ev.ContextCompacted()
        ) as event:
            return on_item(state, recorded.version, event)
        case (
            ev.TurnQueued()
            | ev.TurnStarted()
            | ev.TurnCancelRequested()
            | ev.TurnPaused()
            | ev.TurnResumed()
            | ev.TurnEnded()
        ) as event:
            return _turn(state, recorded, event)
        case (
            ev.RequestPrepared()
            | ev.ResponseStarted()
            | ev.OutputCheckpointed()
            | ev.OutputRecorded()
            | ev.ChainLost()
        ) as event:
            return on_request(state, recorded, event)
        case (
            ev.ResponseCompleted()
            | ev.ResponseIncomplete()
            | ev.ResponseFailed()
            | ev.ResponseRejected()
            | ev.ResponseInterrupted()
            | ev.ResponseUnknown()
        ) as event:
            return on_outcome(state, recorded, event)
        case (
            ev.CallRequested()
            | ev.CallApproved()
            | ev.CallRejected()
            | ev.CallStarted()
            | ev.CallProgressed()
            | ev.CallAnswered()
            | ev.CallDeferred()
            | ev.CallUncertain()
            | ev.CallAbandoned()
        ) as event:
            return on_call(state, recorded, event)
        case ev.TransportSwitched() as event:
            return changed(state, transport=event.after)
        case (
            ev.SteerSubmitted()
            | ev.SteerAccepted()
            | ev.SteerPending()
            | ev.SteerFailed()
            | ev.ProviderNoted()
        ):
            return state
        case _:
            assert_never(recorded.event)


def _conversation(state: State, recorded: Recorded, event: ev.ConversationEvent) -> State:
    match event:
        case ev.ConversationStarted():
            return changed(state, created=recorded.time, metadata=event.metadata, fork=event.fork)
        case ev.ConversationConfigured():
            config = Config(
                version=recorded.version,
                fingerprint=event.fingerprint,
                agent=event.agent,
                model=event.model,
            )
            return changed(state, config=config)
        case ev.ConversationClosed() | ev.ContentErased():
            return state
        case _:
            assert_never(event)


def _turn(state: State, recorded: Recorded, event: ev.TurnEvent) -> State:
    match event:
        case ev.TurnStarted():
            turn = Turn(
                id=recorded.turn or "",
                key=event.key,
                digest=event.digest,
                version=recorded.version,
                epoch=recorded.epoch or 0,
                manual=event.manual,
                max_requests=event.max_requests,
                max_retries=event.max_retries,
            )
            return changed(_unqueued(state, turn.id), turn=turn, turns=state.turns + 1)
        case ev.TurnCancelRequested():
            return changed(state, turn=state.turn and replace(state.turn, cancel=event.mode))
        case ev.TurnPaused():
            return changed(state, turn=state.turn and replace(state.turn, paused=event.reason))
        case ev.TurnResumed():
            return changed(state, turn=state.turn and replace(state.turn, paused=None))
        case ev.TurnEnded():
            if state.in_queue(recorded.turn) is not None:
                return _unqueued(state, recorded.turn)
            return changed(state, turn=None, claims=())
        case ev.TurnQueued():
            waiting = Queued(
                id=recorded.turn or "",
                key=event.key,
                digest=event.digest,
                version=recorded.version,
            )
            before, behind = ((), state.queued) if event.first else (state.queued, ())
            return changed(state, queued=(*before, waiting, *behind))
        case _:
            assert_never(event)


def _unqueued(state: State, turn: str | None) -> State:
    """The turn waits no longer: it runs, or never will."""
    return changed(state, queued=tuple(one for one in state.queued if one.id != turn))
