"""Chains of responses as a provider holds them, and what it refuses to continue them with.

The one rule: pure, and in the service's own words, since clients know these refusals by their
text: they have no code (protocol 1.6).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from turnlog.canonical import Json, JsonObject, text
from turnlog.items import CALL_OF, call_id_of, is_client_call, is_hosted_output, type_of

from .answer import Answer, refusal

Call = tuple[str, str | None]
"""The kind and the provider's id of a client-owned call."""


@dataclass(slots=True, kw_only=True, eq=False)
class Link:
    """A response in a chain: what it was asked, what it answered, and what is still open.

    `pending` are the calls under it that want an output; `tokens` is how much the chain holds.
    """

    response: JsonObject
    asked: tuple[JsonObject, ...]
    parent: Link | None
    pending: frozenset[Call]
    tokens: int

    @property
    def id(self) -> str:
        """The provider's id of the response."""
        return text(self.response, "id") or ""

    @property
    def status(self) -> str | None:
        """How the response ended."""
        return text(self.response, "status")

    def forget(self) -> None:
        """Let go of the items, and of what stands before: a chain for ever would grow for ever."""
        self.response = {key: self.response[key] for key in _REMAINS if key in self.response}
        self.asked = ()
        self.parent = None


_REMAINS = ("id", "status")


def output_of(response: JsonObject) -> tuple[JsonObject, ...]:
    """The output items of a response; none where its output is null or missing."""
    found = response.get("output")
    listed = found if isinstance(found, (list, tuple)) else ()
    return tuple(item for item in listed if isinstance(item, dict))


def walk(link: Link | None) -> Iterator[JsonObject]:
    """Every item of a chain, the latest link first."""
    while link is not None:
        yield from link.asked
        yield from output_of(link.response)
        link = link.parent


def whole(link: Link | None) -> list[JsonObject]:
    """Every item of a chain, in order."""
    found: list[JsonObject] = []
    while link is not None:
        found[:0] = [*link.asked, *output_of(link.response)]
        link = link.parent
    return found


def settle(pending: frozenset[Call], items: Sequence[JsonObject]) -> frozenset[Call]:
    """The calls that want an output once these items have been added."""
    left = set(pending)
    for item in items:
        if is_client_call(item):
            left.add((type_of(item), call_id_of(item)))
        elif is_answer(item):
            left.discard(answered_by(item))
    return frozenset(left)


def is_answer(item: JsonObject) -> bool:
    """Whether an item is the client's output for a call of its own."""
    return type_of(item) in CALL_OF and not is_hosted_output(item)


def answered_by(item: JsonObject) -> Call:
    """The call that an output answers; a local shell's output names it by `id`."""
    found = call_id_of(item)
    return CALL_OF[type_of(item)], text(item, "id") if found is None else found


# -- what is refused -----------------------------------------------------------------------


def check(items: Sequence[JsonObject], parent: Link | None) -> Answer | None:
    """What the service answers to items that cannot stand behind their chain, or None."""
    return _duplicate(items, parent) or _unpaired(items, parent) or _unfollowed(items)


def _duplicate(items: Sequence[JsonObject], parent: Link | None) -> Answer | None:
    named = [id for item in items if (id := _own_id(item)) is not None]
    if not named:
        return None
    seen = {id for item in walk(parent) if (id := _own_id(item)) is not None}
    for id in named:
        if id in seen:
            return refusal(
                f"Duplicate item found with id {id}. Remove duplicate items from your input"
                " and try again.",
                param="input",
            )
        seen.add(id)
    return None


def _own_id(item: JsonObject) -> str | None:
    return None if is_answer(item) else text(item, "id")


def _unpaired(items: Sequence[JsonObject], parent: Link | None) -> Answer | None:
    pending = frozenset[Call]() if parent is None else parent.pending
    for place, item in enumerate(items):
        if is_answer(item) and answered_by(item) not in pending:
            if not _called(answered_by(item), items[:place], parent):
                return _no_call(item)
        pending = settle(pending, [item])
    for kind, call_id in sorted(pending, key=str):
        named = kind.replace("_", " ")
        return refusal(f"No tool output found for {named} {call_id}.", param="input")
    return None


def _called(call: Call, items: Sequence[JsonObject], parent: Link | None) -> bool:
    """Whether a call was ever made: an output that comes twice is not an orphan."""
    return call in settle(frozenset(), [item for item in items if is_client_call(item)]) or any(
        call == (type_of(item), call_id_of(item)) for item in walk(parent)
    )


def _no_call(item: JsonObject) -> Answer:
    named = type_of(item).replace("_", " ")
    _, call_id = answered_by(item)
    return refusal(f"No tool call found for {named} with call_id {call_id}.", param="input")


def _unfollowed(items: Sequence[JsonObject]) -> Answer | None:
    for place, item in enumerate(items):
        if type_of(item) == "reasoning" and not _followed(items[place + 1 :]):
            return refusal(
                f"Item '{text(item, 'id')}' of type 'reasoning' was provided without its"
                " required following item.",
                param="input",
            )
    return None


def _followed(rest: Sequence[JsonObject]) -> bool:
    """Whether what comes next was made by the provider: it has an id of its own."""
    following = next((item for item in rest if type_of(item) != "reasoning"), None)
    if following is None or text(following, "id") is None or is_answer(following):
        return False
    return following.get("role") in (None, "assistant")


# -- what is refused whatever the chain ----------------------------------------------------


def check_parameters(body: JsonObject) -> Answer | None:
    """What the service answers to settings that are missing or contradict one another, or None."""
    if not text(body, "model"):
        return _missing("Missing required parameter: 'model'.", "model")
    if body.get("input") is None and body.get("previous_response_id") is None:
        return _missing(
            "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation_id' must be"
            " provided.",
            "input",
        )
    if _forces_a_tool(body.get("tool_choice")) and not body.get("tools"):
        return refusal(
            "Tool choices other than 'auto' are only allowed when 'tools' are specified.",
            param="tool_choice",
        )
    return _unsimulated(body)


def _missing(message: str, param: str) -> Answer:
    return refusal(message, param=param, code="missing_required_parameter")


def _forces_a_tool(choice: Json) -> bool:
    return choice not in (None, "auto", "none")


def _unsimulated(body: JsonObject) -> Answer | None:
    if body.get("conversation"):
        return refusal(
            "The simulated provider has no 'conversation': leave it out.",
            param="conversation",
            code="unsupported_parameter",
        )
    return None
