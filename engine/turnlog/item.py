"""One entry of a context, as callers have it: the provider's JSON, and where it stands.

The one rule: the JSON is that of the event that holds the item, untouched (law 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from . import events as ev
from .canonical import JsonObject, text
from .errors import StoreCorrupt
from .items import output_text, type_of
from .making import maker


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One entry of a context: the provider's JSON, and turnlog's own key for it."""

    key: str
    ordinal: int
    raw: JsonObject
    response: str | None = None

    @property
    def type(self) -> str:
        """The provider's type of the item."""
        return type_of(self.raw)

    @property
    def id(self) -> str | None:
        """The provider's id, where it has one."""
        return text(self.raw, "id")

    @property
    def role(self) -> str | None:
        """Who said it, for a message."""
        return text(self.raw, "role")

    @property
    def text(self) -> str:
        """What a message says; empty for any other item."""
        return output_text(self.raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One place of the context: the item in the event `item_version` of `holder`.

    `holder` is the conversation whose log has the event: in a fork, it may be an ancestor.
    """

    ordinal: int
    holder: str
    item_version: int
    key: str
    item_id: str | None
    call_id: str | None
    response: str | None


item_at: Callable[[str, int, JsonObject, str | None], Item] = maker(Item)
"""`item_at(key, ordinal, raw, response)`: an `Item`."""

Holder: TypeAlias = (
    ev.ItemAdded
    | ev.ItemEdited
    | ev.OutputRecorded
    | ev.CallAnswered
    | ev.CallRejected
    | ev.CallAbandoned
)
"""The events that hold an item, under `item`, with its `key`; no other has both."""


def body_of(event: ev.Event) -> JsonObject:
    """The item that an event holds; raises StoreCorrupt where it holds none."""
    if isinstance(event, Holder):
        return event.item
    raise StoreCorrupt(f"a {type(event).__name__} holds no item: run `turnlog verify`")


def gathered(places: Iterable[Placed], found: Mapping[tuple[str, int], ev.Event]) -> list[Item]:
    """The items at places, from their events by holder and version; raises StoreCorrupt."""
    items: list[Item] = []
    for place in places:
        event = found.get((place.holder, place.item_version))
        if event is None:
            raise StoreCorrupt(
                f"conversation {place.holder!r} lacks version {place.item_version}:"
                " run `turnlog verify`"
            )
        items.append(item_at(place.key, place.ordinal, body_of(event), place.response))
    return items


def by_holder(places: Iterable[Placed]) -> dict[str, list[int]]:
    """Which versions of whose log have the items at places."""
    wanted: dict[str, list[int]] = {}
    for place in places:
        wanted.setdefault(place.holder, []).append(place.item_version)
    return wanted
