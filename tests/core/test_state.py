"""The fold: what each family of events does to the head (law 2), and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlog import events as ev
from turnlog.decide import EditItem, Note, PauseTurn, RemoveItem, StartCall
from turnlog.events import TAGS
from turnlog.state import MAX_EDITS, Edit, Outcome, Run, branch, evolve, replay, start, still_holds
from turnlog.tail import cut, put, shift

from .golden_log import full_event, golden
from .story import Story, asked, called, exchange, said, user


def test_a_conversation_that_has_not_begun() -> None:
    state = start("c")
    assert (state.version, state.status, state.pending, state.hash) == (0, "idle", (), "00" * 32)


@pytest.mark.parametrize("tag", TAGS)
def test_every_event_folds_into_an_empty_head(tag: str) -> None:
    """Also one that names an attempt, call or turn that nobody knows: facts are never refused."""
    story = Story()
    state = story.tell(full_event(tag))
    assert state.version == 1
    assert state.updated == story.now
    assert bytes.fromhex(state.hash) == story.events[0].hash


def test_the_golden_log_folds() -> None:
    assert replay(start("conv-1"), golden()).version == len(TAGS)


def test_a_conversation_and_its_configuration() -> None:
    fork = ev.Fork(conversation="a", version=1, hash="00")
    story = Story()
    state = story.tell(ev.ConversationStarted(id="conv", metadata={"k": 1}, fork=fork))
    assert (state.created, state.metadata, state.fork) == (story.now, {"k": 1}, fork)
    state = story.tell(ev.ConversationConfigured(agent="a", model="m", fingerprint="f"))
    assert state.config is not None
    assert (state.config.version, state.config.agent, state.config.model) == (2, "a", "m")
    assert (
        story.tell(ev.TransportSwitched(before="a", after="http", reason="x")).transport == "http"
    )


def test_the_status_follows_the_turn() -> None:
    story = asked("c1")
    statuses = [story.state.status]
    for command in (PauseTurn(reason="approval"), StartCall(call="call-c1")):
        story.do(command)
        statuses.append(story.state.status)
    assert [*statuses, story.end().state.status] == ["busy", "waiting", "busy", "idle"]
    assert story.state.turns == 1


def test_facts_about_a_turn_without_a_turn_change_nothing() -> None:
    story = exchange()
    state = story.tell(
        ev.TurnCancelRequested(), ev.TurnPaused(reason="x"), ev.CallDeferred(call="?")
    )
    assert (state.turn, state.status) == (None, "idle")


def test_requests_are_counted_and_retries_are_not() -> None:
    """`max_requests` bounds what is asked, not how often it is sent."""
    story = Story().begin("x").prepare("a1").fail()
    story.prepare("a2", "retry", try_number=2).fail()
    story.prepare("a3", "chain_lost").complete(called("c1")).answer("c1")
    story.prepare("a4", "tools_answered")
    assert story.state.turn is not None and story.state.turn.requests == 2


def test_an_attempt_knows_what_was_heard() -> None:
    story = Story().begin("x").prepare()
    heard = ev.ResponseStarted(attempt="a1", response="r1", connection="c7", lane="l1")
    shown = ev.OutputCheckpointed(attempt="a1", part="text:0:0", offset=0, text="He")
    attempt = story.tell(heard, shown).attempt
    assert attempt is not None
    assert (attempt.response, attempt.connection, attempt.lane) == ("r1", "c7", "l1")
    assert story.tell(replace(heard, attempt="a0", response="r0")).attempt == attempt
    parent = story.complete(said("m1")).state.parent
    assert parent is not None and (parent.connection, parent.lane) == ("c7", "l1")


OUTCOMES: list[tuple[ev.OutcomeEvent, dict[str, object]]] = [
    (ev.ResponseCompleted(attempt="a1", response="r"), {"kind": "completed", "heard": True}),
    (
        ev.ResponseIncomplete(attempt="a1", response="r", reason="max_output_tokens"),
        {"kind": "incomplete", "heard": True, "reason": "max_output_tokens"},
    ),
    (
        ev.ResponseFailed(attempt="a1", error={"code": "x", "message": "y"}, retryable=True),
        {"kind": "failed", "code": "x", "message": "y", "retryable": True},
    ),
    (
        ev.ResponseRejected(attempt="a1", reason="not_sent", retryable=True),
        {"kind": "rejected", "sent": False, "reason": "not_sent", "retryable": True},
    ),
    (
        ev.ResponseRejected(attempt="a1", status=429, retry_after_ms=50),
        {"kind": "rejected", "status": 429, "retry_after_ms": 50},
    ),
    (
        ev.ResponseInterrupted(attempt="a1", reason="lost"),
        {"kind": "interrupted", "reason": "lost"},
    ),
    (ev.ResponseUnknown(attempt="a1", reason="crashed"), {"kind": "unknown", "reason": "crashed"}),
    (
        ev.ResponseFailed(attempt="a1", error={"status": 500}),
        {"kind": "failed", "status": 500},
    ),
]


@pytest.mark.parametrize(("event", "expected"), OUTCOMES)
def test_the_last_outcome_is_what_the_next_step_depends_on(
    event: ev.OutcomeEvent, expected: dict[str, object]
) -> None:
    story = Story().begin("x").prepare()
    tail = story.state.tail
    story.tell(event)
    assert story.state.turn is not None and story.state.attempt is None
    last = story.state.turn.last
    assert isinstance(last, Outcome)
    assert {name: getattr(last, name) for name in expected} == expected
    assert (last.attempt, last.cause, last.try_number, last.time) == ("a1", "first", 1, story.now)
    assert (story.state.tail == tail) is not isinstance(event, ev.ResponseCompleted)


def test_the_connection_limit_is_counted() -> None:
    limit = ev.ResponseRejected(attempt="a1", error={"code": "websocket_connection_limit_reached"})
    story = Story().begin("x").prepare().fail(limit)
    assert story.state.turn is not None and story.state.turn.limits_hit == 1


def test_an_outcome_of_another_attempt_changes_nothing() -> None:
    story = Story().begin("x").prepare()
    attempt = story.state.attempt
    story.tell(ev.ResponseCompleted(attempt="a0", response="r0"))
    assert (story.state.attempt, story.state.parent) == (attempt, None)


def test_an_outcome_without_a_turn_is_folded() -> None:
    story = Story().begin("x").prepare()
    state = replace(story.state, turn=None)
    completed = exchange().events[5]
    assert isinstance(completed.event, ev.ResponseCompleted)
    after = evolve(state, completed)
    assert after.parent is not None and after.turn is None
    lost = Story().tell(ev.ChainLost(parent="r", attempt="a"))
    assert lost.turn is None


def test_inputs_then_outputs_take_their_places() -> None:
    """Law 6: chain order; what was added meanwhile moves behind."""
    story = Story().begin("1", "2").prepare().add(user("3"))
    story.complete(said("m1"), said("m2"))
    assert (story.state.committed, story.state.next) == (4, 5)
    assert story.state.tail == (Run(ordinal=4, version=6, count=1),)


def test_a_failed_attempt_leaves_the_tail_as_it_was() -> None:
    story = Story().begin("1", "2")
    tail = story.state.tail
    assert story.prepare().fail().state.tail == tail


def test_a_call_that_names_no_output_is_no_call() -> None:
    story = Story().begin("x").prepare().complete(said("m1"))
    assert story.tell(ev.CallRequested(call="x", item="nothing")).calls == ()


def test_the_claims_of_a_response_end_with_the_next_request() -> None:
    story = asked("c1").answer("c1")
    assert [claim.call_id for claim in story.state.claims] == ["c1"]
    assert story.prepare("a2", "tools_answered").state.claims == ()


# -- edits ---------------------------------------------------------------------------------


def long(count: int) -> Story:
    """A committed context of `count` messages and one answer."""
    return Story().begin(*map(str, range(count))).prepare().complete(said("m1")).end()


def test_only_edits_that_matter_are_remembered() -> None:
    story = long(10)
    for ordinal in (7, 3, 5):
        story.do(EditItem(ordinal=ordinal, key="k", item=user("x")))
    assert [edit.ordinal for edit in story.state.edits] == [3, 5]
    story.add(user("tail"))
    story.do(RemoveItem(ordinal=11, key="k"))
    assert [edit.ordinal for edit in story.state.edits] == [3, 5]


def test_many_edits_are_merged_to_the_safe_side() -> None:
    story = long(2 * MAX_EDITS)
    for ordinal in range(2 * MAX_EDITS):
        story.do(EditItem(ordinal=ordinal, key="k", item=user("x")))
    edits = story.state.edits
    assert len(edits) == MAX_EDITS
    assert edits[0].ordinal == 0
    assert [edit.ordinal for edit in edits] == sorted(edit.ordinal for edit in edits)
    assert [edit.version for edit in edits] == sorted(edit.version for edit in edits)


def test_a_response_from_behind_an_edit_holds() -> None:
    parent = exchange().state.parent
    assert parent is not None
    state = exchange().state
    for edit, holds in [
        (Edit(ordinal=0, version=parent.version + 1), False),
        (Edit(ordinal=parent.end - 1, version=parent.version + 1), False),
        (Edit(ordinal=parent.end, version=parent.version + 1), True),
        (Edit(ordinal=0, version=parent.version), True),
    ]:
        assert still_holds(replace(state, edits=(edit,)), parent) is holds


def test_an_insertion_moves_what_lies_behind_it() -> None:
    story = asked("c1").answer("c1")
    story.do(Note(events=(ev.ContextCompacted(ordinal=1),)))
    story.add(user("first"), at=0)
    state = story.state
    assert (state.window, state.committed, state.next) == (2, 3, 4)
    assert state.parent is None
    assert [call.ordinal for call in state.calls] == [3]
    story.add(user("in the tail"), at=3)
    assert (story.state.committed, story.state.next) == (3, 5)
    assert [call.ordinal for call in story.state.calls] == [4]
    assert [run.ordinal for run in story.state.tail] == [3, 4]


def test_a_truncation_is_a_fact_and_changes_no_place() -> None:
    before = exchange()
    after = exchange()
    after.tell(ev.OutputTruncated(key="k", heard="Hi"))
    assert after.state.parent == before.state.parent


# -- forks ---------------------------------------------------------------------------------


def test_a_fork_takes_the_committed_context_and_nothing_open() -> None:
    story = asked("c1", "c2").answer("c1").add(user("open"))
    child = branch(story.state, "child")
    assert (child.id, child.version, child.hash) == ("child", 0, story.state.hash)
    assert (child.base, child.committed, child.next, child.tail) == (3, 3, 3, ())
    assert (child.turn, child.attempt) == (None, None)
    assert [(call.status, call.ordinal, call.turn) for call in child.calls] == [
        ("requested", None, None)
    ] * 2
    assert child.parent is not None and child.parent.version == 0


def test_a_fork_may_continue_from_an_unstored_response_while_its_lane_holds_it() -> None:
    """Law 8: whether it does is for the transport to say."""
    story = Story().begin("x").prepare(store=False, connection="c1").complete(said("m1"))
    parent = branch(story.state, "child").parent
    assert parent is not None
    assert (parent.store, parent.connection, parent.version) == (False, "c1", 0)
    assert branch(start("c"), "child").parent is None


def test_a_fork_answers_its_calls_outside_any_turn() -> None:
    story = Story(state=branch(asked("c1").state, "child"))
    story.answer("c1")
    assert (story.events[0].turn, story.events[0].epoch) == (None, None)


# -- runs ----------------------------------------------------------------------------------

moves = st.lists(
    st.tuples(st.sampled_from(["put", "cut", "insert"]), st.integers(0, 30)), max_size=30
)


@given(moves)
def test_a_tail_of_runs_is_a_list_of_versions(steps: list[tuple[str, int]]) -> None:
    runs: tuple[Run, ...] = ()
    places: list[int | None] = []
    for version, (step, number) in enumerate(steps, start=1):
        at = number % (len(places) + 1)
        match step:
            case "put":
                runs = put(runs, len(places), version)
                places.append(version)
            case "insert":
                runs = put(shift(runs, at, 1), at, version)
                places.insert(at, version)
            case _:
                runs = cut(runs, at)
                places[at : at + 1] = [None] * (at < len(places))
    flat = {run.ordinal + n: run.version + n for run in runs for n in range(run.count)}
    assert flat == {place: version for place, version in enumerate(places) if version is not None}
    assert sum(run.count for run in runs) == len(flat)
    assert [run.ordinal for run in runs] == sorted(run.ordinal for run in runs)


def test_a_long_tail_is_one_run() -> None:
    story = Story().begin(*map(str, range(500)))
    assert len(story.state.tail) == 1
