"""What differs between two contexts: what was kept, added, edited and removed.

The one rule: applying a diff to the first context gives the second. Items are the same by (type,
item id or call id), never by a content hash (law 3); items without an id from the provider match
by equality and order. The cost is that of what changed, not of the product of both (W-14).
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .canonical import JsonObject, text
from .errors import InvalidInput
from .items import call_id_of, type_of

Identity: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The `count` items from `old` on in the first context stand from `new` on, unchanged."""

    old: int
    new: int
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """The item at `old` stands at `new` with other contents."""

    old: int
    new: int
    before: JsonObject
    item: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """The item stands at `new`, and in the first context nowhere."""

    new: int
    item: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """The item at `old` stands nowhere in the second context."""

    old: int
    item: JsonObject


Difference: TypeAlias = Kept | Edited | Added | Removed


def identity(item: JsonObject) -> Identity:
    """What makes an item the same item: its type with an id, else its whole content."""
    kind = type_of(item)
    for name, id in (("id", text(item, "id")), ("call_id", call_id_of(item))):
        if id is not None:
            return kind, name, id
    return kind, "content", json.dumps(item, sort_keys=True)


def diff(old: Sequence[JsonObject], new: Sequence[JsonObject]) -> list[Difference]:
    """The differences in the order of the new context, each removal where the old item stood.

    Items that were kept side by side are one difference: there are no more of them than changes.
    Raises InvalidInput where the id of an item that was added stands in the new context already.
    An item that moved against the order of the others is removed and added.
    """
    old, new = _listed(old), _listed(new)
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    matches = _matches(old[head : len(old) - tail], new[head : len(new) - tail], head)
    found: list[Difference] = []
    _keep(found, 0, 0, head)
    _between(found, old, new, matches, head, tail)
    _keep(found, len(old) - tail, len(new) - tail, tail)
    _check_added(found, new)
    return found


def _listed(items: Sequence[JsonObject]) -> list[JsonObject]:
    """A list to read from: a tuple is equal to none, and a list is not copied."""
    return items if isinstance(items, list) else list(items)


_STRETCH = 64
"""How many items are compared at once, to begin with."""


def _common(old: list[JsonObject], new: list[JsonObject]) -> int:
    """How many items are the same from the beginning: a stretch of a list is compared at once.

    All of it first, which takes no longer than to where it differs: an append differs nowhere.
    """
    count, stretch = 0, _STRETCH
    last = min(len(old), len(new))
    if _first(old, last) == _first(new, last):
        return last
    while count < last and stretch:
        end = min(count + stretch, last)
        if old[count:end] == new[count:end]:
            count, stretch = end, stretch * 2
        else:
            stretch //= 2  # it differs somewhere in there: closer and closer, to one
            last = min(last, end)
    return count


def _first(items: list[JsonObject], count: int) -> list[JsonObject]:
    """The first items of a list, which is not copied where that is all of them."""
    return items if count == len(items) else items[:count]


def _keep(found: list[Difference], old: int, new: int, count: int) -> None:
    """Add so many items that were kept, to those before them where they stood side by side."""
    last = found[-1] if found else None
    if isinstance(last, Kept) and (last.old + last.count, last.new + last.count) == (old, new):
        found[-1] = Kept(old=last.old, new=last.new, count=last.count + count)
    elif count:
        found.append(Kept(old=old, new=new, count=count))


def _check_added(found: Iterable[Difference], new: Sequence[JsonObject]) -> None:
    """Raise InvalidInput where an item that was added has the id of another one.

    What was kept may stand there twice, as behind a compaction. Most of what is added has no id,
    and then nothing is looked at.
    """
    added = {_named(one.item) for one in found if isinstance(one, Added)} - {None}
    if not added or _all_differ(new):
        return
    for name, count in Counter(map(_named, new)).items():
        if name is not None and name in added and count > 1:
            raise InvalidInput(f"the item {name[1]!r} stands twice in the list")


def _all_differ(items: Sequence[JsonObject]) -> bool:
    """Whether no id stands twice, whatever the types: a fifth of what a closer look takes."""
    ids = [id for item in items if (id := item.get("id")) is not None]
    try:
        return len(set(ids)) == len(ids)
    except TypeError:  # an id that is no text
        return False


def _named(item: JsonObject) -> tuple[str, str] | None:
    id = text(item, "id")
    return None if id is None else (type_of(item), id)


def _matches(
    old: Sequence[JsonObject], new: Sequence[JsonObject], offset: int
) -> list[tuple[int, int]]:
    """Pairs of places that hold the same item, increasing in both.

    They are as many as there can be, but for items without an id that stand several times.
    """
    places: dict[Identity, deque[int]] = {}
    for place, item in enumerate(old):
        places.setdefault(identity(item), deque()).append(place)
    pairs: list[tuple[int, int]] = []
    for place, item in enumerate(new):
        candidates = places.get(identity(item))
        if candidates:
            pairs.append((candidates.popleft() + offset, place + offset))
    return _increasing(pairs)


def _increasing(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest subsequence whose first numbers increase (patience sorting, n log n)."""
    tops: list[int] = []
    piles: list[int] = []
    behind: list[int | None] = []
    for index, (place, _) in enumerate(pairs):
        pile = bisect_left(tops, place)
        tops[pile : pile + 1] = [place]
        piles[pile : pile + 1] = [index]
        behind.append(piles[pile - 1] if pile else None)
    found: list[tuple[int, int]] = []
    at = piles[-1] if piles else None
    while at is not None:
        found.append(pairs[at])
        at = behind[at]
    return found[::-1]


def _between(
    found: list[Difference],
    old: Sequence[JsonObject],
    new: Sequence[JsonObject],
    matches: Sequence[tuple[int, int]],
    head: int,
    tail: int,
) -> None:
    """Add what differs between the common beginning and the common end."""
    at_old, at_new = head, head
    for pair_old, pair_new in [*matches, (len(old) - tail, len(new) - tail)]:
        found += [Removed(old=place, item=old[place]) for place in range(at_old, pair_old)]
        found += [Added(new=place, item=new[place]) for place in range(at_new, pair_new)]
        at_old, at_new = pair_old + 1, pair_new + 1
        if pair_old < len(old) - tail:
            before, after = old[pair_old], new[pair_new]
            if before == after:
                _keep(found, pair_old, pair_new, 1)
            else:
                found.append(Edited(old=pair_old, new=pair_new, before=before, item=after))


def apply(old: Sequence[JsonObject], differences: Sequence[Difference]) -> list[JsonObject]:
    """The second context, from the first and the differences."""
    result: list[JsonObject] = []
    for difference in differences:
        if isinstance(difference, Kept):
            result += old[difference.old : difference.old + difference.count]
        elif not isinstance(difference, Removed):
            result.append(difference.item)
    return result
