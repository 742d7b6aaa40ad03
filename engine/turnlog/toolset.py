"""The tools of an agent, as one set: checked, and each under a name of its own.

The one rule: what the log and the provider are told of a tool is what can be run, or what the
caller answers; nothing is claimed of a schema that it does not hold (W-62).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

from pydantic import BaseModel

from .canonical import JsonObject, obj, text
from .errors import InvalidInput
from .schemas import strict_fault
from .secrets import check_plain, to_log
from .tools import Tool, ToolLike, checked_name, flat, tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolset:
    """The tools of an agent: what the log and the provider are told, and what can be run.

    `notes` says, by name, why a tool is not strict though it nearly could be (W-62).
    """

    tools: Mapping[str, Tool] = field(default_factory=dict[str, Tool])
    notes: Mapping[str, str] = field(default_factory=dict[str, str])
    _definitions: tuple[JsonObject, ...] = ()

    def definitions(self) -> tuple[JsonObject, ...]:
        """Every tool as the log holds it, in the order given; `to_wire` puts secrets in."""
        return self._definitions

    def get(self, name: str) -> Tool | None:
        """The tool that can be run under a name; None for one that is only surfaced."""
        return self.tools.get(name)


def bind(tools: Iterable[ToolLike]) -> Toolset:
    """Check tools and put them together; plain functions become tools, dicts are kept.

    Raises InvalidInput for a name that is there twice and for what is no tool, and
    ConfigurationError for a secret in plain text (law 15).
    """
    bound: dict[str, Tool] = {}
    notes: dict[str, str] = {}
    definitions: list[JsonObject] = []
    for entry in tools:
        made = _runnable(entry)
        definition, note = _given(entry) if made is None else (made.definition(), made.note)
        name = _function_name(definition)
        if name is not None and name in map(_function_name, definitions):
            raise InvalidInput(f"there are two tools named {name!r}: rename one with tool(name=…)")
        if name is not None and note is not None:
            notes[name] = note
        if made is not None:
            bound[made.name] = made
        definitions.append(definition)
    return Toolset(tools=bound, notes=notes, _definitions=tuple(definitions))


def _runnable(entry: object) -> Tool | None:
    if isinstance(entry, Tool):
        return entry
    if isinstance(entry, (Mapping, BaseModel)):
        return None
    if not callable(entry):
        raise InvalidInput(
            f"{entry!r} is no tool: pass a function, what turnlog.tool made of one, or a dict"
            ' like {"type": "web_search"}'
        )
    return tool(entry)


def _given(entry: object) -> tuple[JsonObject, str | None]:
    """A dict as it is, except that `strict` is claimed only where it is so (W-62)."""
    definition = flat(cast("JsonObject", to_log(entry)))
    check_plain(definition)
    if text(definition, "type") is None:
        raise InvalidInput('a tool that is a dict needs a "type", like {"type": "web_search"}')
    if definition["type"] != "function":
        return definition, None
    checked_name(text(definition, "name") or "")
    if definition.get("strict") is not True:
        return definition, None
    fault = strict_fault(obj(definition, "parameters"))
    if fault is None:
        return definition, None
    return {**definition, "strict": False}, f"not strict: {fault}"


def _function_name(definition: JsonObject) -> str | None:
    return text(definition, "name") if definition["type"] in ("function", "custom") else None
