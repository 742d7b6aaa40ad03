"""Commands to events, or an error: the rules of what may happen when.

The one rule: `decide` is a pure function of the state and the command; an illegal command raises
and changes nothing (law 13). What a rule needs from outside the head (whether an item is present,
what an earlier output said) is part of the command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, assert_never

from . import events as ev
from .canonical import Json, JsonObject
from .errors import (
    AlreadyAnswered,
    Busy,
    InvalidInput,
    ItemPresent,
    LateAnswer,
    NotFound,
    NotPending,
    StaleEpoch,
    Waiting,
)
from .items import OUTPUT_OF, answered_id, check, type_of
from .record import NewEvent
from .state import Call, State, Turn

# -- commands ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    """An item with the key that it gets."""

    key: str
    item: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Begin the conversation, where it has not begun."""

    metadata: JsonObject = field(default_factory=dict[str, Json])
    fork: ev.Fork | None = None
    origin: ev.Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """Put a configuration in force, where it differs from the one that is."""

    config: ev.ConversationConfigured


@dataclass(frozen=True, slots=True, kw_only=True)
class AddItems:
    """Add items to the tail, or before `ordinal`. `present` holds provider ids in the context."""

    items: tuple[Keyed, ...]
    ordinal: int | None = None
    present: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class EditItem:
    """Put another item in the place of one."""

    ordinal: int
    key: str
    item: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveItem:
    """Take an item out of the context."""

    ordinal: int
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginTurn:
    """Accept an input. What is pending is abandoned with `abandon`, where that is given."""

    turn: str
    key: str
    digest: str
    items: tuple[Keyed, ...]
    settings: JsonObject = field(default_factory=dict[str, Json])
    max_requests: int | None = None
    manual: bool = False
    present: frozenset[str] = frozenset()
    abandon: tuple[Keyed, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Send a request of the open turn."""

    request: ev.RequestPrepared


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Record what the provider said while an attempt is under way, or beside it."""

    events: tuple[ev.Event, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Close the open attempt: its outputs, its outcome, and the ids of the calls it asks for."""

    outcome: ev.OutcomeEvent
    outputs: tuple[ev.OutputRecorded, ...] = ()
    calls: tuple[tuple[str, str], ...] = ()
    chain_lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCall:
    """Hand the call to its tool (law 12)."""

    call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The tool of the call reports."""

    call: str
    data: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Defer:
    """The answer to the call comes later."""

    call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtCalls:
    """Nobody knows whether these calls were carried out."""

    calls: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """Allow the call to run, or to run again (`rerun`) where it is uncertain."""

    call: str
    reason: str | None = None
    rerun: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolve:
    """Give the call an output: its answer, a refusal, or the word that there will be none.

    `earlier` is the output that the call has already, where it has one. `by_runner` says that the
    tool itself answers.
    """

    call: str
    how: Literal["answered", "rejected", "abandoned"]
    key: str
    item: JsonObject
    reason: str | None = None
    failed: bool = False
    by_runner: bool = False
    earlier: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCancel:
    """Ask the open turn to stop."""

    mode: ev.CancelMode = "now"
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseTurn:
    """Let the turn wait for answers."""

    reason: str
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndTurn:
    """End the open turn; `abandon` holds an output for each call that has none."""

    outcome: ev.TurnOutcome
    abandon: tuple[Keyed, ...] = ()
    reason: str | None = None
    error: JsonObject | None = None


Command: TypeAlias = (
    Start
    | Configure
    | AddItems
    | EditItem
    | RemoveItem
    | BeginTurn
    | Prepare
    | Note
    | Finish
    | StartCall
    | Progress
    | Defer
    | DoubtCalls
    | Approve
    | Resolve
    | RequestCancel
    | PauseTurn
    | EndTurn
)


def decide(state: State, command: Command) -> list[NewEvent]:
    """The events that follow from a command, or a typed error."""
    match command:
        case Start() | Configure():
            return _conversation(state, command)
        case AddItems() | EditItem() | RemoveItem():
            return _context(state, command)
        case BeginTurn():
            return _begin(state, command)
        case Prepare() | Note() | Finish():
            return _attempt(state, command)
        case StartCall() | Progress() | Defer() | DoubtCalls() | Approve() | Resolve():
            return _calls(state, command)
        case RequestCancel() | PauseTurn() | EndTurn():
            return _turn(state, command)
        case _:
            assert_never(command)


# -- the conversation ----------------------------------------------------------------------


def _conversation(state: State, command: Start | Configure) -> list[NewEvent]:
    match command:
        case Start():
            if state.version:
                return []
            started = ev.ConversationStarted(
                id=state.id, metadata=command.metadata, fork=command.fork, origin=command.origin
            )
            return [NewEvent(event=started)]
        case Configure(config=config):
            if state.config is not None and state.config.fingerprint == config.fingerprint:
                return []
            return [NewEvent(event=config)]
        case _:
            assert_never(command)


def _context(state: State, command: AddItems | EditItem | RemoveItem) -> list[NewEvent]:
    match command:
        case AddItems(ordinal=None):
            return _added(command)
        case AddItems():
            _check_no_request(state, "insert an item")
            return _added(command)
        case EditItem():
            _check_no_request(state, "edit an item")
            check(command.item)
            edited = ev.ItemEdited(key=command.key, item=command.item, ordinal=command.ordinal)
            return [NewEvent(event=edited)]
        case RemoveItem():
            _check_no_request(state, "remove an item")
            return [NewEvent(event=ev.ItemRemoved(key=command.key, ordinal=command.ordinal))]
        case _:
            assert_never(command)


def _added(command: AddItems) -> list[NewEvent]:
    check_new(command.items, command.present)
    return [
        NewEvent(event=ev.ItemAdded(key=one.key, item=one.item, ordinal=_place(command, place)))
        for place, one in enumerate(command.items)
    ]


def _place(command: AddItems, offset: int) -> int | None:
    return None if command.ordinal is None else command.ordinal + offset


def check_new(items: Sequence[Keyed], present: frozenset[str]) -> None:
    """Raise where an item cannot be added: no type, or an id that is in the context already."""
    seen = set(present)
    for one in items:
        check(one.item)
        id = one.item.get("id")
        if not isinstance(id, str):
            continue
        if id in seen:
            raise ItemPresent(
                f"the item {id!r} is in the context already:"
                " use chat.replace(items) to make the context equal a list"
            )
        seen.add(id)


def _check_no_request(state: State, what: str) -> None:
    if state.attempt is not None:
        turn = state.turn.id if state.turn is not None else None
        raise Busy(f"cannot {what} while a request is out: wait for {turn} or cancel it", turn=turn)


# -- turns ---------------------------------------------------------------------------------


def _begin(state: State, command: BeginTurn) -> list[NewEvent]:
    ended = _make_way(state, command)
    check_new(command.items, command.present)
    if not command.items and not state.tail and not ended:
        raise InvalidInput("there is nothing to send: give the turn an input")
    started = ev.TurnStarted(
        key=command.key,
        digest=command.digest,
        settings=command.settings,
        max_requests=command.max_requests,
        manual=command.manual,
    )
    added = [ev.ItemAdded(key=one.key, item=one.item) for one in command.items]
    events: list[ev.Event] = [started, *added]
    return [*ended, *(NewEvent(event=event, turn=command.turn) for event in events)]


def _make_way(state: State, command: BeginTurn) -> list[NewEvent]:
    """What becomes of a turn that is open already."""
    turn = state.turn
    if turn is None:
        return []
    if turn.paused is None:
        raise Busy(
            f"turn {turn.id} is running: wait for it or cancel it before the next input",
            turn=turn.id,
        )
    if command.abandon is None:
        raise Waiting(
            f"turn {turn.id} waits ({turn.paused}): answer or resume it,"
            ' or send with pending="abandon"',
            turn=turn.id,
        )
    return _ended(
        state, turn, EndTurn(outcome="cancelled", abandon=command.abandon, reason="abandoned")
    )


def _turn(state: State, command: RequestCancel | PauseTurn | EndTurn) -> list[NewEvent]:
    turn = open_turn(state)
    match command:
        case RequestCancel():
            if turn.cancel in (command.mode, "now"):
                return []
            asked = ev.TurnCancelRequested(mode=command.mode, reason=command.reason)
            return [NewEvent(event=asked, turn=turn.id)]
        case PauseTurn():
            paused = ev.TurnPaused(reason=command.reason, calls=command.calls)
            return [NewEvent(event=paused, turn=turn.id)]
        case EndTurn():
            return _ended(state, turn, command)
        case _:
            assert_never(command)


def open_turn(state: State) -> Turn:
    """The open turn; raises NotFound where there is none."""
    if state.turn is None:
        raise NotFound(f"conversation {state.id!r} has no open turn")
    return state.turn


def _ended(state: State, turn: Turn, command: EndTurn) -> list[NewEvent]:
    reason = command.reason or command.outcome
    outputs = dict(zip((call.id for call in state.pending), command.abandon, strict=True))
    events: list[ev.Event] = [
        ev.CallAbandoned(call=call, key=one.key, item=one.item, reason=reason)
        for call, one in outputs.items()
    ]
    error = command.error
    if error is None and command.outcome == "failed":
        error = {"message": reason}
    events.append(ev.TurnEnded(outcome=command.outcome, response=turn.response, error=error))
    return [NewEvent(event=event, turn=turn.id) for event in events]


# -- attempts ------------------------------------------------------------------------------


def _attempt(state: State, command: Prepare | Note | Finish) -> list[NewEvent]:
    turn = open_turn(state).id
    match command:
        case Prepare():
            _check_no_request(state, "send a request")
            return [NewEvent(event=command.request, turn=turn)]
        case Note():
            return [NewEvent(event=event, turn=turn) for event in command.events]
        case Finish():
            return [NewEvent(event=event, turn=turn) for event in _finished(state, command)]
        case _:
            assert_never(command)


def _finished(state: State, command: Finish) -> list[ev.Event]:
    """Outputs, outcome and calls are one append (law 3); calls only of a completed one (law 4)."""
    attempt, outcome = state.attempt, command.outcome
    if attempt is None or attempt.id != outcome.attempt:
        raise StaleEpoch(f"attempt {outcome.attempt} has an outcome already (law 5)")
    found: list[ev.Event] = [*command.outputs, outcome]
    if isinstance(outcome, ev.ResponseCompleted):
        found += [ev.CallRequested(call=call, item=item) for item, call in command.calls]
    if command.chain_lost and attempt.parent is not None:
        found.append(ev.ChainLost(parent=attempt.parent, attempt=attempt.id))
    return found


# -- calls ---------------------------------------------------------------------------------


def _calls(
    state: State, command: StartCall | Progress | Defer | DoubtCalls | Approve | Resolve
) -> list[NewEvent]:
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
