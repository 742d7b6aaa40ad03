"""The canonical form: the same bytes for ever, and nothing read that cannot be written back."""

from __future__ import annotations

import json
import math
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turnlog.canonical import (
    DEEPEST,
    GENESIS,
    Json,
    array,
    chain,
    digest,
    dumps,
    integer,
    loads,
    loads_object,
    obj,
    objects,
    text,
)
from turnlog.errors import InvalidInput

from .strategies import json_values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": [1, 2, None, True]}, b'{"b":1,"a":[1,2,null,true]}'),
        (2**64 + 1, b"18446744073709551617"),
        (-(10**40), b"-1" + b"0" * 40),
        (0.1, b"0.1"),
        (1.0, b"1.0"),
        (1e300, b"1e+300"),
        (-0.0, b"-0.0"),
        ("é\u2028/", '"é\u2028/"'.encode()),
        ('"\\\n\x00', b'"\\"\\\\\\n\\u0000"'),
        ("\ud800", b'"\\ud800"'),
        ("a\udfffb", b'"a\\udfffb"'),
        ("\U0001f600", '"\U0001f600"'.encode()),
    ],
)
def test_canonical_bytes_are_pinned(value: Json, expected: bytes) -> None:
    assert dumps(value) == expected
    assert loads(expected) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(1e-4)
@example(math.nextafter(1e-4, 0))
@example(1e15)
@example(math.nextafter(1e15, 0))
@example(123_456_789_012_345.6)
@example(-0.7)
@example(5e-324)
def test_a_number_is_written_as_python_writes_it(value: float) -> None:
    assert dumps([value, {"of": value}]) == f'[{value!r},{{"of":{value!r}}}]'.encode()


@given(json_values)
def test_what_was_written_is_read_and_written_again(value: Json) -> None:
    """Also lone surrogates, big integers, floats and any order of keys."""
    data = dumps(value)
    data.decode("utf-8")
    read = loads(data)
    assert dumps(read) == data
    assert loads(dumps(read)) == read


@given(json_values)
def test_the_quick_way_writes_what_the_standard_library_does(value: Json) -> None:
    try:
        expected = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return
    assert dumps(value) == expected


@given(json_values)
def test_what_is_canonical_is_read_as_the_strict_reader_does(value: Json) -> None:
    data = dumps(value)
    assert repr(loads(data)) == repr(loads(b" " + data))
    assert repr(loads(data.decode())) == repr(loads(data))


def test_a_text_with_half_a_pair_is_no_other_text() -> None:
    assert loads('"\ud800"') == "\ud800"


def test_what_holds_itself_is_refused() -> None:
    ring: list[Json] = []
    ring.append(ring)
    with pytest.raises(InvalidInput, match="not a JSON value: Circular"):
        dumps(ring)


@given(st.text(st.characters(categories=None)))
def test_a_text_is_read_back_as_a_json_reader_has_it(value: str) -> None:
    joined = value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    assert loads(dumps(value)) == joined


def test_halves_of_a_pair_that_met_are_one_character() -> None:
    """Deltas may be cut between the two halves; the text that they make has one form."""
    assert dumps("\ud83d" + "\ude00") == dumps("\U0001f600")
    assert dumps("\ud83d\ude00\ud83d") == '"\U0001f600'.encode() + b'\\ud83d"'


def test_keys_keep_their_order() -> None:
    assert dumps(loads(b'{"z":1,"a":{"y":2,"b":3}}')) == b'{"z":1,"a":{"y":2,"b":3}}'


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "float"),
        ([math.inf], "float"),
        ({"a": -math.inf}, "float"),
        ({1: "x"}, "key 1 is not text"),
        ([{"a": {None: 1}}], "key None is not text"),
        ({"a": object}, "type"),
    ],
    ids=repr,
)
def test_what_is_not_json_is_refused(value: object, reason: str) -> None:
    with pytest.raises(InvalidInput, match=rf"(?i)not a JSON value.*{reason}"):
        dumps(cast(Json, value))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ('{"a":1,"a":2}', "'a' stands twice"),
        ('[{"b":{"c":1,"d":2,"c":1}}]', "'c' stands twice"),
        ("NaN", "NaN is not JSON"),
        ("[Infinity]", "Infinity is not JSON"),
        ("-Infinity", "-Infinity is not JSON"),
        ("1e400", "too large"),
        ("-1e400", "too large"),
        ("9" * 5000, "digits"),
        ("{", "Expecting"),
        ("", "Expecting"),
        ("1 2", "Extra data"),
        (b"\xff", "utf-8"),
        ("[" * 100_000, "recursion"),
    ],
    ids=range(13),
)
def test_what_cannot_be_kept_is_not_read(data: str | bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=f"(?s)not readable as JSON: .*{reason}"):
        loads(data)


def test_a_number_that_nobody_could_read_is_not_written() -> None:
    with pytest.raises(InvalidInput, match=r"not a JSON value.*digits"):
        dumps(10**5000)


def test_json_that_is_too_deep_is_not_written() -> None:
    deep: Json = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidInput, match="not a JSON value"):
        dumps(deep)


def test_an_object_is_asked_for() -> None:
    assert loads_object('{"a":1}') == {"a": 1}
    with pytest.raises(InvalidInput, match="a JSON object is needed, not list"):
        loads_object("[1]")


def test_the_chain_is_pinned() -> None:
    """`turnlog1`, the previous hash, and each field behind four bytes of length."""
    found = chain(GENESIS, ("a", 12, b"\x01", None))
    framed = b"\0\0\0\1a" + b"\0\0\0\x0212" + b"\0\0\0\1\x01" + b"\xff\xff\xff\xff"
    assert found == digest(b"turnlog1" + bytes(32) + framed)
    assert found == digest(b"turnlog1", bytes(32), framed)


@given(st.lists(st.none() | st.text(max_size=3) | st.binary(max_size=3), max_size=4))
def test_no_two_lists_of_fields_share_their_bytes(fields: list[str | bytes | None]) -> None:
    assert chain(GENESIS, fields) != chain(GENESIS, [*fields, None])
    assert chain(GENESIS, [*fields, "ab", "c"]) != chain(GENESIS, [*fields, "a", "bc"])
    assert chain(GENESIS, [*fields, ""]) != chain(GENESIS, [*fields, None])


def test_a_lone_surrogate_can_stand_in_an_envelope() -> None:
    assert chain(GENESIS, ("\ud800",)) != chain(GENESIS, ("\ud801",))


def test_looking_into_foreign_json() -> None:
    value: dict[str, Json] = {"t": "x", "i": 3, "b": True, "o": {"k": 1}, "l": [{"k": 1}, 2]}
    assert (text(value, "t"), text(value, "i"), text(value, "-")) == ("x", None, None)
    assert (integer(value, "i"), integer(value, "b"), integer(value, "t")) == (3, None, None)
    assert (obj(value, "o"), obj(value, "t")) == ({"k": 1}, {})
    assert (array(value, "l"), array(value, "o")) == ([{"k": 1}, 2], ())
    assert objects(value, "l") == [{"k": 1}]


# -- nesting -------------------------------------------------------------------------------


def nested(depth: int) -> Json:
    value: Json = 1
    for number in range(depth):
        value = [value] if number % 2 else {"a": value}
    return value


def test_what_may_be_nested_can_be_written_and_read() -> None:
    deepest = nested(DEEPEST)
    assert loads(dumps(deepest)) == deepest
    for wide in ([[{"a": 1}]] * (2 * DEEPEST), [[{"a": 0.5}]] * (2 * DEEPEST)):
        assert loads(dumps(cast(Json, wide))) == wide
        assert loads(b" " + dumps(cast(Json, wide))) == wide


def test_what_is_nested_deeper_is_refused_both_ways() -> None:
    with pytest.raises(InvalidInput, match="nested deeper than 512"):
        dumps(nested(DEEPEST + 1))
    raw = b"[" * (DEEPEST + 1) + b"1" + b"]" * (DEEPEST + 1)
    with pytest.raises(InvalidInput, match="nested deeper than 512"):
        loads(raw)
    with pytest.raises(InvalidInput, match="nested deeper than 3"):
        loads(b"[[[[1]]]]", deepest=3)
    assert loads(b"[[[1]]]", deepest=3) == [[[1]]]
