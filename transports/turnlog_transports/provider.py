"""The simulated provider: a state machine for the Responses protocol, faithful to its refusals.

The one rule: pure. It is told what was asked, where it came from and what became of the answer, and
says what is sent; it does no I/O and reads no clock. The HTTP and WebSocket simulator and the
replay transport are two shells around it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from turnlog.canonical import Json, JsonObject, objects, text
from turnlog.items import type_of
from turnlog.testing.scripts import Reply, Script

from . import chain, responses, synthesis
from .answer import Answer, refusal
from .chain import Link
from .echo import echo
from .generation import Generation, ends, steps
from .responses import Ids
from .transcript import Transcript

_Entry: TypeAlias = "Reply | Callable[[JsonObject], Reply]"
Playable: TypeAlias = "Script | Transcript | None"
"""What a provider can answer from; None is the echo, which answers anything for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request that was accepted: what it says, what it stands behind, where it came from."""

    body: JsonObject
    items: tuple[JsonObject, ...]
    parent: Link | None
    connection: str | None
    lane: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A stored response; `polls` is how many more `GET`s find it still in progress."""

    link: Link
    polls: int = 0


class Provider:
    """Answers requests from a script, a transcript, or as an echo.

    With `checks` it refuses what the real service refuses; a transcript is answered in order
    whatever was asked, unless `checks` says otherwise. `seed` stands in the ids it makes up.
    """

    def __init__(
        self, script: Playable = (), *, checks: bool | None = None, seed: str = ""
    ) -> None:
        self._ids = Ids(seed)
        self._stored: dict[str, _Kept] = {}
        self._running: dict[str, JsonObject] = {}
        self._newest: dict[tuple[str, str | None], Link] = {}
        self._references: dict[str, JsonObject] = {}
        self._always = checks
        self._asked = 0
        self.play(script)

    def play(self, script: Playable) -> None:
        """Answer from this from now on; what is stored stays."""
        if isinstance(script, Transcript):
            self._entries = deque[_Entry](script.replies)
            self._retrievals = dict(script.retrievals)
        else:
            self._entries = deque[_Entry](script or ())
            self._retrievals = {}
        self._echoes = script is None
        self._checks = (
            self._always if self._always is not None else not isinstance(script, Transcript)
        )

    @property
    def left(self) -> int:
        """How many entries of the script are still to be answered."""
        return len(self._entries)

    # -- what is asked ---------------------------------------------------------------------

    def upgrade(self) -> Answer | None:
        """A WebSocket is asked for: how the script refuses it, or None where it may open."""
        head = self._entries[0] if self._entries else None
        if not isinstance(head, Reply) or head.refuse_upgrade is None:
            return None
        self._entries.popleft()
        return refusal("The upgrade is refused.", status=head.refuse_upgrade)

    def create(
        self, body: JsonObject, *, connection: str | None = None, lane: str | None = None
    ) -> Answer | Generation:
        """Answer a create. `connection` is None over HTTP, where nothing is remembered."""
        self._asked += 1
        previous = text(body, "previous_response_id")
        self._ids.take([previous, *(text(item, "id") for item in objects(body, "input"))])
        parent = None if previous is None else self._find(previous, connection)
        items = _input(body)
        asked = _Asked(
            body=body,
            items=tuple(self._resolved(item) for item in items or ()),
            parent=parent,
            connection=connection,
            lane=lane,
        )
        answer = self._refused(asked, items) or self._answer(asked)
        if isinstance(answer, Answer) and answer.status >= 400:
            self._evict(asked)
        return answer

    def retrieve(
        self, response: str, *, stream: bool = False, starting_after: int | None = None
    ) -> Answer | Generation:
        """Answer a `GET` of a response, from behind a sequence number where it is streamed."""
        recorded = self._retrievals.get(response)
        if stream and recorded is not None:
            return self._recorded(recorded, -1 if starting_after is None else starting_after)
        running = self._running.get(response)
        if running is not None:
            return Answer(body=running)
        kept = self._stored.get(response)
        if kept is None:
            return _no_response(response)
        if stream:
            return refusal(
                "This response cannot be streamed: it was not made with background=true."
            )
        if kept.polls > 0:
            self._stored[response] = replace(kept, polls=kept.polls - 1)
            return Answer(body=synthesis.begun(kept.link.response))
        return Answer(body=kept.link.response)

    def delete(self, response: str) -> Answer:
        """Forget a stored response."""
        if self._stored.pop(response, None) is None:
            return _no_response(response)
        return Answer(body={"id": response, "object": "response", "deleted": True})

    def input_items(self, response: str) -> Answer:
        """What a stored response was asked, its chain included, the latest first."""
        kept = self._stored.get(response)
        if kept is None:
            return _no_response(response)
        before = [] if kept.link.parent is None else list(chain.walk(kept.link.parent))
        data = [*reversed(kept.link.asked), *before]
        return Answer(body={"object": "list", "data": data, "has_more": False})

    def remembers(self, connection: str, response: str) -> bool:
        """Whether an unstored response can still be continued from on a connection."""
        return self._cached(connection, response) is not None

    def disconnect(self, connection: str) -> None:
        """A connection is gone, and what it remembered with it."""
        for key in [key for key in self._newest if key[0] == connection]:
            del self._newest[key]

    # -- what is refused -------------------------------------------------------------------

    def _refused(self, asked: _Asked, items: Sequence[JsonObject] | None) -> Answer | None:
        if not self._checks:
            return None
        wrong = chain.check_parameters(asked.body)
        if wrong is not None:
            return wrong
        if items is None:
            return refusal("Invalid type for 'input': text or a list is needed.", param="input")
        previous = text(asked.body, "previous_response_id")
        if previous is not None and asked.parent is None:
            return refusal(
                f"Previous response with id '{previous}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return _dangling(asked.items) or chain.check(asked.items, asked.parent)

    def _find(self, response: str, connection: str | None) -> Link | None:
        kept = self._stored.get(response)
        if kept is not None:
            return kept.link if kept.link.status in _CONTINUABLE else None
        return None if connection is None else self._cached(connection, response)

    def _cached(self, connection: str, response: str) -> Link | None:
        for (where, _), link in self._newest.items():
            if where == connection and link.id == response:
                return link
        return None

    def _evict(self, asked: _Asked) -> None:
        # Only a continuation on the parent's own lane takes it along (protocol 1.5).
        if asked.connection is not None and asked.parent is not None:
            key = asked.connection, asked.lane
            if self._newest.get(key) is asked.parent:
                del self._newest[key]

    def _resolved(self, item: JsonObject) -> JsonObject:
        if type_of(item) != "item_reference":
            return item
        return self._references.get(text(item, "id") or "", item)

    # -- what is answered ------------------------------------------------------------------

    def _answer(self, asked: _Asked) -> Answer | Generation:
        if asked.body.get("generate") is False:
            return self._generate(asked, Reply())
        reply = self._next(asked.body)
        if reply is None:
            return refusal(
                f"The script has no more entries: this is request {self._asked}.",
                code="script_exhausted",
            )
        if reply.body is not None and not _is_response(reply.body):
            return Answer(status=reply.status, body=reply.body, headers=_headers(reply))
        return self._generate(asked, reply)

    def _next(self, body: JsonObject) -> Reply | None:
        if self._echoes:
            return echo(body)
        while self._entries:
            entry = self._entries.popleft()
            reply = entry if isinstance(entry, Reply) else entry(body)
            if reply.refuse_upgrade is None:
                return reply
        return None

    def _generate(self, asked: _Asked, reply: Reply) -> Generation:
        held = responses.tokens(asked.items)
        events: Sequence[JsonObject]
        cached = 0 if asked.parent is None else asked.parent.tokens
        if reply.events is not None:
            response, events = _final(reply.events), reply.events
        else:
            response = reply.body or responses.build(
                asked.body, reply, self._ids, held=held + cached, cached=cached
            )
            events = synthesis.events(response, chunk=reply.chunk)
        if response is None:
            return Generation(steps(events, reply), response=None, delay=reply.delay, ended=_ignore)
        link = _link(asked, response, held + cached)
        self._ids.take([link.id, *(text(item, "id") for item in chain.output_of(response))])
        if reply.finishes:
            self._running[link.id] = synthesis.begun(response)
        return Generation(
            steps(events, reply),
            response=response,
            delay=reply.delay,
            ended=lambda finished: self._ended(asked, reply, link, finished),
        )

    def _ended(self, asked: _Asked, reply: Reply, link: Link, finished: bool) -> None:
        self._running.pop(link.id, None)
        if finished and link.status in _CONTINUABLE:
            if asked.connection is not None:
                self._newest[asked.connection, asked.lane] = link
        else:
            self._evict(asked)
        if (finished or reply.finishes) and _stores(asked.body, link.response):
            self._stored[link.id] = _Kept(link=link, polls=0 if finished else reply.polls)
            for item in (*link.asked, *chain.output_of(link.response)):
                self._references[text(item, "id") or ""] = item

    def _recorded(self, reply: Reply, after: int) -> Generation:
        events = [
            event
            for event in reply.events or ()
            if not isinstance(number := event.get("sequence_number"), int) or number > after
        ]
        response = _final(events)
        return Generation(steps(events, reply), response=response, delay=reply.delay, ended=_ignore)


_CONTINUABLE = frozenset({"completed", "incomplete"})


def _ignore(_finished: bool) -> None:
    """Nothing is kept of a response that was recorded elsewhere."""


def _input(body: JsonObject) -> list[JsonObject] | None:
    """The input as items; None where it is neither text nor a list of objects."""
    found: Json = body.get("input")
    if found is None:
        return []
    if isinstance(found, str):
        return [{"type": "message", "role": "user", "content": found}]
    items = objects(body, "input")
    return items if isinstance(found, (list, tuple)) and len(items) == len(found) else None


def _dangling(items: Sequence[JsonObject]) -> Answer | None:
    for item in items:
        if type_of(item) == "item_reference":
            return refusal(
                f"Item with id '{text(item, 'id')}' not found.", param="input", status=404
            )
    return None


def _no_response(id: str) -> Answer:
    return refusal(f"Response with id '{id}' not found.", param="response_id", status=404)


def _headers(reply: Reply) -> dict[str, str]:
    headers = dict(reply.headers)
    if reply.retry_after is not None:
        headers["retry-after"] = f"{reply.retry_after:g}"
    return headers


def _is_response(body: JsonObject) -> bool:
    return body.get("object") == "response"


def _final(events: Sequence[JsonObject]) -> JsonObject | None:
    """The response that a recorded stream ends with, where it says so."""
    for event in reversed(events):
        response = event.get("response")
        if ends(event) and isinstance(response, dict):
            return response
    return None


def _link(asked: _Asked, response: JsonObject, held: int) -> Link:
    output = chain.output_of(response)
    pending = frozenset[chain.Call]() if asked.parent is None else asked.parent.pending
    return Link(
        response=response,
        asked=asked.items,
        parent=asked.parent,
        pending=chain.settle(pending, (*asked.items, *output)),
        tokens=held + responses.tokens(output),
    )


def _stores(body: JsonObject, response: JsonObject) -> bool:
    asked = body.get("store")
    return (response.get("store") is not False) if asked is None else asked is not False
