"""The envelope and the codec: what was hashed is what is stored, and unknown fields survive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlog import events as ev
from turnlog.canonical import GENESIS, Json, JsonObject, dumps, loads_object
from turnlog.errors import InvalidInput, StoreCorrupt
from turnlog.events import SCHEMA, TAGS, tag_of
from turnlog.record import (
    NewEvent,
    Stamp,
    decode,
    encode,
    first_broken,
    from_json,
    record,
    to_json,
)

from .golden_log import full_event
from .story import Story, exchange, user
from .strategies import json_objects


def stamp(count: int, epoch: int | None = 3) -> Stamp:
    return Stamp(
        time=5,
        actor="ana",
        epoch=epoch,
        ids=[f"e{n}" for n in range(count)],
        salts=[bytes([n]) * 16 for n in range(count)],
    )


def test_events_get_versions_ids_and_a_chain() -> None:
    new = [
        NewEvent(event=ev.TurnPaused(reason="approval"), turn="t1"),
        NewEvent(event=ev.ItemRemoved(key="k", ordinal=0)),
    ]
    first, second = record("c", 7, b"\1" * 32, new, stamp(2))
    assert (first.version, first.id, first.tag, first.turn, first.epoch) == (
        8,
        "e0",
        "turn.paused",
        "t1",
        3,
    )
    assert (second.version, second.turn, second.epoch) == (9, None, None)
    assert second.hash == second.expected_hash(first.hash)
    assert first_broken([first, second], b"\1" * 32) is None
    assert first_broken([first, second], GENESIS) is first
    assert first_broken([]) is None


def test_every_event_needs_an_id_and_a_salt() -> None:
    with pytest.raises(ValueError, match="shorter"):
        record("c", 0, GENESIS, [NewEvent(event=ev.CallDeferred(call="x"))], stamp(0))


def test_what_is_not_json_is_never_recorded() -> None:
    bad = ev.ItemAdded(key="k", item=cast(JsonObject, {"n": float("nan")}))
    with pytest.raises(InvalidInput, match="not a JSON value"):
        record("c", 0, GENESIS, [NewEvent(event=bad)], stamp(1))


def test_erasing_a_body_changes_its_digest_and_nothing_else() -> None:
    """The chain binds the salted digest of the body, so that it can outlive the body."""
    one = exchange().events[2]
    assert replace(one, salt=b"x" * 16).body_digest() != one.body_digest()
    assert replace(one, event=ev.CallDeferred(call="x")).expected_hash(GENESIS) == (
        one.expected_hash(GENESIS)
    )


@given(st.sampled_from(sorted(TAGS)), json_objects, json_objects)
def test_decode_of_encode_is_the_event(tag: str, extra: JsonObject, item: JsonObject) -> None:
    """Unknown fields of a newer turnlog are kept, whatever they hold."""
    event = full_event(tag)
    names = set(loads_object(encode(replace(event, extra={}))))
    event = replace(event, extra={k: v for k, v in extra.items() if k not in names})
    if isinstance(event, (ev.ItemAdded, ev.OutputRecorded, ev.CallAnswered)):
        event = replace(event, item=item)
    body = encode(event)
    read = decode(tag, SCHEMA, body)
    assert tag_of(read) == tag
    assert encode(read) == body
    assert decode(tag, SCHEMA, encode(read)) == read


def test_absent_fields_are_left_out() -> None:
    assert encode(ev.TurnEnded(outcome="completed")) == b'{"outcome":"completed"}'
    body = encode(ev.ConversationStarted(id="c"))
    assert body == b'{"id":"c","metadata":{}}'


def test_nested_values_keep_what_a_newer_turnlog_wrote() -> None:
    body = b'{"id":"c","metadata":{},"fork":{"conversation":"a","version":2,"hash":"h","why":[1]}}'
    read = decode("conversation.started", 1, body)
    assert isinstance(read, ev.ConversationStarted) and read.fork is not None
    assert read.fork.extra == {"why": [1]}
    assert encode(read) == body


@pytest.mark.parametrize(
    ("tag", "body", "reason"),
    [
        ("call.dreamt", b"{}", "unknown event tag 'call.dreamt'"),
        ("call.deferred", b"{}", "lacks call"),
        ("call.deferred", b"[]", "a JSON object is needed"),
        ("call.deferred", b"{", "not readable"),
        ("call.deferred", b'{"call":1}', "1 is not str"),
        ("call.started", b'{"call":"c","run":true}', "True is not int"),
        ("call.started", b'{"call":"c","run":1.0}', "1.0 is not int"),
        ("call.progressed", b'{"call":"c","data":[]}', "is not dict"),
        ("turn.ended", b'{"outcome":"won"}', "'won' is not one of completed"),
        ("turn.ended", b'{"outcome":["completed"]}', "is not one of"),
        ("turn.paused", b'{"reason":"x","calls":"c"}', "'c' is not a list"),
        ("turn.paused", b'{"reason":"x","calls":[1]}', "1 is not str"),
        ("conversation.started", b'{"id":"c","fork":[]}', "Fork is not an object"),
        ("conversation.started", b'{"id":"c","fork":{"hash":"h"}}', "Fork lacks"),
    ],
)
def test_a_body_that_does_not_fit_is_corrupt(tag: str, body: bytes, reason: str) -> None:
    with pytest.raises(StoreCorrupt, match=reason):
        decode(tag, 1, body)


def test_a_newer_schema_is_not_guessed_at() -> None:
    with pytest.raises(StoreCorrupt, match="schema 2 is unknown: a newer turnlog"):
        decode("call.deferred", 2, b'{"call":"c"}')


def test_old_bodies_are_lifted_by_small_steps() -> None:
    def named(body: JsonObject) -> JsonObject:
        return {"id": body["name"]}

    def renamed(body: JsonObject) -> JsonObject:
        return {"call": body["id"]}

    upcasts = {("call.deferred", -1): named, ("call.deferred", 0): renamed}
    assert decode("call.deferred", -1, b'{"name":"c"}', upcasts) == ev.CallDeferred(call="c")
    assert decode("call.deferred", 0, b'{"id":"c"}', upcasts) == ev.CallDeferred(call="c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    must: int
    may: str | None
    also: tuple[str, ...] = ()


def test_an_absent_field_is_none_whether_or_not_it_has_a_default() -> None:
    value = Sample(must=1, may=None)
    assert to_json(value) == {"must": 1, "also": []}
    assert from_json(Sample, {"must": 1, "also": [], "later": 2}) == value
    with pytest.raises(InvalidInput, match="Sample lacks must"):
        from_json(Sample, {})
    with pytest.raises(InvalidInput, match="Sample is not an object"):
        from_json(Sample, cast(Json, []))


def test_a_recorded_event_is_a_value() -> None:
    one = Story().add(user()).events[0]
    with pytest.raises(AttributeError):
        cast(Any, one).version = 2
    assert dumps({}) == b"{}"
