"""What the simulated provider answers in one piece: refusals, and everything that is not a stream.

The one rule: a refusal is made once, and takes the shape of its carrier at the edge: the body of
an HTTP answer, or an `error` frame on a WebSocket (protocol 1.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from turnlog.canonical import Json, JsonObject, obj, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A plain answer: an HTTP status, its headers and a JSON body."""

    status: int = 200
    body: JsonObject
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def refusal(
    message: str, *, param: str | None = None, code: str | None = None, status: int = 400
) -> Answer:
    """A refusal in the words of the service; most of them have no code (protocol 1.6)."""
    problem: JsonObject = {
        "message": message,
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }
    return Answer(status=status, body={"error": problem})


def frame(answer: Answer) -> JsonObject:
    """A refusal as a WebSocket says it: nested, with its status, headers in the error."""
    said = text(answer.body, "error") or text(answer.body, "message")
    found = obj(answer.body, "error") or {"message": said}
    headers: dict[str, Json] = dict(answer.headers)
    problem: JsonObject = {**found, "headers": headers} if headers else found
    return {"type": "error", "status": answer.status, "error": problem}


def nested(event: JsonObject) -> JsonObject:
    """An event as a WebSocket says it: the flat `error` of a stream becomes a nested one."""
    if event.get("type") != "error" or "error" in event:
        return event
    own = {key: event[key] for key in ("type", "sequence_number") if key in event}
    rest = {key: value for key, value in event.items() if key not in own}
    return {**own, "status": _STREAM_ERROR, "error": {"type": "server_error", **rest}}


_STREAM_ERROR = 500
