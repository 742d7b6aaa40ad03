"""A response under way: what is sent, in order, and what goes wrong on the way.

The one rule: faults are steps like any other, computed beforehand and carried out by whoever holds
the connection. Nothing here sends, waits or reads a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from turnlog.canonical import JsonObject, text
from turnlog.testing.scripts import Reply

_TERMINAL = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled", "error"}
)
_IN_PROGRESS = "response.in_progress"
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
    return text(event, "type") in _TERMINAL


class Source(Protocol):
    """What goes out on one connection: taken step by step, by whoever holds the connection.

    `delay` is in seconds and comes before each step. `response` is what it will have been, where
    that is known. `terminates` says that a terminal event was or will be handed out.
    """

    @property
    def delay(self) -> float: ...

    @property
    def response(self) -> JsonObject | None: ...

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        ...

    @property
    def terminates(self) -> bool: ...

    def take(self) -> Step | None:
        """The next step; None where it is still to be made, of which `watch` tells."""
        ...

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have a function called at each change; what comes back ends that."""
        ...

    def close(self) -> None:
        """Nobody listens any more, or everything was said. Idempotent."""
        ...


class Generation:
    """A response that is made while somebody listens: take its steps, then `close` it.

    It counts as finished when its terminal event is handed out, and stops where it is closed
    before. `lost` is asked before each step until the response is in progress: what it answers,
    if anything, is sent instead of the rest.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        response: JsonObject | None,
        delay: float,
        ended: Callable[[bool], None],
        lost: Callable[[], JsonObject | None] = lambda: None,
    ) -> None:
        self.response = response
        self.delay = delay
        self._steps = deque(steps)
        self._terminates = any(isinstance(step, Send) and ends(step.event) for step in steps)
        self._ended: Callable[[bool], None] | None = ended
        self._lost: Callable[[], JsonObject | None] | None = lost

    def __iter__(self) -> Iterator[Step]:
        while not self.over:
            yield self.take()

    @property
    def over(self) -> bool:
        """Whether every step was taken."""
        return not self._steps

    @property
    def terminates(self) -> bool:
        """Whether its terminal event was or will be handed out."""
        return self._terminates

    def take(self) -> Step:
        """The next step."""
        step = self._refused() or self._steps.popleft()
        if isinstance(step, Send):
            if step.event.get("type") == _IN_PROGRESS:
                self._lost = None
            if ends(step.event):
                self._end(True)
        return step

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Every step is there from the beginning: there is nothing to tell."""
        return lambda: None

    def close(self) -> None:
        """Nobody listens any more, or everything was said. Idempotent."""
        self._end(False)

    def _refused(self) -> Send | None:
        refused = None if self._lost is None else self._lost()
        if refused is None:
            return None
        self._steps.clear()
        self._terminates = True
        self._end(False)
        return Send(refused)

    def _end(self, finished: bool) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(finished)
