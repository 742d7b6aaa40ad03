"""From a whole response to the events that a provider streams for it.

The one rule: pure, and nothing is lost. The events end with the response as it was given, and what
is shown on the way adds up to it (protocol section 2); items of a kind that is not known here are
added and done without anything in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from turnlog.canonical import Json, JsonObject, objects, text
from turnlog.items import type_of

Events: TypeAlias = Iterator[dict[str, Json]]

_TERMINAL = {"incomplete": "response.incomplete", "failed": "response.failed"}


def events(response: JsonObject, *, chunk: int) -> list[JsonObject]:
    """The events of a response, numbered from 0; a delta holds at most `chunk` characters."""
    return [
        {**event, "sequence_number": number} for number, event in enumerate(_all(response, chunk))
    ]


def _all(response: JsonObject, chunk: int) -> Events:
    if response.get("background") is True:
        queued = begun(response, "queued")
        yield {"type": "response.created", "response": queued}
        yield {"type": "response.queued", "response": queued}
    else:
        yield {"type": "response.created", "response": begun(response)}
    yield {"type": "response.in_progress", "response": begun(response)}
    for index, item in enumerate(objects(response, "output")):
        yield from _item(item, index, chunk)
    status = text(response, "status") or "completed"
    yield {"type": _TERMINAL.get(status, "response.completed"), "response": response}


def begun(response: JsonObject, status: str = "in_progress") -> JsonObject:
    """The response as it stood when it began: nothing is in it yet."""
    blank: dict[str, Json] = {"status": status, "output": []}
    for key in ("error", "incomplete_details", "usage", "completed_at"):
        if key in response:
            blank[key] = None
    return {**response, **blank}


def _item(item: JsonObject, index: int, chunk: int) -> Events:
    kind = type_of(item)
    yield {"type": "response.output_item.added", "output_index": index, "item": _added(item)}
    where: JsonObject = {"item_id": text(item, "id"), "output_index": index}
    shown = _SHOWN.get(kind)
    if shown is not None:
        yield from shown(item, where, chunk)
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _added(item: JsonObject) -> JsonObject:
    """The item as it stood when it was added: what is shown later is still empty."""
    blank: dict[str, Json] = {}
    if "status" in item:
        blank["status"] = "in_progress"
    for key in _GROWS.get(type_of(item), ()):
        if item.get(key) is not None:
            blank[key] = "" if isinstance(item[key], str) else []
    return {**item, **blank}


_GROWS = {
    "message": ("content",),
    "reasoning": ("summary", "content"),
    "function_call": ("arguments",),
    "custom_tool_call": ("input",),
    "mcp_call": ("arguments",),
    "mcp_list_tools": ("tools",),
    "code_interpreter_call": ("code",),
}

# -- what is shown between added and done --------------------------------------------------


def _deltas(
    stem: str,
    field: str,
    value: str,
    where: JsonObject,
    chunk: int,
    extra: JsonObject | None = None,
) -> Events:
    """Deltas of a text, and the whole of it under `field`."""
    around = {**where, **(extra or {})}
    for start in range(0, len(value), chunk):
        yield {"type": f"{stem}.delta", **around, "delta": value[start : start + chunk]}
    yield {"type": f"{stem}.done", **around, field: value}


def _message(item: JsonObject, where: JsonObject, chunk: int) -> Events:
    for place, part in enumerate(objects(item, "content")):
        at: JsonObject = {**where, "content_index": place}
        yield {"type": "response.content_part.added", **at, "part": _blank_part(part)}
        yield from _part(part, at, chunk)
        yield {"type": "response.content_part.done", **at, "part": part}


def _blank_part(part: JsonObject) -> JsonObject:
    blank: dict[str, Json] = {}
    for key in ("text", "refusal"):
        if key in part:
            blank[key] = ""
    if "annotations" in part:
        blank["annotations"] = []
    return {**part, **blank}


def _part(part: JsonObject, at: JsonObject, chunk: int) -> Events:
    said, refused = text(part, "text"), text(part, "refusal")
    if said is not None:
        yield from _deltas("response.output_text", "text", said, at, chunk, {"logprobs": []})
    if refused is not None:
        yield from _deltas("response.refusal", "refusal", refused, at, chunk)
    for place, note in enumerate(objects(part, "annotations")):
        added = "response.output_text.annotation.added"
        yield {"type": added, **at, "annotation_index": place, "annotation": note}


def _reasoning(item: JsonObject, where: JsonObject, chunk: int) -> Events:
    for place, part in enumerate(objects(item, "summary")):
        at: JsonObject = {**where, "summary_index": place}
        said = text(part, "text") or ""
        blank: JsonObject = {**part, "text": ""}
        yield {"type": "response.reasoning_summary_part.added", **at, "part": blank}
        yield from _deltas("response.reasoning_summary_text", "text", said, at, chunk)
        yield {"type": "response.reasoning_summary_part.done", **at, "part": part}
    for place, part in enumerate(objects(item, "content")):
        at = {**where, "content_index": place}
        yield from _deltas("response.reasoning_text", "text", text(part, "text") or "", at, chunk)


def _function_call(item: JsonObject, where: JsonObject, chunk: int) -> Events:
    raw = text(item, "arguments") or ""
    name: JsonObject = {"name": text(item, "name")}
    stem = "response.function_call_arguments"
    *deltas, done = _deltas(stem, "arguments", raw, where, chunk)
    yield from deltas
    yield {**done, **name}


def _custom_call(item: JsonObject, where: JsonObject, chunk: int) -> Events:
    raw = text(item, "input") or ""
    yield from _deltas("response.custom_tool_call_input", "input", raw, where, chunk)


def _mcp_call(item: JsonObject, where: JsonObject, chunk: int) -> Events:
    yield {"type": "response.mcp_call.in_progress", **where}
    raw = text(item, "arguments") or ""
    yield from _deltas("response.mcp_call_arguments", "arguments", raw, where, chunk)
    ended = "failed" if item.get("error") is not None else "completed"
    yield {"type": f"response.mcp_call.{ended}", **where}


def _code_interpreter(item: JsonObject, where: JsonObject, chunk: int) -> Events:
    stem = "response.code_interpreter_call"
    yield {"type": f"{stem}.in_progress", **where}
    yield from _deltas(f"{stem}_code", "code", text(item, "code") or "", where, chunk)
    yield {"type": f"{stem}.interpreting", **where}
    yield {"type": f"{stem}.completed", **where}


def _stages(*tags: str) -> Callable[[JsonObject, JsonObject, int], Events]:
    def shown(_item: JsonObject, where: JsonObject, _chunk: int) -> Events:
        for tag in tags:
            yield {"type": f"response.{tag}", **where}

    return shown


_SHOWN: dict[str, Callable[[JsonObject, JsonObject, int], Events]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _function_call,
    "custom_tool_call": _custom_call,
    "mcp_call": _mcp_call,
    "code_interpreter_call": _code_interpreter,
    "compaction": _stages("compaction.compacting"),
    "mcp_list_tools": _stages("mcp_list_tools.in_progress", "mcp_list_tools.completed"),
    "web_search_call": _stages(
        "web_search_call.in_progress", "web_search_call.searching", "web_search_call.completed"
    ),
    "file_search_call": _stages(
        "file_search_call.in_progress", "file_search_call.searching", "file_search_call.completed"
    ),
    "image_generation_call": _stages(
        "image_generation_call.in_progress",
        "image_generation_call.generating",
        "image_generation_call.completed",
    ),
}
