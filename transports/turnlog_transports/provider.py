"""The simulated provider: a state machine for the Responses protocol, faithful to its refusals.

The one rule: pure. It is told what was asked, where it came from and what became of the answer, and
says what is sent; it does no I/O and reads no clock. The HTTP and WebSocket simulator and the
replay transport are two shells around it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from turnlog.canonical import Json, JsonObject, objects, text
from turnlog.items import type_of
from turnlog.testing.scripts import Reply, Script

from . import chain, responses, synthesis
from .answer import Answer, refusal
from .chain import Link
from .echo import echo
from .generation import Generation, ends, steps
from .memory import CONTINUABLE, Memory
from .responses import Ids
from .transcript import Transcript

Playable: TypeAlias = "Script | Transcript | None"
"""What a provider can answer from; None is the echo, which answers anything for ever."""

_Entry: TypeAlias = "Reply | Callable[[JsonObject], Reply]"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request: what it says, what it stands behind, and where it came from."""

    body: JsonObject
    items: tuple[JsonObject, ...]
    parent: Link | None
    connection: str | None
    lane: str | None


class Provider:
    """Answers requests from a script, a transcript, or as an echo.

    With `checks` it refuses what the real service refuses; a transcript is answered in order
    whatever was asked, unless `checks` says otherwise. `seed` stands in the ids it makes up.
    """

    def __init__(
        self, script: Playable = (), *, checks: bool | None = None, seed: str = ""
    ) -> None:
        self._ids = Ids(seed)
        self._memory = Memory()
        self._always = checks
        self._number = 0
        self.play(script)

    def play(self, script: Playable) -> None:
        """Answer from this from now on; what is stored stays."""
        recorded = isinstance(script, Transcript)
        if isinstance(script, Transcript):
            self._entries = deque[_Entry](script.replies)
            self._retrievals = dict(script.retrievals)
        else:
            self._entries = deque[_Entry](script or ())
            self._retrievals = {}
        self._echoes = script is None
        self._checks = not recorded if self._always is None else self._always

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
        self._number += 1
        previous = text(body, "previous_response_id")
        self._ids.take([previous, *(text(item, "id") for item in objects(body, "input"))])
        items = _input(body)
        asked = _Asked(
            body=body,
            items=tuple(self._memory.resolve(item) for item in items or ()),
            parent=None if previous is None else self._memory.find(previous, connection),
            connection=connection,
            lane=lane,
        )
        refused = self._refused(asked, well_formed=items is not None) if self._checks else None
        answer = refused or self._answer(asked)
        if isinstance(answer, Answer) and answer.status >= 400:
            self._memory.evict(connection, lane, asked.parent)
        return answer

    def retrieve(
        self, response: str, *, stream: bool = False, starting_after: int | None = None
    ) -> Answer | Generation:
        """Answer a `GET` of a response, from behind a sequence number where it is streamed."""
        recorded = self._retrievals.get(response)
        if stream and recorded is not None:
            return _resumed(recorded, -1 if starting_after is None else starting_after)
        answer = self._memory.retrieve(response)
        if stream and answer.status == 200:
            return refusal(
                "This response cannot be streamed: it was not made with background=true."
            )
        return answer

    def delete(self, response: str) -> Answer:
        """Forget a stored response."""
        return self._memory.delete(response)

    def input_items(self, response: str) -> Answer:
        """What a stored response was asked, its chain included, the latest first."""
        return self._memory.input_items(response)

    def remembers(self, connection: str, response: str) -> bool:
        """Whether an unstored response can still be continued from on a connection."""
        return self._memory.cached(connection, response) is not None

    def disconnect(self, connection: str) -> None:
        """A connection is gone, and what it remembered with it."""
        self._memory.disconnect(connection)

    # -- what is answered ------------------------------------------------------------------

    def _refused(self, asked: _Asked, *, well_formed: bool) -> Answer | None:
        wrong = chain.check_parameters(asked.body)
        if wrong is not None:
            return wrong
        if not well_formed:
            return refusal("Invalid type for 'input': text or a list is needed.", param="input")
        previous = text(asked.body, "previous_response_id")
        if previous is not None and asked.parent is None:
            return refusal(
                f"Previous response with id '{previous}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return _dangling(asked.items) or chain.check(asked.items, asked.parent)

    def _answer(self, asked: _Asked) -> Answer | Generation:
        if asked.body.get("generate") is False:
            return self._generate(asked, Reply())
        reply = self._next(asked.body)
        if reply is None:
            return refusal(
                f"The script has no more entries: this is request {self._number}.",
                code="script_exhausted",
            )
        if reply.body is not None and reply.body.get("object") != "response":
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
        cached = 0 if asked.parent is None else asked.parent.tokens
        held = cached + responses.tokens(asked.items)
        if reply.events is not None:
            response, events = _final(reply.events), reply.events
        else:
            response = reply.body or responses.build(
                asked.body, reply, self._ids, held=held, cached=cached
            )
            events = tuple(synthesis.events(response, chunk=reply.chunk))
        # A stream that never says what it ends with is still a response, of which nothing is kept.
        link = _link(asked, response or {}, held)
        self._ids.take([link.id, *(text(item, "id") for item in chain.output_of(link.response))])
        if reply.finishes:
            self._memory.begin(link)
        return Generation(
            steps(events, reply),
            response=response,
            delay=reply.delay,
            ended=lambda finished: self._ended(asked, reply, link, finished),
        )

    def _ended(self, asked: _Asked, reply: Reply, link: Link, finished: bool) -> None:
        self._memory.over(link)
        if finished and link.id and link.status in CONTINUABLE:
            self._memory.advance(asked.connection, asked.lane, link)
        else:
            self._memory.evict(asked.connection, asked.lane, asked.parent)
        if link.id and (finished or reply.finishes) and _stores(asked.body, link.response):
            self._memory.store(link, polls=0 if finished else reply.polls)


def _resumed(reply: Reply, after: int) -> Generation:
    """A recorded stream from behind a sequence number; events without one are all sent."""
    events = [
        event
        for event in reply.events or ()
        if not isinstance(number := event.get("sequence_number"), int) or number > after
    ]
    return Generation(
        steps(events, reply), response=_final(events), delay=reply.delay, ended=lambda _: None
    )


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


def _headers(reply: Reply) -> dict[str, str]:
    headers = dict(reply.headers)
    if reply.retry_after is not None:
        headers["retry-after"] = f"{reply.retry_after:g}"
    return headers


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
