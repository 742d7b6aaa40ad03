"""The head as bytes, and back.

The one rule: a stored head is a hint. One of another format, damaged, or not of the version and
hash that the log has is folded again from the log (law 2).
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic_core import (
    CoreSchema,
    PydanticSerializationError,
    SchemaSerializer,
    SchemaValidator,
    ValidationError,
)
from pydantic_core import core_schema as core

from ..canonical import dumps, loads
from ..errors import InvalidInput
from ..record import from_json, to_json
from ..state import FORMAT, State


def pack(state: State) -> bytes:
    """The canonical JSON of a state."""
    return _written(state) or dumps(to_json(state))


def _written(state: State) -> bytes | None:
    """The same from pydantic's serializer, in 3 µs and not 13 to 19, where nothing is odd.

    That is where metadata is text, and where nothing of a newer turnlog may stand in a fork.
    """
    plain = all(type(name) is type(value) is str for name, value in state.metadata.items())
    if state.fork is not None or not plain:
        return None
    try:
        return _serializer().to_json(state, exclude_none=True, warnings="none")
    except PydanticSerializationError:  # half of a surrogate pair
        return None


def unpack(data: bytes, format: int, *, version: int) -> State | None:
    """The state again, or None where it must be folded from the log."""
    if format != FORMAT:
        return None
    try:
        state = _read(data)
    except InvalidInput:
        return None
    return state if state.version == version else None


def _read(data: bytes) -> State:
    """What `record.from_json` makes of it, in 6 µs where that and the strict reader take 30.

    What this one refuses, they have a look at: half of a surrogate pair, a field of a newer
    turnlog. It would take words in metadata for numbers that are none.
    """
    try:
        if b"NaN" not in data and b"Infinity" not in data:
            state: State = _validator().validate_json(data)
            return state
    except ValidationError:
        pass
    return from_json(State, loads(data))


@cache
def _serializer() -> SchemaSerializer:
    return SchemaSerializer(_class(State))


@cache
def _validator() -> SchemaValidator:
    return SchemaValidator(_class(State))


def _class(kind: Any) -> CoreSchema:
    """How pydantic is to read a class of the head; each type is exactly what it says."""
    hints = get_type_hints(kind, localns={"Sequence": Sequence, "Mapping": Mapping})
    arguments = [
        core.dataclass_field(
            one.name,
            _or_default(one, hints[one.name]),
            kw_only=True,
            init=one.name != "extra",  # what a newer turnlog wrote, which `from_json` puts there
        )
        for one in fields(kind)
    ]
    return core.dataclass_schema(
        kind,
        core.dataclass_args_schema(kind.__name__, arguments),
        [one.name for one in fields(kind)],
        strict=True,
        slots="__slots__" in vars(kind),
        config=core.CoreConfig(extra_fields_behavior="forbid", cache_strings="keys"),
    )


def _or_default(of: Field[Any], hint: Any) -> CoreSchema:
    """How to read a field, and what it is where it was left out: None always was."""
    if of.default_factory is not MISSING:
        return core.with_default_schema(_value(hint), default_factory=of.default_factory)
    if of.default is not MISSING or types.NoneType in get_args(hint):
        default = None if of.default is MISSING else of.default
        return core.with_default_schema(_value(hint), default=default)
    return _value(hint)


def _value(hint: Any) -> CoreSchema:
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return _class(hint)
    if origin is Literal:
        return core.literal_schema(list(arguments))
    if origin is tuple:
        return core.tuple_variable_schema(_value(arguments[0]))
    if origin in (Union, types.UnionType):
        (inner,) = (one for one in arguments if one is not types.NoneType)
        return _value(inner)
    plain: dict[Any, CoreSchema] = {
        str: core.str_schema(),
        int: core.int_schema(),
        bool: core.bool_schema(),
    }
    return plain.get(hint, core.dict_schema())
