"""The life of a client-owned call: every step from every status, legal or not (laws 7 and 12)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from turnlog import events as ev
from turnlog.decide import (
    Approve,
    Command,
    Defer,
    DoubtCalls,
    PauseTurn,
    Progress,
    Resolve,
    StartCall,
)
from turnlog.decide_calls import verbs
from turnlog.errors import AlreadyAnswered, InvalidInput, LateAnswer, NotPending
from turnlog.state import Call, CallStatus

from .story import Story, asked, output, said
from .strategies import How

CALL = "call-c1"


def resolve(how: How = "answered", text: str = "42", *, by_runner: bool = False) -> Resolve:
    return Resolve(call=CALL, how=how, key="k", item=output("c1", text), by_runner=by_runner)


PATHS: dict[CallStatus, list[Command]] = {
    "requested": [],
    "approved": [Approve(call=CALL)],
    "started": [StartCall(call=CALL)],
    "deferred": [StartCall(call=CALL), Defer(call=CALL)],
    "uncertain": [StartCall(call=CALL), DoubtCalls(calls=(CALL,), reason="crashed")],
    "answered": [resolve()],
    "rejected": [resolve("rejected")],
    "abandoned": [resolve("abandoned")],
}
STEPS: dict[str, Command] = {
    "approve": Approve(call=CALL),
    "rerun": Approve(call=CALL, rerun=True),
    "start": StartCall(call=CALL),
    "progress": Progress(call=CALL, data={"percent": 50}),
    "defer": Defer(call=CALL),
    "doubt": DoubtCalls(calls=(CALL,), reason="crashed"),
    "answer": resolve(text="new"),
    "answer as tool": resolve(text="new", by_runner=True),
    "reject": resolve("rejected", "new"),
    "abandon": resolve("abandoned", "new"),
}
LEGAL: dict[CallStatus, dict[str, CallStatus]] = {
    "requested": {
        "approve": "approved",
        "start": "started",
        "answer": "answered",
        "answer as tool": "answered",
        "reject": "rejected",
        "abandon": "abandoned",
    },
    "approved": {
        "start": "started",
        "answer": "answered",
        "answer as tool": "answered",
        "reject": "rejected",
        "abandon": "abandoned",
    },
    "started": {
        "progress": "started",
        "defer": "deferred",
        "doubt": "uncertain",
        "answer as tool": "answered",
        "abandon": "abandoned",
    },
    "deferred": {
        "progress": "deferred",
        "answer": "answered",
        "answer as tool": "answered",
        "abandon": "abandoned",
    },
    "uncertain": {
        "rerun": "approved",
        "start": "started",
        "defer": "deferred",
        "answer": "answered",
        "answer as tool": "answered",
        "abandon": "abandoned",
    },
    "answered": {},
    "rejected": {},
    "abandoned": {"answer": "answered", "answer as tool": "answered"},
}


def at(status: CallStatus) -> Story:
    """A conversation whose one call is in this status."""
    story = asked("c1")
    for command in PATHS[status]:
        story.do(command)
    assert the_call(story).status == status
    return story


def the_call(story: Story) -> Call:
    call = story.state.call(CALL)
    assert call is not None
    return call


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("status", LEGAL)
def test_every_step_from_every_status(status: CallStatus, step: str) -> None:
    story = at(status)
    before = story.state
    after = LEGAL[status].get(step)
    if (status, step) == ("approved", "approve"):
        assert story.do(STEPS[step]) == []  # a button that was pressed twice
    elif after is None:
        with pytest.raises((NotPending, AlreadyAnswered), match=CALL):
            story.do(STEPS[step])
        assert story.state == before
    else:
        story.do(STEPS[step])
        assert the_call(story).status == after
        assert story.events[-1].turn == "turn"


@pytest.mark.parametrize("status", LEGAL)
def test_what_people_can_do_about_a_call_is_what_is_legal(status: CallStatus) -> None:
    people = {"approve", "reject", "rerun", "answer", "abandon"}
    assert set(verbs(status)) == people & set(LEGAL[status])


def test_the_facts_of_a_call() -> None:
    story = asked("c1")
    assert story.do(Approve(call=CALL, reason="fine")) == [
        ev.CallApproved(call=CALL, reason="fine")
    ]
    assert story.do(StartCall(call=CALL)) == [ev.CallStarted(call=CALL, run=1)]
    story.do(DoubtCalls(calls=(CALL,), reason="crashed"))
    assert story.do(Approve(call=CALL, rerun=True)) == [ev.CallApproved(call=CALL, reason="rerun")]
    assert story.do(StartCall(call=CALL)) == [ev.CallStarted(call=CALL, run=2)]
    assert (the_call(story).runs, the_call(story).approved) == (2, True)
    failed = Resolve(
        call=CALL, how="answered", key="k", item=output("c1"), failed=True, by_runner=True
    )
    assert story.do(failed) == [ev.CallAnswered(call=CALL, key="k", item=output("c1"), failed=True)]


def test_a_refusal_and_an_abandonment_say_why() -> None:
    reasons: dict[How, str] = {"rejected": "too much", "abandoned": "cancelled"}
    for how, reason in reasons.items():
        command = resolve(how)
        story = asked("c1")
        story.do(Resolve(call=CALL, how=command.how, key="k", item=command.item, reason=reason))
        event = story.events[-1].event
        assert isinstance(event, (ev.CallRejected, ev.CallAbandoned)) and event.reason == reason
    story = asked("c1")
    assert story.do(resolve("abandoned")) == [
        ev.CallAbandoned(call=CALL, key="k", item=output("c1"), reason="abandoned")
    ]


def test_a_step_of_a_paused_turn_that_starts_a_call_ends_the_pause() -> None:
    story = asked("c1")
    story.do(PauseTurn(reason="approval"))
    story.do(Approve(call=CALL))
    statuses = [story.state.status]
    story.do(StartCall(call=CALL))
    assert [*statuses, story.state.status] == ["waiting", "busy"]


def test_no_call_can_be_doubted_that_did_not_start() -> None:
    with pytest.raises(NotPending, match="cannot doubt call 'call-c1': it is requested"):
        asked("c1").do(DoubtCalls(calls=(CALL,), reason="crashed"))
    with pytest.raises(NotPending, match="is not pending"):
        asked("c1").do(DoubtCalls(calls=("nobody",), reason="crashed"))


def test_a_tool_that_runs_is_not_overtaken() -> None:
    with pytest.raises(NotPending, match="is being run by its tool: cancel the turn"):
        at("started").do(resolve())


def test_an_answer_has_to_fit_its_call() -> None:
    wrong: list[tuple[Resolve, str]] = [
        (
            Resolve(call=CALL, how="answered", key="k", item=said("m")),
            "a function_call is answered by a function_call_output, not a message",
        ),
        (
            Resolve(call=CALL, how="answered", key="k", item=output("c2")),
            "the output answers 'c2', but the call is 'c1'",
        ),
    ]
    for command, reason in wrong:
        for status in ("requested", "abandoned"):
            with pytest.raises(InvalidInput, match=reason):
                at(status).do(command)


# -- twice, and too late -------------------------------------------------------------------


def again(text: str, how: How = "answered", was: How | None = None) -> Resolve:
    return Resolve(
        call=CALL, how=how, key="k2", item=output("c1", text), earlier=output("c1"), was=was
    )


def test_the_same_answer_again_is_no_event() -> None:
    for status in ("answered", "rejected", "abandoned"):
        assert at(status).do(again("42")) == []
    with pytest.raises(AlreadyAnswered, match="'call-c1' is answered already, with another"):
        at("answered").do(again("43"))
    with pytest.raises(AlreadyAnswered, match="is abandoned already"):
        at("abandoned").do(again("43", "rejected"))


def test_w05_a_late_answer_replaces_an_abandonment_in_its_place() -> None:
    story = asked("c1", "c2")
    story.do(resolve("abandoned"))
    story.answer("c2")
    before = the_call(story).ordinal
    story.do(again("late"))
    call = the_call(story)
    assert (call.status, call.ordinal, call.settled) == ("answered", before, True)
    assert [(run.ordinal, run.count) for run in story.state.tail] == [(3, 1), (4, 1)]


def test_a_late_answer_behind_a_request_is_an_error() -> None:
    """Until a request contains it; one that failed has told the model nothing."""
    story = at("abandoned").prepare("a2")
    with pytest.raises(LateAnswer, match="a request has told the model so"):
        story.do(again("late"))
    story.fail()
    assert story.do(again("late"))
    story.prepare("a3", "retry").complete(said("m2"), response="r2")
    forgotten: list[tuple[How | None, type[Exception]]] = [
        (None, NotPending),
        ("abandoned", LateAnswer),
        ("answered", AlreadyAnswered),
        ("rejected", AlreadyAnswered),
    ]
    for was, error in forgotten:
        with pytest.raises(error):
            story.do(again("later", was=was))
    assert story.do(again("42", was="abandoned")) == []


@pytest.mark.parametrize("make", [lambda: StartCall(call="x"), lambda: Approve(call="x")])
def test_a_call_that_is_not_pending(make: Callable[[], Command]) -> None:
    with pytest.raises(NotPending, match="call 'x' is not pending in conversation 'conv'"):
        asked("c1").do(make())
