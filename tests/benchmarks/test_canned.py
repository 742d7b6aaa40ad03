"""The canned provider's answers: whole events, as both carriers have them, and nothing unmarked."""

from __future__ import annotations

import json
import time

import pytest

from bench.answering import Answer
from bench.canned import Asked, Event, as_message, as_sent_event, letters
from bench.wire import Clocked, Heard, Lags

NOW = time.monotonic_ns()
AROUND = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


def asked(model: str) -> Asked:
    found = Asked.parse(model)
    assert found is not None
    return found


def said(answer: Answer) -> bytes:
    """Everything that an answer writes."""
    match answer.asked.kind:
        case "deltas":
            return b"".join(answer.pieces())
        case "first":
            return answer.begin() + answer.rest()
        case _:
            parts = [answer.begin()]
            while not answer.over:
                parts.append(answer.next())
            return b"".join(parts)


def of_frames(data: bytes) -> list[Event]:
    """The events in WebSocket frames, each of which is as long as it says."""
    events: list[Event] = []
    at = 0
    while at < len(data):
        assert data[at] == 0x81
        length, at = data[at + 1], at + 2
        if length > 125:
            digits = 2 if length == 126 else 8
            length, at = int.from_bytes(data[at : at + digits], "big"), at + digits
        events.append(json.loads(data[at : at + length]))
        at += length
    return events


def of_chunks(data: bytes) -> list[Event]:
    """The events in the chunks of an HTTP body, behind which there is nothing."""
    body = b""
    while True:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + rest[:length], rest[length + 2 :]
        if not length:
            assert rest == b"\r\n"
            break
    blocks = body.decode().split("\n\n")
    assert blocks.pop() == ""
    pairs = [block.removeprefix("event: ").split("\ndata: ") for block in blocks]
    assert all(json.loads(data)["type"] == name for name, data in pairs)
    return [json.loads(data) for _, data in pairs]


@pytest.mark.parametrize("model", ["deltas-700", "first", "rate-50-1"])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_is_whole(model: str, streamed: bool) -> None:
    answer = Answer(asked(model), None, NOW, streamed=streamed)
    events = (of_chunks if streamed else of_frames)(said(answer))
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert len(deltas) == answer.asked.count
    assert [event["type"] for event in events if event not in deltas] == AROUND
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    text = "".join(event["delta"] for event in deltas)
    assert len(text) == letters(answer.asked)
    message = events[-1]["response"]["output"][0]
    assert message["content"][0]["text"] == events[-4]["text"] == text
    assert {event["item_id"] for event in deltas} == {message["id"]}
    assert not any(mark in json.dumps(events) for mark in "@#~%")


def test_no_two_answers_have_the_same_ids() -> None:
    first, second = (
        of_frames(said(Answer(asked("first"), None, NOW, streamed=False))) for _ in "ab"
    )
    assert first[0]["response"]["id"] != second[0]["response"]["id"]
    assert first[2]["item"]["id"] != second[2]["item"]["id"]


def test_each_event_of_a_lane_names_it() -> None:
    events = of_frames(said(Answer(asked("first"), "lane-07", NOW, streamed=False)))
    assert {event["stream_id"] for event in events} == {"lane-07"}


def test_long_frames_say_how_long_they_are() -> None:
    events: list[Event] = [{"type": "x", "text": "y" * size} for size in (1, 1000, 100_000)]
    assert of_frames(b"".join(map(as_message, events))) == events
    assert as_sent_event(events[0]) == b'event: x\ndata: {"type":"x","text":"y"}\n\n'


@pytest.mark.parametrize("model", ["gpt-5.5", "first-", "deltas", "deltas-x", "rate-50", ""])
def test_nothing_else_is_answered(model: str) -> None:
    assert Asked.parse(model) is None


def test_a_first_delta_tells_the_times_of_its_call() -> None:
    received = time.monotonic_ns()
    events = of_frames(said(Answer(asked("first-5"), None, received, streamed=False)))
    heard = Heard(3, events[4]["delta"], time.monotonic_ns())
    clocked = Clocked()
    clocked.add(received - 1000, heard)
    assert clocked.to_wire == [1000]
    assert 0 < clocked.through[0] < clocked.to_first[0] == heard.at - received + 1000


def test_streams_are_kept_up_with_where_all_is_there_in_time() -> None:
    answer = Answer(asked("rate-50-1"), None, NOW, streamed=False)
    events = of_frames(said(answer))
    lags = Lags()
    lags.add("".join(event["delta"] for event in events[4:30]))  # those that came together
    for event in events[30:54]:
        lags.add(event["delta"])
    figures = lags.figures(50, 1)
    assert figures["kept_up"] == 1 and figures["missing"] == 0
    assert 0 < figures["lag_p50_ms"] < 1000
    assert lags.figures(51, 1)["kept_up"] == 0
