"""Scripts as JSON, for a simulator that is started by hand or from another language.

The one rule: an entry names exactly one kind of reply, and whatever is not understood is refused
with the entry's number. The values are those of `turnlog.testing`, exported here as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from turnlog.canonical import Json, JsonObject, integer, loads, objects
from turnlog.canonical import text as text_of
from turnlog.errors import InvalidInput
from turnlog.testing.scripts import (
    Reply,
    Script,
    call,
    calls,
    error,
    failed,
    incomplete,
    item,
    reasoning,
    refusal,
    refuse_upgrade,
    reply,
    text,
)

__all__ = [
    "Reply",
    "Script",
    "call",
    "calls",
    "error",
    "failed",
    "incomplete",
    "item",
    "load",
    "parse",
    "parse_entry",
    "reasoning",
    "refusal",
    "refuse_upgrade",
    "reply",
    "text",
]


def load(path: str | Path) -> list[Reply]:
    """Read a script file: a JSON list of entries. Raises InvalidInput, naming the entry."""
    try:
        raw = Path(path).read_bytes()
    except OSError as problem:
        raise InvalidInput(f"the script {path} cannot be read: {problem}") from problem
    return parse(loads(raw))


def parse(entries: Json) -> list[Reply]:
    """The replies in parsed JSON. Raises InvalidInput, naming the entry by its number."""
    if not isinstance(entries, (list, tuple)):
        raise InvalidInput("a script is a list of entries")
    return [parse_entry(entry, place) for place, entry in enumerate(entries, start=1)]


def parse_entry(entry: Json, place: int) -> Reply:
    """The reply in one parsed entry; raises InvalidInput, naming `place`."""
    try:
        if not isinstance(entry, Mapping):
            raise InvalidInput("an object is needed")
        return _entry(entry)
    except InvalidInput as problem:
        raise InvalidInput(f"entry {place} of the script: {problem}") from problem


def _entry(entry: JsonObject) -> Reply:
    kind = _kind(entry)
    read, options = _KINDS[kind]
    unknown = entry.keys() - options - _MODIFIERS.keys() - {kind}
    if unknown:
        raise InvalidInput(f"{kind!r} does not go with {', '.join(sorted(unknown))}")
    changes = {key: _modifier(key, entry[key]) for key in _MODIFIERS if key in entry}
    # Each value was checked against its field's type, which `replace` cannot see.
    return replace(read(entry), **changes)  # type: ignore[arg-type]


def _kind(entry: JsonObject) -> str:
    named = [kind for kind in _KINDS if kind in entry]
    # `incomplete` may say how far it came, in `text`.
    kinds = [kind for kind in named if not any(kind in _KINDS[other][1] for other in named)]
    if len(kinds) != 1:
        raise InvalidInput(f"it needs exactly one of {', '.join(_KINDS)}")
    return kinds[0]


_MODIFIERS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("cut_after", "stall_after", "malformed_after", "polls", "chunk"), (int,)),
    **dict.fromkeys(("hold", "again"), (int,)),
    **dict.fromkeys(("no_terminal", "finishes", "stream_expires", "compacts"), (bool,)),
    "delay": (int, float),
    "usage": (dict,),
}


def _modifier(key: str, value: Json) -> Json:
    wanted = _MODIFIERS[key]
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        names = " or ".join(kind.__name__ for kind in wanted)
        raise InvalidInput(f"{key} is {value!r}, and must be {names}")
    return value


# -- one reader for each kind --------------------------------------------------------------


def _needed(entry: JsonObject, key: str) -> str:
    found = text_of(entry, key)
    if found is None:
        raise InvalidInput(f"{key} must be text")
    return found


def _object(entry: JsonObject, key: str) -> JsonObject:
    found = entry[key]
    if not isinstance(found, Mapping):
        raise InvalidInput(f"{key} must be an object")
    return found


def _status(entry: JsonObject, key: str) -> int:
    found = integer(entry, key)
    if found is None or not 400 <= found < 600:
        raise InvalidInput(f"{key} must be a status from 400 to 599")
    return found


def _text(entry: JsonObject) -> Reply:
    return text(_needed(entry, "text"), phase=text_of(entry, "phase"))


def _call(entry: JsonObject) -> Reply:
    given = entry.get("arguments", {})
    if not isinstance(given, (str, Mapping)):
        raise InvalidInput("arguments must be an object, or text that is sent as it is")
    return call(_needed(entry, "call"), given, text_of(entry, "call_id"))


def _reasoning(entry: JsonObject) -> Reply:
    return reasoning(_needed(entry, "reasoning"), encrypted=text_of(entry, "encrypted"))


def _reply(entry: JsonObject) -> Reply:
    return reply(*(_entry(part) for part in objects(entry, "reply")))


def _error(entry: JsonObject) -> Reply:
    after = entry.get("retry_after")
    if after is not None and not isinstance(after, (int, float)):
        raise InvalidInput("retry_after must be a number of seconds")
    return error(
        _status(entry, "error"),
        text_of(entry, "code"),
        text_of(entry, "message"),
        retry_after=after,
        type=text_of(entry, "type"),
        param=text_of(entry, "param"),
    )


def _incomplete(entry: JsonObject) -> Reply:
    return incomplete(_needed(entry, "incomplete"), text_of(entry, "text"))


def _failed(entry: JsonObject) -> Reply:
    return failed(_needed(entry, "failed"), text_of(entry, "message") or "The server had an error.")


_KINDS: dict[str, tuple[Callable[[JsonObject], Reply], frozenset[str]]] = {
    "text": (_text, frozenset({"phase"})),
    "call": (_call, frozenset({"arguments", "call_id"})),
    "reasoning": (_reasoning, frozenset({"encrypted"})),
    "refusal": (lambda entry: refusal(_needed(entry, "refusal")), frozenset[str]()),
    "item": (lambda entry: item(_object(entry, "item")), frozenset[str]()),
    "reply": (_reply, frozenset[str]()),
    "incomplete": (_incomplete, frozenset({"text"})),
    "failed": (_failed, frozenset({"message"})),
    "error": (_error, frozenset({"code", "message", "type", "param", "retry_after"})),
    "events": (lambda entry: Reply(events=tuple(objects(entry, "events"))), frozenset[str]()),
    "response": (lambda entry: Reply(body=_object(entry, "response")), frozenset[str]()),
    "refuse_upgrade": (
        lambda entry: refuse_upgrade(_status(entry, "refuse_upgrade")),
        frozenset[str](),
    ),
}
