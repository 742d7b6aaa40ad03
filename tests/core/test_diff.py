"""Differences between two contexts: applied to the first they give the second, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlog.canonical import JsonObject
from turnlog.diff import Added, Difference, Edited, Kept, Removed, apply, diff, identity
from turnlog.errors import InvalidInput

from .story import called, output, said, user

entries = st.integers(0, 6).map(lambda n: said(f"m{n}", "x")) | st.sampled_from(
    [user("a"), user("b"), called("c1"), output("c1"), output("c1", "43"), said("m1", "y")]
)


def unique(items: list[JsonObject]) -> list[JsonObject]:
    found: dict[object, JsonObject] = {}
    for place, item in enumerate(items):
        found.setdefault(item.get("id", place), item)
    return list(found.values())


def one_by_one(found: Sequence[Difference]) -> list[Difference]:
    """The differences with each item that was kept by itself."""
    return [
        each
        for one in found
        for each in (
            [Kept(old=one.old + n, new=one.new + n) for n in range(one.count)]
            if isinstance(one, Kept)
            else [one]
        )
    ]


def side_by_side(one: Difference, other: Difference) -> bool:
    """Whether both were kept, and are one difference in truth."""
    return (
        isinstance(one, Kept)
        and isinstance(other, Kept)
        and (one.old + one.count, one.new + one.count) == (other.old, other.new)
    )


@given(st.lists(entries).map(unique), st.lists(entries).map(unique))
def test_applying_a_diff_gives_the_new_context(
    old: list[JsonObject], new: list[JsonObject]
) -> None:
    found = diff(old, new)
    assert apply(old, found) == new
    by_item = one_by_one(found)
    assert [one.old for one in by_item if not isinstance(one, Added)] == list(range(len(old)))
    assert [one.new for one in by_item if not isinstance(one, Removed)] == list(range(len(new)))
    assert not any(side_by_side(*pair) for pair in pairwise(found))


@given(st.lists(entries).map(unique), st.lists(st.integers(10, 99), unique=True))
def test_an_append_is_only_what_was_appended(old: list[JsonObject], more: list[int]) -> None:
    new = [said(f"m{n}") for n in more]
    found = diff(old, [*old, *new])
    assert [one for one in found if not isinstance(one, Kept)] == [
        Added(new=len(old) + place, item=item) for place, item in enumerate(new)
    ]


@given(st.lists(entries, min_size=1).map(unique), st.data())
def test_w06_an_edit_is_one_edit(old: list[JsonObject], data: st.DataObject) -> None:
    """The same id with other contents: never a new item, never invisible."""
    old = [*old, said("last", "before"), user("end")]
    new = [*old[:-2], said("last", "after"), old[-1]]
    (change,) = (one for one in diff(old, new) if not isinstance(one, Kept))
    place = len(old) - 2
    assert change == Edited(old=place, new=place, before=old[place], item=new[place])
    gone = data.draw(st.integers(0, len(old) - 1))
    less = [*old[:gone], *old[gone + 1 :]]
    assert sum(isinstance(one, Removed) for one in diff(old, less)) == 1
    assert not any(isinstance(one, (Added, Edited)) for one in diff(old, less))


def test_an_item_that_moved_is_removed_and_added() -> None:
    a, b, c = said("a"), said("b"), said("c")
    assert diff([a, b, c], [c, a, b]) == [
        Added(new=0, item=c),
        Kept(old=0, new=1, count=2),
        Removed(old=2, item=c),
    ]


def test_an_output_is_known_by_its_call() -> None:
    (change,) = diff([output("c1")], [output("c1", "43")])
    assert isinstance(change, Edited)
    assert identity(output("c1")) == ("function_call_output", "call_id", "c1")
    assert identity(said("m")) == ("message", "id", "m")


def test_items_without_an_id_match_whatever_the_order_of_their_keys() -> None:
    assert identity({"role": "user", "content": "x"}) == identity({"content": "x", "role": "user"})
    assert identity({"role": "user", "content": "\ud800"})[1] == "content"


def test_the_same_message_twice_is_two_items() -> None:
    found = diff([user("a"), said("m")], [user("a"), said("m"), user("a")])
    assert found == [Kept(old=0, new=0, count=2), Added(new=2, item=user("a"))]


def test_an_id_that_stands_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="the item 'm' stands twice"):
        diff([], [said("m"), user(), said("m", "again")])
    with pytest.raises(InvalidInput, match="the item '' stands twice"):
        diff([], [said(""), said("", "again")])


def test_what_stands_twice_already_may_stay_and_no_third_comes_to_it() -> None:
    twice = [said("m"), user(), said("m", "again")]
    assert diff(twice, [*twice, user("more")])[-1] == Added(new=3, item=user("more"))
    assert diff(twice, [*twice, said("n")])[-1] == Added(new=3, item=said("n"))
    with pytest.raises(InvalidInput, match="the item 'm' stands twice"):
        diff(twice, [*twice, said("m", "and again")])


def test_an_id_that_is_no_text_is_none() -> None:
    odd: list[JsonObject] = [{**user("a"), "id": ["m"]}, {**user("b"), "id": ["m"]}]
    assert diff(odd, odd) == [Kept(old=0, new=0, count=2)]
    assert diff([], odd) == [Added(new=0, item=odd[0]), Added(new=1, item=odd[1])]
    with pytest.raises(InvalidInput, match="the item 'm' stands twice"):
        diff([], [*odd, said("m"), said("m")])


def test_w14_the_cost_is_that_of_the_change() -> None:
    """Twenty thousand items and one new one; a table of both would have 400 million cells."""
    old = [said(f"m{n}") for n in range(20_000)]
    found = diff(old, [*old[:10_000], user("new"), *old[10_000:]])
    assert [one for one in found if not isinstance(one, Kept)] == [
        Added(new=10_000, item=user("new"))
    ]
    backwards = diff(old, old[::-1])
    assert [one.count for one in backwards if isinstance(one, Kept)] == [1]
    assert len(found) == 3


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 200, 1000, 17_000])
def test_a_long_context_is_compared_to_where_it_differs(length: int) -> None:
    old = [user(f"{place}") for place in range(length)]
    assert diff(old, tuple(map(dict, old))) == kept(0, 0, length)
    near = {0, 1, 62, 63, 64, 65, 127, 128, 700} if length <= 1000 else set[int]()
    for place in {*near, length - 1} & set(range(length)):
        new = [*old[:place], user("new"), *old[place + 1 :]]
        before, rest = kept(0, 0, place), length - place
        at = [Removed(old=place, item=old[place]), Added(new=place, item=new[place])]
        assert diff(old, new) == [*before, *at, *kept(place + 1, place + 1, rest - 1)]
        wanted = [*before, Added(new=place, item=user("new")), *kept(place, place + 1, rest)]
        assert diff(old, [*old[:place], user("new"), *old[place:]]) == wanted


def kept(old: int, new: int, count: int) -> list[Difference]:
    return [Kept(old=old, new=new, count=count)] if count else []
