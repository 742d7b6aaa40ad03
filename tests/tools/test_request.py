"""The body of a request: its order and bytes, and where its secrets are (laws 9 and 15)."""

from __future__ import annotations

from hashlib import sha256

import pytest

from turnlog import events as ev
from turnlog.canonical import Json, JsonObject, dumps
from turnlog.plan import Delta, Full
from turnlog.ports import Profile
from turnlog.request import body, revealed, sealed
from turnlog.state import Parent

PLAIN: JsonObject = {"type": "function", "name": "look_up", "parameters": {"type": "object"}}
NAMED: JsonObject = {
    "type": "mcp",
    "server_label": "shop",
    "authorization": {"$secret": "env:TURNLOG_TEST_TOKEN"},
}
SAID: JsonObject = {"role": "user", "content": 'Hi, {"$secret":"env:TURNLOG_TEST_TOKEN"}'}
ASKED: JsonObject = {"$secret": "env:TURNLOG_TEST_TOKEN"}
PARENT = Parent(response="resp_1", end=2, version=9, time=0, store=True, transport="replay")


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNLOG_TEST_TOKEN", "sk-live")


def built(*tools: JsonObject, parent: Parent | None = None) -> JsonObject:
    config = ev.ConversationConfigured(
        agent="a",
        model="m",
        instructions="Be brief.",
        tools=tools,
        settings={"temperature": 0.5, "extra": {"gateway": ASKED}},
        fingerprint="f",
    )
    plan = Full(ranges=(), why="") if parent is None else Delta(parent=parent, ranges=())
    return body(config, {"top_p": 1.0}, [SAID], plan, Profile(name="p"))


def test_the_order_of_the_fields_is_pinned() -> None:
    assert list(built(PLAIN, parent=PARENT)) == [
        *("model", "instructions", "input", "previous_response_id", "tools"),
        *("temperature", "top_p", "gateway"),
    ]
    assert "tools" not in built()


@pytest.mark.parametrize("tools", [(), (PLAIN,), (PLAIN, NAMED)])
def test_a_digest_is_that_of_the_canonical_bytes_with_secrets_by_name(
    tools: tuple[JsonObject, ...],
) -> None:
    found = built(*tools)
    raw = dumps({name: [*one] if isinstance(one, list) else one for name, one in found.items()})
    assert sealed(found) == (sha256(raw).hexdigest(), len(raw))
    assert b"sk-live" not in raw
    assert sealed(found) == sealed(built(*tools))


def test_secrets_go_out_with_tools_and_settings_and_never_with_what_is_said() -> None:
    named = built(PLAIN, NAMED)
    sent = revealed(named)
    tools: Json = [PLAIN, {**NAMED, "authorization": "sk-live"}]
    assert sent == {**named, "tools": tools, "gateway": "sk-live"}
    assert sent["input"] is named["input"]


def test_tools_without_a_secret_go_out_as_they_are() -> None:
    """They keep their bytes, which are encoded once (law 9)."""
    found = built(PLAIN)
    assert revealed(found)["tools"] is found["tools"]
