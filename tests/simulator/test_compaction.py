"""Compaction: a window that begins a new chain, and the item of a stream that stands for one."""

from __future__ import annotations

import httpx2
import pytest

from turnlog.canonical import Json, JsonObject, obj, objects
from turnlog.testing import error, scripts
from turnlog.testing.scripts import Reply
from turnlog_transports.answer import Answer
from turnlog_transports.generation import Generation
from turnlog_transports.provider import Provider
from turnlog_transports.simulator import Simulator

say = scripts.text


def user(said: str) -> JsonObject:
    return {"role": "user", "content": said}


def respond(provider: Provider, **body: Json) -> JsonObject:
    found = provider.create({"model": "m", **body})
    assert isinstance(found, Generation), found
    list(found)
    assert found.response is not None
    return found.response


def message(answer: Answer) -> tuple[int, str]:
    return answer.status, str(obj(answer.body, "error")["message"])


def test_the_users_messages_of_the_whole_chain_are_kept() -> None:
    provider = Provider([say("One."), scripts.call("a"), say("Three.")])
    respond(provider, input="First.")
    respond(provider, input=[user("Second.")], previous_response_id="resp_1")
    output: JsonObject = {"type": "function_call_output", "call_id": "call_1", "output": "ok"}
    found = provider.compact(
        {"model": "m", "input": [output, user("Third.")], "previous_response_id": "resp_2"}
    )
    assert (found.status, found.body["object"]) == (200, "response.compaction")
    *said, last = objects(found.body, "output")
    texts = [str(objects(item, "content")[0]["text"]) for item in said]
    assert texts == ["First.", "Second.", "Third."]
    assert [item["role"] for item in said] == ["user"] * 3
    assert last["type"] == "compaction"
    assert last["encrypted_content"]
    usage = obj(found.body, "usage")
    assert usage["total_tokens"] != 0
    assert provider.left == 1


def test_a_window_is_the_input_of_a_new_chain_and_its_id_is_no_parent() -> None:
    provider = Provider([say("One."), say("Two."), say("Three.")])
    respond(provider, input="First.")
    window = provider.compact({"model": "m", "previous_response_id": "resp_1"}).body
    lost = provider.create({"model": "m", "input": "x", "previous_response_id": window["id"]})
    assert isinstance(lost, Answer)
    assert obj(lost.body, "error")["code"] == "previous_response_not_found"
    made = respond(provider, input=[*objects(window, "output"), user("Next.")])
    again = provider.compact({"model": "m", "previous_response_id": made["id"]}).body
    kinds = [item["type"] for item in objects(again, "output")]
    assert kinds == ["message", "message", "compaction"]
    ids = [str(item["id"]) for item in objects(again, "output")]
    assert ids[0] == objects(window, "output")[0]["id"]
    assert ids[-1] != objects(window, "output")[-1]["id"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"model": "m"}, '"input" or "previous_response_id"'),
        ({"input": "x"}, "model"),
        ({"model": "m", "input": [7]}, "Invalid type for 'input'"),
        ({"model": "m", "previous_response_id": "resp_1"}, "No tool output found"),
        ({"model": "m", "previous_response_id": "resp_9"}, "not found"),
    ],
)
def test_what_cannot_be_compacted_is_refused(body: JsonObject, says: str) -> None:
    provider = Provider([scripts.call("a")])
    respond(provider, input="First.")
    status, said = message(provider.compact(body))
    assert (status, says in said) == (400, True)
    assert provider.left == 0


def test_without_checks_anything_is_compacted() -> None:
    assert Provider([], checks=False).compact({"input": 7}).status == 200


def test_a_script_says_how_compactions_are_answered_and_creates_pass_over() -> None:
    window: JsonObject = {"object": "response.compaction", "output": []}
    limited = error(429, "rate_limit_exceeded", retry_after=2).but(compacts=True)
    provider = Provider([limited, say("One."), Reply(body=window, compacts=True)])
    assert provider.left == 1
    respond(provider, input="First.")
    body: JsonObject = {"model": "m", "previous_response_id": "resp_1"}
    refused = provider.compact(body)
    assert (refused.status, refused.headers) == (429, {"retry-after": "2"})
    assert provider.compact(body).body == window
    assert provider.compact(body).body["id"] == "resp_2"


def test_a_compaction_in_a_stream_is_an_item_like_any_other() -> None:
    reply = scripts.reply(scripts.item({"type": "compaction"}), say("Done."))
    provider = Provider([reply, say("On.")])
    asked: Json = [{"type": "compaction", "compact_threshold": 1000}]
    made = respond(provider, input="First.", context_management=asked)
    compaction, _ = objects(made, "output")
    assert (compaction["id"], compaction["encrypted_content"]) == ("cmp_1", "gAAAAABcmp_1")
    respond(provider, input=[user("Next.")], previous_response_id=made["id"])


async def test_a_window_is_compacted_over_http() -> None:
    async with Simulator([say("One.")]) as simulator:
        async with httpx2.AsyncClient(base_url=simulator.base_url, trust_env=False) as client:
            found = await client.post("/responses/compact", json={"model": "m", "input": "Hi."})
            wrong = await client.post("/responses/compact", content=b"[")
    assert found.json()["object"] == "response.compaction"
    assert wrong.status_code == 400
    assert (simulator.left, simulator.creates) == (1, [])
    assert [heard.path for heard in simulator.requests] == ["/v1/responses/compact"] * 2
