"""Laws that hold whatever happened, over random histories (laws 2, 4, 6, 7, 8 and 9).

Most laws of a request are checked by the `World` itself, each time one is planned.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnlog.canonical import dumps, loads
from turnlog.index import CallChanged, Change, Close, Put, Shift, advance
from turnlog.items import legal, to_input
from turnlog.plan import Delta, Nothing, Wait
from turnlog.record import Recorded, decode, encode, first_broken, from_json, to_json
from turnlog.state import MAX_EDITS, State, replay

from .rules import refusals
from .strategies import Places, Slot, World, histories

quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def stored(state: State) -> State:
    """The head as a store writes it and reads it back."""
    return from_json(State, loads(dumps(to_json(state))))


@quick
@given(histories(), st.data())
def test_the_fold_of_a_whole_is_the_fold_of_its_parts(world: World, data: st.DataObject) -> None:
    """I5: split anywhere, through the stored form of the head or not."""
    events = world.story.events
    split = data.draw(st.integers(0, len(events)))
    half = replay(world.origin, events[:split])
    assert stored(half) == half
    assert replay(half, events[split:]) == world.state
    assert replay(stored(half), events[split:]) == world.state
    is_a_plain_list(world)
    is_bounded_by_open_work(world)


def is_bounded_by_open_work(world: World) -> None:
    """No item is in the head, and no call that a completed request has answered."""
    state = world.state
    assert sum(run.count for run in state.tail) == len(world.places.items(state.committed))
    assert len(state.edits) <= MAX_EDITS
    assert all(call.ordinal is None or call.ordinal >= state.committed for call in state.calls)


def is_a_plain_list(world: World) -> None:
    """Law 6: places, tail and window are those of a list that knows nothing of runs."""
    state, places = world.state, world.places
    known = (len(places.slots), places.committed, places.window)
    assert (state.next, state.committed, state.window) == known
    tail = {run.ordinal + n: run.version + n for run in state.tail for n in range(run.count)}
    assert tail == {
        ordinal: slot.version
        for ordinal, slot in enumerate(places.slots)
        if ordinal >= state.committed and slot.item is not None
    }
    assert list(tail) == sorted(tail)


@quick
@given(histories())
def test_whatever_the_history_a_full_request_is_legal(world: World) -> None:
    """W-03, W-04, W-05 and law 9: also where a call is open, or half of a pair was removed.

    And law 7: a delta is never empty, and goes only when every call is answered.
    """
    sent = legal([to_input(item) for item in world.places.items(world.places.window)])
    assert refusals([], sent or [{"role": "user"}]) == []
    found = world.planned(None)
    assert isinstance(found, Wait) == bool(world.state.pending)
    if isinstance(found, Nothing):
        assert not world.state.tail
    if isinstance(found, Delta):
        assert found.parent == world.state.parent and found.ranges


Table = dict[int, tuple[str, int]]


def applied(table: Table, change: Change, holder: str) -> Table:
    """The index of a store that keeps one row for each ordinal."""
    match change:
        case Put():
            assert change.ordinal not in table, "two items stand at one place"
            return {**table, change.ordinal: (holder, change.item_version)}
        case Close():
            return {ordinal: row for ordinal, row in table.items() if ordinal != change.ordinal}
        case Shift():
            return {
                ordinal + change.by * (ordinal >= change.ordinal): row
                for ordinal, row in table.items()
            }
        case _:
            return table


def rows(slots: list[Slot]) -> Table:
    return {
        ordinal: (slot.holder, slot.version)
        for ordinal, slot in enumerate(slots)
        if slot.item is not None
    }


@quick
@given(histories())
def test_what_is_beside_the_log_follows_from_it(world: World) -> None:
    """Law 2: at every version the index is the context, and the table of open calls the head's."""
    places = Places(
        slots=list(world.base), committed=world.origin.committed, window=world.origin.window
    )
    table, state = rows(world.base), world.origin
    calls = {call.id: call for call in state.calls}
    for one in world.story.events:
        state, changes = advance(state, one)
        places.fold(one)
        for change in changes:
            table = applied(table, change, one.conversation)
            if isinstance(change, CallChanged):
                calls[change.call.id] = change.call
        assert table == rows(places.slots)
        assert all(calls[call.id].status == call.status for call in state.calls)
    assert state == world.state


@quick
@given(histories(), st.data())
def test_what_is_stored_is_read_back_and_a_changed_byte_is_found(
    world: World, data: st.DataObject
) -> None:
    """Any byte of any body, salt or hash, and any field that the chain binds.

    And what is stored is read back as it was, to the byte.
    """
    previous = bytes.fromhex(world.origin.hash)
    events = world.story.events
    for one in events:
        read = decode(one.tag, one.schema, one.body)
        assert (read, encode(read)) == (one.event, one.body)
    assert first_broken(events, previous) is None
    place = data.draw(st.integers(0, len(events) - 1))
    changed = data.draw(st.sampled_from(changes(events[place], data)))
    assert first_broken([*events[:place], changed, *events[place + 1 :]], previous) == changed
    rest = [*events[:place], *events[place + 1 :]]
    assert place == len(events) - 1 or first_broken(rest, previous) == events[place + 1]


def changes(one: Recorded, data: st.DataObject) -> list[Recorded]:
    """The event with something else in each of the fields that the chain binds."""

    def flipped(value: bytes) -> bytes:
        at = data.draw(st.integers(0, len(value) - 1))
        return value[:at] + bytes([value[at] ^ 1 << data.draw(st.integers(0, 7))]) + value[at + 1 :]

    return [
        replace(one, body=flipped(one.body)),
        replace(one, salt=flipped(one.salt)),
        replace(one, hash=flipped(one.hash)),
        replace(one, conversation=one.conversation + "x"),
        replace(one, version=one.version + 1),
        replace(one, id=one.id + "x"),
        replace(one, tag=one.tag + "x"),
        replace(one, schema=one.schema + 1),
        replace(one, time=one.time + 1),
        replace(one, actor=one.actor + "x"),
        replace(one, turn=(one.turn or "") + "x"),
        replace(one, turn="" if one.turn is None else None),
        replace(one, epoch=(one.epoch or 0) + 1),
        replace(one, epoch=0 if one.epoch is None else None),
    ]
