"""A stored head is read fast, and as strictly as anything."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from turnlog import events as ev
from turnlog.canonical import dumps, loads
from turnlog.errors import InvalidInput
from turnlog.head import (
    FORMAT,
    Attempt,
    Call,
    Config,
    Edit,
    Outcome,
    Output,
    Parent,
    Queued,
    State,
    Turn,
)
from turnlog.record import from_json, to_json
from turnlog.store import heads
from turnlog.tail import Run

OUTPUT = Output(
    key="k", version=4, item_id=None, call_id="c", kind="function_call", name="n", client=True
)
OUTCOME = Outcome(kind="failed", attempt="a", cause="first", try_number=0, time=5, status=500)
FULL = State(
    id="c",
    version=9,
    metadata={"half": "\ud800", "deep": {"a": [1, 2.5, None, True]}},
    fork=ev.Fork(conversation="s", version=3, hash="00"),
    config=Config(version=2, fingerprint="f", agent="a"),
    tail=(Run(ordinal=1, version=2, count=3), Run(ordinal=5, version=9, count=1)),
    parent=Parent(response="r", end=4, version=8, time=1, store=False, transport="t", lane="l"),
    edits=(Edit(ordinal=3, version=4),),
    turn=Turn(id="t", key="k", digest="d", version=5, epoch=1, cancel="now", last=OUTCOME),
    queued=(Queued(id="q", key="k", digest="d", version=7),),
    attempt=Attempt(
        id="a", version=6, time=1, cause="retry", try_number=1, delay_ms=0, kind="full",
        parent=None, end=4, transport="t", store=True, model=None, outputs=(OUTPUT,),
    ),
    calls=(Call(id="x", item="k", version=4, call_id=None, kind="k", name=None, turn="t"),),
    claims=(OUTPUT,),
)  # fmt: skip
STATES = [State(id="c", version=9), FULL]


@pytest.mark.parametrize("state", STATES)
def test_a_head_is_read_as_it_was_written(state: State) -> None:
    assert heads.unpack(heads.pack(state), FORMAT, version=9) == state


PLAIN = replace(FULL, metadata={"who": 'Ána \u2028 \x7f " \\ \n'}, fork=None)


@pytest.mark.parametrize(
    "state",
    [
        *STATES,
        PLAIN,
        replace(PLAIN, parent=None, calls=()),
        replace(PLAIN, metadata={"none": None}),
        replace(PLAIN, metadata={"float": 1e16}),
        replace(PLAIN, metadata={"half": "\ud800"}),
        replace(PLAIN, metadata={1: "a"}),  # type: ignore[dict-item]
    ],
)
def test_a_head_is_canonical(state: State) -> None:
    try:
        canonical = dumps(to_json(state))
    except InvalidInput:
        with pytest.raises(InvalidInput):
            heads.pack(state)
    else:
        assert heads.pack(state) == canonical


def test_what_does_not_fit_is_folded_from_the_log() -> None:
    assert heads.unpack(heads.pack(FULL), FORMAT + 1, version=9) is None
    assert heads.unpack(heads.pack(FULL), FORMAT, version=8) is None
    for damaged in (b"", b"[]", b"7", b"{", b'{"id":"c","version":9,"metadata":{"a":NaN}}'):
        assert heads.unpack(damaged, FORMAT, version=9) is None


def test_a_head_with_fields_of_a_newer_turnlog_is_read_without_them() -> None:
    newer = heads.pack(State(id="c", version=9))[:-1] + b',"later":1}'
    assert heads.unpack(newer, FORMAT, version=9) == State(id="c", version=9)
    fork = heads.pack(FULL).replace(b'"hash":"00"', b'"hash":"00","later":1')
    state = heads.unpack(fork, FORMAT, version=9)
    assert state is not None and state.fork is not None and state.fork.extra == {"later": 1}


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value, as what it is in and where."""
    names: list[Any] = [*value] if isinstance(value, Mapping) else [*range(len(value))]
    yield from ((value, name) for name in names)
    for name in names:
        if isinstance(value[name], (dict, list)):
            yield from places(value[name])


@pytest.mark.parametrize(
    "wrong", [None, 7, "odd", [], ["x"], {}, True, 2.0, 2.5, 2**70, [{}], [[]]]
)
def test_damage_is_found_where_the_strict_reader_finds_it(wrong: object) -> None:
    good: Any = loads(dumps(loads(heads.pack(FULL))))
    count = sum(1 for _ in places(good))
    for place in range(count):
        heads.unpack(heads.pack(FULL), FORMAT, version=9)
        damaged = copy.deepcopy(good)
        inside, name = list(places(damaged))[place]
        inside[name] = wrong
        try:
            strict = from_json(State, copy.deepcopy(damaged))
        except InvalidInput:
            strict = None
        if strict is not None and strict.version != 9:
            strict = None
        assert heads.unpack(dumps(damaged), FORMAT, version=9) == strict
