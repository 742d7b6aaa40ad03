"""What a turn came to, read back from its events.

The one rule: a result is derived from the log, so that the process that ran the turn and one that
asks a year later get the same. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from . import events as ev
from .canonical import JsonObject, integer, obj, text
from .items import output_text, refusal_text
from .record import Recorded

T = TypeVar("T")

TurnStatus = Literal[
    "running", "waiting", "completed", "incomplete", "failed", "cancelled", "limited"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens that a turn's responses used, those of failed attempts included where reported."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0
    responses: int = 0

    def plus(self, usage: JsonObject) -> Usage:
        """With one more response's usage, in the provider's words."""
        return Usage(
            input_tokens=self.input_tokens + (integer(usage, "input_tokens") or 0),
            cached_tokens=self.cached_tokens
            + (integer(obj(usage, "input_tokens_details"), "cached_tokens") or 0),
            output_tokens=self.output_tokens + (integer(usage, "output_tokens") or 0),
            reasoning_tokens=self.reasoning_tokens
            + (integer(obj(usage, "output_tokens_details"), "reasoning_tokens") or 0),
            total_tokens=self.total_tokens + (integer(usage, "total_tokens") or 0),
            responses=self.responses + 1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnResult(Generic[T]):
    """What a turn came to. `output` is `output_text`, or what `output_type` made of it.

    `items` are the output items of its completed responses, in order; `response` is the last one's
    id; `reason` says why a turn did not complete.
    """

    conversation: str
    turn: str
    status: TurnStatus
    output: T
    output_text: str
    refusal: str | None = None
    response: str | None = None
    usage: Usage = field(default_factory=Usage)
    items: tuple[JsonObject, ...] = ()
    pending: tuple[str, ...] = ()
    reason: str | None = None
    error: JsonObject | None = None


def result_of(conversation: str, turn: str, events: Sequence[Recorded]) -> TurnResult[str]:
    """The result of a turn, from the events between its start and its end."""
    usage, items, answer = Usage(), list[JsonObject](), list[JsonObject]()
    outputs: list[JsonObject] = []
    status: TurnStatus = "running"
    reason: str | None = None
    why: str | None = None
    pending: tuple[str, ...] = ()
    response: str | None = None
    error: JsonObject | None = None
    for event in (one.event for one in events if one.turn == turn):
        match event:
            case ev.RequestPrepared() | ev.TurnResumed():
                status, reason, why, pending, outputs = "running", None, None, (), []
            case ev.OutputRecorded():
                outputs.append(event.item)
            case ev.ResponseCompleted() | ev.ResponseIncomplete():
                answer = outputs
                usage = usage.plus(event.usage) if event.usage is not None else usage
                if isinstance(event, ev.ResponseCompleted):
                    items, response = items + outputs, event.response
                else:
                    why = event.reason
            case ev.ResponseFailed() | ev.ResponseInterrupted():
                usage = usage.plus(event.usage) if event.usage is not None else usage
            case ev.TurnPaused():
                status, reason, pending = "waiting", event.reason, event.calls
            case ev.TurnCancelRequested():
                why = event.reason
            case ev.TurnEnded():
                status, error, pending = event.outcome, event.error, ()
                reason = text(event.error or {}, "message") or why
            case _:
                pass
    said = "".join(output_text(item) for item in answer)
    refusal = "".join(refusal_text(item) for item in answer)
    return TurnResult(
        conversation=conversation,
        turn=turn,
        status=status,
        output=said,
        output_text=said,
        refusal=refusal or None,
        response=response,
        usage=usage,
        items=tuple(items),
        pending=pending,
        reason=reason,
        error=error,
    )
