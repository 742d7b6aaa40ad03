"""What is streamed for a response adds up to it, and is what the provider's own types describe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

from turnlog.canonical import Json, JsonObject, array, obj, text
from turnlog.testing import scripts
from turnlog.testing.scripts import Reply
from turnlog_transports import responses, synthesis
from turnlog_transports.responses import Ids

EVENTS: dict[str, type[BaseModel]] = {
    get_args(model.model_fields["type"].annotation)[0]: model
    for model in get_args(get_args(ResponseStreamEvent)[0])
}
"""The provider's own model of each event, by its type."""
BODY: JsonObject = {
    "model": "gpt-5.5",
    "input": "Hi.",
    "tools": [{"type": "function", "name": "a", "parameters": {}, "strict": True}],
    "metadata": {"a": "b"},
}


def response(reply: Reply, body: JsonObject = BODY) -> JsonObject:
    return responses.build(body, reply, Ids(), held=7, cached=3)


def stream(reply: Reply, chunk: int = 4) -> list[JsonObject]:
    return synthesis.events(response(reply), chunk=chunk)


def types(events: Sequence[JsonObject]) -> list[Json]:
    return [event["type"] for event in events]


def joined(events: Sequence[JsonObject], tag: str) -> str:
    return "".join(str(event["delta"]) for event in events if event["type"] == tag)


BROKE: JsonObject = {"type": "http_error", "code": 500, "message": "It broke."}
KINDS: list[JsonObject] = [
    {"type": "custom_tool_call", "name": "a", "input": "free text"},
    {"type": "mcp_call", "name": "a", "server_label": "s", "arguments": '{"a":1}', "error": None},
    {"type": "mcp_call", "name": "a", "server_label": "s", "arguments": "{}", "error": BROKE},
    {"type": "mcp_list_tools", "server_label": "s", "tools": []},
    {"type": "web_search_call", "action": {"type": "search", "query": "q"}},
    {"type": "file_search_call", "queries": ["q"]},
    {"type": "image_generation_call", "result": None},
    {
        "type": "code_interpreter_call",
        "code": "print(1)",
        "container_id": "c",
        "outputs": None,
    },
    {"type": "mcp_approval_request", "name": "a", "server_label": "s", "arguments": "{}"},
    {"type": "compaction", "encrypted_content": "x"},
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "So."}]},
]
REPLIES = [
    scripts.text("Hello there."),
    scripts.refusal("I would rather not."),
    scripts.call("a", b=1),
    scripts.reply(scripts.reasoning("Let me think."), scripts.text("Yes.", phase="final_answer")),
    scripts.incomplete("max_output_tokens", "As far as"),
    scripts.failed(),
    Reply(),
    *(scripts.item(kind) for kind in KINDS),
]


@pytest.mark.parametrize("reply", REPLIES)
def test_every_event_is_what_the_providers_types_describe(reply: Reply) -> None:
    for event in stream(reply):
        EVENTS[str(event["type"])].model_validate(event)
    Response.model_validate(response(reply))


@pytest.mark.parametrize("reply", REPLIES)
def test_events_are_numbered_from_zero_without_a_gap(reply: Reply) -> None:
    numbers = [event["sequence_number"] for event in stream(reply)]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("reply", REPLIES)
def test_the_stream_ends_with_the_response_as_it_is(reply: Reply) -> None:
    events = stream(reply)
    assert obj(events[-1], "response") == response(reply)
    assert events[-1]["type"] == f"response.{response(reply)['status']}"
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == array(response(reply), "output")


def test_what_begins_is_empty() -> None:
    begun = obj(stream(scripts.text("Hi."))[0], "response")
    assert (begun["status"], begun["output"], begun["usage"]) == ("in_progress", [], None)


@given(said=st.text(max_size=40), chunk=st.integers(1, 9))
@settings(max_examples=60)
def test_deltas_add_up_to_what_was_said(said: str, chunk: int) -> None:
    events = stream(scripts.text(said), chunk)
    assert joined(events, "response.output_text.delta") == said
    assert all(
        len(str(event["delta"])) <= chunk for event in events if event.get("delta") is not None
    )


def test_a_message_streams_in_the_order_of_the_service() -> None:
    assert types(stream(scripts.text("Hello"))) == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_a_call_is_added_without_its_arguments() -> None:
    added = stream(scripts.call("a", b=1))[2]
    assert obj(added, "item")["arguments"] == ""
    assert obj(added, "item")["status"] == "in_progress"
    assert obj(added, "item")["call_id"] == "call_1"


def test_annotations_are_shown_one_by_one() -> None:
    note: JsonObject = {"type": "url_citation", "url": "u"}
    part: JsonObject = {"type": "output_text", "text": "Hi.", "annotations": [note]}
    message: JsonObject = {"type": "message", "role": "assistant", "content": [part]}
    events = stream(scripts.item(message))
    (shown,) = [e for e in events if e["type"] == "response.output_text.annotation.added"]
    assert shown["annotation"] == note
    added = next(e for e in events if e["type"] == "response.content_part.added")
    assert obj(added, "part")["annotations"] == []


def test_an_unknown_item_is_added_and_done() -> None:
    events = stream(scripts.item({"type": "novelty", "content": None}))
    assert types(events)[2:4] == ["response.output_item.added", "response.output_item.done"]


def test_a_response_without_usage_begins_without_it_too() -> None:
    events = synthesis.events({"id": "r", "object": "response"}, chunk=1)
    assert "usage" not in obj(events[0], "response")
    assert events[-1]["type"] == "response.completed"


# -- the response object -------------------------------------------------------------------


def test_a_response_echoes_what_was_asked() -> None:
    made = response(
        scripts.text("Hi."),
        {**BODY, "instructions": "Be brief.", "temperature": 0.5, "store": False, "odd": 1},
    )
    assert (made["model"], made["instructions"], made["store"]) == ("gpt-5.5", "Be brief.", False)
    assert (made["temperature"], made["metadata"]) == (0.5, {"a": "b"})
    assert made["tools"] == BODY["tools"]
    assert "odd" not in made


def test_a_response_does_not_say_secrets_back() -> None:
    tool: JsonObject = {"type": "mcp", "server_label": "s", "authorization": "t", "headers": {}}
    made = response(scripts.text("Hi."), {**BODY, "tools": [tool]})
    assert made["tools"] == [{**tool, "authorization": "<redacted>", "headers": "<redacted>"}]


def test_usage_is_estimated_or_taken_from_the_script() -> None:
    usage = obj(response(scripts.reply(scripts.reasoning("Hm."), scripts.text("Yes."))), "usage")
    assert usage["input_tokens"] == 7
    assert obj(usage, "input_tokens_details")["cached_tokens"] == 3
    assert usage["total_tokens"] == 7 + int(str(usage["output_tokens"]))
    assert obj(usage, "output_tokens_details")["reasoning_tokens"] != 0
    given = scripts.reply(scripts.text("Hi."), usage={"input_tokens": 1})
    assert response(given)["usage"] == {"input_tokens": 1}


def test_what_a_script_gives_is_kept_and_the_rest_filled_in() -> None:
    made = response(
        scripts.reply(
            scripts.item({"type": "message", "id": "mine", "status": "odd", "content": []}),
            scripts.call("a", None, "call_mine"),
            scripts.item({"type": "novelty"}),
        )
    )
    message, call, novelty = (entry for entry in array(made, "output") if isinstance(entry, dict))
    assert (message["id"], message["status"]) == ("mine", "odd")
    assert (call["id"], call["call_id"], call["status"]) == ("fc_1", "call_mine", "completed")
    assert novelty["id"] == "item_1"


def test_encrypted_reasoning_is_made_up_only_where_it_was_asked_for() -> None:
    asked: JsonObject = {**BODY, "include": ["reasoning.encrypted_content"]}
    (made,) = array(response(scripts.reasoning("Hm."), asked), "output")
    assert isinstance(made, dict)
    assert text(made, "encrypted_content")
    (kept,) = array(response(scripts.reasoning("Hm.", encrypted="mine"), asked), "output")
    assert isinstance(kept, dict)
    assert kept["encrypted_content"] == "mine"
    (plain,) = array(response(scripts.reasoning("Hm.")), "output")
    assert isinstance(plain, dict)
    assert "encrypted_content" not in plain


def test_the_last_item_of_what_stops_short_is_incomplete() -> None:
    (made,) = array(response(scripts.incomplete("max_output_tokens", "As")), "output")
    assert isinstance(made, dict)
    assert made["status"] == "incomplete"


def test_ids_count_up_and_pass_over_what_is_taken() -> None:
    ids = Ids()
    ids.take(["resp_2", None])
    assert [ids.next("resp"), ids.next("resp"), ids.next("msg")] == ["resp_1", "resp_3", "msg_1"]
    assert Ids("b-").next("resp") == "resp_b-1"


@pytest.mark.parametrize("named", ["resp_b-1", "resp_b-x", "resp_1", "resp", "resp_b-2"])
def test_ids_that_cannot_come_any_more_need_not_be_passed_over(named: str) -> None:
    ids = Ids("b-")
    assert ids.next("resp") == "resp_b-1"
    ids.take([named])
    made = [ids.next("resp") for _ in range(2)]
    assert (named in made, len(set(made))) == (False, 2)
