"""How requests and their outcomes change the head.

The one rule: only a completed response is a parent, and only its calls may be requested (law 4); an
outcome of an attempt that is not the open one changes nothing (law 5).
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from . import events as ev
from .canonical import integer, text
from .fold_context import moved
from .head import Attempt, Outcome, OutcomeKind, Output, Parent, State, Turn, changed
from .items import call_id_of, is_client_call, name_of
from .record import Recorded
from .tail import shift, split

CHAIN_LOST = "previous_response_not_found"
CONNECTION_LIMIT = "websocket_connection_limit_reached"
PARENT_GONE = "parent_gone"
"""What a transport says where an unstored parent was lost before anything was sent."""

FREE = frozenset({CONNECTION_LIMIT, PARENT_GONE})
"""Refusals that cost no try: the request goes out again at once, by another connection."""

NEW: frozenset[ev.Cause] = frozenset({"first", "tools_answered", "server"})
"""Causes of a request that is none of the earlier ones again: these count for `max_requests`."""


def on_request(state: State, recorded: Recorded, event: ev.RequestEvent) -> State:
    """The state after something was sent or heard."""
    match event:
        case ev.RequestPrepared():
            return _prepared(state, recorded, event)
        case ev.ChainLost():
            return changed(state, parent=None)
        case _:
            attempt = state.attempt
            if attempt is None or attempt.id != event.attempt:
                return state
            return changed(state, attempt=_heard(attempt, recorded.version, event))


def _prepared(state: State, recorded: Recorded, event: ev.RequestPrepared) -> State:
    attempt = Attempt(
        id=event.attempt,
        version=recorded.version,
        time=recorded.time,
        cause=event.cause,
        try_number=event.try_number,
        delay_ms=event.delay_ms,
        kind=event.kind,
        parent=event.parent,
        end=state.next,
        transport=event.transport,
        store=event.store,
        model=event.model,
        background=event.background,
        connection=event.connection,
        lane=event.lane,
    )
    turn = state.turn and replace(
        state.turn,
        paused=None,
        requests=state.turn.requests + (event.cause in NEW),
        retries=state.turn.retries + _is_retry(state.turn, event),
    )
    return changed(state, attempt=attempt, claims=(), turn=turn, transport=event.transport)


def _is_retry(turn: Turn, event: ev.RequestPrepared) -> bool:
    """Whether a try was spent on it (law 10): a lost chain or a full connection costs none."""
    return turn.last is not None and event.try_number > max(1, turn.last.try_number)


def _heard(
    attempt: Attempt,
    version: int,
    event: ev.ResponseStarted | ev.OutputCheckpointed | ev.OutputRecorded,
) -> Attempt:
    match event:
        case ev.ResponseStarted():
            return replace(
                attempt,
                response=event.response,
                connection=event.connection,
                lane=event.lane,
            )
        case ev.OutputRecorded():
            output = Output(
                key=event.key,
                version=version,
                item_id=text(event.item, "id"),
                call_id=call_id_of(event.item),
                kind=text(event.item, "type") or "message",
                name=name_of(event.item),
                client=is_client_call(event.item),
            )
            return replace(attempt, outputs=(*attempt.outputs, output))
        case ev.OutputCheckpointed():
            return attempt
        case _:
            assert_never(event)


def on_outcome(state: State, recorded: Recorded, event: ev.OutcomeEvent) -> State:
    """The state after the open attempt ended (law 5)."""
    attempt = state.attempt
    if attempt is None or attempt.id != event.attempt:
        return state
    outcome = _summary(attempt, recorded.time, event)
    turn = state.turn and replace(
        state.turn,
        last=outcome,
        chains_lost=state.turn.chains_lost + (outcome.code == CHAIN_LOST),
        limits_hit=state.turn.limits_hit + (outcome.code in FREE),
    )
    state = changed(state, attempt=None, turn=turn)
    if isinstance(event, ev.ResponseCompleted):
        return _committed(state, recorded, attempt, event.response)
    parent = state.parent
    evicted = (
        parent is not None
        and not parent.store
        and parent.response == attempt.parent
        and outcome.sent
    )
    return changed(state, parent=None if evicted else parent)


def _summary(attempt: Attempt, time: int, event: ev.OutcomeEvent) -> Outcome:
    error = event.error or {}
    outcome = Outcome(
        kind=OUTCOME_KINDS[type(event)],
        attempt=attempt.id,
        cause=attempt.cause,
        try_number=attempt.try_number,
        time=time,
        heard=(event.response or attempt.response) is not None,
        code=text(error, "code"),
        message=text(error, "message"),
        status=integer(error, "status"),
    )
    match event:
        case ev.ResponseRejected():
            return replace(
                outcome,
                sent=event.status is not None or event.reason != "not_sent",
                retryable=event.retryable,
                reason=event.reason,
                status=event.status,
                retry_after_ms=event.retry_after_ms,
            )
        case ev.ResponseFailed():
            return replace(outcome, retryable=event.retryable, retry_after_ms=event.retry_after_ms)
        case ev.ResponseIncomplete() | ev.ResponseInterrupted() | ev.ResponseUnknown():
            return replace(outcome, reason=event.reason)
        case ev.ResponseCompleted():
            return outcome
        case _:
            assert_never(event)


OUTCOME_KINDS: dict[type[ev.OutcomeEvent], OutcomeKind] = {
    ev.ResponseCompleted: "completed",
    ev.ResponseIncomplete: "incomplete",
    ev.ResponseFailed: "failed",
    ev.ResponseRejected: "rejected",
    ev.ResponseInterrupted: "interrupted",
    ev.ResponseUnknown: "unknown",
}


def _committed(state: State, recorded: Recorded, attempt: Attempt, response: str | None) -> State:
    """The inputs of the request take their places, then its outputs (law 6).

    What was added to the tail while the request was out moves behind the outputs.
    """
    outputs, end = attempt.outputs, attempt.end + len(attempt.outputs)
    tail = tuple(run for run in split(state.tail, attempt.end) if run.ordinal >= attempt.end)
    calls = (call for call in state.calls if call.ordinal is None or call.ordinal >= attempt.end)
    parent = response and Parent(
        response=response,
        end=end,
        version=recorded.version,
        time=recorded.time,
        store=attempt.store,
        model=attempt.model,
        transport=attempt.transport,
        connection=attempt.connection,
        lane=attempt.lane,
        calls=sum(output.client for output in outputs),
    )
    return changed(
        state,
        committed=end,
        next=state.next + len(outputs),
        tail=shift(tail, attempt.end, len(outputs)),
        calls=moved(tuple(calls), attempt.end, len(outputs)),
        claims=tuple(output for output in outputs if output.client),
        parent=parent or None,
        turn=state.turn and replace(state.turn, response=response, chains_lost=0, limits_hit=0),
    )
