"""The head as bytes, and back.

The one rule: a stored head is a hint. One of another format, damaged, or not of the version and
hash that the log has is folded again from the log (law 2).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, NamedTuple, TypeVar, cast

from pydantic_core import from_json as read_json

from .. import events as ev
from ..canonical import dumps, loads
from ..errors import InvalidInput
from ..record import from_json, to_json
from ..state import (
    FORMAT,
    Attempt,
    Call,
    Config,
    Edit,
    Outcome,
    Output,
    Parent,
    Queued,
    Run,
    State,
    Turn,
)

T = TypeVar("T")


def pack(state: State) -> bytes:
    """The canonical JSON of a state."""
    return dumps(to_json(state))


def unpack(data: bytes, format: int, *, version: int) -> State | None:
    """The state again, or None where it must be folded from the log."""
    if format != FORMAT:
        return None
    try:
        state = _read(State, _json(data))
    except InvalidInput:
        return None
    return state if state.version == version else None


def _json(data: bytes) -> Any:
    """The JSON of a head: canonical, so that the strict reader is needed for rare texts only."""
    try:
        return read_json(data, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return loads(data)


# -- reading by shapes ---------------------------------------------------------------------

PARTS: Mapping[type, Mapping[str, type[Any]]] = {
    State: {
        "fork": ev.Fork,
        "config": Config,
        "tail": Run,
        "parent": Parent,
        "edits": Edit,
        "turn": Turn,
        "queued": Queued,
        "attempt": Attempt,
        "calls": Call,
        "claims": Output,
    },
    Attempt: {"outputs": Output},
    Turn: {"last": Outcome},
}
"""Which fields of the head hold a value of the head, or several."""

WORDS: Mapping[type, tuple[str, ...]] = {
    Attempt: ("cause", "kind"),
    Call: ("status",),
    Outcome: ("kind", "cause"),
    Turn: ("cancel",),
}
"""Which fields hold one of a few words."""


class _Shape(NamedTuple):
    """What to do with the JSON of one shape: fields that were left out, and those to be read."""

    absent: dict[str, None]
    parts: list[tuple[str, type[Any]]]
    several: list[tuple[str, type[Any]]]


class _Kind:
    """A class of the head, and the shapes of its JSON that were read strictly."""

    def __init__(self, kind: type) -> None:
        self.words = WORDS.get(kind, ())
        self._parts = PARTS.get(kind, {}).items()
        self._names = {one.name for one in fields(kind)}
        self._needed = [
            one.name
            for one in fields(kind)
            if one.default is MISSING and one.default_factory is MISSING
        ]
        self.shapes: dict[Hashable, _Shape] = {}

    def learn(self, shape: Hashable, found: Mapping[str, object]) -> None:
        """Take note of a shape, unless it has fields that only a newer turnlog knows."""
        if found.keys() <= self._names:
            self.shapes[shape] = _Shape(
                # None was left out, and what has a default may have been.
                absent={name: None for name in self._needed if name not in found},
                parts=[one for one in self._parts if type(found.get(one[0])) is dict],
                several=[one for one in self._parts if type(found.get(one[0])) is list],
            )


_kind = cast("Callable[[type], _Kind]", cache(_Kind))


def _read(kind: type[T], value: Any) -> T:
    """What `record.from_json` makes of it, in 10 µs where that takes 29.

    The names and types of what it holds, and its few words, are its shape. The first of a shape is
    read strictly; whatever has the shape of what could be read can be read as well.
    """
    if type(value) is not dict:
        raise InvalidInput(f"{kind.__name__} is not an object")
    found, known = cast("dict[str, Any]", value), _kind(kind)
    shape = (*found, *map(type, found.values()), *map(str, map(found.get, known.words)))
    plan = known.shapes.get(shape)
    if plan is None:
        made = from_json(kind, found)
        known.learn(shape, found)
        return made
    found.update(plan.absent)
    for name, part in plan.parts:
        found[name] = _read(part, found[name])
    for name, part in plan.several:
        some: list[Any] = found[name]
        found[name] = tuple([_read(part, one) for one in some]) if some else ()
    return kind(**found)
