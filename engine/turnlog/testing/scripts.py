"""What a simulated provider is told to answer: replies, and short ways to write them.

The one rule: a reply is a frozen value that knows nothing of ids, connections or time. The
simulated provider fills in whatever a script leaves out, the same way every time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from typing import Literal, Protocol, TypeAlias, TypedDict, Unpack

from ..canonical import Json, JsonObject, dumps
from ..errors import ConfigurationError, InvalidInput
from ..ports import Endpoint, Transport

Outcome = Literal["completed", "incomplete", "failed"]


class Faults(TypedDict, total=False):
    """What may go wrong with a reply; see `Reply`."""

    cut_after: int | None
    stall_after: int | None
    malformed_after: int | None
    no_terminal: bool
    delay: float
    finishes: bool
    polls: int
    hold: int | None
    again: int
    stream_expires: bool
    compacts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the provider answers to one create.

    Either `items` (a response is made of them), or `events` (a recorded stream, sent as it is),
    or `body` with `status` (a plain answer: an error, or a whole response, which is streamed
    event by event where a stream was asked for). `incomplete_details` and `error` belong to the
    `outcome`; `usage` is estimated where it is None; `retry_after` is in seconds. `chunk` is how
    many characters a delta holds.

    The faults. They count frames that the client has got, so 0 is before any:

    - `cut_after`: the connection is cut, without a terminal frame and without a goodbye;
    - `stall_after`: the provider falls silent and keeps the connection open;
    - `malformed_after`: a frame that is not JSON comes in between;
    - `no_terminal`: the stream ends in good order, but without its terminal frame;
    - `delay`: seconds before each frame;
    - `refuse_upgrade`: the next WebSocket upgrade is refused with this status, and nothing else
      of the reply counts;
    - `finishes`: a stored response whose stream was lost completes on the server all the same,
      and is found by `GET` after `polls` of them saw it in progress. Otherwise generation stops
      with the stream, and `GET` answers 404 (protocol 1.7).

    A background response goes on whatever becomes of its stream, one event each `delay`:

    - `hold`: after so many events it is made no further until the provider is told to release it;
    - `again`: so many resumed streams go wrong in the same way, counted from their own start;
    - `stream_expires`: its stream cannot be resumed, and the client has to poll.

    With `compacts` the reply answers a compaction, in place of the next one that is made up.

    Raises InvalidInput where the fields contradict one another.
    """

    items: tuple[JsonObject, ...] = ()
    outcome: Outcome = "completed"
    incomplete_details: JsonObject | None = None
    error: JsonObject | None = None
    usage: JsonObject | None = None
    chunk: int = 8
    events: tuple[JsonObject, ...] | None = None
    body: JsonObject | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    retry_after: float | None = None
    cut_after: int | None = None
    stall_after: int | None = None
    malformed_after: int | None = None
    no_terminal: bool = False
    delay: float = 0.0
    refuse_upgrade: int | None = None
    finishes: bool = False
    polls: int = 0
    hold: int | None = None
    again: int = 0
    stream_expires: bool = False
    compacts: bool = False

    def __post_init__(self) -> None:
        kinds = [bool(self.items), self.events is not None, self.body is not None]
        if sum(kinds) > 1:
            raise InvalidInput("a reply has items, or events, or a body: give one of them")
        if self.status != 200 and self.body is None:
            raise InvalidInput(f"status {self.status} needs a body: use error({self.status}, …)")
        if self.chunk < 1:
            raise InvalidInput(f"chunk counts characters and is at least 1, not {self.chunk}")
        if self.compacts and self.body is None:
            raise InvalidInput("what answers a compaction has a body: use error(…) or body=")
        for name in _COUNTS:
            self._check_count(name, getattr(self, name))

    @staticmethod
    def _check_count(name: str, value: float | None) -> None:
        if value is not None and value < 0:
            raise InvalidInput(f"{name} cannot be negative: {value}")

    def but(self, **faults: Unpack[Faults]) -> Reply:
        """The same reply with faults: `text("Done.").but(cut_after=3)`."""
        return replace(self, **faults)


_COUNTS = ("cut_after", "stall_after", "malformed_after", "delay", "polls", "hold", "again")

Script: TypeAlias = "Sequence[Reply | Callable[[JsonObject], Reply]]"
"""Replies in order. A callable is given the request body, and answers with a reply."""


# -- short ways to write a reply -----------------------------------------------------------


def item(raw: JsonObject) -> Reply:
    """A response with one output item, as it is; a missing id, call id or status is filled in."""
    if not isinstance(raw.get("type"), str):
        raise InvalidInput('an output item needs a "type"')
    return Reply(items=(raw,))


def text(value: str, *, phase: str | None = None) -> Reply:
    """A response that says something; `phase` is `commentary` or `final_answer`."""
    part: JsonObject = {"type": "output_text", "text": value, "annotations": [], "logprobs": []}
    return _message(part, phase)


def refusal(value: str) -> Reply:
    """A response in which the model declines."""
    return _message({"type": "refusal", "refusal": value}, None)


def _message(part: JsonObject, phase: str | None) -> Reply:
    message: dict[str, Json] = {"type": "message", "role": "assistant", "content": [part]}
    if phase is not None:
        message["phase"] = phase
    return item(message)


def call(
    name: str,
    arguments: JsonObject | str | None = None,
    call_id: str | None = None,
    /,
    **named: Json,
) -> Reply:
    """A response that calls a function: `call("refund", order="7")`.

    `arguments` takes what cannot be a keyword, or text that is sent as it is (also text that is
    not JSON); `call_id` is the provider's id for the call, made up where it is left out.
    """
    if isinstance(arguments, str):
        raw = arguments
    else:
        raw = dumps({**(arguments or {}), **named}).decode("utf-8")
    function: dict[str, Json] = {"type": "function_call", "name": name, "arguments": raw}
    if call_id is not None:
        function["call_id"] = call_id
    return item(function)


def reasoning(summary: str = "", *, encrypted: str | None = None) -> Reply:
    """Reasoning, to stand before what it led to: `reply(reasoning("Hm."), text("Yes."))`."""
    parts: list[Json] = [{"type": "summary_text", "text": summary}] if summary else []
    thought: dict[str, Json] = {"type": "reasoning", "summary": parts}
    if encrypted is not None:
        thought["encrypted_content"] = encrypted
    return item(thought)


def reply(*parts: Reply, usage: JsonObject | None = None) -> Reply:
    """One response with the items of all the parts, in order."""
    for part in parts:
        if part != replace(Reply(), items=part.items):
            raise InvalidInput("a part is only items: give its faults and outcome to the whole")
    return Reply(items=tuple(item for part in parts for item in part.items), usage=usage)


def calls(*parts: Reply) -> Reply:
    """One response with several calls: `calls(call("a"), call("b"))`."""
    return reply(*parts)


def incomplete(reason: str = "max_output_tokens", text: str | None = None) -> Reply:
    """A response that stops short; `text` is how far it came."""
    so_far = () if text is None else _said(text)
    return Reply(items=so_far, outcome="incomplete", incomplete_details={"reason": reason})


def failed(code: str = "server_error", message: str = "The server had an error.") -> Reply:
    """A response that is begun and then fails."""
    return Reply(outcome="failed", error={"code": code, "message": message})


def error(
    status: int,
    code: str | None = None,
    message: str | None = None,
    *,
    retry_after: float | None = None,
    type: str | None = None,
    param: str | None = None,
) -> Reply:
    """A refusal before any output: an HTTP status, or an `error` frame on a WebSocket.

    `retry_after` is in seconds, and goes out as the header `Retry-After`.
    """
    problem: JsonObject = {
        "message": message or f"The simulated provider answers {status}.",
        "type": type or _ERROR_TYPES.get(status, "invalid_request_error"),
        "param": param,
        "code": code,
    }
    return Reply(status=status, body={"error": problem}, retry_after=retry_after)


_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "server_error",
    503: "server_error",
}


def refuse_upgrade(status: int = 403) -> Reply:
    """The next WebSocket upgrade is refused; HTTP requests pass this entry over."""
    return Reply(refuse_upgrade=status)


def _said(value: str) -> tuple[JsonObject, ...]:
    return text(value).items


# -- a transport from a script -------------------------------------------------------------


class Scripted(Transport, Protocol):
    """A transport that answers from a script, and keeps what it was asked."""

    @property
    def requests(self) -> list[JsonObject]:
        """The bodies of all creates so far, refused ones included, in order."""
        ...

    @property
    def left(self) -> int:
        """How many entries of the script are still to be answered."""
        ...


def scripted(script: Script, *, checks: bool = True, seed: str = "") -> Scripted:
    """A transport that answers from a script, in this process and without a network.

    It is the simulated provider behind the entry point `replay`: with `checks`, it refuses what
    the real service would refuse (an unanswered call, an orphan output, a lost chain). `seed`
    stands in the ids that it makes up. Raises ConfigurationError where no `replay` is installed.
    """
    return factory(_replay())(
        Endpoint(options={"script": script, "checks": checks, "seed": seed}),
    )


@cache
def _replay() -> EntryPoints:
    """What is installed under that name: to look through all packages takes 4 ms."""
    return entry_points(group="turnlog.transports", name="replay")


def factory(found: EntryPoints) -> Callable[[Endpoint], Scripted]:
    """The factory of the first of these entry points; raises ConfigurationError where none is."""
    if not found:
        raise ConfigurationError(
            "no transport named 'replay' is installed: install turnlog with its transports"
        )
    loaded: Callable[[Endpoint], Scripted] = next(iter(found)).load()
    return loaded
