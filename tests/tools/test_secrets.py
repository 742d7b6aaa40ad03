"""Secrets: the name in the log, the value on the wire, the mask over what is echoed (law 15)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from turnlog.canonical import Json
from turnlog.errors import ConfigurationError, InvalidInput
from turnlog.secrets import MASK, Secret, check_plain, mask, to_log, to_wire, values_in

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
json_values = st.recursive(
    scalars.filter(lambda value: value not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNLOG_TEST_TOKEN", 'sk-"live"-1')
    monkeypatch.delenv("TURNLOG_TEST_UNSET", raising=False)


TOKEN = Secret("env:TURNLOG_TEST_TOKEN")
LOGGED = {"$secret": "env:TURNLOG_TEST_TOKEN"}


class Reference(BaseModel):
    model: str
    size: int = 3


def test_a_secret_never_shows_its_value() -> None:
    for shown in (repr(TOKEN), str(TOKEN), f"{TOKEN}", f"{[TOKEN]}"):
        assert "live" not in shown
        assert "TURNLOG_TEST_TOKEN" in shown
    assert TOKEN.reveal() == 'sk-"live"-1'
    assert Secret("env:TURNLOG_TEST_TOKEN") == TOKEN


@pytest.mark.parametrize("reference", ["sk-live-value", "env:", "env:1A", "file:/x", "env:A B", ""])
def test_only_the_name_of_a_variable_is_accepted_and_it_is_not_repeated(reference: str) -> None:
    with pytest.raises(ConfigurationError, match="env:NAME") as caught:
        Secret(reference)
    assert "sk-live-value" not in str(caught.value)


def test_an_unset_variable_is_named() -> None:
    with pytest.raises(ConfigurationError, match="TURNLOG_TEST_UNSET"):
        to_wire(to_log(Secret("env:TURNLOG_TEST_UNSET")))


def test_the_log_holds_names_and_the_wire_values() -> None:
    definition = {"type": "mcp", "authorization": TOKEN, "headers": ({"a": TOKEN}, 1, 1.5, None)}
    logged = to_log(definition)
    assert logged == {
        "type": "mcp",
        "authorization": LOGGED,
        "headers": [{"a": LOGGED}, 1, 1.5, None],
    }
    value = TOKEN.reveal()
    wire = {"type": "mcp", "authorization": value, "headers": [{"a": value}, 1, 1.5, None]}
    assert to_wire(logged) == wire
    assert values_in(logged) == {value}


def test_what_holds_no_secret_is_handed_back_as_it_is() -> None:
    logged = to_log({"type": "function", "parameters": {"required": ["a"]}})
    assert to_wire(logged) is logged


def test_an_object_that_resembles_a_secret_is_data() -> None:
    data: Json = [{"$secret": 1}, {"$secret": "x"}, {"$secret": "env:A", "more": 1}]
    assert to_wire(data) == data


def test_a_secret_that_cannot_be_looked_up_has_nothing_to_mask() -> None:
    assert values_in([{"$secret": "env:TURNLOG_TEST_UNSET"}, 1]) == frozenset()


def test_models_become_what_was_set_in_them() -> None:
    assert to_log([Reference(model="m")]) == [{"model": "m"}]


@pytest.mark.parametrize("value", [object(), {1: "x"}, {"x": {1, 2}}, float("nan"), b"x"])
def test_what_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="JSON"):
        to_log(value)


def test_what_holds_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(InvalidInput, match="nested"):
        to_log(endless)


def test_the_log_form_shares_nothing_with_the_value() -> None:
    inner: list[object] = [1]
    logged = to_log({"a": inner})
    inner.append(2)
    assert logged == {"a": [1]}


def test_masking_finds_values_in_text_keys_and_quoted_json() -> None:
    value = TOKEN.reveal()
    echoed: Json = {"error": f"bad {value}!", value: [json.dumps({"a": value}), 1, None]}
    assert mask(echoed, {value, ""}) == {
        "error": f"bad {MASK}!",
        MASK: [json.dumps({"a": MASK}), 1, None],
    }
    assert mask("abcd ab", {"ab", "abc"}) == f"{MASK}d {MASK}"
    assert mask(("kept",), ()) == ("kept",)


@given(json_values)
def test_plain_json_passes_unchanged(value: Json) -> None:
    logged = to_log(value)
    assert logged == value
    assert to_wire(logged) == value
    assert mask(value, ()) == value


@given(json_values, st.integers(0, 2))
def test_a_value_that_went_out_is_masked_wherever_it_comes_back(value: Json, depth: int) -> None:
    sent: Json = {"authorization": LOGGED, "rest": value}
    for _ in range(depth):
        sent = [sent, LOGGED]
    secret = TOKEN.reveal()
    back = mask(to_wire(sent), values_in(sent))
    assert secret not in json.dumps(back) and json.dumps(secret)[1:-1] not in json.dumps(back)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"authorization": "sk-live"}, "authorization"),
        ({"headers": {"X-Key": "sk-live"}}, "X-Key"),
        ({"headers": "sk-live"}, "headers"),
        ({"authorization": {"token": "sk-live"}}, "authorization"),
    ],
)
def test_a_secret_in_plain_text_is_refused(fields: dict[str, object], place: str) -> None:
    with pytest.raises(ConfigurationError, match=place) as caught:
        check_plain({"type": "mcp", "server_label": "crm", **fields})
    assert "crm" in str(caught.value) and "Secret" in str(caught.value)
    assert "sk-live" not in str(caught.value)


def test_secrets_in_an_mcp_tool_are_accepted_as_values_and_as_logged() -> None:
    check_plain({"type": "mcp", "authorization": TOKEN, "headers": {"a": TOKEN, "b": LOGGED}})
    check_plain({"type": "mcp", "authorization": LOGGED, "headers": LOGGED})
    check_plain({"type": "mcp", "server_label": "open"})
    check_plain({"type": "web_search", "authorization": "not looked at"})
