"""Settings: what goes with a request beside its input, from three layers into one body.

The one rule: the agent's, then the conversation's, then the turn's, and the later wins (W-63);
unset is absent (W-64). What a request cannot be is refused here, before anything is written.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from .canonical import Json, JsonObject, dumps, obj, objects, text
from .errors import InvalidInput
from .ports import Profile
from .secrets import to_log
from .tools import Tool, flat


class Settings(TypedDict, total=False):
    """Fields of a request; None removes what an earlier layer has set.

    `tool_choice` is `"auto"`, `"none"`, `"required"`, a tool or its name, or the provider's
    object in either of its shapes. `background` has the provider go on with the response whether
    or not anybody listens: slower to begin, and heard on after a crash. `extra` holds fields of
    the body that have no name here.
    """

    tool_choice: str | Tool | Mapping[str, object] | None
    parallel_tool_calls: bool | None
    max_tool_calls: int | None
    reasoning: Mapping[str, object] | None
    text: Mapping[str, object] | None
    temperature: float | None
    top_p: float | None
    top_logprobs: int | None
    max_output_tokens: int | None
    store: bool | None
    background: bool | None
    include: Sequence[str] | None
    metadata: Mapping[str, str] | None
    truncation: Literal["auto", "disabled"] | None
    context_management: Sequence[Mapping[str, object]] | None
    prompt_cache_key: str | None
    prompt_cache_options: Mapping[str, object] | None
    prompt_cache_retention: str | None
    service_tier: str | None
    safety_identifier: str | None
    user: str | None
    extra: Mapping[str, object] | None


_KNOWN = frozenset(Settings.__annotations__)
_OWNED = {
    "model": "it is the agent's model=",
    "instructions": "they are the agent's instructions=",
    "tools": "they are the agent's tools=",
    "input": "it is what the conversation holds",
    "previous_response_id": "turnlog chooses the parent",
    "conversation": "turnlog keeps the conversation",
    "stream": "the transport chooses it",
    "stream_id": "the transport chooses it",
    "generate": "chat.warm() asks for it",
}
"""Fields of a body that no setting may write."""

_BAGS = ("extra", "prompt_cache_options", "reasoning", "text")
"""Settings that are bags of options: layers add to them, one option at a time."""


def checked(settings: Mapping[str, object]) -> JsonObject:
    """One layer of settings as the log holds it: plain JSON, None kept where it removes.

    Raises InvalidInput for a setting that does not exist and for a field that is turnlog's own.
    """
    for name in settings:
        _check_name(name)
    layer = {name: _plain(name, value) for name, value in settings.items()}
    for name in obj(layer, "extra"):
        if name in _OWNED or name in _KNOWN:
            fix = _OWNED.get(name, f"pass {name}= itself")
            raise InvalidInput(f"extra= cannot hold {name!r}: {fix}")
    return layer


def merge(*layers: Mapping[str, object]) -> JsonObject:
    """All layers in one, the later winning, in the order of their names; None is absent.

    Bags of options (`reasoning`, `text`, `prompt_cache_options`, `extra`) are merged option by
    option, every other setting as a whole.
    """
    found: dict[str, Json] = {}
    for layer in map(checked, layers):
        for name, value in layer.items():
            before = found.get(name)
            both = name in _BAGS and isinstance(before, Mapping) and isinstance(value, Mapping)
            found[name] = {**obj(found, name), **obj(layer, name)} if both else value
    settled = {name: _settled(name, found[name]) for name in sorted(found)}
    return {name: value for name, value in settled.items() if value is not None}


def with_format(settings: JsonObject, format: JsonObject) -> JsonObject:
    """Settings that ask for this `text.format`; what else stands in `text` is kept."""
    return {**settings, "text": {**obj(settings, "text"), "format": format}}


def request_fields(settings: Mapping[str, object], tools: Sequence[JsonObject]) -> JsonObject:
    """The fields of a body that settings and tools come to, in the shape the log holds.

    `tools` are definitions; they are left out where there are none. Secrets are still names:
    `secrets.to_wire` puts them in. Raises InvalidInput for a tool choice that the tools do not
    allow (W-61).
    """
    merged = merge(settings)
    fields = {name: value for name, value in merged.items() if name != "extra"}
    fields |= obj(merged, "extra")
    if tools:
        fields["tools"] = list(tools)
    if "tool_choice" in fields:
        fields["tool_choice"] = tool_choice(fields["tool_choice"], tools)
    return fields


def tool_choice(choice: Json, tools: Sequence[JsonObject]) -> Json:
    """A tool choice as the Responses API takes it, from any of its shapes (W-60).

    Raises InvalidInput where it needs a tool that is not there (W-61).
    """
    if choice in ("auto", "none"):
        return choice
    if not tools:
        raise InvalidInput(
            f"tool_choice {_shown(choice)} needs tools, and there are none: pass tools= to the"
            " agent, or leave tool_choice out"
        )
    if choice == "required":
        return choice
    if isinstance(choice, str):
        return _named(choice, tools)
    if not isinstance(choice, Mapping) or text(choice, "type") is None:
        raise InvalidInput(
            'tool_choice is "auto", "none", "required", a tool, its name, or an object with'
            f' a "type", not {_shown(choice)}'
        )
    return _chosen(choice, tools)


def check_supported(body: JsonObject, profile: Profile) -> None:
    """Raise InvalidInput for a field of a body that the provider refuses."""
    for name in body:
        if name in profile.unsupported:
            raise InvalidInput(
                f"{profile.name} does not take {name!r}: leave it out, or set it to None for this"
                " turn"
            )


def fingerprint(
    agent: str | None,
    model: str | None,
    instructions: str | None,
    tools: Sequence[JsonObject],
    settings: JsonObject,
) -> str:
    """SHA-256 (hex) over a whole configuration; the order of its settings says nothing."""
    ordered = {name: settings[name] for name in sorted(settings)}
    return hashlib.sha256(dumps([agent, model, instructions, list(tools), ordered])).hexdigest()


# -- one layer -----------------------------------------------------------------------------


def _check_name(name: str) -> None:
    if name in _KNOWN:
        return
    if name in _OWNED:
        raise InvalidInput(f"{name!r} is no setting: {_OWNED[name]}")
    close = difflib.get_close_matches(name, _KNOWN, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise InvalidInput(
        f"there is no setting {name!r}: {hint}"
        f"a field that turnlog does not know goes into extra={{{name!r}: …}}"
    )


def _plain(name: str, value: object) -> Json:
    found = to_log(value.name if isinstance(value, Tool) else value)
    if name in _BAGS and not isinstance(found, (Mapping, type(None))):
        raise InvalidInput(f"{name}= is a dict of options, not {_shown(found)}")
    return found


def _settled(name: str, value: Json) -> Json:
    """A bag without its unset options, None where it has no other (W-64)."""
    if name not in _BAGS or not isinstance(value, Mapping):
        return value
    return {option: entry for option, entry in value.items() if entry is not None} or None


# -- the tool choice -----------------------------------------------------------------------


def _named(name: str, tools: Sequence[JsonObject]) -> JsonObject:
    """By the name of a function or custom tool, the label of a server, or a type."""
    for tool in tools:
        kind = text(tool, "type")
        if kind in ("function", "custom") and tool.get("name") == name:
            return {"type": kind, "name": name}
        if kind == "mcp" and tool.get("server_label") == name:
            return {"type": kind, "server_label": name}
        if kind == name:
            return {"type": kind}
    raise _no_such_tool(name, tools)


def _chosen(choice: JsonObject, tools: Sequence[JsonObject]) -> JsonObject:
    found = flat(choice)
    if found["type"] == "allowed_tools":
        allowed = [_chosen(entry, tools) for entry in objects(found, "tools")]
        return {**found, "tools": allowed}
    if found["type"] in ("function", "custom"):
        _named(text(found, "name") or "", tools)
    return found


def _no_such_tool(name: str, tools: Sequence[JsonObject]) -> InvalidInput:
    known = (
        text(tool, "name") or text(tool, "server_label") or text(tool, "type") for tool in tools
    )
    return InvalidInput(
        f"tool_choice names {name!r}, which is no tool of this agent: it has "
        + ", ".join(entry for entry in known if entry)
    )


def _shown(value: Json) -> str:
    return dumps(value).decode()
