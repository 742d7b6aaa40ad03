"""Recorded exchanges with a real provider, as replies in order.

The one rule: what was recorded is served as it is. A stream is sent event by event as it arrived, a
plain response is streamed by synthesis, an error stays an error. A `GET` answers that `GET`, and a
compaction a compaction; what is left (a cancellation, a deletion) is left out and listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from turnlog.canonical import Json, JsonObject, integer, loads, obj, objects, text
from turnlog.errors import InvalidInput
from turnlog.testing.scripts import Reply

_CREATE = "/v1/responses"
_CHUNK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What was recorded.

    `replies` are those to creates, `compactions` those to compactions, both in order; `retrievals`
    stand by response id, and `skipped` is text.
    """

    replies: tuple[Reply, ...]
    retrievals: Mapping[str, Reply] = field(default_factory=dict[str, Reply])
    skipped: tuple[str, ...] = ()
    compactions: tuple[Reply, ...] = ()


def load(path: str | Path) -> Transcript:
    """Read a transcript file: a JSON list of `{"request": …, "response": …}`.

    Raises InvalidInput where the file cannot be read, or is no transcript.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput(f"the transcript {path} cannot be read: {error}") from error
    return parse(loads(raw), name=str(path))


def parse(exchanges: Json, *, name: str = "the transcript") -> Transcript:
    """The transcript in parsed JSON; `name` stands in errors. Raises InvalidInput."""
    if not isinstance(exchanges, (list, tuple)):
        raise InvalidInput(f"{name} is no transcript: a list of exchanges is needed")
    replies: list[Reply] = []
    compactions: list[Reply] = []
    retrievals: dict[str, Reply] = {}
    skipped: list[str] = []
    for place, exchange in enumerate(exchanges, start=1):
        where = f"{name}: exchange {place}"
        if not isinstance(exchange, Mapping):
            raise InvalidInput(f"{where} is not an object")
        method, path = _asked(exchange, where)
        response = obj(exchange, "response")
        if (method, path) == ("POST", _CREATE):
            replies.append(_reply(response, where))
        elif (method, path) == ("POST", f"{_CREATE}/compact"):
            compactions.append(_reply(response, where))
        elif method == "GET":
            retrievals[path.rpartition("/")[2]] = _reply(response, where)
        else:
            skipped.append(f"{method} {path}")
    return Transcript(
        replies=tuple(replies),
        retrievals=retrievals,
        skipped=tuple(skipped),
        compactions=tuple(compactions),
    )


def _asked(exchange: JsonObject, where: str) -> tuple[str, str]:
    request = obj(exchange, "request")
    method, path = text(request, "method"), text(request, "path")
    if method is None or path is None:
        raise InvalidInput(f"{where} has no request with a method and a path")
    return method.upper(), path.rstrip("/")


def _reply(response: JsonObject, where: str) -> Reply:
    status = integer(response, "status")
    if status is None:
        raise InvalidInput(f"{where} has no response with a status")
    if "events" in response:
        return Reply(events=tuple(objects(response, "events")))
    if not isinstance(response.get("body"), Mapping):
        raise InvalidInput(f"{where} has neither events nor a body")
    return Reply(status=status, body=obj(response, "body"), chunk=_CHUNK)
