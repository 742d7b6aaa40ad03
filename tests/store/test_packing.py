"""Large bodies are stored in parts, and come back byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlog.canonical import dumps
from turnlog.errors import StoreCorrupt
from turnlog.store.packing import LARGE, LONG, pack, references, unpack

PIECES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b'"', b"\\", b'\\"', b"\0", b"{", b"a" * LONG, b"b" * LARGE, b"\0" * LONG]),
)


@given(st.lists(PIECES, max_size=12).map(b"".join))
def test_whatever_was_packed_is_unpacked(body: bytes) -> None:
    packed, blobs = pack(body)
    assert unpack(packed, blobs) == body
    assert references(packed) == blobs.keys()


@given(st.lists(st.text(max_size=40).map(lambda text: text * 500), min_size=1))
def test_bodies_that_are_json_come_back(texts: list[str]) -> None:
    body = dumps({"texts": texts})
    packed, blobs = pack(body)
    assert unpack(packed, blobs) == body
    assert len(packed) <= max(LARGE, len(body) // LONG * 40 + LARGE)


def test_a_short_body_stays_as_it_is() -> None:
    body = dumps({"text": "x" * (LARGE - 100)})
    assert pack(body) == (body, {})
    assert references(body) == set()


def test_the_same_long_string_is_one_blob() -> None:
    picture = "A" * LARGE
    first, blobs = pack(dumps({"a": picture, "b": [picture, "short"]}))
    second, others = pack(dumps({"other": picture}))
    assert list(blobs.values()) == [picture.encode()]
    assert blobs == others
    assert references(first) == references(second)
    assert len(first) < 200


def test_many_short_strings_move_too() -> None:
    body = dumps({"rows": ["word"] * 10_000})
    packed, blobs = pack(body)
    assert len(packed) < 100
    assert unpack(packed, blobs) == body


def test_an_open_quote_takes_no_time() -> None:
    body = b'"' + b"a" * 200_000
    packed, blobs = pack(body)
    assert unpack(packed, blobs) == body


def test_a_missing_part_is_corruption() -> None:
    packed, _ = pack(dumps({"a": "A" * LARGE}))
    with pytest.raises(StoreCorrupt):
        unpack(packed, {})
