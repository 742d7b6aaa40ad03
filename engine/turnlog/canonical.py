"""JSON as turnlog keeps it: one canonical form, strict reading, and the hashes over it.

The one rule: bytes that were hashed once are the same for ever. Canonical bytes are compact
UTF-8 with keys in the order received, integers exact, floats in their shortest form that
round-trips, and lone surrogates left escaped; duplicate keys, NaN and infinities are refused
(design section 3). Nothing here knows what the JSON means.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import TypeAlias, cast

from pydantic_core import PydanticSerializationError, from_json, to_json

from .errors import InvalidInput

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
JsonObject: TypeAlias = Mapping[str, Json]

HASH_TAG = b"turnlog1"
GENESIS = bytes(32)
DEEPEST = 512
"""How deep JSON may be nested, so that what was written can be read on any stack."""

_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def dumps(value: Json, *, deepest: int = DEEPEST) -> bytes:
    """The canonical bytes of a JSON value.

    Raises InvalidInput where the value is not JSON: NaN, an infinity, a key that is not text; and
    where it is nested deeper than `deepest`.
    """
    if deepest >= _SHALLOW and (plain := _plain(value)) is not None:
        return plain
    try:
        text = _encoder.encode(value)
        _check_keys(value)
        _check_depth(value, text, deepest)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"not a JSON value: {error}") from error
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # Halves of a pair that met when deltas were joined are one character, as any reader of
        # their escapes would have it; a half that is left alone is the same string as its escape.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return text.encode("utf-8", "backslashreplace")


_SHALLOW = 255
"""How deep pydantic's serializer goes at most."""

_LEAVES = frozenset({str, bool, type(None)})
_LONG = 2**64
_TINY, _HUGE = 1e-4, 1e15
"""Between these, floats are written without an exponent, and so by all in the same way."""


def _plain(value: Json) -> bytes | None:
    """The canonical bytes of what has nothing odd in it, else None.

    Nearly all JSON is such, and its bytes are the same whoever writes them: the serializer of
    pydantic takes 3 us for a message for which the standard library's takes 9.
    """
    try:
        written = to_json(value)  # first, since it also finds what holds itself
    except PydanticSerializationError:  # a lone surrogate, nested too deep, or no JSON at all
        return None
    rest: list[Json] = [value]
    for found in rest:  # which grows meanwhile
        kind = type(found)
        if kind is dict:
            entries = cast("dict[str, Json]", found)
            try:
                "".join(entries)  # at once a look whether all keys are text
            except TypeError:
                return None
            rest += entries.values()
        elif kind is list or kind is tuple:
            rest += cast("list[Json]", found)
        elif kind not in _LEAVES and not _is_plain_number(found):
            return None
    return written


def _is_plain_number(value: object) -> bool:
    """Whether a number is written in the same way by all who write JSON."""
    if type(value) is int:
        return -_LONG < value < _LONG
    return type(value) is float and (_TINY <= abs(value) < _HUGE or value == 0.0)


def _check_keys(value: Json) -> None:
    """Raise TypeError where a key is not text: the encoder would quietly make it text."""
    rest = [value]
    while rest:
        found = rest.pop()
        if isinstance(found, dict):
            for key in cast("dict[object, Json]", found):
                if not isinstance(key, str):
                    raise TypeError(f"the key {key!r:.40} is not text")
            rest += found.values()
        elif isinstance(found, (list, tuple)):
            rest += found


def loads(data: bytes | str, *, deepest: int = DEEPEST) -> Json:
    """Read JSON strictly.

    Raises InvalidInput for text that is not JSON, for duplicate keys, for numbers that no float
    holds, and for nesting deeper than `deepest`.
    """
    if deepest >= _SHALLOW and (found := _canonical(data)) is not None:
        return found[0]
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        value: Json = _decoder.decode(text)
        _check_depth(value, text, deepest)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not readable as JSON: {error}") from error
    return value


def _canonical(data: bytes | str) -> tuple[Json] | None:
    """The value of JSON that is in its canonical form already, as most is, else None.

    What is written back as the same bytes has no key twice, and no number that was rounded: 3 us
    for a message, for which the strict reader takes 8.
    """
    try:
        raw = data if isinstance(data, bytes) else data.encode()
        value: Json = from_json(raw, allow_inf_nan=False, cache_strings="keys")
        return (value,) if to_json(value) == raw else None
    except (ValueError, PydanticSerializationError):
        return None


def _check_depth(value: Json, text: str, deepest: int) -> None:
    """Raise ValueError where lists and objects stand in each other deeper than that."""
    if text.count("[") + text.count("{") <= deepest:
        return
    level = list(_boxes([value]))
    for _ in range(deepest):
        level = [inner for box in level for inner in _boxes(box)]
    if level:
        raise ValueError(f"nested deeper than {deepest}")


def _boxes(values: Sequence[Json] | JsonObject) -> Iterator[Sequence[Json] | JsonObject]:
    """The lists and objects that stand in one."""
    for value in values.values() if isinstance(values, Mapping) else values:
        if isinstance(value, (Mapping, list, tuple)):
            yield value


def loads_object(data: bytes | str, *, deepest: int = DEEPEST) -> JsonObject:
    """Read a JSON object strictly; raises InvalidInput for anything else."""
    value = loads(data, deepest=deepest)
    if not isinstance(value, Mapping):
        raise InvalidInput(f"a JSON object is needed, not {type(value).__name__}")
    return value


def digest(*parts: bytes) -> bytes:
    """SHA-256 over the parts, one after the other."""
    return sha256(b"".join(parts)).digest()


def chain(previous: bytes, fields: Sequence[str | int | bytes | None]) -> bytes:
    """The next hash of a chain: the tag, the previous hash, and each field with its length.

    A field is prefixed by four bytes of length, an integer stands in decimal, and an absent
    field is an explicit null, so that no two lists of fields share their bytes (design, section 3).
    """
    return chained(previous, *map(framed, fields))


def chained(previous: bytes, *frames: bytes) -> bytes:
    """The next hash of a chain, of fields that were `framed`: many events share some of them."""
    return sha256(b"".join((HASH_TAG, previous, *frames))).digest()


def framed(field: str | int | bytes | None) -> bytes:
    """A field as it is hashed in a chain."""
    if field is None:
        return _ABSENT
    raw = field if type(field) is bytes else str(field).encode("utf-8", "surrogatepass")
    return len(raw).to_bytes(4, "big") + raw


_ABSENT = b"\xff\xff\xff\xff"


# -- looking into JSON that somebody else wrote --------------------------------------------


def text(value: JsonObject, key: str) -> str | None:
    """The text under a key, or None where it is absent or something else."""
    found = value.get(key)
    return found if isinstance(found, str) else None


def integer(value: JsonObject, key: str) -> int | None:
    """The integer under a key, or None where it is absent or something else."""
    found = value.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def obj(value: JsonObject, key: str) -> JsonObject:
    """The object under a key, or an empty one where it is absent or something else."""
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def array(value: JsonObject, key: str) -> Sequence[Json]:
    """The list under a key, or an empty one where it is absent or something else."""
    found = value.get(key)
    return found if isinstance(found, (list, tuple)) else ()


def objects(value: JsonObject, key: str) -> list[JsonObject]:
    """The objects in the list under a key; whatever else is in it is left out."""
    return [entry for entry in array(value, key) if isinstance(entry, Mapping)]


# -- reading strictly ----------------------------------------------------------------------


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _finite(literal: str) -> float:
    number = float(literal)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {literal} is too large")
    return number


def _no_constant(literal: str) -> Json:
    raise ValueError(f"{literal} is not JSON")


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant
)
