"""Views over raw items: whose call it is, what answers it, and what a request may hold."""

from __future__ import annotations

import copy
import pickle
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlog.canonical import DEEPEST, Json, JsonObject, dumps, obj
from turnlog.errors import InvalidInput
from turnlog.items import (
    CALL_OF,
    OUTPUT_OF,
    Encoded,
    answered_id,
    answers,
    approval,
    call_id_of,
    check,
    encoded,
    function_output,
    has_hosted_effects,
    is_client_call,
    legal,
    name_of,
    output_text,
    refusal_text,
    refused_output,
    to_input,
    type_of,
    without_identity,
)

from .rules import OUTPUTS, PAIRS, refusals
from .story import called, output, said, thought, user
from .strategies import World, client_call, json_objects


def test_a_type_may_be_left_out() -> None:
    """Protocol 2: a message by its role, and a reference by its id."""
    assert type_of({"role": "user", "content": "x"}) == "message"
    assert type_of({"id": "msg_1"}) == "item_reference"
    assert type_of({"type": "reasoning"}) == "reasoning"
    assert name_of(called("c1", "look")) == "look"


@pytest.mark.parametrize(
    ("item", "owned"),
    [
        (called("c1"), True),
        ({"type": "tool_search_call", "execution": "client"}, True),
        ({"type": "tool_search_call", "execution": "server"}, False),
        ({"type": "tool_search_call"}, False),
        ({"type": "shell_call", "environment": {"type": "local"}}, True),
        ({"type": "shell_call", "environment": None}, True),
        ({"type": "shell_call"}, True),
        ({"type": "shell_call", "environment": {"type": "container_reference"}}, False),
        ({"type": "mcp_approval_request", "id": "m"}, True),
        ({"type": "mcp_call", "id": "m"}, False),
        ({"type": "web_search_call", "id": "w"}, False),
        (said("m1"), False),
    ],
)
def test_whose_call_it_is(item: JsonObject, owned: bool) -> None:
    assert is_client_call(item) is owned


def test_the_pairs_are_those_of_the_protocol() -> None:
    assert OUTPUT_OF == PAIRS
    assert CALL_OF == OUTPUTS


@pytest.mark.parametrize("kind", sorted(PAIRS))
def test_every_kind_of_call_can_be_refused(kind: str) -> None:
    """Law 7: a conversation can always go on, whatever it waits for."""
    call = client_call(World(), kind)
    answer = refused_output(call, "no")
    assert type_of(answer) == PAIRS[kind]
    assert answered_id(answer) == call_id_of(call)
    assert answers(answer, kind, call_id_of(call))
    assert not answers(answer, kind, "another")
    assert refusals([call], [to_input(answer)]) == []
    assert legal([call, answer]) == [call, answer]
    check(answer)


def test_text_answers_functions_alone() -> None:
    assert function_output(called("c1"), "42") == output("c1")
    custom = function_output({"type": "custom_tool_call", "call_id": "c2"}, [])
    assert custom == {"type": "custom_tool_call_output", "call_id": "c2", "output": []}
    with pytest.raises(InvalidInput, match="a computer_call is answered with a whole computer_"):
        function_output({"type": "computer_call", "call_id": "c"}, "x")
    with pytest.raises(InvalidInput, match="a message is answered with a whole output item"):
        function_output(said("m"), "x")


def test_an_approval_answers_its_request() -> None:
    request: JsonObject = {"type": "mcp_approval_request", "id": "m1"}
    expected = {"type": "mcp_approval_response", "approval_request_id": "m1", "approve": True}
    assert approval(request, True, None) == expected
    assert approval(request, False, "no") == {**expected, "approve": False, "reason": "no"}


def test_what_a_message_says() -> None:
    assert output_text(said("m", "Hello")) == "Hello"
    assert output_text(user("Hi")) == "Hi"
    assert output_text(called("c")) == ""
    refused: JsonObject = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    assert (refusal_text(refused), output_text(refused)) == ("No.", "")


def test_hosted_tools_with_effects() -> None:
    assert has_hosted_effects([{"type": "function"}, {"type": "mcp"}])
    assert not has_hosted_effects([{"type": "function"}, {"type": "web_search"}, {}])


# -- requests ------------------------------------------------------------------------------


def test_w17_an_item_goes_back_as_it_came() -> None:
    """Reasoning with its encrypted content and unknown fields; without nulls and output-only."""
    item: JsonObject = {
        **thought("rs_1"),
        "phase": "x",
        "status": None,
        "created_by": "a",
        "content": None,
    }
    assert to_input(item) == {**thought("rs_1"), "phase": "x"}
    assert to_input({"type": "tool_search_call", "call_id": None}) == {
        "type": "tool_search_call",
        "call_id": None,
    }


@given(json_objects)
def test_the_same_item_is_the_same_bytes_each_time(item: JsonObject) -> None:
    """Law 9, and the item itself is not touched."""
    before = copy.deepcopy(item)
    sent = dumps(to_input(item))
    assert dumps(to_input(item)) == sent
    assert item == before
    assert to_input(to_input(item)) == to_input(item)


def test_the_bytes_of_format_1_are_pinned() -> None:
    assert dumps(to_input(said("m1"))) == (
        b'{"type":"message","id":"m1","role":"assistant","status":"completed",'
        b'"content":[{"type":"output_text","text":"Hi","annotations":[]}]}'
    )


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unknown input format 2"):
        to_input(user(), format=2)


_lists = st.lists(json_objects, max_size=3)


@given(st.dictionaries(st.text(max_size=4), json_objects | _lists | _lists.map(Encoded)))
def test_items_that_are_encoded_once_give_the_same_bytes(body: dict[str, Json]) -> None:
    """Law 9: the digest and what goes out are made of bytes that are kept."""
    plain = {name: list(one) if isinstance(one, Encoded) else one for name, one in body.items()}
    assert encoded(body) == dumps(plain)
    assert encoded({**body, "stream": True}) == dumps({**plain, "stream": True})
    assert dumps(body) == dumps(plain)  # and so they are for whoever does not know


def test_a_copy_of_a_body_is_anybodys_to_change() -> None:
    items: list[JsonObject] = [{"type": "message", "content": "My card is 4111."}]
    body: JsonObject = {"input": Encoded(items)}
    assert b"4111" in encoded(body)
    for copied in (copy.deepcopy(body), pickle.loads(pickle.dumps(body))):
        assert copied == {"input": items}
        (item,) = cast("list[dict[str, Json]]", copied["input"])
        item["content"] = "My card is [redacted]."
        assert encoded(copied) == dumps(copied)
    assert b"4111" in encoded(body)


def test_a_body_that_is_no_json_is_refused_with_its_items_or_without() -> None:
    broken: JsonObject = {"type": "message", "n": float("nan")}
    deep: JsonObject = {"type": "message"}
    for _ in range(DEEPEST - 2):
        deep = {"type": "message", "inner": deep}
    body: JsonObject = {"input": Encoded([deep]), "n": 1}
    bodies: list[JsonObject] = [
        {"input": Encoded([broken])},
        {"input": Encoded(), "n": float("inf")},
        body,
    ]
    for refused in bodies:
        with pytest.raises(InvalidInput, match="not a JSON value"):
            encoded(refused)
        with pytest.raises(InvalidInput, match="not a JSON value"):
            dumps(refused)
    shallower: JsonObject = {"input": Encoded([obj(deep, "inner")])}
    assert encoded(shallower) == dumps(shallower)


HOSTED_SHELL: JsonObject = {
    "type": "shell_call",
    "call_id": "s1",
    "environment": {"type": "container_reference"},
}
SHELL_SAID: JsonObject = {"type": "shell_call_output", "call_id": "s1", "output": []}
SEARCHED: JsonObject = {"type": "tool_search_output", "call_id": None, "execution": "server"}


@pytest.mark.parametrize(
    ("items", "kept"),
    [
        ([], []),
        ([user(), called("a"), output("a")], [0, 1, 2]),
        ([called("a"), called("b"), output("b"), output("a")], [0, 1, 2, 3]),
        ([called("a"), user()], [1]),
        ([output("a"), called("a")], []),
        ([called("a"), output("a"), output("a")], [0, 1]),
        ([called("a"), output("a"), called("a"), output("a")], [0, 1, 2, 3]),
        ([called("a"), {"type": "custom_tool_call_output", "call_id": "a"}], []),
        ([thought("r"), said("m")], [0, 1]),
        ([thought("r"), thought("s"), said("m")], [0, 1, 2]),
        ([thought("r"), user()], [1]),
        ([thought("r")], []),
        ([thought("r"), called("a"), output("a")], [0, 1, 2]),
        ([thought("r"), called("a"), said("m")], [2]),
        ([thought("r"), output("a")], []),
        ([thought("r"), {"type": "message", "role": "assistant", "content": "x"}], [1]),
        ([thought("r"), called("a"), thought("s"), said("m")], [2, 3]),
        ([HOSTED_SHELL, SHELL_SAID], [0, 1]),
        ([HOSTED_SHELL], [0]),
        ([SHELL_SAID], []),
        ([SEARCHED], [0]),
    ],
)
def test_a_full_request_leaves_out_what_would_be_refused(
    items: list[JsonObject], kept: list[int]
) -> None:
    assert legal(items) == [items[place] for place in kept]


def test_w04_an_output_is_no_orphan_where_the_chain_holds_its_call() -> None:
    """The check looks at the whole chain; each call of it is answered once."""
    chain = [("function_call", "a")]
    assert legal([output("a"), user()], chain) == [output("a"), user()]
    assert legal([output("a"), output("a")], chain) == [output("a")]
    assert legal([output("b"), user()], chain) == [user()]


@given(st.lists(st.sampled_from(["a", "b"]).map(called) | st.sampled_from(["a", "b"]).map(output)))
def test_pairing_is_stable(items: list[JsonObject]) -> None:
    once = legal(items)
    assert legal(once) == once


def test_an_edited_item_is_not_what_the_provider_made() -> None:
    found = without_identity(said("m"))
    assert "id" not in found and "status" not in found
    assert legal([thought("r"), found]) == [found]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({}, "this one has only nothing"),
        ({"content": "x", "b": 1}, "this one has only b, content"),
        ({"type": "message", "content": "x"}, 'a message needs a "role"'),
        ({"role": "user"}, "the message is empty"),
        ({"role": "user", "content": ""}, "the message is empty"),
        ({"role": "user", "content": []}, "the message is empty"),
        ({"type": "message", "role": "user", "content": None}, "the message is empty"),
        ({"type": "function_call_output", "output": "x"}, "needs the id of the call"),
    ],
)
def test_what_cannot_be_part_of_a_context(item: JsonObject, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        check(item)


@pytest.mark.parametrize(
    "item",
    [
        user(),
        said("m"),
        {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
        {"type": "something_new", "x": 1},
        output("c1"),
        {"type": "item_reference", "id": "msg_1"},
    ],
)
def test_what_can_be_part_of_a_context(item: JsonObject) -> None:
    check(item)
