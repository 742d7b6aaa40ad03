"""What may happen to a client-owned call when.

The one rule: a call is answered once; only an abandonment that no request has told the model of can
still be replaced (design section 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, assert_never

from . import events as ev
from .canonical import JsonObject
from .commands import Approve, Defer, DoubtCalls, Progress, Resolve, StartCall
from .errors import AlreadyAnswered, InvalidInput, LateAnswer, NotFound, NotPending
from .head import Call, CallStatus, State, Turn
from .items import OUTPUT_OF, answered_id, type_of
from .record import NewEvent

STARTABLE: tuple[CallStatus, ...] = ("requested", "approved", "uncertain")
"""What a call may be when its tool is started."""

Verb: TypeAlias = Literal["approve", "reject", "rerun", "answer", "abandon"]

_VERBS: Mapping[str, tuple[Verb, ...]] = {
    "requested": ("approve", "reject", "answer", "abandon"),
    "approved": ("reject", "answer", "abandon"),
    "started": ("abandon",),
    "deferred": ("answer", "abandon"),
    "uncertain": ("rerun", "answer", "abandon"),
    "abandoned": ("answer",),
}


def verbs(status: str) -> tuple[Verb, ...]:
    """What people can do about a call of this status, as `on_call` will have it.

    An abandonment can be answered only until a request contains it.
    """
    return _VERBS.get(status, ())


def on_call(
    state: State, command: StartCall | Progress | Defer | DoubtCalls | Approve | Resolve
) -> list[NewEvent]:
    """The events of a call that follow from a command, or a typed error."""
    match command:
        case DoubtCalls():
            return [_doubted(find(state, call), command) for call in command.calls]
        case StartCall() | Progress() | Defer() | Approve():
            call = find(state, command.call)
            if _is_repeated(call, command):
                return []
            return [NewEvent(event=_moved(call, command), turn=call.turn)]
        case Resolve():
            return _resolve(state, command)
        case _:
            assert_never(command)


def _is_repeated(call: Call, command: StartCall | Progress | Defer | Approve) -> bool:
    """Whether somebody approves what is approved: a page whose button was pressed twice."""
    return isinstance(command, Approve) and not command.rerun and call.status == "approved"


def _doubted(call: Call, command: DoubtCalls) -> NewEvent:
    _check_status(call, "doubt", ("started",))
    uncertain = ev.CallUncertain(call=call.id, reason=command.reason, timed_out=command.timed_out)
    return NewEvent(event=uncertain, turn=call.turn)


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
            _check_status(call, "start", STARTABLE)
            return ev.CallStarted(call=call.id, run=call.runs + 1)
        case Progress():
            _check_status(call, "report progress on", ("started", "deferred"))
            return ev.CallProgressed(call=call.id, data=command.data)
        case Defer():
            _check_status(call, "defer", ("started", "uncertain"))
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


def _resolve(state: State, command: Resolve) -> list[NewEvent]:
    if command.earlier is not None and command.earlier == command.item:
        return []
    call = state.call(command.call)
    if call is None and command.was is not None:
        raise _told(command.call, command.was)
    call = find(state, command.call)
    return [NewEvent(event=event, turn=call.turn) for event in _resolved(state, call, command)]


def _told(call: str, was: CallStatus) -> AlreadyAnswered | LateAnswer:
    """Why the output of a call cannot be replaced once a request has held it."""
    if was == "abandoned":
        return LateAnswer(
            f"call {call!r} was abandoned, and a request has told the model so:"
            " add the answer as a message"
        )
    return AlreadyAnswered(f"call {call!r} is {was} already, with another output")


def _resolved(state: State, call: Call, command: Resolve) -> list[ev.Event]:
    if call.settled:
        return _resolved_again(state, call, command)
    check_answers(call, command.item)
    if command.how == "rejected":
        _check_status(call, "reject", ("requested", "approved"))
    if command.how == "answered" and call.status == "started" and not command.by_runner:
        raise NotPending(
            f"call {call.id!r} is being run by its tool: cancel the turn to take it over"
        )
    return [_output(command)]


def _resolved_again(state: State, call: Call, command: Resolve) -> list[ev.Event]:
    """A late answer replaces an abandonment that was not sent."""
    if call.status != "abandoned" or command.how != "answered":
        raise AlreadyAnswered(f"call {call.id!r} is {call.status} already, with another output")
    if state.attempt is not None and call.ordinal is not None and call.ordinal < state.attempt.end:
        raise _told(call.id, call.status)
    check_answers(call, command.item)
    return [_output(command)]


def check_answers(call: Call, item: JsonObject) -> None:
    """Raise InvalidInput where an item is not an output of this call."""
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
