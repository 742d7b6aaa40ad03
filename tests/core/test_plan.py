"""What the next request holds: the pitfalls of continuation, one by one (laws 4, 7, 8 and 9)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from turnlog import events as ev
from turnlog.decide import EditItem, Note, PauseTurn, RemoveItem, Resolve
from turnlog.plan import Delta, Fork, Full, Nothing, Reach, Wait, plan, ruled_out
from turnlog.state import Parent

from .story import SECOND, Story, asked, called, exchange, output, said, thought, user, versions

DAY = 24 * 3600


def second() -> Story:
    """The answer `r1`, and a second turn whose request has not gone out."""
    return exchange().begin("again", turn="t2")


def delta(story: Story) -> Delta:
    found = story.plan()
    assert isinstance(found, Delta)
    return found


def why(story: Story, *, stored_ids: bool = True) -> str:
    found = story.plan(stored_ids=stored_ids)
    assert isinstance(found, Full)
    return found.why


def test_the_first_request_is_full() -> None:
    story = Story().begin("Hello", "there")
    found = story.plan()
    assert found == Full(
        ranges=(ev.Range(of="tail", start=3, stop=5),), why="there is no response to continue from"
    )


def test_w03_a_delta_never_resends_model_output() -> None:
    """The reply is in the chain under its response; only the new message is sent."""
    story = second()
    found = delta(story)
    assert found.parent.response == "r1"
    assert versions(found.ranges) == [("tail", 9, 10)]
    assert story.events[8].event == ev.ItemAdded(key="k7-again", item=user("again"))


def test_w04_an_output_goes_without_its_call() -> None:
    """The parent holds the call: the output alone is a delta, and never an orphan."""
    story = asked("c1").answer("c1")
    assert versions(delta(story).ranges) == [("tail", story.state.version, story.state.version + 1)]


def test_w05_a_late_output_goes_with_its_chain_or_is_refused() -> None:
    """The next request waits for every call; an abandoned one has an output, which goes."""
    story = asked("cA", "cB").answer("cA")
    assert story.plan() == Wait(calls=("call-cB",))
    story.end("cancelled").begin("never mind", turn="t2")
    assert sum(range_.stop - range_.start for range_ in delta(story).ranges) == 3
    story.do(Resolve(call="call-cB", how="answered", key="k", item=output("cB", "late")))
    sent = delta(story).ranges
    assert ("tail", story.state.version, story.state.version + 1) in versions(sent)
    assert sum(range_.stop - range_.start for range_ in sent) == 3


def test_w06_an_edit_rules_the_parent_out() -> None:
    story = second()
    first = story.state.parent
    story.do(EditItem(ordinal=0, key="k", item=user("Goodbye")))
    assert why(story) == "there is no response to continue from"
    assert ruled_out(story.state, first, Reach(now=story.now, model="m")) == (
        "the context was edited or compacted before its end"
    )


def test_w06_an_edit_forks_from_the_last_unaffected_response() -> None:
    story = second().prepare("a2").complete(said("m2"), response="r2").end().begin("3", turn="t3")
    older = story.state.parent
    story.prepare("a3").complete(said("m3"), response="r3").end().begin("4", turn="t4")
    story.do(EditItem(ordinal=4, key="k", item=user("three")))
    assert older is not None and older.end == 4
    found = plan(story.state, Reach(now=story.now, model="m"), older)
    assert isinstance(found, Fork) and found.parent == older
    assert versions(found.ranges)[0] == ("context", 4, 6)
    assert isinstance(plan(story.state, Reach(now=story.now, model="other"), older), Full)


def test_w07_what_was_added_during_a_request_is_new_to_the_next() -> None:
    """The request is a snapshot of versions; what came later moves behind the outputs."""
    story = second().prepare("a2").add(user("meanwhile")).complete(said("m2"), response="r2")
    (run,) = story.state.tail
    assert (run.ordinal, run.count) == (4, 1)
    assert delta(story).ranges == (ev.Range(of="tail", start=run.version, stop=run.version + 1),)


def test_w08_conversations_share_nothing() -> None:
    one, other = second(), exchange()
    one.prepare("a2")
    assert other.state == exchange().state


def test_w13_an_unstored_response_lives_on_its_connection() -> None:
    """Law 8: only where the transport remembers it, and only the newest."""
    story = Story().begin("Hello").prepare(store=False, connection="c1")
    story.complete(said("m1")).end().begin("again", turn="t2")
    assert isinstance(story.plan(remembers=True), Delta)
    assert why(story) == "it was not stored, and its connection is gone"
    older = story.state.parent
    story.prepare("a2", store=False, connection="c1").complete(said("m2"), response="r2")
    story.end().begin("more", turn="t3").do(EditItem(ordinal=3, key="k", item=user("x")))
    reach = Reach(now=story.now, model="m", remembers={"r2"})
    assert isinstance(plan(story.state, reach, older), Full)


@pytest.mark.parametrize(
    ("refused", "kept"),
    [
        (ev.ResponseRejected(attempt="a2", reason="not_sent"), True),
        (ev.ResponseRejected(attempt="a2", reason="not_sent", status=429), False),
        (ev.ResponseRejected(attempt="a2", status=400), False),
        (ev.ResponseUnknown(attempt="a2", reason="timeout"), False),
        (ev.ResponseInterrupted(attempt="a2", reason="lost"), False),
        (ev.ResponseFailed(attempt="a2"), False),
    ],
)
def test_w13_a_failed_continuation_evicts_an_unstored_parent(
    refused: ev.OutcomeEvent, kept: bool
) -> None:
    story = Story().begin("Hello").prepare(store=False, connection="c1")
    story.complete(said("m1")).end().begin("again", turn="t2")
    story.prepare("a2", store=False, connection="c1").fail(refused)
    assert isinstance(story.plan(remembers=True), Delta) is kept


def test_w13_a_failure_does_not_touch_a_stored_parent() -> None:
    assert isinstance(second().prepare("a2").fail().plan(), Delta)


def test_w13_an_answered_other_request_leaves_the_connection_alone() -> None:
    """A request that did not continue from the parent evicts nothing by failing."""
    story = Story().begin("Hello").prepare(store=False, connection="c1")
    story.complete(said("m1")).end().begin("again", turn="t2")
    story.prepare("a2", store=False, planned=Full(ranges=(), why="")).fail()
    assert isinstance(story.plan(remembers=True), Delta)


def test_w15_nothing_new_is_nothing_to_send() -> None:
    """Never an empty input: a removed message leaves none behind."""
    assert exchange().plan() == Nothing()
    story = second()
    story.do(RemoveItem(ordinal=2, key="k"))
    assert story.plan() == Nothing()


def test_w16_another_model_is_another_chain() -> None:
    found = second().plan(model="other")
    assert isinstance(found, Full)
    assert found.why == "the model changed from m to other"


def test_w16_tools_and_instructions_may_change() -> None:
    """They go out with every request (protocol 1.5), so that they are no part of the chain."""
    story = second()
    story.tell(ev.ConversationConfigured(instructions="Be kind.", fingerprint="f2"))
    assert isinstance(story.plan(), Delta)


def test_w18_an_edited_answer_rules_its_response_out() -> None:
    """What the user heard differs from what the provider holds."""
    story = second()
    story.do(EditItem(ordinal=1, key="k", item={"role": "assistant", "content": "Hi th"}))
    found = story.plan()
    assert isinstance(found, Full)
    assert versions(found.ranges) == [("context", 0, 2), ("tail", 9, 10)]


def test_a_removed_answer_rules_the_chain_out_that_waits_for_it() -> None:
    """Law 7: a delta without it would be refused; the full request leaves the call out too."""
    for command in (
        RemoveItem(ordinal=2, key="k"),
        EditItem(ordinal=2, key="k", item=user("no output")),
    ):
        story = asked("c1").answer("c1").add(user("and?"))
        story.do(command)
        assert isinstance(story.plan(), Full)
    story = asked("c1").answer("c1")
    story.do(EditItem(ordinal=2, key="k", item=output("c1", "[redacted]")))
    assert isinstance(story.plan(), Delta)


def test_no_fork_from_a_response_that_asked_for_calls() -> None:
    """The edit may have taken away what answered them."""
    story = asked("c1").answer("c1")
    older = story.state.parent
    assert older is not None and older.calls == 1
    story.prepare("a2").complete(said("m2"), response="r2").end().begin("3", turn="t3")
    story.do(RemoveItem(ordinal=2, key="k"))
    reach = Reach(now=story.now, model="m")
    assert isinstance(plan(story.state, reach, older), Full)
    assert isinstance(plan(story.state, reach, replace(older, calls=0)), Fork)


def test_a_compaction_starts_a_new_chain() -> None:
    story = second()
    older = story.state.parent
    story.do(Note(events=(ev.ContextCompacted(ordinal=1),)))
    found = plan(story.state, Reach(now=story.now, model="m"), older)
    assert isinstance(found, Full)
    assert versions(found.ranges) == [("context", 1, 2), ("tail", 9, 10)]


def test_a_lost_chain_is_followed_by_a_full_request() -> None:
    """W-12: the parent is cleared, so that no later turn pays for it."""
    story = second().prepare("a2").fail(chain_lost=True)
    assert why(story) == "there is no response to continue from"
    assert story.state.turn is not None and story.state.turn.chains_lost == 1


def test_a_stored_response_expires() -> None:
    """Law 8: 30 days unless set; ids from the past are hints."""
    state = second().state
    parent = state.parent
    assert parent is not None
    last = parent.time + 30 * DAY * SECOND
    assert ruled_out(state, parent, Reach(now=last, model="m")) is None
    assert ruled_out(state, parent, Reach(now=last + 1, model="m")) == "it has expired"
    assert ruled_out(state, parent, Reach(now=last, model="m", stored_for=1.0)) == "it has expired"


def test_a_provider_that_keeps_nothing_is_asked_in_full() -> None:
    assert why(second(), stored_ids=False) == "the provider keeps no responses"


def test_an_incomplete_or_nameless_response_is_no_parent() -> None:
    """Law 4; and a provider that names none has nothing to continue from."""
    story = Story().begin("Hello").prepare()
    story.fail(ev.ResponseIncomplete(attempt="a1", response="r1", reason="max_output_tokens"))
    assert story.state.parent is None
    assert why(story) == "there is no response to continue from"
    story = Story().begin("Hello").prepare().complete(said("m1"), response=None)
    assert story.state.parent is None and story.state.committed == 2


def test_calls_of_an_older_turn_still_wait() -> None:
    story = asked("c1", "c2")
    story.do(PauseTurn(reason="approval"))
    assert story.plan() == Wait(calls=("call-c1", "call-c2"))


def test_reasoning_stays_in_the_chain() -> None:
    story = Story().begin("Hello").prepare().complete(thought("rs"), called("c1")).answer("c1")
    assert len(delta(story).ranges) == 1
    parent = story.state.parent
    assert parent == Parent(
        response="r1",
        end=3,
        version=7,
        time=parent.time if parent else 0,
        store=True,
        model="m",
        transport="http",
        calls=1,
    )
