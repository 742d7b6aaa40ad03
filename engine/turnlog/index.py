"""What is cached beside the log, as changes derived from an event (law 2).

The one rule: a change follows from the state before, the event, and the state after, and from
nothing else; a store applies changes in the transaction that appends the event, and can rebuild
every table from the log with the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count, groupby
from typing import TypeAlias

from . import events as ev
from .canonical import JsonObject, text
from .fold_context import joined
from .items import call_id_of
from .making import maker
from .record import Recorded
from .state import Call, Queued, State, evolve


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """An item stands at `ordinal` from `version` on; its body is in the event at `item_version`."""

    version: int
    ordinal: int
    item_version: int
    key: str
    item_id: str | None
    call_id: str | None
    response: str | None


_put_of: Callable[[int, int, int, str, str | None, str | None, str | None], Put] = maker(Put)


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Nothing stands at `ordinal` from `version` on."""

    version: int
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """Everything from `ordinal` on stands `by` places further from `version` on."""

    version: int
    ordinal: int
    by: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnOpened:
    """A turn began with the event at `version`."""

    turn: str
    key: str
    digest: str
    version: int
    time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnClosed:
    """A turn ended at `version`; `state` is the head there."""

    turn: str
    outcome: str
    version: int
    time: int
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class CallChanged:
    """A call as it is now; one that is settled leaves the table of open calls."""

    call: Call


Change: TypeAlias = Put | Close | Shift | TurnOpened | TurnClosed | CallChanged


def advance(state: State, recorded: Recorded) -> tuple[State, list[Change]]:
    """Fold one event, and say what it changes beside the log."""
    after = evolve(state, recorded)
    return after, [
        *_context(state, after, recorded),
        *_turns(state, after, recorded),
        *_calls(state, after),
    ]


def advance_all(state: State, events: Iterable[Recorded]) -> tuple[State, list[Change]]:
    """Fold events one after the other, as `advance` does, and say what they change together.

    Items that join the end of the context, which most events of a caller's are, are folded as one:
    3 us each and not 15.
    """
    changes: list[Change] = []
    for joining, some in groupby(events, _joins_the_end):
        if joining:
            run = list(some)
            changes += map(_put_at_end, run, count(state.next))
            state = joined(state, run)
        else:
            for one in some:
                state, more = advance(state, one)
                changes += more
    return state, changes


def _joins_the_end(recorded: Recorded) -> bool:
    return isinstance(recorded.event, ev.ItemAdded) and recorded.event.ordinal is None


def _put_at_end(recorded: Recorded, ordinal: int) -> Put:
    assert isinstance(recorded.event, ev.ItemAdded)
    return _put(recorded, ordinal, recorded.event.key, recorded.event.item)


def _context(before: State, after: State, recorded: Recorded) -> list[Change]:
    version = recorded.version
    match recorded.event:
        case ev.ItemAdded(ordinal=None) as event:
            return [_put(recorded, before.next, event.key, event.item)]
        case ev.ItemAdded(ordinal=int() as ordinal) as event:
            return [
                Shift(version=version, ordinal=ordinal, by=1),
                _put(recorded, ordinal, event.key, event.item),
            ]
        case ev.ItemEdited() as event:
            return [
                Close(version=version, ordinal=event.ordinal),
                _put(recorded, event.ordinal, event.key, event.item),
            ]
        case ev.ItemRemoved() as event:
            return [Close(version=version, ordinal=event.ordinal)]
        case ev.CallAnswered() | ev.CallRejected() | ev.CallAbandoned() as event:
            return _output(before, after, recorded, event)
        case ev.ResponseCompleted() as event:
            return _outputs(before, recorded, event)
        case _:
            return []


def _put(recorded: Recorded, ordinal: int, key: str, item: JsonObject) -> Put:
    version = recorded.version
    return _put_of(version, ordinal, version, key, text(item, "id"), call_id_of(item), None)


def _output(
    before: State,
    after: State,
    recorded: Recorded,
    event: ev.CallAnswered | ev.CallRejected | ev.CallAbandoned,
) -> list[Change]:
    old, new = before.call(event.call), after.call(event.call)
    if old is None or new is None or new.ordinal is None:
        return []
    put = _put(recorded, new.ordinal, event.key, event.item)
    if old.ordinal is None:
        return [put]
    return [Close(version=recorded.version, ordinal=old.ordinal), put]


def _outputs(before: State, recorded: Recorded, event: ev.ResponseCompleted) -> list[Change]:
    attempt = before.attempt
    if attempt is None or attempt.id != event.attempt or not attempt.outputs:
        return []
    puts = [
        Put(
            version=recorded.version,
            ordinal=attempt.end + place,
            item_version=output.version,
            key=output.key,
            item_id=output.item_id,
            call_id=output.call_id,
            response=event.response,
        )
        for place, output in enumerate(attempt.outputs)
    ]
    if before.next == attempt.end:
        return [*puts]
    return [Shift(version=recorded.version, ordinal=attempt.end, by=len(puts)), *puts]


def _turns(before: State, after: State, recorded: Recorded) -> list[Change]:
    turn = recorded.turn or ""
    match recorded.event:
        case ev.TurnStarted() as event:
            return [_opened(turn, event, recorded)]
        case ev.TurnEnded() as event:
            closed = TurnClosed(
                turn=turn,
                outcome=event.outcome,
                version=recorded.version,
                time=recorded.time,
                state=after,
            )
            # One that never left the queue has its place where it ended.
            waited = before.in_queue(turn)
            return [closed] if waited is None else [_opened(turn, waited, recorded), closed]
        case _:
            return []


def _opened(turn: str, known: ev.TurnStarted | Queued, recorded: Recorded) -> TurnOpened:
    return TurnOpened(
        turn=turn,
        key=known.key,
        digest=known.digest,
        version=recorded.version,
        time=recorded.time,
    )


def _calls(before: State, after: State) -> list[Change]:
    if before.calls is after.calls:
        return []
    known = {call.id: call for call in before.calls}
    return [
        CallChanged(call=call)
        for call in after.calls
        if (old := known.get(call.id)) is None or old.status != call.status
    ]
