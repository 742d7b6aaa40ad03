"""What is made fast is what the constructor makes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from turnlog import events as ev
from turnlog.index import Put, _put_of  # pyright: ignore[reportPrivateUsage]
from turnlog.item import Item, item_at
from turnlog.ports import Frame, frame_of
from turnlog.record import Recorded, _recorded  # pyright: ignore[reportPrivateUsage]
from turnlog.updates import Cursor, Delta, cursor_of, delta_of

LOGGED: dict[str, Any] = {
    "conversation": "c",
    "version": 1,
    "id": "evt_1",
    "tag": "conversation.configured",
    "schema": 1,
    "time": 5,
    "actor": "user",
    "turn": None,
    "epoch": None,
    "salt": b"s",
    "body": b"{}",
    "hash": b"h",
    "event": ev.ConversationConfigured(
        agent=None, model="m", instructions=None, tools=(), settings={}, fingerprint="f"
    ),
}
PAIRS: list[tuple[Any, Any]] = [
    (
        item_at("k", 3, {"type": "message"}, "resp_1"),
        Item(key="k", ordinal=3, raw={"type": "message"}, response="resp_1"),
    ),
    (
        frame_of("x", {"a": 1}, "ws_1", "left"),
        Frame(type="x", data={"a": 1}, connection="ws_1", lane="left"),
    ),
    (cursor_of(7, "a1", "p", 3, (("q", 2),)), Cursor(7, "a1", "p", 3, (("q", 2),))),
    (
        delta_of(Cursor(), {"x": 1}, "text.delta", "abc", "p", None),
        Delta(cursor=Cursor(), raw={"x": 1}, type="text.delta", delta="abc", part="p"),
    ),
    (
        _put_of(1, 2, 3, "k", "m", None, "r"),
        Put(version=1, ordinal=2, item_version=3, key="k", item_id="m", call_id=None, response="r"),
    ),
    (_recorded(*LOGGED.values(), None), Recorded(**LOGGED)),
]


@pytest.mark.parametrize(
    ("made", "constructed"), PAIRS, ids=[type(two).__name__ for _, two in PAIRS]
)
def test_what_is_made_is_what_the_constructor_makes(made: Any, constructed: Any) -> None:
    assert type(made) is type(constructed)
    assert made == constructed
    assert repr(made) == repr(constructed)
    assert dataclasses.asdict(made) == dataclasses.asdict(constructed)
    name = dataclasses.fields(made)[0].name
    assert dataclasses.replace(made, **{name: "other"}) != made
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, "other")
    with pytest.raises((AttributeError, TypeError)):
        made.something_else = 1
