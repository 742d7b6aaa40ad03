"""What is wrong, according to a provider: one `Problem` for every shape of an error.

The one rule: whatever is null, missing or of the wrong type, a problem comes out, and it has a
message (W-20).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from turnlog.canonical import JsonObject, integer, obj, text
from turnlog.ports import Problem

NO_REASON = "the provider gave no reason"
"""The message where a provider has none."""

_ERROR_STATUSES = frozenset(str(status) for status in range(400, 600))


def problem(
    error: JsonObject,
    around: JsonObject,
    headers: Mapping[str, str] | None = None,
) -> Problem:
    """What is wrong, from an error object and the object around it, either of which may lack it.

    `headers` are those of the answer itself; where they do not say how long to wait, those that
    the error carries do.
    """
    code = _code(error) or _code(around)
    wait = retry_after(headers or {})
    return Problem(
        status=_status(around) or _status(error) or _as_status(code),
        code=code,
        type=text(error, "type"),
        message=_message(error, around),
        param=text(error, "param") or text(around, "param"),
        retry_after=retry_after(_headers(error) | _headers(around)) if wait is None else wait,
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """How many seconds a provider asks to wait, or None where it does not say.

    A date is read against the `Date` of the same answer, so that no clock is compared; without
    one it says nothing.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    milliseconds = _number(lower.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = lower.get("retry-after")
    seconds = _number(value)
    return seconds if seconds is not None else _between(lower.get("date"), value)


def _code(found: JsonObject) -> str | None:
    number = integer(found, "code")
    return text(found, "code") if number is None else str(number)


def _status(found: JsonObject) -> int | None:
    return integer(found, "status") or integer(found, "status_code")


def _as_status(code: str | None) -> int | None:
    # llama.cpp and others write the HTTP status where the code belongs.
    return int(code) if code in _ERROR_STATUSES else None


def _message(error: JsonObject, around: JsonObject) -> str:
    candidates = (
        text(error, "message"),
        text(around, "error"),
        text(around, "message"),
        text(around, "detail"),
        text(error, "code"),
        text(around, "code"),
    )
    return next((found for found in candidates if found), NO_REASON)


def _headers(found: JsonObject) -> dict[str, str]:
    headers = obj(found, "headers")
    return {
        name: str(value)
        for name, value in headers.items()
        if isinstance(value, (str, int, float)) and not isinstance(value, bool)
    }


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return max(number, 0.0) if math.isfinite(number) else None


def _between(start: str | None, end: str | None) -> float | None:
    try:
        span = parsedate_to_datetime(end or "") - parsedate_to_datetime(start or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return max(span.total_seconds(), 0.0)
