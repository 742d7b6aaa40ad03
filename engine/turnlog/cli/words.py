"""Times, items and calls in human words.

The one rule: one line each, and nothing in it that the log does not say. Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime

from ..canonical import JsonObject, integer, obj, objects, text
from ..items import CALL_OF, name_of, output_text, refusal_text, type_of
from .screen import arguments, one_line


def counted(count: int, what: str) -> str:
    """A number of things: `1 item`, `2 items`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def when(time: int) -> str:
    """Microseconds since 1970 as a UTC date and time, to the second."""
    return _utc(time).strftime("%Y-%m-%d %H:%M:%S")


def clock(time: int) -> str:
    """The time of day, to the millisecond."""
    return f"{_utc(time):%H:%M:%S}.{time // 1000 % 1000:03d}"


def day(time: int) -> str:
    """The date."""
    return f"{_utc(time):%Y-%m-%d}"


def _utc(time: int) -> datetime:
    try:
        return datetime.fromtimestamp(time // 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        # An import may hold any time.
        return datetime.fromtimestamp(0, UTC)


# -- items ---------------------------------------------------------------------------------


def item_words(item: JsonObject, width: int = 160) -> str:
    """An item of a context: who says what, or what is called with what."""
    kind = type_of(item)
    if kind == "message":
        return f"{text(item, 'role')}: {one_line(_message(item), width)}"
    if kind == "reasoning":
        said = " ".join(text(part, "text") or "" for part in objects(item, "summary"))
        return f"reasoning: {one_line(said, width)}" if said else "reasoning"
    if kind in CALL_OF:
        return f"{kind.replace('_', ' ')}: {one_line(output_words(item), width)}"
    if "arguments" in item or "input" in item:
        return one_line(call_words(name_of(item), kind, given_to(item)), width)
    return one_line(" ".join(filter(None, (kind.replace("_", " "), name_of(item)))), width)


def _message(item: JsonObject) -> str:
    said = output_text(item) or refusal_text(item)
    kinds = (text(part, "type") or "part" for part in objects(item, "content"))
    parts = [kind for kind in kinds if kind not in ("input_text", "output_text", "refusal")]
    return " ".join([said, *(f"[{part}]" for part in parts)]).strip()


def given_to(item: JsonObject) -> str | None:
    """What a call is given, as text."""
    return text(item, "arguments") or text(item, "input")


def call_words(name: str | None, kind: str | None, given: str | None) -> str:
    """A call as in code."""
    return f"{name or kind or 'call'}({arguments(given)})"


def output_words(item: JsonObject) -> str:
    """What an output item tells the model."""
    if type_of(item) == "mcp_approval_response":
        allowed = "allowed" if item.get("approve") is True else "refused"
        return " ".join(filter(None, (allowed, text(item, "reason"))))
    found = text(item, "output")
    if found is not None:
        return found
    parts = objects(item, "output")
    return " ".join(text(part, "text") or f"[{text(part, 'type') or 'part'}]" for part in parts)


def usage_words(usage: JsonObject | None) -> str:
    """The tokens of a response."""
    if not usage:
        return ""
    cached = integer(obj(usage, "input_tokens_details"), "cached_tokens")
    of_these = f" ({cached} cached)" if cached else ""
    given, made = integer(usage, "input_tokens"), integer(usage, "output_tokens")
    return f"{given or 0} tokens in{of_these}, {made or 0} out"
