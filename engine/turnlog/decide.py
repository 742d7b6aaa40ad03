"""Commands to events, or an error: the rules of what may happen when.

The one rule: `decide` is a pure function of the state and the command; an illegal command raises
and changes nothing (law 13). The commands are in `commands.py` and are imported from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from . import events as ev
from .commands import (
    AddItems,
    Approve,
    BeginTurn,
    Command,
    Configure,
    Defer,
    DoubtCalls,
    EditItem,
    EndTurn,
    Finish,
    Keyed,
    Note,
    PauseTurn,
    Prepare,
    Progress,
    RemoveItem,
    RequestCancel,
    Resolve,
    Start,
    StartCall,
)
from .decide_calls import find, on_call, open_turn
from .errors import Busy, InvalidInput, ItemPresent, StaleEpoch, Waiting
from .head import State, Turn
from .items import check
from .record import NewEvent

__all__ = [
    "AddItems",
    "Approve",
    "BeginTurn",
    "Command",
    "Configure",
    "Defer",
    "DoubtCalls",
    "EditItem",
    "EndTurn",
    "Finish",
    "Keyed",
    "Note",
    "PauseTurn",
    "Prepare",
    "Progress",
    "RemoveItem",
    "RequestCancel",
    "Resolve",
    "Start",
    "StartCall",
    "check_new",
    "decide",
    "find",
    "open_turn",
]


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
            return on_call(state, command)
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
