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
    Compacted,
    Configure,
    Defer,
    DoubtCalls,
    DropTurn,
    EditItem,
    EndTurn,
    Finish,
    Keyed,
    Note,
    PauseTurn,
    Prepare,
    Progress,
    QueueTurn,
    RemoveItem,
    RequestCancel,
    Resolve,
    ResumeTurn,
    Start,
    StartCall,
)
from .decide_calls import check_answers, find, on_call, open_turn
from .errors import Busy, InvalidInput, ItemPresent, NotFound, StaleEpoch, Waiting
from .head import State, Turn
from .items import OUTPUT_OF, already_present, answered_id, check, is_client_call, type_of
from .record import NewEvent

__all__ = [
    "AddItems",
    "Approve",
    "BeginTurn",
    "Command",
    "Compacted",
    "Configure",
    "Defer",
    "DoubtCalls",
    "DropTurn",
    "EditItem",
    "EndTurn",
    "Finish",
    "Keyed",
    "Note",
    "PauseTurn",
    "Prepare",
    "Progress",
    "QueueTurn",
    "RemoveItem",
    "RequestCancel",
    "Resolve",
    "ResumeTurn",
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
        case Compacted():
            return _compacted(state, command)
        case BeginTurn():
            return _begin(state, command)
        case QueueTurn() | DropTurn():
            return _queue(state, command)
        case Prepare() | Note() | Finish():
            return _attempt(state, command)
        case StartCall() | Progress() | Defer() | DoubtCalls() | Approve() | Resolve():
            return on_call(state, command)
        case RequestCancel() | PauseTurn() | ResumeTurn() | EndTurn():
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
            return _added(state, command)
        case AddItems():
            _check_no_request(state, "insert an item")
            _check_place(state, command.ordinal, state.next)
            return _added(state, command)
        case EditItem():
            _check_no_request(state, "edit an item")
            _check_place(state, command.ordinal, state.next - 1)
            check(command.item)
            edited = ev.ItemEdited(key=command.key, item=command.item, ordinal=command.ordinal)
            return [NewEvent(event=edited)]
        case RemoveItem():
            _check_no_request(state, "remove an item")
            _check_place(state, command.ordinal, state.next - 1)
            return [NewEvent(event=ev.ItemRemoved(key=command.key, ordinal=command.ordinal))]
        case _:
            assert_never(command)


def _compacted(state: State, command: Compacted) -> list[NewEvent]:
    """What the provider made of the window comes behind it, and before what was not sent so far.

    It repeats what stands in the context already, so that nothing is asked of its ids.
    """
    _check_no_request(state, "compact the context")
    if state.calls:
        raise InvalidInput("a call and its output cannot be parted: send the output first")
    for one in command.items:
        check(one.item)
    start = state.committed
    places = range(start, start + len(command.items))
    added: list[ev.Event] = [
        ev.ItemAdded(key=one.key, item=one.item, ordinal=place if state.next > start else None)
        for one, place in zip(command.items, places, strict=True)
    ]
    window = ev.ContextCompacted(
        ordinal=start, items=len(added), response=command.response, usage=command.usage
    )
    return [NewEvent(event=event) for event in (*added, window)]


def _check_place(state: State, ordinal: int | None, last: int) -> None:
    if ordinal is not None and not 0 <= ordinal <= last:
        raise NotFound(f"conversation {state.id!r} has no place {ordinal}: it has {state.next}")


def _added(state: State, command: AddItems) -> list[NewEvent]:
    check_new(command.items)
    _check_answers_nothing(state, command.items)
    return [
        NewEvent(event=ev.ItemAdded(key=one.key, item=one.item, ordinal=_place(command, place)))
        for place, one in enumerate(command.items)
    ]


def _place(command: AddItems, offset: int) -> int | None:
    return None if command.ordinal is None else command.ordinal + offset


def check_new(items: Sequence[Keyed]) -> None:
    """Raise where an item cannot be added: no type, or the id of one before it.

    That no id is in the context already is asked of the store (`Draft.expect_new`).
    """
    seen = set[str]()
    for one in items:
        check(one.item)
        id = one.item.get("id")
        if not isinstance(id, str):
            continue
        if id in seen:
            raise already_present(id)
        seen.add(id)


def _check_answers_nothing(state: State, items: Sequence[Keyed]) -> None:
    """An output of an open call is not an item to add: it would be sent twice, or never (W-11)."""
    if not state.calls:
        return
    open_calls = {(OUTPUT_OF[call.kind], call.call_id): call for call in state.calls}
    for one in items:
        call = open_calls.get((type_of(one.item), answered_id(one.item)))
        if call is None:
            continue
        if call.settled:
            raise ItemPresent(f"call {call.id!r} has an output in the context already")
        raise InvalidInput(
            f"the item answers call {call.id!r}, which is {call.status}: use call.answer(item)"
        )


def _check_no_request(state: State, what: str) -> None:
    if state.attempt is not None:
        turn = state.turn.id if state.turn is not None else None
        raise Busy(f"cannot {what} while a request is out: wait for {turn} or cancel it", turn=turn)


# -- turns ---------------------------------------------------------------------------------


def _begin(state: State, command: BeginTurn) -> list[NewEvent]:
    _check_no_request(state, "begin a turn")
    ended = _make_way(state, command)
    check_new(command.items)
    _check_answers_nothing(state, command.items)
    if not command.items and not state.tail and not state.pending:
        raise InvalidInput("there is nothing to send: give the turn an input")
    started = ev.TurnStarted(
        key=command.key,
        digest=command.digest,
        settings=command.settings,
        max_requests=command.max_requests,
        max_retries=command.max_retries,
        manual=command.manual,
    )
    added = [ev.ItemAdded(key=one.key, item=one.item) for one in command.items]
    events: list[ev.Event] = [started, *added]
    return [*ended, *(NewEvent(event=event, turn=command.turn) for event in events)]


def _make_way(state: State, command: BeginTurn) -> list[NewEvent]:
    """What becomes of a turn that is open already; what was queued before goes first."""
    turn = state.turn
    if turn is None:
        _check_first(state, command)
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
    _check_first(state, command)
    return _ended(
        state, turn, EndTurn(outcome="cancelled", abandon=command.abandon, reason="abandoned")
    )


def _check_first(state: State, command: BeginTurn) -> None:
    if not state.queued or state.queued[0].id == command.turn:
        return
    turn = state.queued[0].id
    raise Busy(
        f"turn {turn} is queued and comes first: wait for it, or"
        ' send with if_busy="queue" or if_busy="interrupt"',
        turn=turn,
    )


def _queue(state: State, command: QueueTurn | DropTurn) -> list[NewEvent]:
    match command:
        case QueueTurn():
            for item in command.queued.items:
                check(item)
            return [NewEvent(event=command.queued, turn=command.turn)]
        case DropTurn():
            if state.in_queue(command.turn) is None:
                raise NotFound(f"turn {command.turn!r} is not queued in {state.id!r}")
            error = {"message": command.reason} if command.reason is not None else None
            ended = ev.TurnEnded(outcome=command.outcome, error=error)
            return [NewEvent(event=ended, turn=command.turn)]
        case _:
            assert_never(command)


def _turn(
    state: State, command: RequestCancel | PauseTurn | ResumeTurn | EndTurn
) -> list[NewEvent]:
    turn = open_turn(state)
    match command:
        case RequestCancel():
            if turn.cancel in (command.mode, "now"):
                return []
            asked = ev.TurnCancelRequested(mode=command.mode, reason=command.reason)
            return [NewEvent(event=asked, turn=turn.id)]
        case PauseTurn():
            _check_no_request(state, "pause the turn")
            paused = ev.TurnPaused(reason=command.reason, calls=command.calls)
            return [NewEvent(event=paused, turn=turn.id)]
        case ResumeTurn():
            return [NewEvent(event=ev.TurnResumed(reason=command.reason), turn=turn.id)]
        case EndTurn():
            return _ended(state, turn, command)
        case _:
            assert_never(command)


def _ended(state: State, turn: Turn, command: EndTurn) -> list[NewEvent]:
    _check_no_request(state, "end the turn")
    reason = command.reason or command.outcome
    events = _abandoned(state, command.abandon, reason)
    error = command.error
    if error is None and command.outcome == "failed":
        error = {"message": reason}
    events.append(ev.TurnEnded(outcome=command.outcome, response=turn.response, error=error))
    return [NewEvent(event=event, turn=turn.id) for event in events]


def _abandoned(state: State, outputs: Sequence[Keyed], reason: str) -> list[ev.Event]:
    """An output for every call that has none: the conversation stays usable (law 7)."""
    pending = state.pending
    if len(outputs) != len(pending):
        raise InvalidInput(
            f"{len(pending)} calls are pending, and {len(outputs)} outputs are given"
        )
    for call, one in zip(pending, outputs, strict=True):
        check_answers(call, one.item)
    return [
        ev.CallAbandoned(call=call.id, key=one.key, item=one.item, reason=reason)
        for call, one in zip(pending, outputs, strict=True)
    ]


# -- attempts ------------------------------------------------------------------------------


def _attempt(state: State, command: Prepare | Note | Finish) -> list[NewEvent]:
    match command:
        case Prepare():
            turn = open_turn(state)
            _check_no_request(state, "send a request")
            _check_answered(state, turn)
            return [NewEvent(event=command.request, turn=turn.id)]
        case Note():
            # What a drained response reports may come when its turn is over.
            noted = state.turn.id if state.turn is not None else None
            return [NewEvent(event=event, turn=noted) for event in command.events]
        case Finish():
            ended = open_turn(state).id
            return [NewEvent(event=event, turn=ended) for event in _finished(state, command)]
        case _:
            assert_never(command)


def _check_answered(state: State, turn: Turn) -> None:
    waiting = [call.id for call in state.pending]
    if waiting:
        raise Waiting(
            f"cannot send a request while {', '.join(waiting)} has no output (law 7):"
            " answer or abandon it",
            turn=turn.id,
        )


def _finished(state: State, command: Finish) -> list[ev.Event]:
    """Outputs, outcome and calls are one append (law 3); calls only of a completed one (law 4)."""
    attempt, outcome = state.attempt, command.outcome
    if attempt is None or attempt.id != outcome.attempt:
        raise StaleEpoch(f"attempt {outcome.attempt} has an outcome already (law 5)")
    found: list[ev.Event] = [*command.outputs, outcome]
    if isinstance(outcome, ev.ResponseCompleted):
        _check_calls(command)
        found += [ev.CallRequested(call=call, item=item) for item, call in command.calls]
    if command.chain_lost and attempt.parent is not None:
        found.append(ev.ChainLost(parent=attempt.parent, attempt=attempt.id))
    return found


def _check_calls(command: Finish) -> None:
    """Every client-owned output is a call: one that nobody tracks could never be answered."""
    owned = [output.key for output in command.outputs if is_client_call(output.item)]
    named = [item for item, _ in command.calls]
    if owned != named:
        raise InvalidInput(f"the response asks for the calls {owned}, and {named} are named")
