"""What is too large, and what is said of it: limits as values, and how providers word an excess."""

from __future__ import annotations

from hashlib import sha256
from typing import cast

import pytest

from turnlog import Limits
from turnlog import events as ev
from turnlog.canonical import JsonObject, dumps
from turnlog.draft import Ambient, Draft
from turnlog.errors import ConfigurationError, InvalidInput, StateError, TooLarge, TooMany
from turnlog.outcomes import TOO_LONG, Excess, excess, is_retryable, is_too_long
from turnlog.ports import Problem
from turnlog.record import NewEvent, Recorded
from turnlog.request import sealed
from turnlog.state import start

SMALL = Limits(item_bytes=1024, request_items=3, request_bytes=2000, open_turns=2)


def message(size: int) -> JsonObject:
    """A message of so many bytes."""
    empty = {"type": "message", "role": "user", "content": ""}
    return {**empty, "content": "x" * (size - len(dumps(empty)))}


def recorded(*events: ev.Event) -> list[Recorded]:
    """The events as they stand in a draft."""
    draft = Draft(start("c"), Ambient(now=lambda: 7, token=bytes), "user")
    begun = NewEvent(event=ev.ConversationStarted(id="c"))
    return draft.take([begun, *(NewEvent(event=event) for event in events)])


def added(size: int) -> ev.ItemAdded:
    return ev.ItemAdded(key="k", item=message(size), ordinal=None)


# -- limits --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["item_bytes", "request_items", "request_bytes", "open_turns"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "7", True], ids=repr)
def test_a_limit_is_a_whole_number_or_none(name: str, value: object) -> None:
    given = cast("dict[str, int | None]", {name: value})
    with pytest.raises(ConfigurationError, match=rf"Limits\({name}=…\) is a whole number"):
        Limits(**given)
    assert getattr(Limits(**{name: None}), name) is None
    assert getattr(Limits(**{name: 1024}), name) == 1024


def test_an_item_may_be_as_large_as_what_turnlog_itself_tells_the_model() -> None:
    with pytest.raises(ConfigurationError, match="1024 or more"):
        Limits(item_bytes=1023)


def test_an_item_is_as_large_as_its_canonical_json() -> None:
    SMALL.check_items("c", recorded(added(1024)))
    with pytest.raises(TooLarge) as caught:
        SMALL.check_items("c", recorded(added(900), added(1025)))
    error = caught.value
    assert (error.setting, error.limit, error.size, error.over) == ("item_bytes", 1024, 1025, 1)
    assert isinstance(error, InvalidInput)
    assert str(error) == (
        "item 2 of the input (message of the user) has 1,025 bytes, 1 more than the limit of 1,024,"
        " in conversation 'c': make it smaller, give a file by its id or address, or raise"
        " Limits(item_bytes=…)"
    )


def queued(*sizes: int) -> ev.TurnQueued:
    return ev.TurnQueued(key="k", digest="d", items=tuple(message(size) for size in sizes))


@pytest.mark.parametrize(
    ("event", "named"),
    [
        (ev.ItemEdited(key="k", item=message(2000), ordinal=3), r"at place 3 of the context"),
        (ev.CallAnswered(call="call_1", key="k", item=message(2000)), r"the output of call call_1"),
        (ev.CallRejected(call="call_1", key="k", item=message(2000)), r"the output of call call_1"),
        (queued(100, 2000), r"item 2 of the input"),
    ],
    ids=["edited", "answered", "rejected", "queued"],
)
def test_whatever_a_caller_brings_is_measured_and_named(event: ev.Event, named: str) -> None:
    found = [made(event)]
    with pytest.raises(TooLarge, match=rf"{named}.*2,000 bytes, 976 more"):
        SMALL.check_items("c", found)
    Limits(item_bytes=None).check_items("c", found)


def made(event: ev.Event) -> Recorded:
    """An event beside any state that it could follow."""
    (first,) = recorded()
    return Recorded(
        conversation="c",
        version=2,
        id="evt_2",
        tag="call.answered",
        schema=1,
        time=7,
        actor="user",
        turn=None,
        epoch=None,
        salt=first.salt,
        body=b"x" * 3000,
        hash=first.hash,
        event=event,
    )


def test_small_items_beside_each_other_are_no_large_one() -> None:
    SMALL.check_items("c", recorded(queued(600, 600)))


def test_what_a_provider_says_is_never_refused() -> None:
    output = ev.OutputRecorded(attempt="a", response="r", index=0, key="k", item=message(9000))
    compacted = ev.ContextCompacted(ordinal=0, response="r")
    SMALL.check_items("c", [made(output)])
    SMALL.check_items("c", [made(added(9000)), made(compacted)])


def test_the_output_of_a_tool_is_told_to_be_too_large_and_not_cut() -> None:
    fits: JsonObject = {"type": "function_call_output", "call_id": "c", "output": "y" * 900}
    large = {**fits, "output": "y" * 5000}
    assert SMALL.fitting(fits) is fits
    assert Limits(item_bytes=None).fitting(large) is large
    told = SMALL.fitting(large)
    size = len(dumps(large))
    assert told == {
        **fits,
        "output": f"The tool ran, and its result is left out: it has {size:,} bytes, which is"
        f" {size - 1024:,} more than the limit of 1,024. Ask for less of it.",
    }
    assert len(dumps(told)) < 1024


def test_a_request_has_so_many_items_and_bytes() -> None:
    SMALL.check_request("c", items=3, size=2000)
    Limits(request_items=None, request_bytes=None).check_request("c", items=10**9, size=10**12)
    with pytest.raises(TooLarge, match=r"'c' would have 4 items, 1 more than .* 3: shorten") as one:
        SMALL.check_request("c", items=4, size=9000)
    with pytest.raises(TooLarge, match=r"2,500 bytes, 500 more.*Limits\(request_bytes=…\)") as two:
        SMALL.check_request("c", items=1, size=2500)
    assert (one.value.setting, one.value.over) == ("request_items", 1)
    assert (two.value.setting, two.value.over) == ("request_bytes", 500)


def test_so_many_turns_run_at_once() -> None:
    SMALL.check_turns("c", {"a"}, set())
    SMALL.check_turns("c", {"a", "c"}, {"a"})
    Limits(open_turns=None).check_turns("c", {"a", "b"}, {"d"})
    for running, starting in (({"a", "b"}, set[str]()), ({"a"}, {"b"})):
        with pytest.raises(TooMany, match=r"runs 2 turns.*'c'.*Limits\(open_turns=…\)") as caught:
            SMALL.check_turns("c", running, starting)
        assert caught.value.limit == 2
        assert isinstance(caught.value, StateError)


def test_a_body_is_measured_by_the_bytes_that_its_digest_is_over() -> None:
    raw = '{"input":"ä"}'.encode()
    assert sealed({"input": "ä"}) == (sha256(raw).hexdigest(), len(raw)) == (_DIGEST, 14)


_DIGEST = "51715f4786acb5aac5a82238ceeb847e558f4cd0a2af30e213a60f7beab21c55"


# -- a context that is too long ------------------------------------------------------------

WORDINGS = [
    (
        "This model's maximum context length is 128000 tokens. However, your messages resulted in"
        " 130112 tokens. Please reduce the length of the messages.",
        Excess(limit=128_000, size=130_112),
    ),
    (
        "This model's maximum context length is 4097 tokens, however you requested 5360 tokens"
        " (1360 in your prompt; 4000 for the completion).",
        Excess(limit=4097, size=5360),
    ),
    (
        "This endpoint's maximum context length is 32768 tokens. However, you requested about"
        " 42832 tokens (42832 of text input).",
        Excess(limit=32_768, size=42_832),
    ),
    (
        "Input tokens exceed the configured limit of 272,000 tokens. Your messages resulted in"
        " 300,000 tokens.",
        Excess(limit=272_000, size=300_000),
    ),
    ("prompt is too long: 214384 tokens > 200000 maximum", Excess(limit=200_000, size=214_384)),
    (
        "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000, decrease it",
        Excess(limit=200_000, size=207_951),
    ),
    (
        "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576).",
        Excess(limit=1_048_576, size=1_048_577),
    ),
    (
        "This model's maximum prompt length is 131072 but the request contains 131391 tokens.",
        Excess(limit=131_072, size=131_391),
    ),
    (
        "You passed 9001 input tokens and requested 0 output tokens. However, the model's context"
        " length is only 8192 tokens, resulting in a maximum input length of 8192 tokens.",
        Excess(limit=8192, size=9001),
    ),
    (
        "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
        Excess(limit=4096, size=5000),
    ),
    (
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
        Excess(limit=4096, size=5000),
    ),
    # No numbers, only one of the two, none that make sense, or more than a number of tokens.
    ("Your input exceeds the context window of this model. Please adjust your input.", None),
    ("This model's maximum context length is 128000 tokens.", None),
    ("The maximum context length is 100 tokens. However, you requested 90 tokens.", None),
    ("prompt is too long: 99999999999999999999 tokens > 5 maximum", None),
    ("prompt is too long: 7 tokens > 0 maximum", None),
]


@pytest.mark.parametrize(("said", "found"), WORDINGS, ids=range(len(WORDINGS)))
def test_by_how_much_is_read_from_the_providers_words(said: str, found: Excess | None) -> None:
    assert is_too_long(400, None, said)
    assert excess(said) == found
    assert not is_retryable(Problem(message=said))


def test_over_is_the_difference() -> None:
    assert Excess(limit=128_000, size=130_112).over == 2112


@pytest.mark.parametrize(
    ("status", "code", "message", "found"),
    [
        (400, TOO_LONG, "Too much.", True),
        (None, TOO_LONG, None, True),
        (500, TOO_LONG, "Odd, but it says so.", True),
        (429, "rate_limit_exceeded", "Slower: the context window …", False),
        (503, None, "The context window is being cleaned.", False),
        (413, None, "The prompt is too long.", True),
        (400, "invalid_request_error", "Unknown parameter.", False),
        (400, None, None, False),
        (400, None, "x" * 3000 + " context window", False),
    ],
)
def test_what_counts_as_too_long(
    status: int | None, code: str | None, message: str | None, found: bool
) -> None:
    assert is_too_long(status, code, message) is found


def test_it_is_final_whatever_else_is_said() -> None:
    said = "exceed_context_size_error"
    assert not is_retryable(Problem(status=500, code=TOO_LONG, message=""))
    assert not is_retryable(Problem(type=said, message=""))
    assert is_retryable(Problem(status=500, message="The server had an error."))
