"""What a store keeps beside the log, change by change (law 2); `test_laws.py` has all of it."""

from __future__ import annotations

from turnlog import events as ev
from turnlog.decide import EditItem, RemoveItem, Resolve, StartCall
from turnlog.index import (
    CallChanged,
    Change,
    Close,
    Put,
    Shift,
    TurnClosed,
    TurnOpened,
    advance,
)
from turnlog.record import Recorded
from turnlog.state import State

from .story import Story, asked, called, exchange, output, said, user


def after(story: Story, since: int) -> list[Change]:
    return story.changes[since:]


def test_an_added_item_is_put_behind_the_last() -> None:
    story = exchange()
    since = len(story.changes)
    story.add(said("m9"))
    version = story.state.version
    assert after(story, since) == [
        Put(
            version=version,
            ordinal=2,
            item_version=version,
            key="key_conv_8",
            item_id="m9",
            call_id=None,
            response=None,
        )
    ]


def test_an_inserted_item_shifts_what_lies_behind_it() -> None:
    story = exchange()
    since = len(story.changes)
    story.add(user("x"), at=1)
    shift, put = after(story, since)
    assert shift == Shift(version=story.state.version, ordinal=1, by=1)
    assert isinstance(put, Put) and put.ordinal == 1


def test_an_edit_closes_and_puts_and_a_removal_closes() -> None:
    story = exchange()
    since = len(story.changes)
    story.do(EditItem(ordinal=0, key="k1", item=user("y")))
    close, put = after(story, since)
    assert close == Close(version=story.state.version, ordinal=0)
    assert isinstance(put, Put) and (put.ordinal, put.key) == (0, "k1")
    story.do(RemoveItem(ordinal=0, key="k2"))
    assert after(story, since)[2:] == [Close(version=story.state.version, ordinal=0)]


def test_outputs_are_put_when_their_response_completes() -> None:
    """They stand in events before the one that puts them; what came meanwhile is shifted."""
    story = Story().begin("x").prepare().add(user("meanwhile"))
    since = len(story.changes)
    story.complete(said("m1"), called("c1"))
    shift, first, second, call = after(story, since)
    completed = story.state.version - 1
    assert shift == Shift(version=completed, ordinal=1, by=2)
    assert first == Put(
        version=completed,
        ordinal=1,
        item_version=completed - 2,
        key="a1.0",
        item_id="m1",
        call_id=None,
        response="r1",
    )
    assert isinstance(second, Put) and (second.ordinal, second.call_id) == (2, "c1")
    assert isinstance(call, CallChanged) and call.call.status == "requested"


def test_a_response_without_output_puts_nothing() -> None:
    story = Story().begin("x").prepare()
    since = len(story.changes)
    story.complete()
    assert after(story, since) == []
    assert after(Story().begin("x").prepare().fail(), 2) == []


def test_a_late_answer_takes_the_place_of_the_abandonment() -> None:
    story = asked("c1")
    since = len(story.changes)
    story.do(Resolve(call="call-c1", how="abandoned", key="k1", item=output("c1", "none")))
    put, changed = after(story, since)
    assert isinstance(put, Put) and (put.ordinal, put.call_id, put.key) == (2, "c1", "k1")
    assert isinstance(changed, CallChanged) and changed.call.settled
    story.do(Resolve(call="call-c1", how="answered", key="k2", item=output("c1")))
    close, put, changed = after(story, since + 2)
    assert close == Close(version=story.state.version, ordinal=2)
    assert isinstance(put, Put) and (put.ordinal, put.key) == (2, "k2")
    assert isinstance(changed, CallChanged) and changed.call.status == "answered"


def test_a_call_is_told_when_its_status_changes() -> None:
    story = asked("c1")
    since = len(story.changes)
    story.do(StartCall(call="call-c1"))
    story.tell(ev.CallProgressed(call="call-c1", data={}))
    (changed,) = after(story, since)
    assert isinstance(changed, CallChanged) and changed.call.status == "started"


def test_turns_open_and_close_with_the_head_at_their_end() -> None:
    story = exchange()
    opened, closed = (one for one in story.changes if isinstance(one, (TurnOpened, TurnClosed)))
    assert opened == TurnOpened(
        turn="turn", key="key-turn", digest="d", version=2, time=story.events[1].time
    )
    assert closed == TurnClosed(
        turn="turn",
        outcome="completed",
        version=story.state.version,
        time=story.now,
        state=story.state,
    )


def test_facts_that_nobody_knows_change_nothing_beside_the_log() -> None:
    story = Story()
    story.tell(
        ev.CallAnswered(call="x", key="k", item=output("c")),
        ev.ResponseCompleted(attempt="a", response="r"),
        ev.ProviderNoted(kind="x"),
    )
    assert story.changes == []


def test_advance_is_the_fold() -> None:
    story = exchange()
    state = State(id="conv")
    one: Recorded
    for one in story.events:
        state, _ = advance(state, one)
    assert state == story.state
