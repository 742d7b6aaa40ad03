"""What a provider remembers: stored responses, and the newest one of each lane of a connection.

The one rule: protocol section 1.5. A stored response can be continued from anywhere; an unstored
one only on the connection that made it, while it is the newest of its lane, and not after a failed
continuation there. Nothing is remembered for ever: only the newest responses are kept.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from turnlog.canonical import JsonObject, text
from turnlog.items import type_of

from . import chain, synthesis
from .answer import Answer, refusal
from .chain import Link
from .job import Job

CONTINUABLE = frozenset({"completed", "incomplete", None})
"""How a response must have ended for the next one to continue from it; None is not said."""

KEEP = 10_000
"""How many responses are kept unless set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A response that a `GET` finds; `polls` is how many more of them find it in progress.

    `stored` says that it can be continued too: a background response that was not to be stored
    is only kept for those who ask what became of it.
    """

    link: Link
    polls: int
    stored: bool


class Memory:
    """Everything that outlives a request on the provider's side, for the newest `keep` of them."""

    def __init__(self, keep: int = KEEP) -> None:
        self._keep = keep
        self._links: deque[Link] = deque()
        self._kept: dict[str, _Kept] = {}
        self._running: dict[str, JsonObject] = {}
        self._newest: dict[str, dict[str | None, Link]] = {}
        self._items: dict[str, JsonObject] = {}
        self._jobs: dict[str, Job] = {}

    # -- chains ----------------------------------------------------------------------------

    def find(self, response: str, connection: str | None) -> Link | None:
        """The response to continue from, as seen from a connection; None over HTTP."""
        kept = self._kept.get(response)
        if kept is not None and kept.stored:
            return kept.link if kept.link.status in CONTINUABLE else None
        return None if connection is None else self.cached(connection, response)

    def cached(self, connection: str, response: str) -> Link | None:
        """The response, if it is the newest of a lane of this connection."""
        for link in self._newest.get(connection, {}).values():
            if link.id == response:
                return link
        return None

    def newest(self, connection: str | None, lane: str | None) -> Link | None:
        """The newest response of a lane, if it is remembered."""
        return None if connection is None else self._newest.get(connection, {}).get(lane)

    def advance(self, connection: str | None, lane: str | None, link: Link) -> None:
        """A response is now the newest of its lane."""
        if connection is not None:
            self._newest.setdefault(connection, {})[lane] = link

    def evict(self, connection: str | None, lane: str | None, parent: Link | None) -> None:
        """A continuation failed: on the parent's own lane it takes the parent along."""
        if connection is not None and parent is not None:
            if self.newest(connection, lane) is parent:
                del self._newest[connection][lane]

    def disconnect(self, connection: str) -> None:
        """A connection is gone, and what it remembered with it."""
        self._newest.pop(connection, None)

    def age(self, link: Link) -> None:
        """A response ended; the oldest of all is forgotten, where there are too many."""
        self._links.append(link)
        while len(self._links) > self._keep:
            self._forget(self._links.popleft())

    def _forget(self, link: Link) -> None:
        kept = self._kept.get(link.id)
        if kept is not None and kept.link is link:
            del self._kept[link.id]
            self._jobs.pop(link.id, None)
        for item in _named(link):
            id = text(item, "id") or ""
            if self._items.get(id) is item:
                del self._items[id]
        link.forget()

    # -- stored responses ------------------------------------------------------------------

    def begin(self, link: Link) -> None:
        """A response that will finish whatever happens can be seen from now on."""
        self._running[link.id] = synthesis.begun(link.response)

    def over(self, link: Link) -> None:
        """A response is no longer under way."""
        self._running.pop(link.id, None)

    def store(self, link: Link, *, polls: int, stored: bool = True) -> None:
        """Keep a response, and its items for references."""
        self._kept[link.id] = _Kept(link=link, polls=polls, stored=stored)
        self._items.update({text(item, "id") or "": item for item in _named(link)})

    def resolve(self, item: JsonObject) -> JsonObject:
        """The item that a reference names; the reference itself where there is none."""
        if type_of(item) != "item_reference":
            return item
        return self._items.get(text(item, "id") or "", item)

    def retrieve(self, response: str) -> Answer:
        """What a `GET` finds."""
        job = self._jobs.get(response)
        if job is not None and (job.cancelled or not job.over):
            return Answer(body=job.snapshot)
        running = self._running.get(response)
        if running is not None:
            return Answer(body=running)
        kept = self._kept.get(response)
        if kept is None:
            return unknown(response)
        if kept.polls > 0:
            self._kept[response] = replace(kept, polls=kept.polls - 1)
            return Answer(body=synthesis.begun(kept.link.response))
        return Answer(body=kept.link.response)

    def delete(self, response: str) -> Answer:
        """Forget a stored response; one that is made in the background is stopped."""
        job = self._jobs.pop(response, None)
        kept = self._kept.pop(response, None)
        if job is not None:
            job.cancel()
            self._kept.pop(response, None)
        if kept is None and job is None:
            return unknown(response)
        return Answer(body={"id": response, "object": "response", "deleted": True})

    def input_items(self, response: str) -> Answer:
        """What a stored response was asked, its chain included, the latest first."""
        kept = self._kept.get(response)
        if kept is None:
            return unknown(response)
        before = chain.walk(kept.link.parent)
        data = [*reversed(kept.link.asked), *before]
        return Answer(body={"object": "list", "data": data, "has_more": False})

    # -- background responses --------------------------------------------------------------

    def run(self, response: str, job: Job) -> None:
        """A background response is begun."""
        self._jobs[response] = job

    def job(self, response: str) -> Job | None:
        """The background response with this id, also when it is over."""
        return self._jobs.get(response)

    def jobs(self) -> list[Job]:
        """All background responses that are not over."""
        return [job for job in self._jobs.values() if not job.over]


def _named(link: Link) -> list[JsonObject]:
    """The items of a response that have an id."""
    items = (*link.asked, *chain.output_of(link.response))
    return [item for item in items if text(item, "id")]


def unknown(id: str) -> Answer:
    """There is no such response, or none any more."""
    return refusal(f"Response with id '{id}' not found.", param="response_id", status=404)
