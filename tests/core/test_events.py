"""The events themselves: frozen, closed, and named in the past tense."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import Any, cast, get_args

import pytest

from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.errors import (
    Busy,
    ConfigurationError,
    IdempotencyMismatch,
    ImportFailed,
    InvalidInput,
    NotFound,
    NotSent,
    OutputInvalid,
    RequestOpen,
    TurnFailed,
    TurnlogError,
    VersionConflict,
    Waiting,
)
from turnlog.events import OUTCOMES, TAGS, tag_of
from turnlog.state import State

from .golden_log import full_event


def test_the_union_and_the_table_are_the_same() -> None:
    assert set(get_args(ev.Event)) == set(TAGS.values())
    assert {tag_of(full_event(tag)) for tag in TAGS} == set(TAGS)


def test_every_outcome_is_one_of_six() -> None:
    assert [tag for tag, kind in TAGS.items() if kind in OUTCOMES] == [
        f"response.{how}"
        for how in ("completed", "incomplete", "failed", "rejected", "interrupted", "unknown")
    ]


@pytest.mark.parametrize("tag", TAGS)
def test_an_event_is_a_frozen_value_without_behaviour(tag: str) -> None:
    event = full_event(tag)
    name = fields(event)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(event, name, None)
    assert event == full_event(tag)
    public = {name for name in dir(event) if not name.startswith("_")}
    assert public == {one.name for one in fields(event)}
    assert "extra" in public


@pytest.mark.parametrize("tag", TAGS)
def test_an_event_knows_nothing_of_storage(tag: str) -> None:
    """The envelope has these; the id of `conversation.started` is the conversation's own."""
    names = {one.name for one in fields(TAGS[tag])}
    assert not names & {"version", "time", "actor", "turn", "epoch", "salt", "hash", "position"}
    assert all(is_dataclass(kind) for kind in TAGS.values())


def test_the_tables_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        cast(Any, TAGS)["x"] = ev.ItemAdded


def test_default_objects_are_not_shared() -> None:
    one, other = ev.ConversationStarted(id="a"), ev.ConversationStarted(id="b")
    empty: list[JsonObject] = [one.metadata, other.metadata, one.extra, other.extra]
    assert len({id(value) for value in empty}) == 4
    assert State(id="a").metadata is not State(id="b").metadata


def test_errors_carry_what_a_program_needs() -> None:
    """The message names the thing; the attributes are for programs."""
    assert Busy("x", turn="t").turn == Waiting("x", turn="t").turn == "t"
    assert RequestOpen("x", nearest=4).nearest == 4
    assert IdempotencyMismatch("x", turn="t").turn == "t"
    conflict = VersionConflict("c", expected=3, actual=5)
    assert (conflict.conversation, conflict.expected, conflict.actual) == ("c", 3, 5)
    assert str(conflict) == "conversation 'c' is at version 5, not 3: read it again and retry"
    assert (str(ImportFailed("bad", line=3)), ImportFailed("bad", line=3).line) == (
        "line 3: bad",
        3,
    )
    assert (str(ImportFailed("bad")), ImportFailed("bad").line) == ("bad", None)
    assert NotSent("x", status=403).status == 403
    failed = TurnFailed("x", result=1, code="c", status=500)
    assert (failed.result, failed.code, failed.status) == (1, "c", 500)
    assert OutputInvalid("x", text="said").text == "said"


def test_errors_are_also_what_python_calls_them() -> None:
    assert issubclass(InvalidInput, ValueError)
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(NotFound, LookupError)
    assert issubclass(NotFound, TurnlogError)
