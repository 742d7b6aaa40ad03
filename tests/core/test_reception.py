"""What is made of an attempt's frames: recorded streams, and streams that are mutated by rule."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlog import events as ev
from turnlog.canonical import Json, JsonObject, dumps, obj, objects, text
from turnlog.ports import Frame, Problem
from turnlog.reception import Reception, final_parts, is_chain_lost
from turnlog.updates import Cursor, Delta, HostedUpdate
from turnlog_transports.wire import answer, read

TRANSCRIPTS = Path(__file__).resolve().parents[3] / "shared" / "transcripts"


def frame(type: str, **data: Json) -> Frame:
    return read(dumps({"type": type, **data}))


def heard(frames: Iterable[Frame]) -> Reception:
    reception = Reception(attempt="a1", version=3)
    for one in frames:
        reception.feed(one)
    return reception


def message(id: str, *parts: JsonObject) -> JsonObject:
    return {"type": "message", "id": id, "role": "assistant", "content": [*parts]}


def says(said: str) -> JsonObject:
    return {"type": "output_text", "text": said, "annotations": []}


def thought(id: str, summary: str) -> JsonObject:
    return {"type": "reasoning", "id": id, "summary": [{"type": "summary_text", "text": summary}]}


def called(id: str) -> JsonObject:
    return {"type": "function_call", "id": id, "call_id": f"call_{id}", "name": "look"}


CREATED = frame("response.created", response={"id": "r1", "status": "in_progress", "output": []})


def delta(said: str, place: int = 0, item: str = "m1", kind: str = "output_text") -> Frame:
    return frame(f"response.{kind}.delta", output_index=place, item_id=item, delta=said)


def done(item: JsonObject, place: int = 0) -> Frame:
    return frame("response.output_item.done", output_index=place, item=item)


def ended(
    *output: JsonObject, type: str = "response.completed", status: str | None = None, **more: Json
) -> Frame:
    status = status or type.rpartition(".")[2]
    response: JsonObject = {"id": "r1", "status": status, "output": [*output], **more}
    return frame(type, response=response)


# -- recorded exchanges --------------------------------------------------------------------


def recorded() -> list[tuple[str, JsonObject]]:
    """Every recorded answer, with a name."""
    return [
        (f"{path.stem}-{place}", exchange["response"])
        for path in sorted(TRANSCRIPTS.glob("*.json"))
        for place, exchange in enumerate(json.loads(path.read_bytes()))
    ]


RECORDED = recorded()
NO_RECORDING = pytest.param(
    {}, id="none", marks=pytest.mark.skip("no recorded exchanges: ../shared/transcripts is absent")
)


@pytest.mark.parametrize(
    "response",
    [pytest.param(one, id=name) for name, one in RECORDED if "events" in one] or [NO_RECORDING],
)
def test_a_recorded_stream_is_what_its_terminal_frame_says(response: JsonObject) -> None:
    events = objects(response, "events")
    reception = heard(read(dumps(event)) for event in events)
    terminal = obj(events[-1], "response")
    assert reception.outputs() == objects(terminal, "output")
    outcome = reception.outcome()
    assert isinstance(outcome, ev.ResponseCompleted)
    assert (outcome.response, outcome.usage) == (terminal["id"], terminal["usage"])
    assert outcome.body is not None
    assert {*terminal} - {*outcome.body} == {"output", "instructions", "tools"}
    assert [note for note in reception.notes if isinstance(note, ev.ProviderNoted)] == []
    streamed = {name: reception.shown(name) for name in reception.parts}
    final = {name: said for name, (_, said) in final_parts(reception.outputs()).items() if said}
    if obj(events[0], "response"):  # else the stream was taken up in its middle
        assert streamed == final


@pytest.mark.parametrize(
    "response",
    [pytest.param(one, id=name) for name, one in RECORDED if "body" in one] or [NO_RECORDING],
)
def test_a_recorded_plain_answer_is_one_terminal_frame(response: JsonObject) -> None:
    status, body = response["status"], obj(response, "body")
    assert isinstance(status, int)
    outcome = heard([answer(status, {}, dumps(body))]).outcome()
    if status == 200:
        assert isinstance(outcome, ev.ResponseCompleted)
        return
    assert isinstance(outcome, ev.ResponseRejected)
    assert (outcome.status, outcome.retryable) == (status, False)
    assert text(outcome.error or {}, "message") == obj(body, "error")["message"]


# -- outputs: the terminal frame decides (law 3) -------------------------------------------


def test_the_terminal_outputs_stand_in_their_order_whatever_streamed() -> None:
    first, second = message("m1", says("A")), called("f1")
    reception = heard([CREATED, done(second, 1), done(message("m9"), 0), ended(first, second)])
    assert reception.outputs() == [first, second]


NOTHING = [
    ended(),
    frame("response.completed", response={"id": "r1", "output": None}),
    frame("response.completed", response={"id": "r1"}),
    frame("response.completed", response=None),
    frame("response.completed"),
]


@pytest.mark.parametrize("terminal", NOTHING)
def test_where_the_terminal_output_is_missing_the_streamed_items_stand(terminal: Frame) -> None:
    first, second, third = thought("t1", "Hm."), called("f1"), message("m1", says("A"))
    added = frame("response.output_item.added", output_index=2, item={**third, "content": []})
    reception = heard([CREATED, done(second, 1), done(first, 0), added, done(third, 2), terminal])
    assert reception.outputs() == [first, second, third]
    outcome = reception.outcome()
    assert isinstance(outcome, ev.ResponseCompleted)
    assert outcome.response == "r1"


@pytest.mark.parametrize("terminal", NOTHING)
def test_where_an_item_was_never_finished_its_streamed_text_stands(terminal: Frame) -> None:
    bare: JsonObject = {"type": "message", "id": "m1", "role": "assistant", "content": []}
    added = frame("response.output_item.added", output_index=0, item=bare)
    frames = [CREATED, added, delta("Hel"), delta("lo"), delta("No.", kind="refusal"), terminal]
    refusal: JsonObject = {"type": "refusal", "refusal": "No."}
    assert heard(frames).outputs() == [{**bare, "content": [refusal, says("Hello")]}]


def test_a_stream_of_nothing_but_text_is_a_message() -> None:
    bare = [frame("response.output_text.delta", delta=said) for said in ("Hel", "lo")]
    reception = heard([*bare, frame("response.completed")])
    assert reception.outputs() == [
        {"type": "message", "role": "assistant", "content": [says("Hello")]}
    ]
    assert reception.outcome() == ev.ResponseCompleted(attempt="a1")


def test_the_first_terminal_frame_decides() -> None:
    reception = heard([CREATED, ended(called("f1")), ended(type="response.failed")])
    assert isinstance(reception.outcome(), ev.ResponseCompleted)
    assert reception.outputs() == [called("f1")]


# -- outcomes ------------------------------------------------------------------------------


def failed(error: Json = None, *, begun: bool = True) -> ev.OutcomeEvent | None:
    last = ended(type="response.failed", error=error)
    return heard([CREATED, last] if begun else [last]).outcome()


def test_a_failed_response_says_why_and_whether_it_may_be_tried_again() -> None:
    outcome = failed({"code": "server_error", "message": "Oh."})
    assert isinstance(outcome, ev.ResponseFailed)
    assert (outcome.error, outcome.retryable) == ({"code": "server_error", "message": "Oh."}, True)
    final = failed({"code": "invalid_prompt", "message": "No."}, begun=False)
    assert isinstance(final, ev.ResponseFailed)
    assert not final.retryable


def test_w01_w20_a_failure_without_an_error_is_a_failure() -> None:
    outcome = failed(None)
    assert isinstance(outcome, ev.ResponseFailed)
    assert outcome.error is not None
    bare = Frame(type="response.failed", data={"type": "response.failed"}, terminal="failed")
    outcome = heard([CREATED, bare]).outcome()
    assert isinstance(outcome, ev.ResponseFailed)
    assert outcome.error == {"message": "the provider reported a failure"}


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"type": "invalid_request_error", "code": None, "message": "No tool output"}},
        {"error": {"message": "No tool output", "param": None}},
        {"code": None, "message": "No tool output", "param": None},
    ],
)
def test_w20_an_error_with_null_fields_ends_the_attempt(error: dict[str, Json]) -> None:
    outcome = heard([frame("error", status=400, **error)]).outcome()
    assert isinstance(outcome, ev.ResponseRejected)
    assert (outcome.status, outcome.retryable, outcome.reason) == (400, False, "refused")
    assert (outcome.error or {})["message"] == "No tool output"


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": 1}, "none"])
def test_w20_a_completed_response_needs_no_usage(usage: Json) -> None:
    outcome = heard([CREATED, ended(usage=usage)]).outcome()
    assert isinstance(outcome, ev.ResponseCompleted)
    assert outcome.usage == (usage if isinstance(usage, dict) else None)


@pytest.mark.parametrize("details", [{"reason": "max_output_tokens"}, None, {}, "odd"])
def test_w21_an_incomplete_response_is_over_and_says_why(details: Json) -> None:
    outcome = heard(
        [CREATED, ended(type="response.incomplete", incomplete_details=details, usage={})]
    ).outcome()
    assert isinstance(outcome, ev.ResponseIncomplete)
    assert outcome.reason == (details.get("reason") if isinstance(details, dict) else None)
    assert outcome.usage == {}


@pytest.mark.parametrize(
    "last", [ended(type="response.cancelled"), ended(type="response.completed", status="cancelled")]
)
def test_w21_a_cancelled_response_is_interrupted(last: Frame) -> None:
    outcome = heard([CREATED, last]).outcome()
    assert isinstance(outcome, ev.ResponseInterrupted)
    assert outcome.reason == "cancelled"


def test_w25_a_stream_without_a_terminal_frame_is_no_success() -> None:
    reception = heard([CREATED, delta("Hel")])
    assert reception.outcome() is None
    assert reception.interrupted("cut") == ev.ResponseInterrupted(
        attempt="a1", response="r1", reason="cut"
    )
    assert heard([]).interrupted("cut") == ev.ResponseUnknown(attempt="a1", reason="cut")


@pytest.mark.parametrize(
    ("problem", "retryable"),
    [
        (Problem(status=408, message=""), True),
        (Problem(status=409, message=""), True),
        (Problem(status=429, message=""), True),
        (Problem(status=500, message=""), True),
        (Problem(status=529, message=""), True),
        (Problem(status=400, code="server_error", message=""), False),
        (Problem(status=401, message=""), False),
        (Problem(status=403, message=""), False),
        (Problem(status=404, message=""), False),
        (Problem(status=422, message=""), False),
        (Problem(code="server_error", message=""), True),
        (Problem(code="rate_limit_exceeded", message=""), True),
        (Problem(code="server_is_overloaded", message=""), True),
        (Problem(code="invalid_prompt", type="server_error", message=""), False),
        (Problem(type="server_error", message=""), True),
        (Problem(type="invalid_request_error", message=""), False),
        (Problem(message=""), False),
    ],
)
def test_w33_the_status_then_the_code_say_whether_to_try_again(
    problem: Problem, retryable: bool
) -> None:
    refused = Frame(type="error", data={}, terminal="error", problem=problem)
    outcome = heard([refused]).outcome()
    assert isinstance(outcome, ev.ResponseRejected)
    assert outcome.retryable == retryable
    outcome = heard([CREATED, refused]).outcome()
    assert isinstance(outcome, ev.ResponseFailed)
    assert outcome.retryable == retryable


def test_w33_retry_after_is_kept() -> None:
    headers: JsonObject = {"Retry-After": "1.5"}
    refused = frame("error", status=429, error={"code": "rate_limit_exceeded", "headers": headers})
    outcome = heard([refused]).outcome()
    assert isinstance(outcome, ev.ResponseRejected)
    assert outcome.retry_after_ms == 1500


@pytest.mark.parametrize("before", [CREATED, delta("Hel"), done(called("f1"))])
def test_w31_an_error_behind_any_output_is_a_failure_and_not_a_refusal(before: Frame) -> None:
    assert isinstance(heard([before, frame("error", status=500)]).outcome(), ev.ResponseFailed)


def test_a_lost_chain_is_recognised_in_both_shapes() -> None:
    code = "previous_response_not_found"
    for lost in (
        frame("error", status=400, error={"code": code, "message": "gone"}),
        frame("error", code=code, message="gone"),
    ):
        outcome = heard([lost]).outcome()
        assert outcome is not None
        assert is_chain_lost(outcome)
    assert not is_chain_lost(ev.ResponseCompleted(attempt="a1"))


# -- notes and updates ---------------------------------------------------------------------


def test_w22_what_is_unknown_or_unreadable_is_counted_and_kept() -> None:
    reception = heard([CREATED, read("{not json"), frame("response.wondrous", x=1), ended()])
    assert reception.take_notes() == [
        ev.ResponseStarted(attempt="a1", response="r1"),
        ev.ProviderNoted(kind="unreadable", attempt="a1", text="{not json"),
        ev.ProviderNoted(
            kind="unknown_frame", attempt="a1", data={"type": "response.wondrous", "x": 1}
        ),
    ]
    assert (reception.heard, reception.unreadable) == (4, 1)
    assert reception.take_notes() == []
    assert isinstance(reception.outcome(), ev.ResponseCompleted)


def test_w22_items_of_any_kind_and_a_response_without_an_id_are_kept() -> None:
    odd: JsonObject = {"type": "mcp_call", "id": "mcp_1", "server_label": "x", "output": None}
    reception = heard(
        [frame("response.created", response={}), done(odd), frame("response.completed")]
    )
    assert reception.outputs() == [odd]
    assert reception.response is None


def test_the_response_is_noted_once_with_where_it_lives() -> None:
    line = dumps({"type": "response.created", "response": {"id": "r1"}, "stream_id": "l1"})
    reception = heard([read(line, connection="c1"), CREATED, ended()])
    assert reception.notes == [
        ev.ResponseStarted(attempt="a1", response="r1", connection="c1", lane="l1")
    ]


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("output_text", "text.delta", "text:0:0"),
        ("refusal", "refusal.delta", "refusal:0:0"),
        ("reasoning_text", "reasoning.delta", "reasoning:0:0"),
        ("reasoning_summary_text", "reasoning.delta", "summary:0:0"),
    ],
)
def test_w26_text_refusals_and_reasoning_all_surface(name: str, kind: str, part: str) -> None:
    reception = Reception(attempt="a1", version=3)
    update = reception.feed(delta("Hm", kind=name))
    assert isinstance(update, Delta)
    assert (update.type, update.delta, update.part, update.item) == (kind, "Hm", part, "m1")
    assert update.cursor == Cursor(3, "a1", part, 2)
    assert update.raw["type"] == f"response.{name}.delta"


def test_w26_progress_of_a_tool_that_the_provider_runs_surfaces() -> None:
    reception = Reception(attempt="a1", version=3)
    update = reception.feed(frame("response.web_search_call.searching", item_id="ws_1"))
    assert isinstance(update, HostedUpdate)
    assert (update.event, update.item) == ("response.web_search_call.searching", "ws_1")
    assert reception.notes == []


def test_parts_are_told_apart_by_item_content_and_summary_index() -> None:
    reception = heard(
        [
            frame(
                "response.reasoning_summary_text.delta", output_index=0, summary_index=1, delta="a"
            ),
            frame("response.output_text.delta", output_index=1, content_index=2, delta="b"),
            frame("response.output_text.delta", output_index=1, content_index=0),
        ]
    )
    assert [*reception.parts] == ["summary:0:1", "text:1:2", "text:1:0"]
    assert reception.shown("text:1:0") == ""


@pytest.mark.parametrize("ids", [True, False])
def test_where_the_index_is_left_out_id_or_order_tell_the_place(ids: bool) -> None:
    def strip(one: Frame) -> Frame:
        data = {key: value for key, value in one.data.items() if key != "output_index"}
        return read(dumps(data if ids else {k: v for k, v in data.items() if k != "item_id"}))

    first, second = thought("t1", "Hm."), message("m1", says("Hello"))
    frames = [
        CREATED,
        frame("response.output_item.added", output_index=0, item={**first, "summary": []}),
        done(first, 0),
        frame("response.output_item.added", output_index=1, item={**second, "content": []}),
        delta("Hello", 1),
        done(second, 1),
        ended(),
    ]
    reception = heard(map(strip, frames))
    assert [*reception.parts] == ["text:1:0"]
    assert reception.outputs() == [first, second]


def test_items_that_have_neither_index_nor_id_stand_in_order() -> None:
    items: list[JsonObject] = [{"type": "function_call", "call_id": c} for c in ("c1", "c2")]
    frames = [
        frame(f"response.output_item.{what}", item=item)
        for item in items
        for what in ("added", "done")
    ]
    assert heard([*frames, ended()]).outputs() == items


# -- checkpoints ---------------------------------------------------------------------------


def checkpoints(events: Sequence[ev.Event]) -> dict[str, str]:
    """The text that checkpoints hold, put together again; each begins where the last ended."""
    texts: dict[str, str] = {}
    for one in events:
        assert isinstance(one, ev.OutputCheckpointed)
        assert one.offset == len(texts.get(one.part, ""))
        texts[one.part] = texts.get(one.part, "") + one.text
    return texts


@given(
    said=st.lists(st.tuples(st.integers(0, 2), st.text(max_size=5)), max_size=12),
    cuts=st.sets(st.integers(0, 12)),
)
def test_checkpoints_hold_the_shown_text_at_any_cut(
    said: list[tuple[int, str]], cuts: set[int]
) -> None:
    reception, saved = heard([CREATED]), list[ev.Event]()
    for number, (place, piece) in enumerate(said):
        reception.feed(delta(piece, place, item=f"m{place}"))
        if number in cuts:
            saved += reception.take_checkpoints()
            assert reception.unsaved() == 0
    left = sum(len(piece) for _, piece in said) - sum(map(len, checkpoints(saved).values()))
    assert reception.unsaved() == left
    saved += reception.take_checkpoints()
    shown = {name: reception.shown(name) for name in reception.parts if reception.shown(name)}
    assert checkpoints(saved) == shown
    assert {one.part: one.delta for one in reception.so_far() if one.delta} == shown
    assert {one.cursor.offset for one in reception.so_far()} == {
        len(reception.shown(name)) for name in reception.parts
    }


def test_text_that_the_final_answer_contradicts_is_kept_in_the_log() -> None:
    reception = heard([CREATED, delta("Hello wor"), ended(message("m1", says("Goodbye")))])
    assert checkpoints(reception.take_notes()[1:]) == {"text:0:0": "Hello wor"}
    reception = heard([CREATED, delta("Hel"), ended(message("m1", says("Hello")))])
    assert reception.take_notes() == [ev.ResponseStarted(attempt="a1", response="r1")]


# -- any frames at all ---------------------------------------------------------------------

odd: st.SearchStrategy[Json] = (
    st.none() | st.booleans() | st.integers(-1, 3) | st.text(max_size=3) | st.just([])
)
SOUND: list[JsonObject] = [
    one.data
    for one in (
        CREATED,
        frame("response.in_progress", response={"id": "r1"}),
        frame("response.output_item.added", output_index=0, item=thought("t1", "")),
        delta("Hm", 0, "t1", "reasoning_summary_text"),
        done(thought("t1", "Hm"), 0),
        frame("response.output_item.added", output_index=1, item=message("m1")),
        delta("Hel", 1),
        delta("lo", 1),
        done(message("m1", says("Hello")), 1),
        ended(thought("t1", "Hm"), message("m1", says("Hello"))),
    )
]


@st.composite
def mutated(draw: st.DrawFn) -> list[Frame]:
    """The sound stream with frames dropped, doubled and swapped, and fields dropped or odd."""
    places = draw(st.lists(st.sampled_from(range(len(SOUND))), max_size=14))
    frames: list[Frame] = []
    for place in places if draw(st.booleans()) else sorted(places):
        data = dict(SOUND[place])
        for key in draw(st.sets(st.sampled_from(sorted(data)), max_size=2)):
            value = draw(odd)
            data[key] = value
            if draw(st.booleans()):
                del data[key]
        frames.append(read(dumps(data)))
    return frames


@given(mutated())
def test_any_frames_at_all_give_one_outcome_and_items_that_can_be_recorded(
    frames: list[Frame],
) -> None:
    reception = heard(frames)
    assert reception.heard == len(frames)
    outcome = reception.outcome() or reception.interrupted("cut")
    terminals = [one for one in frames if one.terminal is not None]
    assert bool(terminals) == (reception.outcome() is not None)
    decided = objects(obj(terminals[0].data, "response"), "output") if terminals else []
    if decided:
        assert reception.outputs() == decided
    dumps([*reception.outputs()])
    assert outcome.attempt == "a1"
    known = {str(one["type"]) for one in SOUND}
    unknown = [one for one in frames if one.type not in known]
    noted = [one for one in reception.take_notes() if isinstance(one, ev.ProviderNoted)]
    assert len(noted) == len(unknown)


@given(mutated())
def test_streamed_text_and_final_parts_have_the_same_names(frames: list[Frame]) -> None:
    reception = heard(frames)
    for name in reception.parts:
        kind, place, inner = name.split(":")
        assert kind in {"text", "summary"}
        assert place.lstrip("-").isdigit()
        assert inner.lstrip("-").isdigit()


# -- secrets -------------------------------------------------------------------------------


def test_a_secret_that_the_provider_echoes_reaches_neither_log_nor_watcher() -> None:
    reception = Reception(attempt="a1", version=3, secrets=frozenset({"sk-live-1"}))
    update = reception.feed(delta("the key is sk-live-1"))
    reception.feed(read("{sk-live-1"))
    reception.feed(frame("error", status=400, error={"message": "wrong key sk-live-1"}))
    assert isinstance(update, Delta)
    for kept in (update, reception.take_notes(), reception.take_checkpoints(), reception.outcome()):
        assert "sk-live-1" not in repr(kept)


def test_a_part_of_a_kind_that_nobody_knows_has_no_text() -> None:
    odd: JsonObject = {"type": "message", "id": "msg_1", "content": [{"type": "output_hologram"}]}
    assert final_parts([odd]) == {}


@pytest.mark.parametrize("index", [int("9" * 4300), -1, 2**40])
def test_w22_a_place_that_cannot_be_is_no_place(index: int) -> None:
    reception = heard(
        [
            frame("response.output_item.added", output_index=index, item=message("m1")),
            frame("response.output_text.delta", item_id="m2", delta="So", content_index=index),
        ]
    )
    assert [part.partition(":")[0] for part in reception.parts] == ["text"]
    assert [text(one, "id") for one in reception.outputs()] == ["m1", None]


def test_w22_a_frame_that_is_nested_too_deep_is_kept_as_text() -> None:
    raw = '{"type":"response.odd","a":' + "[" * 256 + "]" * 256 + "}"
    odd = read(raw)
    assert (odd.type, odd.text) == ("", raw)
    reception = heard([odd])
    (noted,) = reception.take_notes()
    assert isinstance(noted, ev.ProviderNoted)
    assert noted.text == raw
