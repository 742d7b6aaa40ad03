"""The provider's wire: lines of JSON, and the frames that turnlog knows.

The one rule: reading never raises, and nothing is lost. What nobody knows passes as it is, and a
line that is not JSON keeps its text. A line looks like this:

    {"kind": "output_text.delta", "n": 4, "with": {"item_id": "msg_1", "delta": "Hel"}}

and a refusal is an HTTP status with `{"fault": {"why": …, "kind": …, "code": …, "field": …}}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from turnlog.canonical import Json, JsonObject, loads_object, obj, text
from turnlog.errors import InvalidInput
from turnlog.ports import Frame, Problem, Terminal

_TERMINAL: dict[str, Terminal] = {
    "completed": "completed",
    "incomplete": "incomplete",
    "failed": "failed",
    "cancelled": "cancelled",
}


def read(line: bytes) -> Frame:
    """The frame in a line; never raises."""
    try:
        said = loads_object(line)
    except InvalidInput:
        return Frame(type="", data={}, text=_shown(line))
    kind = text(said, "kind")
    if kind is None:
        return Frame(type="", data=said)
    number: JsonObject = {"sequence_number": said["n"]} if "n" in said else {}
    data: dict[str, Json] = {"type": f"response.{kind}", **obj(said, "with"), **number}
    terminal = _TERMINAL.get(kind)
    problem = _failure(obj(data, "response")) if terminal == "failed" else None
    return Frame(type=f"response.{kind}", data=data, terminal=terminal, problem=problem)


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> Frame:
    """The frame in an answer that is no stream: whatever it holds, the request was refused."""
    said: JsonObject = {}
    with suppress(InvalidInput):
        said = loads_object(body)
    fault = obj(said, "fault")
    problem = Problem(
        status=status,
        code=text(fault, "code"),
        type=text(fault, "kind"),
        message=text(fault, "why") or _shown(body)[:2000] or f"HTTP {status}",
        param=text(fault, "field"),
        retry_after=_seconds(headers.get("retry-after")),
    )
    data: JsonObject = {**said, "type": "error", "status": status}
    return Frame(type="error", data=data, terminal="error", problem=problem)


def _failure(response: JsonObject) -> Problem:
    error = obj(response, "error")
    return Problem(code=text(error, "code"), message=text(error, "message") or "It failed.")


def _seconds(given: str | None) -> float | None:
    return float(given) if given is not None and given.isdecimal() else None


def _shown(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
