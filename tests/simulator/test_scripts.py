"""Replies as values, the short ways to write them, and scripts as JSON files."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

import turnlog.testing
from turnlog.canonical import Json, JsonObject
from turnlog.errors import InvalidInput
from turnlog.testing import scripts
from turnlog.testing.scripts import Reply
from turnlog_transports import script


def only(reply: Reply) -> JsonObject:
    (item,) = reply.items
    return item


def test_a_call_takes_its_arguments_as_keywords() -> None:
    assert only(scripts.call("refund", order="7", amount=1.5)) == {
        "type": "function_call",
        "name": "refund",
        "arguments": '{"order":"7","amount":1.5}',
    }


def test_a_call_takes_arguments_that_are_no_keywords_and_an_id() -> None:
    item = only(scripts.call("refund", {"order-id": 7}, "call_x", amount=2))
    assert item["arguments"] == '{"order-id":7,"amount":2}'
    assert item["call_id"] == "call_x"


def test_a_call_takes_arguments_that_are_not_json() -> None:
    assert only(scripts.call("refund", "{oops"))["arguments"] == "{oops"


def test_text_may_have_a_phase() -> None:
    item = only(scripts.text("Let me see.", phase="commentary"))
    assert item["phase"] == "commentary"
    assert "phase" not in only(scripts.text("Done."))


def test_reasoning_has_a_summary_and_what_is_encrypted_where_given() -> None:
    assert only(scripts.reasoning()) == {"type": "reasoning", "summary": []}
    full = only(scripts.reasoning("Hm.", encrypted="gAAA"))
    assert full["summary"] == [{"type": "summary_text", "text": "Hm."}]
    assert full["encrypted_content"] == "gAAA"


def test_parts_become_one_reply_in_order() -> None:
    whole = scripts.reply(scripts.reasoning("Hm."), scripts.text("Yes."), usage={"input_tokens": 1})
    assert [item["type"] for item in whole.items] == ["reasoning", "message"]
    assert whole.usage == {"input_tokens": 1}
    both = scripts.calls(scripts.call("a"), scripts.call("b"))
    assert [item["name"] for item in both.items] == ["a", "b"]


def test_a_part_with_more_than_items_is_refused() -> None:
    with pytest.raises(InvalidInput, match="only items"):
        scripts.reply(scripts.text("Hi.").but(cut_after=1))


def test_faults_make_another_reply_and_leave_the_first() -> None:
    reply = scripts.text("Hi.")
    cut = reply.but(cut_after=3, delay=0.5)
    assert (cut.cut_after, cut.delay, cut.items) == (3, 0.5, reply.items)
    assert reply.cut_after is None


def test_an_error_has_the_type_that_goes_with_its_status() -> None:
    limited = scripts.error(429, "rate_limit_exceeded", "Slow down.", retry_after=2)
    assert limited.body == {
        "error": {
            "message": "Slow down.",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    }
    assert (limited.status, limited.retry_after) == (429, 2)
    assert "invalid_request_error" in repr(scripts.error(400).body)
    assert "strange" in repr(scripts.error(500, type="strange", param="input").body)


def test_what_stops_short_and_what_fails_say_why() -> None:
    stopped = scripts.incomplete("content_filter", "As far as")
    assert stopped.incomplete_details == {"reason": "content_filter"}
    assert len(stopped.items) == 1
    assert scripts.incomplete().items == ()
    assert scripts.failed("server_error", "It broke.").error == {
        "code": "server_error",
        "message": "It broke.",
    }


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Reply(items=({"type": "x"},), events=()), "give one of them"),
        (lambda: Reply(events=(), body={}), "give one of them"),
        (lambda: Reply(status=500), "needs a body"),
        (lambda: Reply(chunk=0), "at least 1"),
        (lambda: scripts.text("x").but(cut_after=-1), "cut_after cannot be negative"),
        (lambda: scripts.text("x").but(hold=-1), "hold cannot be negative"),
        (lambda: scripts.text("x").but(compacts=True), "compaction has a body"),
        (lambda: scripts.item({"role": "user"}), 'needs a "type"'),
    ],
)
def test_what_contradicts_itself_is_refused(make: Callable[[], Reply], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        make()


# -- the package that users import from ----------------------------------------------------


def test_every_exported_name_is_there_and_nothing_else() -> None:
    assert turnlog.testing.text is scripts.text
    assert dir(turnlog.testing) == list(turnlog.testing.__all__)
    assert sorted(turnlog.testing.__all__) == list(turnlog.testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = getattr(turnlog.testing, "nonsense")  # noqa: B009 (it must be looked up at run time)


def test_scripted_finds_its_transport_by_entry_point() -> None:
    transport = turnlog.testing.scripted([scripts.text("Hi.")], seed="s")
    assert (transport.choose(), transport.left, transport.requests) == ("replay", 1, [])


def test_scripted_says_what_is_missing_where_no_transport_is_installed() -> None:
    none = metadata.EntryPoints()
    with pytest.raises(turnlog.errors.ConfigurationError, match="no transport named 'replay'"):
        scripts.factory(none)


# -- scripts as JSON -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "reply"),
    [
        ({"text": "Hi."}, scripts.text("Hi.")),
        ({"text": "Hi.", "phase": "commentary"}, scripts.text("Hi.", phase="commentary")),
        ({"call": "a"}, scripts.call("a")),
        (
            {"call": "a", "arguments": {"b": 1}, "call_id": "c"},
            scripts.call("a", {"b": 1}, "c"),
        ),
        ({"call": "a", "arguments": "{oops"}, scripts.call("a", "{oops")),
        ({"refusal": "No."}, scripts.refusal("No.")),
        ({"reasoning": "Hm.", "encrypted": "x"}, scripts.reasoning("Hm.", encrypted="x")),
        ({"item": {"type": "compaction"}}, scripts.item({"type": "compaction"})),
        (
            {"reply": [{"reasoning": "Hm."}, {"text": "Yes."}]},
            scripts.reply(scripts.reasoning("Hm."), scripts.text("Yes.")),
        ),
        ({"incomplete": "max_output_tokens", "text": "As"}, scripts.incomplete(text="As")),
        ({"failed": "server_error"}, scripts.failed()),
        ({"failed": "x", "message": "y"}, scripts.failed("x", "y")),
        (
            {"error": 429, "code": "c", "message": "m", "retry_after": 1.5},
            scripts.error(429, "c", "m", retry_after=1.5),
        ),
        ({"error": 500}, scripts.error(500)),
        ({"events": [{"type": "x"}]}, Reply(events=({"type": "x"},))),
        ({"response": {"object": "response"}}, Reply(body={"object": "response"})),
        ({"refuse_upgrade": 403}, scripts.refuse_upgrade(403)),
        (
            {"text": "Hi.", "cut_after": 3, "delay": 0.5, "finishes": True, "polls": 2},
            scripts.text("Hi.").but(cut_after=3, delay=0.5, finishes=True, polls=2),
        ),
        (
            {"text": "Hi.", "hold": 3, "again": 1, "stream_expires": True},
            scripts.text("Hi.").but(hold=3, again=1, stream_expires=True),
        ),
        ({"error": 429, "compacts": True}, scripts.error(429).but(compacts=True)),
    ],
)
def test_an_entry_is_read_as_the_reply_it_names(entry: JsonObject, reply: Reply) -> None:
    assert script.parse([entry]) == [reply]


def test_usage_and_the_length_of_deltas_can_be_given() -> None:
    (reply,) = script.parse([{"text": "Hi.", "usage": {"input_tokens": 3}, "chunk": 1}])
    assert reply.usage == {"input_tokens": 3}
    assert reply.chunk == 1


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("Hi.", "an object is needed"),
        ({}, "exactly one of text, call"),
        ({"text": "Hi.", "call": "a"}, "exactly one of"),
        ({"text": "Hi.", "colour": "red"}, "'text' does not go with colour"),
        ({"text": 7}, "text must be text"),
        ({"text": "Hi.", "cut_after": True}, "cut_after is True, and must be int"),
        ({"text": "Hi.", "cut_after": "3"}, "cut_after is '3', and must be int"),
        ({"text": "Hi.", "no_terminal": 1}, "no_terminal is 1, and must be bool"),
        ({"text": "Hi.", "delay": "x"}, "must be int or float"),
        ({"call": "a", "arguments": [1]}, "arguments must be an object"),
        ({"item": 1}, "item must be an object"),
        ({"error": 200}, "error must be a status from 400 to 599"),
        ({"error": 429, "retry_after": "soon"}, "retry_after must be a number"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named_by_its_number(entry: Json, says: str) -> None:
    with pytest.raises(InvalidInput, match=f"entry 2 of the script: .*{says}"):
        script.parse([{"text": "Hi."}, entry])


def test_a_script_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text(json.dumps([{"text": "Hi."}]), encoding="utf-8")
    assert script.load(path) == [scripts.text("Hi.")]


def test_a_file_that_is_no_script_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    with pytest.raises(InvalidInput, match="cannot be read"):
        script.load(path)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(InvalidInput, match="a script is a list of entries"):
        script.load(path)
