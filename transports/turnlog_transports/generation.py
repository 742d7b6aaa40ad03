"""A response under way: what is sent, in order, and what goes wrong on the way.

The one rule: faults are steps like any other, computed beforehand and carried out by whoever holds
the connection. Nothing here sends, waits or reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from turnlog.canonical import JsonObject
from turnlog.testing.scripts import Reply

_TERMINAL = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled", "error"}
)
_GARBLED = '{"type":"response.output_text.delta","delta":"this frame bre'


@dataclass(frozen=True, slots=True)
class Send:
    """Send this event."""

    event: JsonObject


@dataclass(frozen=True, slots=True)
class Garble:
    """Send this text, which is not JSON."""

    text: str


@dataclass(frozen=True, slots=True)
class Stall:
    """Send nothing more, and keep the connection open."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Drop the connection without a goodbye."""


Step: TypeAlias = Send | Garble | Stall | Cut


def steps(events: Sequence[JsonObject], reply: Reply) -> list[Step]:
    """What a reply does, frame by frame."""
    sent: list[Step] = [Send(event) for event in events if not (reply.no_terminal and ends(event))]
    if reply.malformed_after is not None:
        sent.insert(reply.malformed_after, Garble(_GARBLED))
    for after, fault in ((reply.stall_after, Stall()), (reply.cut_after, Cut())):
        if after is not None:
            sent[after:] = [fault]
    return sent


def ends(event: JsonObject) -> bool:
    """Whether an event is the last one of its response."""
    return event.get("type") in _TERMINAL


class Generation:
    """A response that the provider makes: iterate over its steps, then `close` it.

    It counts as finished when its terminal event is handed out. `delay` is in seconds and comes
    before each step. `response` is what it will have been; None where the events never say.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        response: JsonObject | None,
        delay: float,
        ended: Callable[[bool], None],
    ) -> None:
        self.response = response
        self.delay = delay
        self._steps = steps
        self._ended: Callable[[bool], None] | None = ended

    def __iter__(self) -> Iterator[Step]:
        for step in self._steps:
            if isinstance(step, Send) and ends(step.event):
                self._end(True)
            yield step

    def close(self) -> None:
        """Nobody listens any more, or everything was said. Idempotent."""
        self._end(False)

    @property
    def terminates(self) -> bool:
        """Whether its terminal event will be handed out."""
        return any(isinstance(step, Send) and ends(step.event) for step in self._steps)

    def _end(self, finished: bool) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(finished)
