"""What a provider sends, read: every shape of an error, terminal frames, and what is not JSON."""

import dataclasses
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlog.canonical import Json, JsonObject, loads_object
from turnlog.errors import ConfigurationError, InvalidInput, NotSupported
from turnlog.ports import Frame, Problem
from turnlog_transports import wire
from turnlog_transports.problems import problem, retry_after
from turnlog_transports.sequence import Sequencer, response_id

from .servers import completed, created, delta, frame

JSON: st.SearchStrategy[Json] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def read(data: JsonObject) -> Frame:
    return wire.read(json.dumps(data))


def trouble(data: JsonObject) -> Problem:
    found = read(data).problem
    assert found is not None
    return found


# -- terminal frames -----------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["completed", "incomplete", "failed", "cancelled"])
@pytest.mark.parametrize(
    "response", [{}, {"status": None}, {"usage": None, "error": None}, {"status": "new", "x": [1]}]
)
def test_w20_w21_a_terminal_frame_is_known_by_its_type(ending: str, response: JsonObject) -> None:
    assert read({"type": f"response.{ending}", "response": response}).terminal == ending


@pytest.mark.parametrize("odd", [None, "text", 7, [], {"id": None}])
def test_w20_a_terminal_frame_with_an_odd_response_still_ends_it(odd: Json) -> None:
    assert read({"type": "response.completed", "response": odd}).terminal == "completed"
    assert read({"type": "response.failed", "response": odd}).terminal == "failed"
    assert read({"type": "error", "error": odd}).terminal == "error"


@pytest.mark.parametrize("status", ["incomplete", "failed", "cancelled"])
def test_a_completed_frame_whose_status_says_otherwise_is_not_completed(status: str) -> None:
    found = read({"type": "response.completed", "response": {"status": status}})
    assert found.terminal == status
    assert (found.problem is not None) == (status == "failed")


@pytest.mark.parametrize(
    "type", ["response.created", "response.done", "response.output_text.done", "completed", ""]
)
def test_only_known_types_are_terminal(type: str) -> None:
    found = read({"type": type, "response": {"status": "completed"}})
    assert (found.type, found.terminal, found.problem) == (type, None, None)


@given(st.dictionaries(st.text(), JSON), st.sampled_from(["error", "response.failed"]))
def test_w20_every_refusal_has_a_message(fields: dict[str, Json], type: str) -> None:
    found = wire.frame({**fields, "type": type})
    assert found.terminal is not None
    assert found.problem is not None
    assert found.problem.message


# -- errors --------------------------------------------------------------------------------


def test_the_flat_and_the_nested_shape_give_the_same_problem() -> None:
    flat: JsonObject = {"code": "c", "message": "m", "param": "p"}
    expected = Problem(code="c", message="m", param="p")
    assert trouble({"type": "error", **flat, "sequence_number": 3}) == expected
    nested = trouble({"type": "error", "status": 400, "error": {**flat, "type": "t"}})
    assert nested == dataclasses.replace(expected, status=400, type="t")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"error": "It broke."}, "It broke."),
        ({"message": None, "detail": "Not here."}, "Not here."),
        ({"error": {"message": "", "code": "bad"}}, "bad"),
        ({"code": "bad"}, "bad"),
        ({"error": None}, "the provider gave no reason"),
    ],
)
def test_the_message_is_found_wherever_it_stands(data: dict[str, Json], message: str) -> None:
    assert trouble({"type": "error", **data}).message == message


def test_a_failed_response_says_why() -> None:
    error: JsonObject = {"code": "rate_limit_exceeded", "message": "Slow down."}
    found = trouble({"type": "response.failed", "response": {"status": "failed", "error": error}})
    assert found == Problem(code="rate_limit_exceeded", message="Slow down.")
    plain = trouble({"type": "response.failed", "response": {"error": "It broke."}})
    assert plain.message == "It broke."


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        (503, 503, "503"),
        ("503", 503, "503"),
        (17, None, "17"),
        ("x", None, "x"),
        (True, None, None),
    ],
)
def test_a_status_may_stand_where_the_code_belongs(
    code: Json, status: int | None, text: str | None
) -> None:
    found = trouble({"type": "error", "error": {"code": code}})
    assert (found.status, found.code) == (status, text)


def test_a_status_code_counts_as_a_status() -> None:
    assert trouble({"type": "error", "error": {"status_code": 429}}).status == 429


WAITS: list[tuple[JsonObject, float | None]] = [
    ({"Retry-After": 12, "X-None": None, "X-Flag": True}, 12.0),
    ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5),
    ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30),
    ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),  # no clock here is the provider's
]


@pytest.mark.parametrize("shape", ["nested", "beside", "flat", "failed", "failed beside"])
@pytest.mark.parametrize(("headers", "seconds"), WAITS)
def test_w33_an_error_says_how_long_to_wait_whatever_its_shape(
    shape: str, headers: JsonObject, seconds: float | None
) -> None:
    shapes: dict[str, JsonObject] = {
        "nested": {"type": "error", "error": {"message": "m", "headers": headers}},
        "beside": {"type": "error", "error": {"message": "m"}, "headers": headers},
        "flat": {"type": "error", "message": "m", "headers": headers},
        "failed": {
            "type": "response.failed",
            "response": {"status": "failed", "error": {"message": "m", "headers": headers}},
        },
        "failed beside": {
            "type": "response.failed",
            "response": {"status": "failed", "error": {"message": "m"}},
            "headers": headers,
        },
    }
    found = trouble(shapes[shape])
    assert (found.retry_after, found.message) == (seconds, "m")


def test_a_failed_response_may_have_a_status_beside_it() -> None:
    error: JsonObject = {"code": "rate_limit_exceeded", "message": "m"}
    found = trouble({"type": "response.failed", "response": {"error": error}, "status": 429})
    assert (found.status, found.code) == (429, "rate_limit_exceeded")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"RETRY-AFTER": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "-4"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            30.0,
        ),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT",
                "date": "Wed, 21 Oct 2026 07:28:09 GMT",
            },
            0.0,
        ),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 -0000",
            },
            None,
        ),
    ],
)
def test_w33_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_headers_that_are_given_win_over_those_inside() -> None:
    inside: JsonObject = {"message": "m", "headers": {"retry-after": "1"}}
    assert problem(inside, {}, {"retry-after": "2"}).retry_after == 2
    assert problem(inside, {}, {"retry-after": "0"}).retry_after == 0
    assert problem(inside, {}, {"x-request-id": "1"}).retry_after == 1


# -- what is not JSON ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "nonsense",
        '{"type":"a"',
        "[]",
        "null",
        '"text"',
        '{"a":1,"a":2}',
        '{"a":NaN}',
        "[" * 100_000,
        '{"type":' + "9" * 5000 + "}",
    ],
)
def test_w22_what_is_no_json_object_keeps_its_text(raw: str) -> None:
    found = wire.read(raw, connection="ws_1", lane="left")
    assert found == Frame(type="", data={}, text=raw, connection="ws_1", lane="left")
    assert wire.read(raw.encode()) == Frame(type="", data={}, text=raw)


def test_w22_bytes_that_are_no_text_are_kept_escaped() -> None:
    assert wire.read(b'{"type":"\xff\xe9"}').text == '{"type":"\\xff\\xe9"}'


@given(st.binary() | st.text())
def test_w22_reading_never_raises(raw: str | bytes) -> None:
    wire.read(raw)


@given(st.integers(100, 599), st.binary(max_size=40) | JSON.map(lambda v: json.dumps(v).encode()))
def test_w22_reading_an_answer_never_raises(status: int, body: bytes) -> None:
    found = wire.answer(status, {}, body)
    assert found.terminal == "error" or 200 <= status < 300


def test_a_frame_without_a_type_has_an_empty_one() -> None:
    found = read({"type": None, "delta": "x"})
    assert (found.type, found.text) == ("", None)
    assert found.data == {"type": None, "delta": "x"}


def test_the_lane_is_the_frames_own_where_it_names_one() -> None:
    assert wire.read('{"type":"x","stream_id":"left"}', lane="right").lane == "left"
    assert wire.read('{"type":"x","stream_id":null}', lane="right").lane == "right"
    assert wire.read('{"type":"x"}').lane is None


# -- plain answers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "type", "terminal"),
    [
        ({"object": "response", "status": "completed"}, "response.completed", "completed"),
        ({"object": "response", "status": "incomplete"}, "response.incomplete", "incomplete"),
        ({"object": "response", "status": "cancelled"}, "response.cancelled", "cancelled"),
        ({"object": "response", "status": "queued"}, "response.queued", None),
        ({"object": "response", "status": "in_progress"}, "response.in_progress", None),
        ({"status": "completed", "output": []}, "response.completed", "completed"),
        ({"object": "response", "status": None}, "response.completed", "completed"),
        ({"object": "response", "incomplete_details": {}}, "response.incomplete", "incomplete"),
        ({"object": "response", "error": {}}, "response.failed", "failed"),
        ({"object": "response.compaction", "output": []}, "response.compaction", "completed"),
        ({"id": "r", "object": "response", "deleted": True}, "response.deleted", "completed"),
    ],
)
def test_a_plain_answer_is_a_frame(body: JsonObject, type: str, terminal: str | None) -> None:
    found = wire.answer(200, {}, json.dumps(body).encode())
    assert (found.type, found.terminal) == (type, terminal)
    assert found.data == {"type": type, "response": body}
    assert (found.problem is not None) == (terminal == "failed")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"status":"ok"}', b'{"object":"list"}'])
def test_a_success_that_is_no_response_keeps_its_text(body: bytes) -> None:
    assert wire.answer(200, {}, body) == Frame(type="", data={}, text=body.decode())


def test_a_refusal_over_http_reads_like_one_over_a_websocket() -> None:
    error: JsonObject = {"type": "t", "code": "c", "message": "m", "param": "p"}
    found = wire.answer(429, {"Retry-After": "7"}, json.dumps({"error": error}).encode())
    assert found.data == {"type": "error", "status": 429, "error": error}
    assert found.terminal == "error"
    assert found.problem == Problem(
        status=429, code="c", type="t", message="m", param="p", retry_after=7
    )


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (502, b"<html>Bad gateway</html>", "<html>Bad gateway</html>"),
        (503, b"", "HTTP 503 Service Unavailable"),
        (599, b" \n", "HTTP 599"),
        (302, b"", "HTTP 302 Found"),
        (422, b'{"detail":[{"loc":1}]}', '{"detail":[{"loc":1}]}'),
        (404, b'{"detail":"Not Found"}', "Not Found"),
        (404, b'{"message":"No."}', "No."),
    ],
)
def test_a_refusal_that_is_no_error_object_has_a_message(
    status: int, body: bytes, message: str
) -> None:
    found = wire.answer(status, {}, body).problem
    assert found == Problem(status=status, message=message)


def test_a_long_refusal_is_kept_whole_and_told_in_part() -> None:
    found = wire.answer(500, {}, b"x" * 5000)
    assert found.text == "x" * 5000
    assert found.problem is not None
    assert len(found.problem.message) == 2000


# -- writing -------------------------------------------------------------------------------


def test_a_create_leaves_out_what_a_websocket_implies() -> None:
    body: JsonObject = {"model": "m", "stream": True, "background": False, "input": [], "type": 1}
    assert wire.create_payload(body) == b'{"type":"response.create","model":"m","input":[]}'
    laned = wire.create_payload(body, lane="left")
    assert laned.startswith(b'{"type":"response.create","stream_id":"left","model"')


def test_a_background_response_cannot_go_over_a_websocket() -> None:
    with pytest.raises(NotSupported, match="background"):
        wire.create_payload({"model": "m", "background": True})


def test_a_post_asks_for_a_stream_behind_everything_else() -> None:
    assert wire.post_payload({"stream": False, "model": "m"}) == b'{"model":"m","stream":true}'
    assert wire.post_payload({"stream": True, "model": "m"}, stream=False) == b'{"model":"m"}'


@pytest.mark.parametrize("write", [wire.create_payload, wire.post_payload])
def test_w34_what_is_not_json_is_refused(write: Callable[[JsonObject], bytes]) -> None:
    with pytest.raises(InvalidInput):
        write({"temperature": float("inf")})


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_a_body_is_written_as_it_is(body: dict[str, Json]) -> None:
    kept = {k: v for k, v in body.items() if k not in ("type", "stream", "background", "stream_id")}
    assert loads_object(wire.create_payload(kept)) == {"type": "response.create", **kept}
    assert loads_object(wire.post_payload(kept)) == {**kept, "stream": True}


# -- addresses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "http", "ws"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1", "wss://api.openai.com/v1"),
        ("http://127.0.0.1:80/v1/", "http://127.0.0.1:80/v1", "ws://127.0.0.1:80/v1"),
        ("wss://h/v1/responses", "https://h/v1", "wss://h/v1"),
        ("ws://[::1]:9/v1/responses/", "http://[::1]:9/v1", "ws://[::1]:9/v1"),
        ("HTTP://Host", "http://Host", "ws://Host"),
    ],
)
def test_w48_an_address_keeps_its_scheme(base: str, http: str, ws: str) -> None:
    assert wire.url(base, scheme="http") == f"{http}/responses"
    assert wire.url(base, scheme="ws") == f"{ws}/responses"
    assert wire.url(base, "responses/compact", scheme="http") == f"{http}/responses/compact"


def test_w48_a_query_is_kept() -> None:
    base = "https://h/openai/v1?api-version=preview#top"
    assert wire.url(base, scheme="ws") == "wss://h/openai/v1/responses?api-version=preview"


@pytest.mark.parametrize(
    "base",
    [
        "",
        "api.openai.com/v1",
        "ftp://h/v1",
        "https://",
        "https:///v1",
        "https://h:port/v1",
        "https://h:99999/v1",
        "https://h:0/v1",
        "https://h h/v1",
        "https://h\n/v1",
        "https://[::1/v1",
    ],
)
def test_an_address_that_is_none_is_an_error(base: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a base URL"):
        wire.url(base, scheme="http")


@pytest.mark.parametrize("base", ["https://ana:hush@h/v1", "ftp://hush@h/v1", "h?key=hush"])
def test_an_address_with_a_secret_in_it_is_refused_without_saying_it(base: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        wire.url(base, scheme="http")
    assert "hush" not in str(caught.value)


# -- whose frame it is ---------------------------------------------------------------------


def busy(*frames: JsonObject) -> Sequencer:
    sequencer = Sequencer()
    sequencer.begin()
    for each in frames:
        assert sequencer.ours(wire.frame(each))
    return sequencer


def test_w24_a_frame_while_nothing_was_asked_belongs_to_nobody() -> None:
    assert not Sequencer().ours(wire.frame(delta("x")))


def test_w24_a_frame_behind_the_terminal_one_belongs_to_nobody() -> None:
    sequencer = busy(created("a"), completed("a"))
    assert not sequencer.ours(wire.frame(frame("error", message="late")))
    assert sequencer.heard == 2


def test_w24_a_frame_of_another_response_belongs_to_nobody() -> None:
    sequencer = busy(created("a"))
    assert not sequencer.ours(wire.frame(completed("b")))
    assert not sequencer.ours(wire.frame(delta("x", response_id="b")))
    assert sequencer.ours(wire.frame(delta("x", response_id="a")))
    assert sequencer.ours(wire.frame(completed("a")))
    assert sequencer.response == "a"


def test_w24_the_response_before_is_not_taken_for_the_next() -> None:
    sequencer = busy(created("a"), completed("a"))
    sequencer.begin()
    assert not sequencer.ours(wire.frame(completed("a")))
    assert sequencer.ours(wire.frame(created("b")))
    sequencer.begin()
    sequencer.begin()  # nothing was heard in between
    assert not sequencer.ours(wire.frame(completed("b")))


def test_w24_an_error_that_goes_on_with_the_numbers_before_is_late() -> None:
    failed = frame("response.failed", response={"id": "a"}, sequence_number=4)
    sequencer = busy(created("a", sequence_number=0), failed)
    sequencer.begin()
    assert not sequencer.ours(wire.frame(frame("error", sequence_number=5)))
    assert sequencer.ours(wire.frame(frame("error", sequence_number=0)))


def test_an_error_with_a_low_number_is_never_taken_for_a_late_one() -> None:
    sequencer = busy(frame("error", sequence_number=0))
    sequencer.begin()
    assert sequencer.ours(wire.frame(frame("error", sequence_number=1)))


def test_a_frame_of_another_lane_belongs_to_nobody_here() -> None:
    left = Sequencer("left")
    left.begin()
    assert not left.ours(wire.frame(delta("x")))
    assert left.ours(wire.frame(delta("x", stream_id="left")))
    assert not busy().ours(wire.frame(delta("x", stream_id="left")))


def test_numbers_that_leave_a_gap_or_repeat_are_counted_and_believed() -> None:
    sequencer = busy(*(delta("x", sequence_number=n) for n in (0, 1, 4, 4, 3, 5)), delta("x"))
    assert (sequencer.gaps, sequencer.repeats, sequencer.heard) == (1, 2, 7)


def test_the_response_that_a_frame_names() -> None:
    assert response_id(wire.frame(created("a"))) == "a"
    assert response_id(wire.frame(delta("x", response_id="b"))) == "b"
    assert response_id(wire.frame(delta("x"))) is None
