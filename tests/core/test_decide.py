"""What may happen when: the conversation, its context, its turns and their attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.decide import (
    AddItems,
    Approve,
    BeginTurn,
    Command,
    Compacted,
    Configure,
    Defer,
    DoubtCalls,
    EditItem,
    EndTurn,
    Finish,
    Keyed,
    Note,
    PauseTurn,
    Progress,
    RemoveItem,
    RequestCancel,
    Resolve,
    Start,
    StartCall,
    check_new,
    decide,
    open_turn,
)
from turnlog.errors import (
    Busy,
    InvalidInput,
    ItemPresent,
    NotFound,
    StaleEpoch,
    TurnlogError,
    Waiting,
)
from turnlog.plan import Full
from turnlog.record import NewEvent
from turnlog.state import start

from .story import Story, asked, called, exchange, message, output, said, user
from .strategies import World, histories
from .test_laws import quick


def sent() -> Story:
    """A conversation with a request under way."""
    return exchange().begin("again", turn="t2").prepare("a2")


def waiting() -> Story:
    story = asked("c1")
    story.do(PauseTurn(reason="approval", calls=("call-c1",)))
    return story


# -- the conversation ----------------------------------------------------------------------


def test_a_conversation_starts_once() -> None:
    fork = ev.Fork(conversation="a", version=3, hash="00")
    origin = ev.Origin(conversation="a", call="call-1")
    started = Start(metadata={"k": "v"}, fork=fork, origin=origin)
    story = Story()
    assert story.do(started) == [
        ev.ConversationStarted(id="conv", metadata={"k": "v"}, fork=fork, origin=origin)
    ]
    assert story.do(started) == []


def test_a_configuration_is_written_when_it_differs() -> None:
    story = Story().add(user())
    one = ev.ConversationConfigured(model="m", fingerprint="f1")
    two = ev.ConversationConfigured(model="m", fingerprint="f2", instructions="Be brief.")
    assert [story.do(Configure(config=config)) for config in (one, one, two, one)] == [
        [one],
        [],
        [two],
        [one],
    ]


# -- the context ---------------------------------------------------------------------------


def test_items_join_the_tail_or_stand_before_a_place() -> None:
    story = exchange()
    items = (message("a"), message("b"))
    assert story.do(AddItems(items=items)) == [
        ev.ItemAdded(key=one.key, item=one.item) for one in items
    ]
    assert story.do(AddItems(items=items, ordinal=1)) == [
        ev.ItemAdded(key=one.key, item=one.item, ordinal=1 + place)
        for place, one in enumerate(items)
    ]


def test_items_may_be_added_while_a_request_is_out() -> None:
    assert len(sent().do(AddItems(items=(message("more"),)))) == 1


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (AddItems(items=(message("x"),), ordinal=0), "insert an item"),
        (EditItem(ordinal=0, key="k", item=user()), "edit an item"),
        (RemoveItem(ordinal=0, key="k"), "remove an item"),
        (PauseTurn(reason="x"), "pause the turn"),
        (EndTurn(outcome="completed"), "end the turn"),
        (BeginTurn(turn="t", key="k", digest="d", items=()), "begin a turn"),
    ],
)
def test_while_a_request_is_out_the_rest_waits(command: Command, what: str) -> None:
    story = sent()
    with pytest.raises(Busy, match=f"cannot {what} while a request is out") as raised:
        story.do(command)
    assert raised.value.turn == "t2"


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (AddItems(items=(message("x"),), ordinal=3), 3),
        (AddItems(items=(message("x"),), ordinal=-1), -1),
        (EditItem(ordinal=2, key="k", item=user()), 2),
        (RemoveItem(ordinal=2, key="k"), 2),
        (RemoveItem(ordinal=-1, key="k"), -1),
    ],
)
def test_a_place_has_to_exist(command: Command, place: int) -> None:
    with pytest.raises(NotFound, match=f"no place {place}: it has 2"):
        exchange().do(command)


def test_an_item_is_edited_and_removed() -> None:
    story = exchange()
    item = user("changed")
    assert story.do(EditItem(ordinal=0, key="k", item=item)) == [
        ev.ItemEdited(key="k", item=item, ordinal=0)
    ]
    assert story.do(RemoveItem(ordinal=0, key="k")) == [ev.ItemRemoved(key="k", ordinal=0)]
    with pytest.raises(InvalidInput, match="empty"):
        story.do(EditItem(ordinal=0, key="k", item=user("")))


def test_an_item_that_comes_twice_names_replace() -> None:
    one = Keyed(key="k", item=said("m1"))
    for command in (
        AddItems(items=(one, one)),
        BeginTurn(turn="t", key="k", digest="d", items=(one, one)),
    ):
        with pytest.raises(ItemPresent, match=r"'m1' is in the context already.*replace"):
            exchange().do(command)
    check_new((one, Keyed(key="l", item={"role": "user", "content": "x", "id": None})))


@pytest.mark.parametrize("item", [{"content": "x"}, user(""), {"role": "user"}])
def test_a_bad_item_is_refused(item: JsonObject) -> None:
    with pytest.raises(InvalidInput):
        exchange().do(AddItems(items=(Keyed(key="k", item=item),)))
    with pytest.raises(InvalidInput):
        exchange().begin().do(AddItems(items=(Keyed(key="k", item=item),)))


def test_w11_the_output_of_an_open_call_is_an_answer_and_no_item() -> None:
    """Calls are paired by the provider's id, and what was answered twice is refused."""
    one = Keyed(key="k", item=output("c1"))
    with pytest.raises(InvalidInput, match=r"answers call 'call-c1', which is requested.*answer"):
        asked("c1").do(AddItems(items=(one,)))
    with pytest.raises(ItemPresent, match="call 'call-c1' has an output"):
        asked("c1").answer("c1").do(AddItems(items=(one,)))
    assert asked("c1").do(AddItems(items=(Keyed(key="k", item=output("c2")),)))


# -- turns ---------------------------------------------------------------------------------


def test_a_turn_begins_with_its_items_in_one_append() -> None:
    story = exchange()
    command = BeginTurn(
        turn="t2",
        key="web-1",
        digest="d",
        items=(message("a"),),
        settings={"temperature": 0},
        max_requests=3,
        manual=True,
    )
    assert decide(story.state, command) == [
        NewEvent(
            event=ev.TurnStarted(
                key="web-1", digest="d", settings={"temperature": 0}, max_requests=3, manual=True
            ),
            turn="t2",
        ),
        NewEvent(event=ev.ItemAdded(key="k0-a", item=user("a")), turn="t2"),
    ]


def test_a_turn_needs_something_to_send() -> None:
    with pytest.raises(InvalidInput, match="there is nothing to send"):
        exchange().begin(turn="t2")
    assert exchange().add(user("added before")).begin(turn="t2").state.turn is not None


def test_one_turn_at_a_time() -> None:
    """Law 11, and W-08: what is pending belongs to one conversation and its one turn."""
    with pytest.raises(Busy, match="turn turn is running: wait") as busy:
        asked("c1").begin("more", turn="t2")
    assert busy.value.turn == "turn"
    with pytest.raises(Waiting, match=r'turn turn waits \(approval\).*pending="abandon"') as held:
        waiting().begin("more", turn="t2")
    assert held.value.turn == "turn"


def test_what_is_pending_is_abandoned_on_request() -> None:
    story = waiting().begin("more", turn="t2", abandon=True)
    tags = [one.tag for one in story.events[-4:]]
    assert tags == ["call.abandoned", "turn.ended", "turn.started", "item.added"]
    assert [one.turn for one in story.events[-4:]] == ["turn", "turn", "t2", "t2"]
    ended = story.events[-3].event
    assert isinstance(ended, ev.TurnEnded)
    assert (ended.outcome, ended.response) == ("cancelled", "r1")


def test_abandoned_calls_are_something_to_send() -> None:
    assert waiting().begin(turn="t2", abandon=True).state.tail


@pytest.mark.parametrize("count", [0, 2])
def test_every_pending_call_gets_an_output_of_its_own(count: int) -> None:
    story = asked("c1")
    abandon = tuple(Keyed(key=f"k{n}", item=output("c1")) for n in range(count))
    with pytest.raises(InvalidInput, match=f"1 calls are pending, and {count} outputs"):
        story.do(EndTurn(outcome="cancelled", abandon=abandon))
    with pytest.raises(InvalidInput, match="answers 'c2', but the call is 'c1'"):
        story.do(EndTurn(outcome="cancelled", abandon=(Keyed(key="k", item=output("c2")),)))


def test_a_turn_ends_with_a_reason_where_it_failed() -> None:
    story = Story().begin("x").prepare().fail()
    assert story.do(EndTurn(outcome="failed", reason="given up")) == [
        ev.TurnEnded(outcome="failed", error={"message": "given up"})
    ]
    story = Story().begin("x").prepare().fail()
    assert story.do(EndTurn(outcome="failed", error={"code": "x"}, reason="y")) == [
        ev.TurnEnded(outcome="failed", error={"code": "x"})
    ]
    story = Story().begin("x")
    assert story.do(EndTurn(outcome="failed")) == [
        ev.TurnEnded(outcome="failed", error={"message": "failed"})
    ]


def test_a_cancel_is_asked_for_once_and_only_gets_stronger() -> None:
    story = sent()
    later, now = RequestCancel(mode="after_request", reason="bored"), RequestCancel()
    assert story.do(later) == [ev.TurnCancelRequested(mode="after_request", reason="bored")]
    assert story.do(later) == []
    assert story.do(now) == [ev.TurnCancelRequested(mode="now")]
    assert story.do(now) == []
    assert story.do(later) == []


@pytest.mark.parametrize(
    "command",
    [
        RequestCancel(),
        PauseTurn(reason="x"),
        EndTurn(outcome="completed"),
        Finish(outcome=ev.ResponseCompleted(attempt="a1")),
    ],
)
def test_without_a_turn_there_is_nothing_to_do(command: Command) -> None:
    with pytest.raises(NotFound, match="conversation 'conv' has no open turn"):
        exchange().do(command)
    with pytest.raises(NotFound):
        open_turn(start("c"))


# -- attempts ------------------------------------------------------------------------------


def test_one_request_at_a_time() -> None:
    planned = Full(ranges=(), why="")
    with pytest.raises(Busy, match="cannot send a request while a request is out: wait for t2"):
        sent().prepare("a3", planned=planned)
    with pytest.raises(NotFound):
        exchange().prepare("a3", planned=planned)


def test_w10_no_request_goes_out_while_a_call_is_unanswered() -> None:
    """Law 7; and only the calls of the completed response are pending, never a lost one's."""
    with pytest.raises(Waiting, match="while call-c1 has no output"):
        asked("c1").prepare("a2", planned=Full(ranges=(), why=""))
    story = Story().begin("Hello").prepare()
    attempt = ev.ResponseInterrupted(attempt="a1", reason="lost")
    lost = ev.OutputRecorded(attempt="a1", index=0, key="o", item=called("cA"))
    story.do(Finish(outcome=attempt, outputs=(lost,)))
    assert not story.state.calls
    story.prepare("a2", "retry", try_number=2).complete(called("cB"))
    assert [call.call_id for call in story.state.pending] == ["cB"]


def test_outputs_outcome_and_calls_are_one_append() -> None:
    """Law 3: all of them at the terminal frame."""
    story = Story().begin("Hello").prepare().complete(said("m1"), called("c1"))
    assert [one.tag for one in story.events[-4:]] == [
        "output.recorded",
        "output.recorded",
        "response.completed",
        "call.requested",
    ]


def test_an_attempt_has_exactly_one_outcome() -> None:
    """Law 5: whoever comes second, a stale owner too, changes nothing."""
    story = Story().begin("Hello").prepare().complete(said("m1"))
    for name in ("a1", "a0"):
        with pytest.raises(StaleEpoch, match=f"attempt {name} has an outcome already"):
            story.do(Finish(outcome=ev.ResponseUnknown(attempt=name, reason="crashed")))


def test_w01_only_a_completed_response_has_calls() -> None:
    """Law 4: the others are recorded, and never continued from or carried out."""
    story = Story().begin("Hello").prepare()
    one = ev.OutputRecorded(attempt="a1", index=0, key="o", item=called("c1"))
    failed = ev.ResponseFailed(attempt="a1", response="r1")
    found = story.do(Finish(outcome=failed, outputs=(one,), calls=(("o", "call-c1"),)))
    assert found == [one, failed]
    assert story.state.parent is None


def test_every_call_of_a_response_is_tracked() -> None:
    story = Story().begin("Hello").prepare()
    one = ev.OutputRecorded(attempt="a1", index=0, key="o", item=called("c1"))
    with pytest.raises(InvalidInput, match=r"asks for the calls \['o'\], and \[\] are named"):
        story.do(Finish(outcome=ev.ResponseCompleted(attempt="a1"), outputs=(one,)))


def test_a_lost_chain_is_recorded_with_the_refusal() -> None:
    """Law 8: in the append that ends the attempt; a full request has no chain to lose."""
    story = exchange().begin("more", turn="t2").prepare("a2").fail(chain_lost=True)
    assert story.events[-1].event == ev.ChainLost(parent="r1", attempt="a2")
    story.prepare("a3", "chain_lost").fail(chain_lost=True)
    assert story.events[-1].tag == "response.rejected"


def test_what_the_provider_says_is_noted_in_a_turn_or_beside_it() -> None:
    noted = ev.ProviderNoted(kind="usage", data={"total": 3})
    story = sent()
    story.do(Note(events=(noted, noted)))
    assert [one.turn for one in story.events[-2:]] == ["t2", "t2"]
    story = exchange()
    story.do(Note(events=(noted,)))
    assert story.events[-1].turn is None


# -- any command, at any time --------------------------------------------------------------

ITEM = Keyed(key="k", item=user("any"))
ANY: list[Command] = [
    Start(),
    Configure(config=ev.ConversationConfigured(fingerprint="f")),
    AddItems(items=(ITEM,)),
    AddItems(items=(ITEM,), ordinal=1),
    EditItem(ordinal=1, key="k", item=user("other")),
    RemoveItem(ordinal=0, key="k"),
    BeginTurn(turn="t", key="k", digest="d", items=(ITEM,)),
    BeginTurn(turn="t", key="k", digest="d", items=(), abandon=()),
    Note(events=(ev.ResponseStarted(attempt="a", response="r"),)),
    Finish(outcome=ev.ResponseCompleted(attempt="att5", response="r")),
    StartCall(call="call9"),
    Progress(call="call9", data={}),
    Defer(call="call9"),
    DoubtCalls(calls=("call9",), reason="x"),
    Approve(call="call9"),
    Resolve(call="call9", how="answered", key="k", item=output("c1")),
    RequestCancel(),
    PauseTurn(reason="x"),
    EndTurn(outcome="completed"),
]


@quick
@given(histories(), st.sampled_from(ANY))
def test_a_command_is_carried_out_or_refused_with_a_typed_error(
    world: World, command: Command
) -> None:
    """Law 13: nothing else is raised, nothing is changed by deciding, and what follows folds."""
    before = world.state
    try:
        found = decide(before, command)
    except TurnlogError as error:
        assert str(error)
    else:
        world.story.take(found)
        assert world.state.version == before.version + len(found)


# -- compaction ----------------------------------------------------------------------------


def test_a_compaction_is_committed_behind_the_context_and_before_the_tail() -> None:
    story = exchange().add(user("so far unsent"))
    before = story.state
    items = (message("a"), message("b"))
    story.do(Compacted(items=items, response="resp_c", usage={"total_tokens": 3}))
    after = story.state
    assert (after.window, after.committed) == (before.committed, before.committed + 2)
    assert (after.next, after.parent) == (before.next + 2, None)
    (run,) = after.tail
    assert (run.ordinal, run.count) == (after.committed, 1)


def test_a_compaction_waits_for_a_request_and_for_outputs() -> None:
    empty = Compacted(items=())
    with pytest.raises(Busy):
        decide(sent().state, empty)
    with pytest.raises(InvalidInput, match="cannot be parted"):
        decide(asked("c1").state, empty)
