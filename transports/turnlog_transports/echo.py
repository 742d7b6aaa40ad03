"""What a simulator without a script answers: a model that repeats, and calls what it is told to.

The one rule: it answers anything. `call NAME {"json": "arguments"}` in the last message calls that
tool if the request has it; several such lines are several calls; after their outputs it repeats
those, and otherwise what was said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from turnlog.canonical import JsonObject, dumps, objects, text
from turnlog.items import CALL_OF, output_text, type_of
from turnlog.testing import scripts
from turnlog.testing.scripts import Reply

_CALL = re.compile(r"^\s*call\s+([\w.-]+)\s*(\{.*\})?\s*$", re.MULTILINE)


def echo(body: JsonObject) -> Reply:
    """The reply to a request."""
    items = objects(body, "input")
    outputs = _outputs(items)
    if outputs:
        return scripts.text("\n".join(f"The tool said: {output}" for output in outputs))
    said = text(body, "input") or _last_said(items)
    tools = {text(tool, "name") for tool in objects(body, "tools")}
    wanted = [match for match in _CALL.finditer(said) if match[1] in tools]
    if wanted:
        return scripts.calls(*(scripts.call(match[1], match[2] or "{}") for match in wanted))
    return scripts.text(said or "…")


def _outputs(items: Sequence[JsonObject]) -> list[str]:
    """The outputs at the end of the input: those that nothing was said behind."""
    found: list[str] = []
    for item in reversed(items):
        if type_of(item) not in CALL_OF:
            break
        output = item.get("output")
        found.append(output if isinstance(output, str) else dumps(output).decode("utf-8"))
    return found[::-1]


def _last_said(items: Sequence[JsonObject]) -> str:
    said = [output_text(item) for item in items if item.get("role") == "user"]
    return said[-1] if said else ""
