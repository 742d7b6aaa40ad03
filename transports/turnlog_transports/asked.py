"""What a request to the provider stands behind, and the link that its response becomes.

The one rule: pure. The input is read once, leniently, so that it can be refused in the service's
words, and answered all the same where nothing is checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from turnlog.canonical import Json, JsonObject, objects, text
from turnlog.items import type_of

from . import chain, responses
from .answer import Answer, refusal
from .chain import Link
from .generation import ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request: what it says, what it stands behind, and where it came from.

    `items` is None where the input is neither text nor a list of objects. `forks` says that the
    parent is the newest response of another lane.
    """

    body: JsonObject
    items: tuple[JsonObject, ...] | None
    parent: Link | None
    connection: str | None
    lane: str | None
    forks: bool

    @property
    def given(self) -> tuple[JsonObject, ...]:
        """The items of the input; none where it cannot be read."""
        return self.items or ()

    @property
    def background(self) -> bool:
        """Whether the response is to be made whoever listens, which a WebSocket cannot carry."""
        return self.body.get("background") is True and self.connection is None

    @property
    def warms(self) -> bool:
        """Whether nothing is to be generated: it only prepares what comes next."""
        options = self.body.get("prompt_cache_options")
        prewarm = isinstance(options, dict) and options.get("prewarm") is True
        return prewarm or self.body.get("generate") is False

    @property
    def cached(self) -> int:
        """How many tokens the chain holds already."""
        return 0 if self.parent is None else self.parent.tokens

    @property
    def held(self) -> int:
        """How many tokens the chain holds with the input."""
        return self.cached + responses.tokens(self.given)

    def link(self, response: JsonObject) -> Link:
        """The place of a response in its chain."""
        output = chain.output_of(response)
        pending = frozenset[chain.Call]() if self.parent is None else self.parent.pending
        return Link(
            response=response,
            asked=self.given,
            parent=self.parent,
            pending=chain.settle(pending, (*self.given, *output)),
            tokens=self.held + responses.tokens(output),
        )

    def stores(self, response: JsonObject) -> bool:
        """Whether the response can be continued from anywhere."""
        asked = self.body.get("store")
        return (response.get("store") is not False) if asked is None else asked is not False


def read_input(body: JsonObject) -> list[JsonObject] | None:
    """The input as items; None where it is neither text nor a list of objects."""
    found: Json = body.get("input")
    if found is None:
        return []
    if isinstance(found, str):
        return [{"type": "message", "role": "user", "content": found}]
    items = objects(body, "input")
    return items if isinstance(found, (list, tuple)) and len(items) == len(found) else None


def refused(asked: Asked) -> Answer | None:
    """How the service refuses a request, or None where it answers it."""
    wrong = chain.check_parameters(asked.body)
    if wrong is not None:
        return wrong
    if asked.items is None:
        return refusal("Invalid type for 'input': text or a list is needed.", param="input")
    background = asked.body.get("background")
    if background is not None and not isinstance(background, bool):
        return refusal("Invalid type for 'background': a boolean is needed.", param="background")
    if background and not asked.background:
        return refusal(
            "Background responses are not supported over a WebSocket: ask for one over HTTP.",
            param="background",
        )
    previous = text(asked.body, "previous_response_id")
    if previous is not None and asked.parent is None:
        return not_found(previous)
    return _dangling(asked.given) or chain.check(asked.given, asked.parent)


def not_found(previous: str) -> Answer:
    """The response to continue from is not there, or not any more."""
    return refusal(
        f"Previous response with id '{previous}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


def _dangling(items: Sequence[JsonObject]) -> Answer | None:
    for item in items:
        if type_of(item) == "item_reference":
            return refusal(
                f"Item with id '{text(item, 'id')}' not found.", param="input", status=404
            )
    return None


def final(events: Sequence[JsonObject]) -> JsonObject | None:
    """The response that a recorded stream ends with, where it says so."""
    for event in reversed(events):
        response = event.get("response")
        if ends(event) and isinstance(response, dict):
            return response
    return None
