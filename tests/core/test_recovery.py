"""What must happen next: the table of design section 4, and law 10, as values.

Each story is events; what `settle` and `proceed` say about it is compared with the table.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlog import events as ev
from turnlog.canonical import Json
from turnlog.commands import (
    Approve,
    BeginTurn,
    Defer,
    DoubtCalls,
    PauseTurn,
    RequestCancel,
    Start,
    StartCall,
)
from turnlog.fold_requests import CHAIN_LOST, CONNECTION_LIMIT
from turnlog.recovery import (
    FIRST_DELAY_MS,
    LONGEST_DELAY_MS,
    MAX_TRIES,
    Ask,
    Doubt,
    End,
    GiveUp,
    Halt,
    Interrupt,
    OnCrash,
    Pause,
    Policy,
    Probe,
    RunCalls,
    Send,
    Settled,
    Unknown,
    backoff_ms,
    proceed,
    settle,
    verdict,
)
from turnlog.state import Call, CallStatus, Outcome

from .story import Story, called, message, said

TOOLS: dict[str, OnCrash] = {"look": "ask"}
BOUND = Policy(tools=TOOLS)


def sent(store: bool = True) -> Story:
    return Story().begin("Hello").prepare("a1", store=store)


def heard(store: bool = True) -> Story:
    story = sent(store)
    story.tell(ev.ResponseStarted(attempt="a1", response="r1"), turn="turn")
    return story


def begun(*, manual: bool = False, max_requests: int | None = None) -> Story:
    story = Story()
    story.do(Start())
    turn = BeginTurn(
        turn="turn",
        key="key",
        digest="d",
        items=(message("Hello"),),
        manual=manual,
        max_requests=max_requests,
    )
    story.do(turn)
    return story


def asked(*call_ids: str, manual: bool = False, max_requests: int | None = None) -> Story:
    calls = [called(one) for one in call_ids]
    story = begun(manual=manual, max_requests=max_requests)
    return story.prepare("a1").complete(*calls)


def started(story: Story, call_id: str = "c1") -> Story:
    story.do(StartCall(call=f"call-{call_id}"))
    return story


def uncertain(name: str = "look") -> Story:
    story = started(Story().begin("Hello").prepare("a1").complete(called("c1", name)))
    story.do(DoubtCalls(calls=("call-c1",), reason="crashed"))
    return story


def cancelled(story: Story, mode: ev.CancelMode = "now") -> Story:
    story.do(RequestCancel(mode=mode))
    return story


def refused(
    story: Story,
    code: str | None = None,
    *,
    status: int | None = None,
    retryable: bool = False,
    retry_after_ms: int | None = None,
) -> Story:
    """The open attempt is rejected, with a status and a code as the provider gives them."""
    error: dict[str, Json] = {"message": "no"}
    if code is not None:
        error["code"] = code
    outcome = ev.ResponseRejected(
        attempt=attempt_of(story),
        error=error,
        reason="refused",
        status=status,
        retryable=retryable,
        retry_after_ms=retry_after_ms,
    )
    return story.fail(outcome)


def lost(story: Story) -> Story:
    """The provider does not know the parent of the open attempt."""
    error: dict[str, Json] = {"code": CHAIN_LOST}
    outcome = ev.ResponseRejected(
        attempt=attempt_of(story), status=400, error=error, reason="refused"
    )
    return story.fail(outcome, chain_lost=True)


def attempt_of(story: Story) -> str:
    assert story.state.attempt is not None
    return story.state.attempt.id


def again(story: Story, attempt: str, policy: Policy = BOUND) -> Story:
    """Send what `proceed` asks for."""
    step = proceed(story.state, policy)
    assert isinstance(step, Send)
    return story.prepare(attempt, step.cause, try_number=step.try_number)


# -- design section 4, row by row ----------------------------------------------------------


def test_nothing_is_open() -> None:
    for story in (Story(), Story().begin("Hello").prepare().complete(said("m1")).end()):
        assert settle(story.state, retrieve=True) == Settled()


def test_prepared_and_nothing_heard_is_unknown_and_sent_again_from_the_same_parent() -> None:
    story = sent()
    assert settle(story.state, retrieve=True) == Unknown(reason="crashed")
    story.fail(ev.ResponseUnknown(attempt="a1", reason="crashed"))
    assert settle(story.state, retrieve=True) == Halt(reason="crashed", calls=())
    assert proceed(story.state, Policy()) == Send(
        cause="recovery", try_number=2, not_before=story.now
    )


def test_prepared_and_nothing_heard_stops_where_resending_could_act_twice() -> None:
    story = sent().fail(ev.ResponseUnknown(attempt="a1", reason="crashed"))
    step = proceed(story.state, Policy(on_unknown="stop"))
    assert isinstance(step, End)
    assert step.outcome == "failed"
    assert "on_unknown='stop'" in str(step.reason)
    # Another process may have another policy, so that settling does not decide it.
    assert settle(story.state, retrieve=False) == Halt(reason="crashed", calls=())


def test_waiting_to_retry_goes_on_no_sooner_than_the_delay_says() -> None:
    story = refused(sent(), status=429, retryable=True, retry_after_ms=7_000)
    assert settle(story.state, retrieve=True) == Halt(reason="crashed", calls=())
    step = proceed(story.state, Policy())
    assert step == Send(
        cause="retry", try_number=2, not_before=story.now + 7_000_000, delay_ms=7_000
    )
    story.do(PauseTurn(reason="crashed"))
    assert proceed(story.state, Policy()) == step


def test_chain_lost_and_not_sent_again_is_a_full_request() -> None:
    story = lost(sent())
    assert story.state.parent is None
    assert proceed(story.state, Policy()) == Send(cause="chain_lost", full=True)


def test_started_and_stored_asks_the_provider_once() -> None:
    state = heard().state
    assert settle(state, retrieve=True) == Ask(response="r1")
    assert settle(state, retrieve=False) == Interrupt(reason="crashed")
    assert settle(state, retrieve=False, reason="closed") == Interrupt(reason="closed")


def test_started_and_not_stored_is_interrupted() -> None:
    assert settle(heard(store=False).state, retrieve=True) == Interrupt(reason="crashed")


def test_an_interrupted_attempt_is_made_again_within_the_budget() -> None:
    story = heard().fail(ev.ResponseInterrupted(attempt="a1", reason="crashed", response="r1"))
    assert proceed(story.state, Policy()) == Send(
        cause="recovery", try_number=2, not_before=story.now
    )
    story = heard().fail(
        ev.ResponseInterrupted(attempt="a1", reason="the connection was cut", response="r1")
    )
    step = proceed(story.state, Policy())
    assert isinstance(step, Send)
    assert (step.cause, step.try_number) == ("retry", 2)


def test_completed_with_calls_that_did_not_start_runs_them_all() -> None:
    story = asked("c1", "c2")
    assert settle(story.state, retrieve=True) == Halt(
        reason="crashed", calls=("call-c1", "call-c2")
    )
    assert proceed(story.state, BOUND) == RunCalls(calls=("call-c1", "call-c2"))


def test_a_started_call_without_an_answer_is_doubted() -> None:
    story = started(asked("c1", "c2"))
    assert settle(story.state, retrieve=True) == Doubt(calls=("call-c1",))
    story.do(DoubtCalls(calls=("call-c1",), reason="crashed"))
    assert settle(story.state, retrieve=True) == Halt(
        reason="crashed", calls=("call-c1", "call-c2")
    )


def test_all_answered_and_not_sent_sends_the_answers() -> None:
    story = asked("c1").answer("c1")
    assert settle(story.state, retrieve=True) == Halt(reason="crashed", calls=())
    assert proceed(story.state, Policy()) == Send(cause="tools_answered")


def test_a_finished_response_only_has_its_end_to_record() -> None:
    story = Story().begin("Hello").prepare().complete(said("m1"))
    assert settle(story.state, retrieve=True) == End(outcome="completed")
    assert proceed(story.state, Policy()) == End(outcome="completed")


def test_a_refusal_that_is_final_only_has_its_end_to_record() -> None:
    assert settle(refused(sent(), status=400).state, retrieve=True) == End(
        outcome="failed", reason="no"
    )


def test_an_incomplete_response_ends_the_turn() -> None:
    story = heard().fail(ev.ResponseIncomplete(attempt="a1", reason="max_output_tokens"))
    assert proceed(story.state, Policy()) == End(outcome="incomplete", reason="max_output_tokens")


def test_a_turn_without_a_request_sends_its_first() -> None:
    story = Story().begin("Hello")
    assert settle(story.state, retrieve=True) == Halt(reason="crashed", calls=())
    assert proceed(story.state, Policy()) == Send(cause="first")


def test_a_turn_that_waits_is_settled() -> None:
    story = asked("c1")
    story.do(PauseTurn(reason="approval", calls=("call-c1",)))
    assert settle(story.state, retrieve=True) == Settled()


# -- cancelling ----------------------------------------------------------------------------


@pytest.mark.parametrize("story", [sent(), heard(), heard(store=False)])
def test_cancelled_now_and_not_carried_out_is_interrupted_and_ends(story: Story) -> None:
    cancelled(story)
    assert settle(story.state, retrieve=True) == Interrupt(reason="cancelled")
    story.fail(ev.ResponseInterrupted(attempt="a1", reason="cancelled"))
    assert settle(story.state, retrieve=True) == End(outcome="cancelled")
    assert proceed(story.state, Policy()) == End(outcome="cancelled")


def test_cancelled_with_a_tool_at_work_says_first_that_nobody_knows() -> None:
    story = cancelled(started(asked("c1")))
    assert settle(story.state, retrieve=True) == Doubt(calls=("call-c1",))
    story.do(DoubtCalls(calls=("call-c1",), reason="crashed"))
    assert settle(story.state, retrieve=True) == End(outcome="cancelled")


def test_cancelled_while_it_waited_ends_though_it_is_paused() -> None:
    story = asked("c1")
    story.do(PauseTurn(reason="approval", calls=("call-c1",)))
    assert settle(cancelled(story).state, retrieve=True) == End(outcome="cancelled")


def test_cancelled_after_the_request_still_asks_what_became_of_it() -> None:
    assert settle(cancelled(heard(), "after_request").state, retrieve=True) == Ask(response="r1")
    state = cancelled(sent(), "after_request").state
    assert settle(state, retrieve=True) == Unknown(reason="crashed")


def test_cancelled_after_the_request_runs_no_tool_and_sends_nothing_more() -> None:
    for story in (
        cancelled(asked("c1"), "after_request"),
        cancelled(asked("c1").answer("c1"), "after_request"),
        cancelled(refused(sent(), status=500, retryable=True), "after_request"),
    ):
        assert proceed(story.state, BOUND) == End(outcome="cancelled")


def test_cancelled_after_the_request_leaves_an_end_that_it_came_to_by_itself() -> None:
    answered = Story().begin("Hello").prepare()
    cancelled(answered, "after_request").complete(said("m1"))
    assert proceed(answered.state, Policy()) == End(outcome="completed")
    cut = cancelled(heard(), "after_request").fail(
        ev.ResponseIncomplete(attempt="a1", reason="content_filter")
    )
    assert proceed(cut.state, Policy()) == End(outcome="incomplete", reason="content_filter")


def test_a_response_that_was_cancelled_elsewhere_ends_the_turn() -> None:
    story = heard().fail(ev.ResponseInterrupted(attempt="a1", reason="cancelled"))
    assert proceed(story.state, Policy()) == End(outcome="cancelled")


# -- calls (law 12) ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "on_crash", "approval", "expected"),
    [
        ("requested", "function_call", "ask", False, "run"),
        ("requested", "function_call", "rerun", False, "run"),
        ("requested", "function_call", "give_up", False, "run"),
        ("requested", "function_call", "ask", True, "approval"),
        ("requested", "function_call", None, False, "unbound"),
        ("requested", "function_call", None, True, "unbound"),
        ("requested", "custom_tool_call", "ask", False, "unbound"),
        ("requested", "computer_call", None, False, "unbound"),
        ("requested", "mcp_approval_request", None, False, "approval"),
        ("approved", "function_call", "ask", True, "run"),
        ("approved", "function_call", None, False, "unbound"),
        ("started", "function_call", "rerun", False, "running"),
        ("started", "function_call", None, False, "running"),
        ("deferred", "function_call", "rerun", False, "deferred"),
        ("uncertain", "function_call", "rerun", False, "run"),
        ("uncertain", "function_call", "ask", False, "uncertain"),
        ("uncertain", "function_call", "give_up", False, "give_up"),
        ("uncertain", "function_call", "probe", False, "probe"),
        ("uncertain", "function_call", None, False, "uncertain"),
        ("uncertain", "shell_call", "probe", False, "uncertain"),
        ("uncertain", "shell_call", "rerun", False, "uncertain"),
    ],
)
def test_what_is_done_about_a_call(
    status: CallStatus, kind: str, on_crash: OnCrash | None, approval: bool, expected: str
) -> None:
    call = Call(
        id="call-c1", item="k", version=4, call_id="c1", kind=kind, name="look", turn="turn"
    )
    policy = Policy(
        tools={"look": on_crash} if on_crash is not None else {},
        approval=frozenset({"call-c1"}) if approval else frozenset(),
    )
    assert verdict(replace(call, status=status), policy) == expected


def test_an_uncertain_call_that_is_idempotent_runs_again_as_the_same_call() -> None:
    story = uncertain()
    assert proceed(story.state, Policy(tools={"look": "rerun"})) == RunCalls(calls=("call-c1",))
    started(story)
    call = story.state.call("call-c1")
    assert call is not None
    assert call.runs == 2


def test_an_uncertain_call_that_is_given_up_gets_a_truthful_output() -> None:
    state = uncertain().state
    assert proceed(state, Policy(tools={"look": "give_up"})) == GiveUp(calls=("call-c1",))


def test_an_uncertain_call_waits_for_a_human_who_may_let_it_run_again() -> None:
    story = uncertain()
    assert proceed(story.state, BOUND) == Pause(reason="uncertain", calls=("call-c1",))
    story.do(Approve(call="call-c1", rerun=True))
    assert proceed(story.state, BOUND) == RunCalls(calls=("call-c1",))


def test_an_uncertain_call_is_probed_once_in_a_run_and_by_the_next_run_again() -> None:
    story = uncertain()
    policy = Policy(tools={"look": "probe"})
    assert proceed(story.state, policy) == Probe(calls=("call-c1",))
    asked = replace(policy, asked=frozenset({"call-c1"}))
    assert proceed(story.state, asked) == Pause(reason="uncertain", calls=("call-c1",))
    assert proceed(story.state, policy) == Probe(calls=("call-c1",))


def test_a_call_that_a_probe_denies_runs_again_as_the_same_call() -> None:
    story = uncertain()
    denied = Approve(call="call-c1", rerun=True, reason="the probe said that it did not happen")
    story.do(denied)
    policy = Policy(tools={"look": "probe"})
    assert proceed(story.state, policy) == RunCalls(calls=("call-c1",))
    assert story.events[-1].event == ev.CallApproved(call="call-c1", reason=denied.reason)


def test_a_call_whose_owner_may_wake_is_not_probed() -> None:
    story = started(asked("c1"))
    story.do(DoubtCalls(calls=("call-c1",), reason="its beat stopped", timed_out=True))
    waits = Pause(reason="uncertain", calls=("call-c1",))
    assert proceed(story.state, Policy(tools={"look": "probe"})) == waits
    # A new doubt that is certain is another matter.
    story.do(Approve(call="call-c1", rerun=True))
    started(story).do(DoubtCalls(calls=("call-c1",), reason="crashed"))
    assert proceed(story.state, Policy(tools={"look": "probe"})) == Probe(calls=("call-c1",))


def test_a_probe_may_learn_that_the_answer_comes_later() -> None:
    story = uncertain()
    story.do(Defer(call="call-c1"))
    waits = Pause(reason="deferred", calls=("call-c1",))
    assert proceed(story.state, Policy(tools={"look": "probe"})) == waits


def test_probes_come_before_runs_and_runs_before_what_is_given_up() -> None:
    story = Story().begin("Hello").prepare("a1")
    story.complete(called("c1", "look"), called("c2", "mail"), called("c3", "add"))
    started(started(story, "c1"), "c2")
    story.do(DoubtCalls(calls=("call-c1", "call-c2"), reason="crashed"))
    policy = Policy(tools={"look": "probe", "mail": "give_up", "add": "ask"})
    assert proceed(story.state, policy) == Probe(calls=("call-c1",))
    asked_ = replace(policy, asked=frozenset({"call-c1"}))
    assert proceed(story.state, asked_) == RunCalls(calls=("call-c3",))


def test_siblings_run_while_others_wait() -> None:
    story = asked("c1", "c2")
    policy = replace(BOUND, approval=frozenset({"call-c1"}))
    assert proceed(story.state, policy) == RunCalls(calls=("call-c2",))
    story.answer("c2")
    assert proceed(story.state, policy) == Pause(reason="approval", calls=("call-c1",))
    story.do(Approve(call="call-c1"))
    assert proceed(story.state, policy) == RunCalls(calls=("call-c1",))


def test_a_call_that_runs_is_not_started_beside_itself() -> None:
    story = started(asked("c1", "c2"))
    assert proceed(story.state, BOUND) == RunCalls(calls=("call-c2",))
    started(story, "c2")
    assert proceed(story.state, BOUND) == Pause(reason="running", calls=("call-c1", "call-c2"))


def test_every_reason_to_wait_is_named() -> None:
    story = started(asked("c1", "c2"))
    story.do(Defer(call="call-c1"))
    assert proceed(story.state, Policy()) == Pause(
        reason="deferred, unbound", calls=("call-c1", "call-c2")
    )


# -- turns whose caller runs the tools -----------------------------------------------------


def test_the_tools_of_a_manual_turn_are_the_callers() -> None:
    story = asked("c1", manual=True, max_requests=1)
    assert proceed(story.state, BOUND) == Pause(reason="manual", calls=("call-c1",))
    story.answer("c1")
    assert proceed(story.state, BOUND) == Pause(reason="manual", calls=())
    story.prepare("a2", "tools_answered").complete(said("m1"), response="r2")
    assert proceed(story.state, BOUND) == End(outcome="completed")


def test_a_manual_turn_retries_and_cancels_like_any_other() -> None:
    story = refused(begun(manual=True).prepare(), status=503, retryable=True)
    assert isinstance(proceed(story.state, BOUND), Send)
    assert proceed(cancelled(story).state, BOUND) == End(outcome="cancelled")


# -- max_requests --------------------------------------------------------------------------


def test_a_turn_makes_no_more_requests_than_it_may() -> None:
    story = asked("c1", max_requests=1)
    limited = End(
        outcome="limited", reason="the turn has made 1 requests, which is its max_requests"
    )
    assert proceed(story.state, BOUND) == limited
    story.answer("c1")
    assert proceed(story.state, BOUND) == limited


def test_a_final_answer_to_the_last_request_is_a_completed_turn() -> None:
    story = begun(max_requests=1).prepare().complete(said("m1"))
    assert proceed(story.state, BOUND) == End(outcome="completed")


def test_what_is_sent_again_does_not_count_as_a_request() -> None:
    story = lost(begun(max_requests=2).prepare("a1"))
    refused(again(story, "a2"), status=400, code=CONNECTION_LIMIT)
    refused(again(story, "a3"), status=503, retryable=True)
    again(story, "a4").complete(called("c1")).answer("c1")
    assert story.state.turn is not None
    assert story.state.turn.requests == 1
    assert proceed(story.state, BOUND) == Send(cause="tools_answered")


# -- retries (law 10) ----------------------------------------------------------------------


def test_w31_one_owner_counts_all_tries_whatever_was_heard() -> None:
    story = sent()
    refused(story, status=500, retryable=True)
    again(story, "a2").fail(ev.ResponseInterrupted(attempt="a2", reason="stalled", response="r1"))
    again(story, "a3").fail(ev.ResponseUnknown(attempt="a3", reason="cut"))
    refused(again(story, "a4"), status=500, retryable=True)
    assert proceed(story.state, Policy()) == End(
        outcome="failed", reason=f"given up after {MAX_TRIES} tries: no"
    )


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_w32_a_refusal_that_says_so_is_final(status: int) -> None:
    story = refused(sent(), status=status, retryable=False)
    assert proceed(story.state, Policy()) == End(outcome="failed", reason="no")


@pytest.mark.parametrize(
    "outcome",
    [
        ev.ResponseRejected(attempt="a1", retryable=True, reason="refused", status=503),
        ev.ResponseRejected(attempt="a1", retryable=True, reason="refused"),
        ev.ResponseFailed(attempt="a1", retryable=True, error={"code": "server_error"}),
    ],
)
def test_w33_a_failure_that_may_pass_is_tried_again(outcome: ev.OutcomeEvent) -> None:
    step = proceed(sent().fail(outcome).state, Policy())
    assert isinstance(step, Send)
    assert (step.cause, step.try_number, step.full) == ("retry", 2, False)


def test_w34_what_never_reached_the_provider_and_never_can_is_final() -> None:
    story = sent().fail(ev.ResponseRejected(attempt="a1", reason="not_sent", retryable=False))
    assert proceed(story.state, Policy()) == End(outcome="failed", reason="not_sent")
    story = sent().fail(ev.ResponseRejected(attempt="a1", reason="not_sent", retryable=True))
    assert isinstance(proceed(story.state, Policy()), Send)


def outcome_after(
    try_number: int, attempt: str = "a1", reason: str | None = None, after: int | None = None
) -> Outcome:
    return Outcome(
        kind="rejected",
        attempt=attempt,
        cause="first",
        try_number=try_number,
        time=0,
        reason=reason,
        retry_after_ms=after,
    )


@given(try_number=st.integers(1, 40), attempt=st.text(), after=st.none() | st.integers(0, 100_000))
def test_w35_the_delay_is_exponential_with_full_jitter_and_keeps_to_retry_after(
    try_number: int, attempt: str, after: int | None
) -> None:
    delay = backoff_ms(outcome_after(try_number, attempt, after=after))
    assert delay == backoff_ms(outcome_after(try_number, attempt, after=after))
    ceiling = min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (try_number - 1))
    assert (after or 0) <= delay <= max(after or 0, ceiling)


def test_w35_the_jitter_is_spread_over_the_whole_range() -> None:
    delays = [backoff_ms(outcome_after(3, f"attempt-{n}")) for n in range(400)]
    ceiling = FIRST_DELAY_MS * 4
    quarters = [
        sum(delay * 4 // (ceiling + 1) == quarter for delay in delays) for quarter in range(4)
    ]
    assert min(quarters) > 60


@pytest.mark.parametrize("reason", ["crashed", "closed"])
def test_what_our_own_process_cut_off_waits_for_nothing(reason: str) -> None:
    assert backoff_ms(outcome_after(3, reason=reason)) == 0


def test_w37_the_age_limit_of_a_connection_costs_no_try() -> None:
    story = sent()
    for number in range(2, MAX_TRIES + 2):
        refused(story, status=400, code=CONNECTION_LIMIT)
        assert proceed(story.state, Policy()) == Send(cause="retry", try_number=1)
        again(story, f"a{number}")
    refused(story, status=400, code=CONNECTION_LIMIT)
    assert proceed(story.state, Policy()) == End(outcome="failed", reason="no")


def test_w37_the_age_limit_is_counted_for_each_request() -> None:
    story = sent()
    for number in range(2 * MAX_TRIES):
        refused(story, status=400, code=CONNECTION_LIMIT)
        again(story, f"a{number}").complete(called(f"c{number}"), response=f"r{number}")
        again(story.answer(f"c{number}"), f"b{number}")
    assert story.state.turn is not None
    assert story.state.turn.limits_hit == 0


def test_w30_the_age_limit_in_the_middle_of_a_response_is_the_same() -> None:
    story = heard().fail(
        ev.ResponseFailed(attempt="a1", error={"code": CONNECTION_LIMIT, "message": "old"})
    )
    assert proceed(story.state, Policy()) == Send(cause="retry", try_number=1)


# -- a lost chain (law 8) ------------------------------------------------------------------


def test_w12_a_chain_that_is_lost_twice_is_an_error() -> None:
    story = Story().begin("Hello").prepare("a0").complete(said("m1"), response="r0").end()
    lost(story.begin("And?", turn="turn2").prepare("a1"))
    assert proceed(story.state, Policy()) == Send(cause="chain_lost", full=True)
    lost(again(story, "a2"))
    assert proceed(story.state, Policy()) == End(
        outcome="failed", reason="the chain was lost twice for one request (W-12)"
    )


def test_w12_a_retry_between_the_two_losses_does_not_hide_the_second() -> None:
    story = lost(sent())
    refused(again(story, "a2"), status=503, retryable=True)
    lost(again(story, "a3"))
    assert isinstance(proceed(story.state, Policy()), End)


def test_a_lost_chain_costs_no_try() -> None:
    story = refused(sent(), status=503, retryable=True)
    lost(again(story, "a2"))
    assert proceed(story.state, Policy()) == Send(cause="chain_lost", try_number=2, full=True)


def test_a_chain_may_be_lost_again_once_a_request_has_completed() -> None:
    story = lost(sent())
    again(story, "a2").complete(called("c1")).answer("c1")
    lost(again(story, "a3"))
    assert proceed(story.state, Policy()) == Send(cause="chain_lost", full=True)
