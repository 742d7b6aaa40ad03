"""Typed views over raw provider items, and the pure functions that put them into a request.

The one rule: an item stays the JSON that arrived (law 3). Nothing here changes an item in the log;
`to_input` derives what a request holds from it, the same bytes every time (law 9).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import compress
from typing import TypeAlias

from .canonical import DEEPEST, Json, JsonObject, array, dumps, objects, text
from .errors import InvalidInput, ItemPresent

FORMAT = 1
"""The version of the serialiser below; it stands in every `request.prepared` (law 9)."""

OUTPUT_OF: dict[str, str] = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "shell_call": "shell_call_output",
    "local_shell_call": "local_shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "tool_search_call": "tool_search_output",
    "mcp_approval_request": "mcp_approval_response",
}
"""Which output answers which call (protocol section 2, client-owned pairs)."""

CALL_OF: dict[str, str] = {output: call for call, output in OUTPUT_OF.items()}

_EFFECT_TOOLS = frozenset({"mcp", "shell", "code_interpreter", "computer", "computer_use_preview"})
_OUTPUT_ONLY = frozenset({"created_by", "parsed_arguments", "async", "async_"})
_NULLABLE = frozenset({"call_id"})


def type_of(item: JsonObject) -> str:
    """The type of an item; a message may leave it out, and so may a reference (protocol 2)."""
    found = item.get("type")
    if isinstance(found, str):  # not by `text`: every item of a context is asked
        return found
    return "message" if "role" in item else "item_reference"


def call_id_of(item: JsonObject) -> str | None:
    """The provider's id that pairs a call with its output."""
    match type_of(item):
        case "mcp_approval_request":
            return text(item, "id")
        case "mcp_approval_response":
            return text(item, "approval_request_id")
        case _:
            return text(item, "call_id")


def name_of(item: JsonObject) -> str | None:
    """The name of what is called, for people: a tool's name, or the kind of call."""
    return text(item, "name")


def is_client_call(item: JsonObject) -> bool:
    """Whether the caller must answer this item before the conversation can go on (law 7).

    A tool search is the client's only with `execution: "client"`, a shell call only in an
    environment that is not the provider's container (protocol section 2).
    """
    kind = type_of(item)
    if kind == "tool_search_call":
        return text(item, "execution") == "client"
    if kind == "shell_call":
        environment = item.get("environment")
        hosted = {"container", "container_reference", "container_auto"}
        return not (isinstance(environment, dict) and environment.get("type") in hosted)
    return kind in OUTPUT_OF


def output_text(item: JsonObject) -> str:
    """The text that a message says; empty for any other item."""
    if type_of(item) != "message":
        return ""
    content = item.get("content")
    if isinstance(content, str):
        return content
    return "".join(text(part, "text") or "" for part in objects(item, "content"))


def refusal_text(item: JsonObject) -> str:
    """The refusal that a message holds; empty where it holds none."""
    return "".join(text(part, "refusal") or "" for part in objects(item, "content"))


def has_hosted_effects(tools: Sequence[JsonObject]) -> bool:
    """Whether the provider itself may act on the world for these tools (law 10)."""
    return any(text(tool, "type") in _EFFECT_TOOLS for tool in tools)


# -- outputs -------------------------------------------------------------------------------


def function_output(call: JsonObject, output: Json) -> JsonObject:
    """The output item that answers a call; `output` is text or a list of content parts.

    For the kinds that are not functions a whole item is needed: raises InvalidInput for those.
    """
    kind = type_of(call)
    if kind not in ("function_call", "custom_tool_call"):
        raise InvalidInput(
            f"a {kind} is answered with a whole {OUTPUT_OF.get(kind, 'output')} item,"
            ' not with text: pass a dict with its "type"'
        )
    return {"type": OUTPUT_OF[kind], "call_id": text(call, "call_id"), "output": output}


def refused_output(call: JsonObject, message: str) -> JsonObject:
    """The output item that tells the model why a call was not answered (law 7).

    Every client-owned kind has one, so that a conversation can always go on.
    """
    kind, call_id = type_of(call), call_id_of(call)
    match kind:
        case "mcp_approval_request":
            return {
                "type": "mcp_approval_response",
                "approval_request_id": call_id,
                "approve": False,
                "reason": message,
            }
        case "tool_search_call":
            return {
                "type": "tool_search_output",
                "call_id": call_id,
                "execution": "client",
                "status": "completed",
                "tools": [],
            }
        case "apply_patch_call":
            return {
                "type": "apply_patch_call_output",
                "call_id": call_id,
                "status": "failed",
                "output": message,
            }
        case "shell_call":
            chunk: JsonObject = {
                "stdout": "",
                "stderr": message,
                "outcome": {"type": "exit", "exit_code": 1},
            }
            return {"type": "shell_call_output", "call_id": call_id, "output": [chunk]}
        case "local_shell_call":
            return {"type": "local_shell_call_output", "id": call_id, "output": message}
        case "computer_call":
            return {
                "type": "computer_call_output",
                "call_id": call_id,
                "output": {"type": "computer_screenshot", "image_url": _BLANK},
            }
        case _:
            return {"type": OUTPUT_OF[kind], "call_id": call_id, "output": message}


_BLANK = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQAB"
    "h6FO1AAAAABJRU5ErkJggg=="
)
"""One transparent pixel: a computer call can only be answered with a picture."""


def approval(call: JsonObject, approve: bool, reason: str | None) -> JsonObject:
    """The item that answers an MCP approval request."""
    item: dict[str, Json] = {
        "type": "mcp_approval_response",
        "approval_request_id": call_id_of(call),
        "approve": approve,
    }
    if reason is not None:
        item["reason"] = reason
    return item


# -- requests ------------------------------------------------------------------------------


def to_input(item: JsonObject, format: int = FORMAT) -> JsonObject:
    """What a request holds for an item: the item without output-only fields and nulls (W-64).

    Raises InvalidInput for a format that this turnlog does not know.
    """
    if format != FORMAT:
        raise InvalidInput(f"unknown input format {format}: this turnlog writes {FORMAT}")
    if _is_input(item):
        return item
    return {
        key: value
        for key, value in item.items()
        if key not in _OUTPUT_ONLY and (value is not None or key in _NULLABLE)
    }


def _is_input(item: JsonObject) -> bool:
    """Whether an item goes out as it is, which is what nearly all do: saves 0.9 of 1.2 us each."""
    return None not in item.values() and _OUTPUT_ONLY.isdisjoint(item)


class Encoded(tuple[JsonObject, ...]):
    """Items or tools of a request, which keep their canonical bytes once they were asked for.

    Its digest and what goes out are made of the same bytes (law 9): encoding 1,000 items a second
    time would cost 1.2 ms. So nobody changes it; a copy is a list, for whoever wants to.
    """

    _canonical: bytes

    @property
    def canonical(self) -> bytes:
        """The canonical bytes; raises InvalidInput where it is not JSON."""
        try:
            return self._canonical
        except AttributeError:
            # Lists of its items go as deep as they would within the body of a request.
            self._canonical = dumps(list(self), deepest=DEEPEST - 1)
            return self._canonical

    def __reduce__(self) -> tuple[type[list[JsonObject]], tuple[list[JsonObject]]]:
        return list, (list(self),)


def encoded(body: JsonObject) -> bytes:
    """The canonical bytes of a request's body, as `dumps` gives them; it raises the same."""
    parts: list[bytes] = []
    rest: dict[str, Json] = {}
    for name, value in body.items():
        if isinstance(value, Encoded):
            # Before it stand those that are encoded now, and its own name without a value.
            parts += (dumps({**rest, name: None})[1:-5], value.canonical, b",")
            rest = {}
        else:
            rest[name] = value
    if rest or not parts:
        parts.append(dumps(rest)[1:-1])
    else:
        parts.pop()
    return b"{" + b"".join(parts) + b"}"


Pair: TypeAlias = tuple[str, str | None]
"""What pairs a call with its output: the type of the call, and the provider's id for it."""


def legal(items: Sequence[JsonObject], chain: Collection[Pair] = ()) -> list[JsonObject]:
    """The items of a request without what the provider would refuse (law 9).

    Left out are an output whose call is not before it, a call that has no output behind it, and
    reasoning without the item that must follow it. What a caller added or removed by hand is the
    only way to get there: pending calls never reach a request (law 7). `chain` holds the calls of
    the chain that a delta continues, whose outputs the items bring (W-04); none for a full request.
    """
    kinds = [type_of(item) for item in items]
    keep = _paired(items, kinds, chain)
    for place, kind in enumerate(kinds):
        if kind == "reasoning":
            keep[place] = _followed(items, keep, place)
    return list(compress(items, keep))


def _paired(
    items: Sequence[JsonObject], kinds: Sequence[str], chain: Collection[Pair]
) -> list[bool]:
    """Whether each item stays, as far as calls and their outputs go."""
    calls: dict[Pair, int | None] = dict.fromkeys(chain)
    keep = [True] * len(items)
    for place, kind in enumerate(kinds):
        if kind in OUTPUT_OF:
            # A hosted call stands for itself, and its output needs it all the same.
            item = items[place]
            keep[place] = not is_client_call(item)
            calls[kind, call_id_of(item)] = place
        elif kind in CALL_OF and not is_hosted_output(item := items[place]):
            pair = CALL_OF[kind], answered_id(item)
            keep[place] = pair in calls
            call = calls.pop(pair, None)
            if call is not None:
                keep[call] = True
    return keep


def answers(item: JsonObject, kind: str, call_id: str | None) -> bool:
    """Whether an item is an output of the call of this type and id."""
    return CALL_OF.get(type_of(item)) == kind and answered_id(item) == call_id


def answered_id(item: JsonObject) -> str | None:
    """The id of the call that an output answers; a local shell output carries it as its own."""
    found = call_id_of(item)
    return text(item, "id") if found is None else found


def is_hosted_output(item: JsonObject) -> bool:
    """Whether an output belongs to a call that the provider itself ran (protocol section 2)."""
    return type_of(item) == "tool_search_output" and text(item, "execution") != "client"


def _followed(items: Sequence[JsonObject], keep: Sequence[bool], place: int) -> bool:
    """Whether reasoning is followed by an item that stays and that the provider made."""
    for after in range(place + 1, len(items)):
        item = items[after]
        if type_of(item) != "reasoning":
            made = type_of(item) not in CALL_OF and item.get("role") in (None, "assistant")
            return keep[after] and made and text(item, "id") is not None
    return False


def without_identity(item: JsonObject) -> JsonObject:
    """An item that is no longer what the provider made: its id and status say nothing any more."""
    return {key: value for key, value in item.items() if key not in ("id", "status")}


def ids_of(items: Iterable[JsonObject]) -> list[str]:
    """The provider's ids of items that have one."""
    return [id for item in items if (id := text(item, "id")) is not None]


def already_present(id: str) -> ItemPresent:
    """The error about an item that would stand in a context twice."""
    return ItemPresent(
        f"the item {id!r} is in the context already:"
        " use chat.replace(items) to make the context equal a list"
    )


def check(item: JsonObject) -> None:
    """Raise InvalidInput where an item cannot be part of a context (law 13)."""
    if text(item, "type") is None and "role" not in item:
        raise InvalidInput(
            'an item needs a "type" (or a "role", for a message); this one has only '
            + (", ".join(sorted(item)) or "nothing")
        )
    if type_of(item) == "message" and text(item, "role") is None:
        raise InvalidInput('a message needs a "role": user, assistant, system or developer')
    if type_of(item) == "message" and not (text(item, "content") or array(item, "content")):
        raise InvalidInput("the message is empty: give it text or at least one content part")
    if type_of(item) in CALL_OF and answered_id(item) is None:
        raise InvalidInput(f"a {type_of(item)} needs the id of the call that it answers")
