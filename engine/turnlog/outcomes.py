"""What the end of an attempt means: the terminal frame, or the lack of one, as an outcome event.

The one rule: every attempt ends in exactly one outcome (law 5), and whether the same request may
be sent again is read from the status first, then from the code (law 10).
"""

from __future__ import annotations

from dataclasses import dataclass

from . import events as ev
from .canonical import Json, JsonObject, obj, text
from .ports import Frame, Problem

_RETRYABLE_STATUS = frozenset({408, 409, 429})
_RETRYABLE_CODES = frozenset(
    {"server_error", "rate_limit_exceeded", "server_is_overloaded", "overloaded", "timeout"}
)
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
    if problem.status is not None:
        return problem.status in _RETRYABLE_STATUS or problem.status >= 500
    if problem.code is not None:
        return problem.code in _RETRYABLE_CODES
    return problem.type in _RETRYABLE_TYPES
