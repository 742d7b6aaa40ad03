"""What the end of an attempt means: the terminal frame, or the lack of one, as an outcome event.

The one rule: every attempt ends in exactly one outcome (law 5), and whether the same request may
be sent again is read from the status first, then from the code (law 10).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import events as ev
from .canonical import Json, JsonObject, obj, text
from .ports import Frame, Problem

_RETRYABLE_STATUS = frozenset({408, 409, 429})
_RETRYABLE_CODES = frozenset(
    {"server_error", "rate_limit_exceeded", "server_is_overloaded", "overloaded", "timeout"}
)
TOO_LONG = "context_length_exceeded"
"""The code of a refusal because the context is longer than the model takes."""

_TOO_LONG_CODES = frozenset({TOO_LONG, "context_window_exceeded", "exceed_context_size_error"})
_REFUSED = frozenset({400, 413, 422, None})
_RETRYABLE_TYPES = frozenset({"server_error", "overloaded_error", "rate_limit_error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What every outcome of an attempt says, as far as the provider gave it."""

    attempt: str
    response: str | None
    usage: JsonObject | None
    body: JsonObject | None


def outcome_of(frame: Frame, facts: Facts, *, heard: bool) -> ev.OutcomeEvent:
    """The outcome that a terminal frame says.

    `heard` says that the response had begun: then an error is its failure, and not a refusal.
    """
    attempt, response = facts.attempt, facts.response
    usage, body = facts.usage, facts.body
    match frame.terminal:
        case "completed":
            return ev.ResponseCompleted(attempt=attempt, response=response, usage=usage, body=body)
        case "incomplete":
            details = obj(obj(frame.data, "response"), "incomplete_details")
            reason = text(details, "reason")
            return ev.ResponseIncomplete(
                attempt=attempt, response=response, usage=usage, body=body, reason=reason
            )
        case "cancelled":
            return ev.ResponseInterrupted(
                attempt=attempt, response=response, usage=usage, body=body, reason="cancelled"
            )
        case _:
            problem = frame.problem or Problem(message="the provider reported a failure")
            if not heard and frame.terminal == "error":
                return rejected(attempt, problem)
            return ev.ResponseFailed(
                attempt=attempt,
                response=response,
                usage=usage,
                body=body,
                error=error_of(problem),
                retryable=is_retryable(problem),
                retry_after_ms=_milliseconds(problem.retry_after),
            )


def rejected(attempt: str, problem: Problem) -> ev.ResponseRejected:
    """The outcome of a request that was refused before any output."""
    return ev.ResponseRejected(
        attempt=attempt,
        error=error_of(problem),
        reason="refused",
        status=problem.status,
        retryable=is_retryable(problem),
        retry_after_ms=_milliseconds(problem.retry_after),
    )


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def error_of(problem: Problem) -> JsonObject:
    """A problem as JSON, without what the provider left out."""
    fields: dict[str, Json] = {
        "status": problem.status,
        "code": problem.code,
        "type": problem.type,
        "message": problem.message,
        "param": problem.param,
    }
    return {key: value for key, value in fields.items() if value is not None}


def is_retryable(problem: Problem) -> bool:
    """Whether the same request may be sent again (law 10, W-33)."""
    if is_too_long(problem.status, problem.code or problem.type, problem.message):
        return False
    if problem.status is not None:
        return problem.status in _RETRYABLE_STATUS or problem.status >= 500
    if problem.code is not None:
        return problem.code in _RETRYABLE_CODES
    return problem.type in _RETRYABLE_TYPES


# -- a context that is too long ------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """By how many tokens a context was too long: `size` of at most `limit`."""

    limit: int
    size: int

    @property
    def over(self) -> int:
        """By how many tokens it was too long."""
        return self.size - self.limit


def is_too_long(status: int | None, code: str | None, message: str | None) -> bool:
    """Whether a refusal says that the context is too long for the model.

    The code tells; where a provider has none for it, its words do, unless the status says that
    another time it may be taken.
    """
    if code in _TOO_LONG_CODES:
        return True
    said = (message or "")[:_READ]
    return status in _REFUSED and _SAYS_TOO_LONG.search(said) is not None


def excess(message: str) -> Excess | None:
    """The numbers of such a message; None where it has none, or none that make sense."""
    for wording in _WORDINGS:
        found = wording.search(message[:_READ])
        if found is not None:
            size = sum(
                _number(found[name]) for name in ("size", "more") if name in found.re.groupindex
            )
            limit = _number(found["limit"])
            return Excess(limit=limit, size=size) if size > limit > 0 else None
    return None


_READ = 2000
"""How much of a message is read, in characters: it comes from outside."""


def _number(digits: str | None) -> int:
    return int(re.sub(r"\D", "", digits or "") or 0)


def _wording(pattern: str) -> re.Pattern[str]:
    """A wording, in which `<limit>`, `<size>` and `<more>` stand for numbers."""
    number = r"(?<![\\d,_])(?P<\1>\\d{1,3}(?:[,_]\\d{3}){1,4}|\\d{1,12})(?!\\d)"
    return re.compile(re.sub("<(limit|size|more)>", number, pattern), re.IGNORECASE | re.DOTALL)


_SAYS_TOO_LONG = re.compile(
    r"context[ _-](?:window|length|size|limit)|maximum prompt length|prompt is too long"
    r"|input tokens exceed|input token count|maximum model length",
    re.IGNORECASE,
)

_WORDINGS = (
    # Several say first what was asked: "prompt is too long: 213000 tokens > 200000 maximum",
    # "exceed context limit: 190000 + 20000 > 200000".
    _wording(r"<size>(?: tokens)? \+ <more>(?: tokens)? > <limit>"),
    _wording(r"<size>(?: tokens)? > <limit>"),
    # "maximum context length is 128000 tokens. However, your messages resulted in 130112 tokens",
    # "you requested about 42832 tokens", "exceed the configured limit of 272000 tokens. Your
    # messages resulted in …", "maximum prompt length is 131072 but the request contains 131391".
    _wording(
        r"(?:length|limit|window|size)(?: is(?: only)?| of) <limit>\b.{0,80}?"
        r"(?:resulted in|requested|contains|passed|has)(?: about)? <size> "
    ),
    # "You passed 9001 input tokens and …, the model's context length is only 8192 tokens",
    # "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576)".
    _wording(r"passed <size> .{0,120}?context length is(?: only)? <limit>\b"),
    _wording(r"(?:count|request|length) \(<size>(?: tokens)?\).{0,80}?[(: ]<limit>(?: tokens)?\)?"),
    _wording(r"\(length <size>\).{0,80}?maximum model length of <limit>\b"),
)
"""How providers say by how much; the first that fits is taken."""
