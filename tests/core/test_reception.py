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
    assert streamed == final or "background_resume" in str(response)


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
