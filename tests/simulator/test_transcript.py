"""Recorded exchanges as replies: every shape, and every recording that is at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from turnlog.canonical import Json, JsonObject, loads, obj, objects
from turnlog.errors import InvalidInput, Lost
from turnlog.ports import Compact, Create, Endpoint, Frame, Retrieve
from turnlog_transports import replay, transcript
from turnlog_transports.generation import Generation, Send
from turnlog_transports.provider import Provider

RECORDINGS = Path(__file__).resolve().parents[3] / "shared" / "transcripts"
NAMES = [
    "background_resume",
    "client_tool_search",
    "code_interpreter_image",
    "compaction_chain",
    "function_call_turn",
    "long_reasoning",
    "mcp_server_tool",
    "previous_response_id_chain",
    "reasoning_pairing_error",
    "reasoning_tool_phase",
    "usage_only",
    "web_search",
]


def recording(name: str) -> Path:
    path = RECORDINGS / f"{name}.json"
    if not path.exists():
        pytest.skip(f"the recorded exchanges are not here: {path.name} is kept beside the project")
    return path


def exchange(response: JsonObject, method: str = "POST", path: str = "/v1/responses") -> JsonObject:
    return {"request": {"method": method, "path": path, "body": {}}, "response": response}


RESPONSE: JsonObject = {"id": "resp_r", "object": "response", "status": "completed", "output": []}
EVENTS: list[JsonObject] = [
    {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_r"}},
    {"type": "response.in_progress", "response": {"id": "resp_r"}},
    {"type": "response.completed", "sequence_number": 2, "response": RESPONSE},
]


def test_each_kind_of_exchange_becomes_what_it_is() -> None:
    found = transcript.parse(
        [
            exchange({"status": 200, "events": EVENTS}),
            exchange({"status": 200, "body": RESPONSE}),
            exchange({"status": 200, "body": {}}, path="/v1/responses/compact"),
            exchange({"status": 400, "body": {"error": {"message": "No."}}}),
            exchange({"status": 200, "events": EVENTS}, "get", "/v1/responses/resp_r"),
            exchange({"status": 200, "body": RESPONSE}, path="/v1/responses/resp_r/cancel"),
        ]
    )
    stream, plain, wrong = found.replies
    assert stream.events == tuple(EVENTS)
    assert (plain.body, plain.status) == (RESPONSE, 200)
    assert (wrong.body, wrong.status) == ({"error": {"message": "No."}}, 400)
    assert list(found.retrievals) == ["resp_r"]
    assert [reply.body for reply in found.compactions] == [{}]
    assert found.skipped == ("POST /v1/responses/resp_r/cancel",)


NO_TRANSCRIPTS: list[tuple[Json, str]] = [
    ({}, "a list of exchanges is needed"),
    (["x"], "exchange 1 is not an object"),
    ([{"response": {}}], "exchange 1 has no request with a method and a path"),
    ([exchange({})], "exchange 1 has no response with a status"),
    ([exchange({"status": 200})], "exchange 1 has neither events nor a body"),
]


@pytest.mark.parametrize(("exchanges", "says"), NO_TRANSCRIPTS)
def test_what_is_no_transcript_is_refused(exchanges: Json, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        transcript.parse(exchanges)


def test_a_transcript_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(InvalidInput, match="cannot be read"):
        transcript.load(path)
    path.write_text(json.dumps([exchange({"status": 200, "events": EVENTS})]), encoding="utf-8")
    assert len(transcript.load(path).replies) == 1
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InvalidInput, match="not readable as JSON"):
        transcript.load(path)


def test_a_recorded_resumption_answers_from_behind_a_number() -> None:
    get = exchange({"status": 200, "events": EVENTS}, "GET", "/v1/responses/resp_r")
    provider = Provider(transcript.parse([get]))

    def resumed(after: int | None) -> list[JsonObject]:
        found = provider.retrieve("resp_r", stream=True, starting_after=after)
        assert isinstance(found, Generation)
        sent = [step.event for step in found if isinstance(step, Send)]
        found.close()
        return sent

    assert resumed(None) == EVENTS
    assert resumed(0) == EVENTS[1:]


async def test_a_recorded_resumption_without_its_end_is_lost(tmp_path: Path) -> None:
    get = exchange({"status": 200, "events": EVENTS[:2]}, "GET", "/v1/responses/resp_r")
    path = tmp_path / "t.json"
    path.write_text(json.dumps([get]), encoding="utf-8")
    transport = replay.open_transport(Endpoint(options={"transcript": path}))
    for after, error in ((-1, Lost), (5, Lost)):
        with pytest.raises(error):
            async for _ in transport.send(Retrieve(response="resp_r", starting_after=after)):
                pass


# -- the recordings ------------------------------------------------------------------------


async def served(name: str) -> list[list[Frame]]:
    """The frames of every create in a recording, by way of the replay transport."""
    endpoint = Endpoint(options={"transcript": str(recording(name))})
    transport = replay.open_transport(endpoint)
    answers: list[list[Frame]] = []
    while transport.left:
        answers.append([frame async for frame in transport.send(Create(body={"model": "m"}))])
    await transport.close()
    return answers


def creates(name: str) -> list[JsonObject]:
    """The recorded answers to creates."""
    exchanges = loads(recording(name).read_bytes())
    assert isinstance(exchanges, list)
    return [
        obj(found, "response")
        for found in exchanges
        if isinstance(found, dict)
        and obj(found, "request")["method"] == "POST"
        and obj(found, "request")["path"] == "/v1/responses"
    ]


@pytest.mark.parametrize("name", NAMES)
async def test_every_recording_is_served_as_it_was_recorded(name: str) -> None:
    recorded = creates(name)
    answers = await served(name)
    assert len(answers) == len(recorded)
    for frames, response in zip(answers, recorded, strict=True):
        serve_check(response)(frames, response)


def serve_check(response: JsonObject) -> Callable[[list[Frame], JsonObject], None]:
    if "events" in response:
        return check_stream
    return check_plain if response["status"] == 200 else check_error


def check_stream(frames: list[Frame], response: JsonObject) -> None:
    assert [frame.data for frame in frames] == objects(response, "events")
    assert frames[-1].terminal == "completed"


def check_plain(frames: list[Frame], response: JsonObject) -> None:
    assert frames[-1].terminal == "completed"
    assert frames[-1].data["response"] == response["body"]
    done = [f.data["item"] for f in frames if f.type == "response.output_item.done"]
    assert done == obj(response, "body")["output"]


def check_error(frames: list[Frame], response: JsonObject) -> None:
    (frame,) = frames
    assert frame.problem is not None
    assert frame.problem.message == obj(obj(response, "body"), "error")["message"]
    assert frame.problem.status == response["status"]


async def test_a_recorded_background_response_is_resumed() -> None:
    endpoint = Endpoint(options={"transcript": recording("background_resume")})
    transport = replay.open_transport(endpoint)
    (created, *_) = [frame async for frame in transport.send(Create(body={"model": "m"}))]
    id = str(obj(created.data, "response")["id"])
    request = Retrieve(response=id, starting_after=0)
    frames = [frame async for frame in transport.send(request)]
    assert [frame.data["sequence_number"] for frame in frames] == list(range(1, 17))
    assert frames[-1].terminal == "completed"
    await transport.close()


async def test_recorded_compactions_are_answered_in_order() -> None:
    transport = replay.open_transport(
        Endpoint(options={"transcript": recording("compaction_chain")})
    )
    windows: list[JsonObject] = []
    for _ in range(3):
        (frame,) = [found async for found in transport.send(Compact(body={"model": "m"}))]
        assert frame.terminal == "completed"
        windows.append(obj(frame.data, "response"))
    kinds = [[item["type"] for item in objects(window, "output")] for window in windows]
    assert kinds == [["message", "message", "compaction"], *[["message", "compaction"]] * 2]
    assert transport.left == 5
    await transport.close()
