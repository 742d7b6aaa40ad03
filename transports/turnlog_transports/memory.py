"""What a provider remembers: stored responses, and the newest one of each lane of a connection.

The one rule: protocol section 1.5. A stored response can be continued from anywhere; an unstored
one only on the connection that made it, while it is the newest of its lane, and not after a failed
continuation there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from turnlog.canonical import JsonObject, text
from turnlog.items import type_of

from . import chain, synthesis
from .answer import Answer, refusal
from .chain import Link

CONTINUABLE = frozenset({"completed", "incomplete", None})
"""How a response must have ended for the next one to continue from it; None is not said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A stored response; `polls` is how many more `GET`s find it still in progress."""

    link: Link
    polls: int


class Memory:
    """Everything that outlives a request on the provider's side."""

    def __init__(self) -> None:
        self._stored: dict[str, _Kept] = {}
        self._running: dict[str, JsonObject] = {}
        self._newest: dict[tuple[str, str | None], Link] = {}
        self._items: dict[str, JsonObject] = {}

    # -- chains ----------------------------------------------------------------------------

    def find(self, response: str, connection: str | None) -> Link | None:
        """The response to continue from, as seen from a connection; None over HTTP."""
        kept = self._stored.get(response)
        if kept is not None:
            return kept.link if kept.link.status in CONTINUABLE else None
        return None if connection is None else self.cached(connection, response)

    def cached(self, connection: str, response: str) -> Link | None:
        """The response, if it is the newest of a lane of this connection."""
        for (where, _), link in self._newest.items():
            if where == connection and link.id == response:
                return link
        return None

    def advance(self, connection: str | None, lane: str | None, link: Link) -> None:
        """A response is now the newest of its lane."""
        if connection is not None:
            self._newest[connection, lane] = link

    def evict(self, connection: str | None, lane: str | None, parent: Link | None) -> None:
        """A continuation failed: on the parent's own lane it takes the parent along."""
        if connection is not None and parent is not None:
            if self._newest.get((connection, lane)) is parent:
                del self._newest[connection, lane]

    def disconnect(self, connection: str) -> None:
        """A connection is gone, and what it remembered with it."""
        for key in [key for key in self._newest if key[0] == connection]:
            del self._newest[key]

    # -- stored responses ------------------------------------------------------------------

    def begin(self, link: Link) -> None:
        """A response that will finish whatever happens can be seen from now on."""
        self._running[link.id] = synthesis.begun(link.response)

    def over(self, link: Link) -> None:
        """A response is no longer under way."""
        self._running.pop(link.id, None)

    def store(self, link: Link, *, polls: int) -> None:
        """Keep a response, and its items for references."""
        self._stored[link.id] = _Kept(link=link, polls=polls)
        for item in (*link.asked, *chain.output_of(link.response)):
            self._items[text(item, "id") or ""] = item

    def resolve(self, item: JsonObject) -> JsonObject:
        """The item that a reference names; the reference itself where there is none."""
        if type_of(item) != "item_reference":
            return item
        return self._items.get(text(item, "id") or "", item)

    def retrieve(self, response: str) -> Answer:
        """What a `GET` finds."""
        running = self._running.get(response)
        if running is not None:
            return Answer(body=running)
        kept = self._stored.get(response)
        if kept is None:
            return _unknown(response)
        if kept.polls > 0:
            self._stored[response] = replace(kept, polls=kept.polls - 1)
            return Answer(body=synthesis.begun(kept.link.response))
        return Answer(body=kept.link.response)

    def delete(self, response: str) -> Answer:
        """Forget a stored response."""
        if self._stored.pop(response, None) is None:
            return _unknown(response)
        return Answer(body={"id": response, "object": "response", "deleted": True})

    def input_items(self, response: str) -> Answer:
        """What a stored response was asked, its chain included, the latest first."""
        kept = self._stored.get(response)
        if kept is None:
            return _unknown(response)
        before = chain.walk(kept.link.parent)
        data = [*reversed(kept.link.asked), *before]
        return Answer(body={"object": "list", "data": data, "has_more": False})


def _unknown(id: str) -> Answer:
    return refusal(f"Response with id '{id}' not found.", param="response_id", status=404)
