"""Settings: three layers, one body, and the shapes of a tool choice."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseCreateParams

from turnlog.canonical import Json, JsonObject, dumps
from turnlog.errors import InvalidInput
from turnlog.ports import Profile
from turnlog.secrets import Secret, to_wire
from turnlog.settings import (
    Settings,
    check_supported,
    checked,
    fingerprint,
    merge,
    request_fields,
    tool_choice,
    with_format,
)
from turnlog.tools import tool
from turnlog.toolset import bind


def refund(order: str) -> str:
    """Pay an order back."""
    return order


TOOLS = bind(
    [
        refund,
        {"type": "custom", "name": "query"},
        {"type": "mcp", "server_label": "crm", "server_url": "https://x/mcp"},
        {"type": "web_search"},
    ]
).definitions()

values = st.sampled_from([None, 0, 1.5, "a", True])
bags = st.dictionaries(st.sampled_from(["p", "q", "r"]), values, max_size=3) | st.none()
layers = st.fixed_dictionaries(
    {},
    optional={
        "temperature": values,
        "store": values,
        "user": values,
        "metadata": st.just({"a": None}) | st.none(),
        "reasoning": bags,
        "extra": bags,
    },
)


# -- layers --------------------------------------------------------------------------------


def test_w63_the_call_wins() -> None:
    agent: Settings = {"temperature": 0.1, "top_p": 0.5, "store": True}
    conversation: Settings = {"temperature": 0.2, "store": False}
    turn: Settings = {"temperature": 0.3}
    assert merge(agent, conversation, turn) == {"temperature": 0.3, "top_p": 0.5, "store": False}


def test_w64_unset_is_absent() -> None:
    agent: Settings = {"temperature": 1, "user": None, "reasoning": {"effort": "low"}}
    turn: Settings = {"temperature": None, "reasoning": {"effort": None}, "extra": {"x": None}}
    assert merge(agent) == {"temperature": 1, "reasoning": {"effort": "low"}}
    assert merge(agent, turn) == {}
    assert request_fields(merge(agent, turn), ()) == {}
    assert merge({"reasoning": {"effort": None, "summary": "auto"}}) == {
        "reasoning": {"summary": "auto"}
    }


def test_w64_a_null_that_means_something_stays() -> None:
    schema: JsonObject = {"enum": [None, "a"], "default": None}
    asked = {"text": {"format": {"schema": schema}}, "metadata": {"a": None}}
    assert merge(asked) == {"text": {"format": {"schema": schema}}, "metadata": {"a": None}}


def test_bags_are_merged_option_by_option() -> None:
    agent: Settings = {"text": {"format": {"type": "json_object"}}, "extra": {"a": 1, "b": 1}}
    turn: Settings = {"text": {"verbosity": "low"}, "extra": {"b": None, "c": 2}}
    assert merge(agent, turn) == {
        "extra": {"a": 1, "c": 2},
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
    }
    assert merge(agent, {"extra": None}, turn)["extra"] == {"c": 2}


@given(layers, layers, layers)
def test_merging_step_by_step_is_merging_at_once(
    a: dict[str, Json], b: dict[str, Json], c: dict[str, Json]
) -> None:
    assert merge(merge(a, b), c) == merge(a, b, c)
    assert merge(merge(a, b)) == merge(a, b) == merge(a, b, {}) == merge({}, a, b)
    assert merge(a, a) == merge(a)


@given(layers, layers)
def test_the_later_layer_wins_wherever_it_says_something(
    earlier: dict[str, Json], later: dict[str, Json]
) -> None:
    found = merge(earlier, later)
    for name, value in later.items():
        if name not in ("reasoning", "extra"):
            assert found.get(name) == value
    for name in earlier.keys() - later.keys():
        assert found.get(name) == merge(earlier).get(name)
    assert list(found) == sorted(found) and None not in found.values()
    assert merge(dict(reversed(earlier.items())), later) == found


def test_a_layer_is_kept_as_json_with_what_it_removes() -> None:
    layer = checked({"include": ("a",), "user": None, "tool_choice": tool(refund)})
    assert layer == {"include": ["a"], "user": None, "tool_choice": "refund"}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temprature", "did you mean 'temperature'"),
        ("zzz", "extra="),
        ("model", "the agent's model="),
        ("input", "what the conversation holds"),
    ],
)
def test_a_setting_that_does_not_exist_is_named_with_what_to_do(name: str, hint: str) -> None:
    with pytest.raises(InvalidInput, match=hint) as caught:
        merge({name: 1})
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["previous_response_id", "stream", "input", "temperature"])
def test_extra_cannot_write_what_is_not_its_own(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"extra= cannot hold '{name}'"):
        checked({"extra": {name: 1}})


def test_a_bag_is_a_dict() -> None:
    for name in ("extra", "reasoning", "text"):
        with pytest.raises(InvalidInput, match=f"{name}= is a dict"):
            merge({name: "high"})


def test_a_format_is_added_to_what_text_holds() -> None:
    assert with_format({"text": {"verbosity": "low"}, "user": "u"}, {"type": "text"}) == {
        "text": {"verbosity": "low", "format": {"type": "text"}},
        "user": "u",
    }


# -- the body ------------------------------------------------------------------------------


def test_w67_every_field_of_a_request_is_a_setting_and_a_bag_of_extras_remains() -> None:
    owned = {"model", "instructions", "tools", "input", "previous_response_id", "conversation"}
    later = {"background", "background_options", "stream", "stream_options"}
    rare = {"access_programs", "image", "moderation", "prompt"}
    offered = set(ResponseCreateParams.__args__[0].__annotations__) - {"stream"}  # type: ignore[attr-defined]
    assert offered - owned - later - rare <= set(Settings.__annotations__)
    fields = request_fields({"extra": {"moderation": {"model": "m"}}, "truncation": "auto"}, ())
    assert fields == {"moderation": {"model": "m"}, "truncation": "auto"}


def test_tools_go_out_with_every_request_and_secrets_stay_names() -> None:
    assert request_fields({"user": "u"}, TOOLS) == {"user": "u", "tools": list(TOOLS)}
    assert "tools" not in request_fields({}, ())


def test_secrets_in_extra_reach_the_wire_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNLOG_TEST_TOKEN", "sk-live")
    fields = request_fields({"extra": {"gateway": {"key": Secret("env:TURNLOG_TEST_TOKEN")}}}, ())
    assert b"sk-live" not in dumps(fields)
    assert to_wire(fields) == {"gateway": {"key": "sk-live"}}


# -- the tool choice -----------------------------------------------------------------------

FLAT: JsonObject = {"type": "function", "name": "refund"}
NESTED: JsonObject = {"type": "function", "function": {"name": "refund"}}


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("refund", FLAT),
        (tool(refund), FLAT),
        (FLAT, FLAT),
        (NESTED, FLAT),
        ("query", {"type": "custom", "name": "query"}),
        ({"type": "custom", "custom": {"name": "query"}}, {"type": "custom", "name": "query"}),
        ("crm", {"type": "mcp", "server_label": "crm"}),
        ("web_search", {"type": "web_search"}),
        ({"type": "web_search"}, {"type": "web_search"}),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NESTED]}},
            {"type": "allowed_tools", "mode": "auto", "tools": [FLAT]},
        ),
    ],
)
def test_w60_a_tool_choice_of_any_shape_is_sent_flat(choice: object, sent: Json) -> None:
    fields = request_fields({"tool_choice": choice}, TOOLS)
    assert fields["tool_choice"] == sent


@pytest.mark.parametrize("choice", ["required", "refund", FLAT, NESTED, {"type": "web_search"}])
def test_w61_a_tool_choice_without_tools_is_an_error(choice: object) -> None:
    with pytest.raises(InvalidInput, match="needs tools, and there are none"):
        request_fields({"tool_choice": choice}, ())


def test_w61_what_needs_no_tools_is_sent_without_them() -> None:
    assert request_fields({"tool_choice": "none"}, ()) == {"tool_choice": "none"}


@pytest.mark.parametrize(
    ("choice", "fix"),
    [
        ("refnd", "it has refund, query, crm, web_search"),
        ({"type": "function", "name": "x"}, "'x', which is no tool"),
        ({"type": "function"}, "no tool"),
        ({"name": "refund"}, 'object with a "type"'),
        (7, "not 7"),
    ],
)
def test_a_tool_choice_that_names_nothing(choice: Json, fix: str) -> None:
    with pytest.raises(InvalidInput, match=fix):
        tool_choice(choice, TOOLS)


# -- providers and fingerprints ------------------------------------------------------------


def test_what_a_provider_does_not_take_is_named() -> None:
    narrow = Profile(name="narrow", unsupported=frozenset({"truncation"}))
    with pytest.raises(InvalidInput, match="narrow does not take 'truncation'"):
        check_supported({"model": "m", "truncation": "auto"}, narrow)
    check_supported({"model": "m"}, narrow)


def test_a_fingerprint_tells_configurations_apart() -> None:
    base = fingerprint("a", "m", "Be brief.", TOOLS, {"user": "u", "store": True})
    assert base == fingerprint("a", "m", "Be brief.", TOOLS, {"store": True, "user": "u"})
    assert len(base) == 64
    others = {
        fingerprint(None, "m", "Be brief.", TOOLS, {}),
        fingerprint("a", None, "Be brief.", TOOLS, {}),
        fingerprint("a", "m", None, TOOLS, {}),
        fingerprint("a", "m", "Be brief.", (), {}),
        fingerprint("a", "m", "Be brief.", TOOLS, {}),
    }
    assert len(others | {base}) == 6


def test_settings_are_typed() -> None:
    settings: Settings = {"reasoning": {"effort": "low"}, "include": ["a"], "extra": {}}
    assert merge(cast("dict[str, object]", settings)) == {
        "include": ["a"],
        "reasoning": {"effort": "low"},
    }
