"""What may happen to a client-owned call when.

The one rule: a call is answered once; only an abandonment that no request has told the model of can
still be replaced (design section 7).
"""

from __future__ import annotations

from typing import assert_never

from . import events as ev
from .canonical import JsonObject
from .commands import Approve, Defer, DoubtCalls, Progress, Resolve, StartCall
from .errors import AlreadyAnswered, InvalidInput, LateAnswer, NotFound, NotPending
from .head import Call, State, Turn
from .items import OUTPUT_OF, answered_id, type_of
from .record import NewEvent


def on_call(
    state: State, command: StartCall | Progress | Defer | DoubtCalls | Approve | Resolve
) -> list[NewEvent]:
    """The events of a call that follow from a command, or a typed error."""
    match command:
        case DoubtCalls():
            events: list[ev.Event] = [
                ev.CallUncertain(call=call, reason=command.reason) for call in command.calls
            ]
            turn = open_turn(state).id
        case StartCall() | Progress() | Defer() | Approve():
            call = find(state, command.call)
            events, turn = [_moved(call, command)], call.turn or ""
        case Resolve():
            call = find(state, command.call)
            events, turn = _resolved(state, call, command), call.turn or ""
        case _:
            assert_never(command)
    return [NewEvent(event=event, turn=turn) for event in events]


def open_turn(state: State) -> Turn:
    """The open turn; raises NotFound where there is none."""
    if state.turn is None:
        raise NotFound(f"conversation {state.id!r} has no open turn")
    return state.turn


def find(state: State, call: str) -> Call:
    """An open call by turnlog's id; raises NotPending where there is none."""
    found = state.call(call)
    if found is None:
        raise NotPending(
            f"call {call!r} is not pending in conversation {state.id!r}:"
            " a request with its output has completed, or it never was"
        )
    return found


def _moved(call: Call, command: StartCall | Progress | Defer | Approve) -> ev.Event:
    match command:
        case StartCall():
            _check_status(call, "start", ("requested", "approved", "uncertain"))
            return ev.CallStarted(call=call.id, run=call.runs + 1)
        case Progress():
            _check_status(call, "report progress on", ("started", "deferred"))
            return ev.CallProgressed(call=call.id, data=command.data)
        case Defer():
            _check_status(call, "defer", ("started",))
            return ev.CallDeferred(call=call.id)
        case Approve(rerun=True):
            _check_status(call, "rerun", ("uncertain",))
            return ev.CallApproved(call=call.id, reason=command.reason or "rerun")
        case Approve():
            _check_status(call, "approve", ("requested",))
            return ev.CallApproved(call=call.id, reason=command.reason)
        case _:
            assert_never(command)


def _check_status(call: Call, what: str, allowed: tuple[str, ...]) -> None:
    if call.status not in allowed:
        raise NotPending(
            f"cannot {what} call {call.id!r}: it is {call.status}, not {' or '.join(allowed)}"
        )


def _resolved(state: State, call: Call, command: Resolve) -> list[ev.Event]:
    if call.settled:
        return _resolved_again(state, call, command)
    _check_answers(call, command.item)
    if command.how == "rejected":
        _check_status(call, "reject", ("requested", "approved"))
    if command.how == "answered" and call.status == "started" and not command.by_runner:
        raise NotPending(
            f"call {call.id!r} is being run by its tool: cancel the turn to take it over"
        )
    return [_output(command)]


def _resolved_again(state: State, call: Call, command: Resolve) -> list[ev.Event]:
    """The same answer again is a no-op; a late one replaces an abandonment that was not sent."""
    if command.earlier is not None and command.earlier == command.item:
        return []
    if call.status != "abandoned" or command.how != "answered":
        raise AlreadyAnswered(f"call {call.id!r} is {call.status} already, with another output")
    if state.attempt is not None and call.ordinal is not None and call.ordinal < state.attempt.end:
        raise LateAnswer(
            f"call {call.id!r} was abandoned, and a request has told the model so:"
            " add the answer as a message"
        )
    _check_answers(call, command.item)
    return [_output(command)]


def _check_answers(call: Call, item: JsonObject) -> None:
    wanted = OUTPUT_OF[call.kind]
    if type_of(item) != wanted:
        raise InvalidInput(f"a {call.kind} is answered by a {wanted}, not a {type_of(item)}")
    if answered_id(item) != call.call_id:
        raise InvalidInput(
            f"the output answers {answered_id(item)!r}, but the call is {call.call_id!r}"
        )


def _output(command: Resolve) -> ev.Event:
    match command.how:
        case "answered":
            return ev.CallAnswered(
                call=command.call, key=command.key, item=command.item, failed=command.failed
            )
        case "rejected":
            return ev.CallRejected(
                call=command.call, key=command.key, item=command.item, reason=command.reason
            )
        case "abandoned":
            return ev.CallAbandoned(
                call=command.call,
                key=command.key,
                item=command.item,
                reason=command.reason or "abandoned",
            )
        case _:
            assert_never(command.how)
