"""Events and items in words: every tag has some, and they say what matters."""

from __future__ import annotations

import pytest

from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.cli.options import moment, pairs
from turnlog.cli.screen import arguments, one_line, plain, safe
from turnlog.cli.timeline import Timeline, event_words
from turnlog.cli.words import clock, day, item_words, usage_words, when
from turnlog.errors import InvalidInput
from turnlog.ports import Profile
from turnlog.updates import Cursor

MESSAGE: JsonObject = {"role": "user", "content": "Hi"}
OUTPUT: JsonObject = {"type": "function_call_output", "call_id": "c", "output": "42"}
USAGE: JsonObject = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 5},
    "output_tokens": 2,
}
PREPARED = ev.RequestPrepared(
    attempt="att",
    cause="tools_answered",
    try_number=1,
    kind="delta",
    parent="resp_1",
    ranges=(ev.Range(of="context", start=3, stop=5), ev.Range(of="tail", start=9, stop=10)),
    format=1,
    digest="d",
    transport="websocket",
    store=True,
)

SAID: list[tuple[ev.Event, str]] = [
    (ev.ConversationStarted(id="c1"), "the conversation begins"),
    (
        ev.ConversationStarted(id="c2", fork=ev.Fork(conversation="c1", version=7, hash="")),
        "forked from c1 at version 7",
    ),
    (
        ev.ConversationStarted(id="c2", origin=ev.Origin(conversation="c1", call="call_1")),
        "made by call call_1 of c1",
    ),
    (ev.ConversationConfigured(fingerprint=""), "model not set, no tools"),
    (
        ev.ConversationConfigured(agent="a", model="m", tools=({"type": "x"},), fingerprint=""),
        "agent a, model m, 1 tool",
    ),
    (ev.ConversationClosed(), "closed"),
    (ev.ContentErased(versions=(1, 2), reason="asked"), "the bodies of 2 events erased: asked"),
    (ev.ItemAdded(key="i", item=MESSAGE), "user: Hi"),
    (ev.ItemAdded(key="i", item=MESSAGE, ordinal=2), "before ordinal 2: user: Hi"),
    (ev.ItemEdited(key="i", item=MESSAGE, ordinal=2), "ordinal 2 is now user: Hi"),
    (ev.ItemRemoved(key="i", ordinal=2), "ordinal 2 taken out"),
    (ev.OutputTruncated(key="i", heard="Your"), "only heard: Your"),
    (ev.ContextCompacted(ordinal=4), "the window now starts at ordinal 4"),
    (
        ev.ProviderNoted(kind="probe_failed", data={"call": "c", "reason": "OSError: no bank"}),
        "probe_failed: OSError: no bank",
    ),
    (ev.TurnQueued(key="k", digest="d", items=(MESSAGE,)), "queued: user: Hi"),
    (ev.TurnStarted(key="k", digest="d"), "started"),
    (
        ev.TurnStarted(key="k", digest="d", max_requests=1, manual=True),
        "run by the caller, at most 1 request",
    ),
    (ev.TurnCancelRequested(mode="after_request"), "cancel after request"),
    (ev.TurnPaused(reason="crashed"), "waits: crashed"),
    (ev.TurnResumed(), "resumed"),
    (ev.TurnResumed(reason="approved"), "resumed: approved"),
    (ev.TurnPaused(reason="approval", calls=("a", "b")), "waits: approval (2 calls)"),
    (ev.TurnEnded(outcome="completed"), "completed"),
    (ev.TurnEnded(outcome="failed", error={"message": "no"}), "failed: no"),
    (PREPARED, "delta: 3 items behind resp_1, by websocket (tools answered)"),
    (
        ev.RequestPrepared(
            attempt="att",
            cause="retry",
            try_number=2,
            delay_ms=250,
            kind="full",
            ranges=(),
            format=1,
            digest="d",
            transport="http",
            store=False,
        ),
        "full: 0 items, by http (retry, try 2 after 250 ms, not stored)",
    ),
    (ev.ResponseStarted(attempt="att", response="resp_1"), "resp_1"),
    (ev.ResponseStarted(attempt="att", response="resp_1", connection="ws-1"), "resp_1 on ws-1"),
    (
        ev.ResponseStarted(attempt="att", response="resp_1", connection="ws-1", lane="lane-02"),
        "resp_1 on ws-1 by lane-02",
    ),
    (
        ev.OutputCheckpointed(attempt="att", part="text:0:0", offset=3, text="x"),
        "text:0:0 from 3: x",
    ),
    (ev.OutputRecorded(attempt="att", index=0, key="o", item=MESSAGE), "user: Hi"),
    (ev.ChainLost(parent="resp_1"), "the provider no longer knows resp_1"),
    (
        ev.ResponseCompleted(attempt="att", response="r", usage=USAGE),
        "r 7 tokens in (5 cached), 2 out",
    ),
    (ev.ResponseIncomplete(attempt="att", response="r", reason="filter"), "r: filter"),
    (ev.ResponseInterrupted(attempt="att", reason="crashed"), "no response: crashed"),
    (ev.ResponseUnknown(attempt="att", reason="crashed"), "no response: crashed"),
    (
        ev.ResponseFailed(attempt="att", response="r", error={"code": "boom"}, retryable=True),
        "r: boom (may be retried)",
    ),
    (ev.ResponseRejected(attempt="att", status=429), "HTTP 429: (final)"),
    (ev.ResponseRejected(attempt="att", reason="not_sent"), "not_sent: (final)"),
    (ev.ResponseRejected(attempt="att"), "refused: (final)"),
    (ev.CallRequested(call="call_1", item="o"), "call_1"),
    (ev.CallApproved(call="call_1", reason="fine"), "call_1: fine"),
    (ev.CallRejected(call="call_1", key="k", item=OUTPUT, reason="no"), "call_1: no"),
    (ev.CallStarted(call="call_1"), "call_1"),
    (ev.CallStarted(call="call_1", run=2), "call_1, run 2"),
    (ev.CallProgressed(call="call_1", data={"at": 1, "of": 2}), "call_1: at=1, of=2"),
    (ev.CallAnswered(call="call_1", key="k", item=OUTPUT), "call_1: 42"),
    (ev.CallAnswered(call="call_1", key="k", item=OUTPUT, failed=True), "call_1 failed: 42"),
    (ev.CallDeferred(call="call_1"), "call_1"),
    (ev.CallUncertain(call="call_1", reason="crashed"), "call_1: crashed"),
    (ev.CallAbandoned(call="call_1", key="k", item=OUTPUT, reason="late"), "call_1: late"),
    (ev.TransportSwitched(before="a", after="b", reason="refused"), "from a to b: refused"),
    (ev.ProviderNoted(kind="unreadable", text="x{"), "unreadable x{"),
    (ev.SteerSubmitted(response="r", items=(MESSAGE,)), "1 item offered to r"),
    (ev.SteerAccepted(response="r"), "taken by r"),
    (ev.SteerPending(response="r"), "r waits for 0 items"),
    (ev.SteerFailed(response="r", error={"message": "late"}), "r: late"),
]


@pytest.mark.parametrize(("event", "words"), SAID)
def test_an_event_in_words(event: ev.Event, words: str) -> None:
    assert event_words(event) == words


def test_every_tag_has_words() -> None:
    assert {type(event) for event, _ in SAID} == set(ev.TAGS.values())


def test_a_timeline_remembers_what_was_called() -> None:
    timeline = Timeline()
    item: JsonObject = {
        "type": "function_call",
        "call_id": "c",
        "name": "add",
        "arguments": '{"a":1}',
    }
    unnamed: JsonObject = {"type": "local_shell_call", "call_id": "d"}
    said = [
        timeline.words(event)
        for event in (
            ev.OutputRecorded(attempt="att", index=0, key="o", item=item),
            ev.OutputRecorded(attempt="att", index=1, key="p", item=unnamed),
            ev.CallRequested(call="call_1", item="o"),
            ev.CallRequested(call="call_2", item="p"),
            ev.CallStarted(call="call_1", run=2),
            ev.CallStarted(call="call_2"),
            ev.CallStarted(call="call_3"),
        )
    ]
    assert said == [
        "add(a=1)",
        "local shell call",
        "add(a=1), call_1",
        "local shell call, call_2",
        "add, run 2",
        "local_shell_call",
        "call_3",
    ]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (MESSAGE, "user: Hi"),
        (
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look:"},
                    {"type": "input_image", "image_url": "x"},
                    {},
                ],
            },
            "user: Look: [input_image] [part]",
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]},
            "assistant: I cannot.",
        ),
        ({"type": "reasoning", "summary": [{"text": "Hm."}, {"type": "x"}]}, "reasoning: Hm."),
        ({"type": "reasoning"}, "reasoning"),
        (OUTPUT, "function call output: 42"),
        (
            {"type": "function_call_output", "output": [{"text": "a"}, {"type": "image"}, {}]},
            "function call output: a [image] [part]",
        ),
        (
            {"type": "mcp_approval_response", "approval_request_id": "m", "approve": True},
            "mcp approval response: allowed",
        ),
        (
            {
                "type": "mcp_approval_response",
                "approval_request_id": "m",
                "approve": False,
                "reason": "no",
            },
            "mcp approval response: refused no",
        ),
        ({"type": "custom_tool_call", "name": "sql", "input": "SELECT 1"}, "sql(SELECT 1)"),
        ({"type": "function_call", "name": "f", "arguments": "[1]"}, "f([1])"),
        ({"type": "function_call", "arguments": ""}, "function_call()"),
        ({"type": "web_search_call", "status": "completed"}, "web search call"),
    ],
)
def test_an_item_in_words(item: JsonObject, words: str) -> None:
    assert item_words(item) == words


def test_arguments_as_in_code() -> None:
    assert arguments('{"order":"7","n":1.5,"x":null,"s":"é\\u001b"}') == (
        'order="7", n=1.5, x=null, s="é\\u001b"'
    )
    assert arguments("not JSON\n at all") == "not JSON at all"
    assert arguments(None) == ""


def test_lines_are_safe_and_short() -> None:
    assert one_line("a\n  b\tc") == "a b c"
    assert one_line("x" * 200) == "x" * 159 + "…"
    assert safe("a\x1b[0m\x9b\u202eb\r\n\t\ud800") == "a\\x1b[0m\\x9b\\u202eb\n\t\\ud800"


def test_times() -> None:
    time = 1_700_000_000_123_456
    assert (when(time), clock(time), day(time)) == (
        "2023-11-14 22:13:20",
        "22:13:20.123",
        "2023-11-14",
    )
    assert when(2**62) == "1970-01-01 00:00:00"
    assert usage_words(None) == ""


def test_moments() -> None:
    assert moment(None, 100.0) is None
    assert moment("2m", 1000.0) == 880.0
    assert moment("1970-01-02", 0.0) == 86400.0
    assert moment("1970-01-02T00:00+01:00", 0.0) == 82800.0
    with pytest.raises(InvalidInput, match="'soon' is no time"):
        moment("soon", 0.0)


def test_pairs() -> None:
    assert pairs(["a=1", "b=x=y"], "--option") == {"a": "1", "b": "x=y"}
    for wrong in ("a", "=1"):
        with pytest.raises(InvalidInput, match="--option takes NAME=VALUE"):
            pairs([wrong], "--option")


def test_values_of_the_library_as_json() -> None:
    assert plain(Cursor(7, "att", "text:0:0", 3)) == "7/att/text:0:0/3"
    assert plain({"x": (b"\x01", [None, True])}) == {"x": ["01", [None, True]]}
    found = plain(Profile(name="x"))
    assert isinstance(found, dict) and found["name"] == "x"
