"""Items are read with their bodies in one query, and are what the events hold."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlog.canonical import Json, JsonObject, dumps
from turnlog.errors import StoreCorrupt
from turnlog.item import Item, body_of
from turnlog.record import decode
from turnlog.store import SqlStore, bodies, item_reads
from turnlog.testing.store_contract import Author, added

from .files import opened, tamper

# -- the fast reader -----------------------------------------------------------------------

texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**300), 10**300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.sampled_from(["\0", "\ud800", "\udfff", "😀", -0.0, 5e-324, 1.7976931348623157e308, 2**64])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4)
)


def exact(value: Json) -> object:
    """A value with the types of all its parts, and the sign of zero."""
    if isinstance(value, Mapping):
        return [(key, exact(part)) for key, part in value.items()]
    if isinstance(value, list):
        return [exact(part) for part in value]
    return type(value), math.copysign(1.0, value) if isinstance(value, float) else 0, value


@given(st.dictionaries(texts, values, max_size=4))
def test_an_item_is_read_as_the_strict_reader_reads_it(item: JsonObject) -> None:
    body = dumps({"key": "k", "item": item})
    try:
        event = decode("item.added", 1, body)
    except StoreCorrupt:  # halves of a pair that met made two keys one
        return
    found: dict[int, Item] = {}
    if bodies.add_items([(0, "r", body)], found):
        assert b"\\ud" in body
    else:
        assert exact(found[0].raw) == exact(body_of(event))
        assert found[0] == Item(key="k", ordinal=0, raw=body_of(event), response="r")


@pytest.mark.parametrize(
    "body",
    [
        None,
        7,
        b"\0" + b"x" * 32,
        b"",
        b"[]",
        b"7",
        b'{"key":"k"}',
        b'{"key":7,"item":{}}',
        b'{"key":"k","item":[]}',
        b'{"key":"k","item":{"a":NaN}}',
        b'{"key":"k","item":{"a":Infinity}}',
        b'{"key":"k","item":{}}{}',
        b'{"key":"k","item":{"a":"\xff"}}',
    ],
)
def test_what_needs_a_closer_look(body: object) -> None:
    found: dict[int, Item] = {}
    plain = b'{"key":"k","item":{}}'
    rows = [(0, None, plain), (1, None, body), (2, None, plain), (5, None, body)]
    assert bodies.add_items(rows, found) == [1, 5]
    assert list(found) == [0, 2]


def test_a_response_that_is_no_text() -> None:
    assert bodies.add_items([(3, 7, b'{"key":"k","item":{}}')], {}) == [3]


# -- pages ---------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_reads, "LONG", 3)


@asynccontextmanager
async def with_items(path: Path, *items: Json) -> AsyncGenerator[tuple[SqlStore, Author]]:
    store = await opened(path)
    author = Author("c")
    await store.append(author.begin())
    given_ = (added(str(place), item=_message(said)) for place, said in enumerate(items))
    await store.append(author.write(*given_))
    yield store, author
    await store.close()


def _message(said: Json) -> JsonObject:
    return {"type": "message", "role": "user", "content": said}


def said(items: list[Item]) -> list[Json]:
    return [item.raw["content"] for item in items]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("count", range(8))
async def test_pages_join_however_many_items_there_are(path: Path, count: int) -> None:
    wanted: list[Json] = [f"item {place}" for place in range(count)]
    async with with_items(path, *wanted) as (store, _):
        assert said(await store.items("c")) == wanted
        assert said(await store.items("c", start=1, stop=5)) == wanted[1:5]
        for last in range(9):
            assert said(await store.items("c", last=last)) == wanted[max(0, count - last) :]
            found = await store.items("c", start=1, stop=5, last=last)
            assert said(found) == wanted[1:5][-last or 9 :]
        assert await store.items("c", last=-1) == []
        assert await store.items("nobody") == await store.items("nobody", last=1) == []


ODD: dict[str, Json] = {
    "in parts": "x" * 40_000,
    "half a pair": "\ud83d",
    "deep": [],
}
for _ in range(250):
    ODD["deep"] = [ODD["deep"]]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", ODD)
async def test_what_the_fast_reader_leaves_is_read_all_the_same(path: Path, name: str) -> None:
    wanted = ["a", "b", "c", ODD[name], "d"]
    async with with_items(path, *wanted) as (store, _):
        assert said(await store.items("c")) == wanted
        assert said(await store.items("c", last=4)) == wanted[1:]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM events WHERE version = 3",
        "UPDATE events SET body = NULL, salt = NULL WHERE version = 3",
        "UPDATE events SET body = x'7b' WHERE version = 3",
        "UPDATE events SET tag = 'provider.noted', body = CAST('{\"kind\":\"k\"}' AS BLOB)"
        " WHERE version = 3",
        "UPDATE conversations SET version = 'x'",
    ],
)
async def test_an_item_that_is_not_there_is_missed(path: Path, damage: str) -> None:
    async with with_items(path, "a", "b") as (store, _):
        tamper(path, damage)
        with pytest.raises(StoreCorrupt):
            await store.items("c")
        with pytest.raises(StoreCorrupt):
            await store.items("c", last=2)
