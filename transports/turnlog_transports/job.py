"""A background response: it is made whoever listens, and its stream can be taken up again.

The one rule: pure. Whoever holds the clock says when the next event is made; streams of it are
told, each hands out what was made behind its own place, and none of them makes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from turnlog.canonical import JsonObject
from turnlog.testing.scripts import Reply

from . import synthesis
from .generation import Send, Step, ends, steps

_STARTED = "response.in_progress"


class Job:
    """A response that the provider makes in the background, event by event.

    The reply says how: `delay` seconds before each event, and after `hold` of them it waits until
    it is released. `streams` says that it was made to be streamed. `ended` is told once how it
    ended: True where it came to its end, and was not cancelled before.
    """

    def __init__(
        self,
        events: Sequence[JsonObject],
        reply: Reply,
        *,
        response: JsonObject,
        streams: bool,
        ended: Callable[[bool], None],
    ) -> None:
        self.delay = reply.delay
        self.streams = streams
        self.expires = reply.stream_expires
        self.made = 0
        self.cancelled = False
        self._events = tuple(events)
        self._reply = reply
        self._again = reply.again
        self._response = response
        hold = len(self._events) if reply.hold is None else reply.hold
        self._until = min(hold, len(self._events))
        self._ended = ended
        self._watchers: list[Callable[[], None]] = []

    # -- streams of it ---------------------------------------------------------------------

    def open(self) -> View:
        """The stream of whoever asked for the response, with the faults of its reply."""
        return View(self, steps(self._events, self._reply))

    def resume(self, after: int) -> View:
        """A stream from behind a sequence number: without faults, unless they come `again`."""
        behind = _behind(self._events, after)
        reply = self._reply if self._again > 0 else Reply()
        self._again -= 1
        return View(self, steps(self._events[behind:], reply), behind=behind)

    # -- its life --------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether nothing more will be made."""
        return self.cancelled or self.made == len(self._events)

    @property
    def held(self) -> bool:
        """Whether it waits to be released."""
        return self.made == self._until

    @property
    def snapshot(self) -> JsonObject:
        """The response as a `GET` finds it."""
        if self.cancelled:
            return synthesis.begun(self._response, "cancelled")
        if self.over:
            return self._response
        started = any(event.get("type") == _STARTED for event in self._events[: self.made])
        return synthesis.begun(self._response, "in_progress" if started else "queued")

    def advance(self) -> None:
        """Make the next event, unless it was stopped or held meanwhile."""
        if self.over or self.held:
            return
        self.made += 1
        if self.over:
            self._ended(True)
        self.tell()

    def at_once(self) -> None:
        """Make all that may be made, where nothing takes time."""
        while self.delay == 0 and not self.over and not self.held:
            self.advance()

    def release(self, events: int | None) -> None:
        """Let so many further events be made; None lets it go on to its end."""
        rest = len(self._events) - self._until
        self._until += rest if events is None else min(events, rest)
        self.at_once()
        self.tell()

    def cancel(self) -> None:
        """Stop making it; nothing happens where it is over."""
        if not self.over:
            self.cancelled = True
            self._ended(False)
            self.tell()

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have a function called at each change; what comes back ends that."""
        self._watchers.append(changed)
        return lambda: self._watchers.remove(changed)

    def tell(self) -> None:
        """Tell those who watch to look again."""
        for changed in list(self._watchers):
            changed()


class View:
    """One stream of a background response, from behind so many of its events.

    `steps` are those of the stream, faults included; an event among them is handed out once it
    was made. What becomes of the stream changes nothing for the response.
    """

    def __init__(self, job: Job, steps: Sequence[Step], *, behind: int = 0) -> None:
        self.job = job
        self.delay = 0.0
        self._steps = tuple(steps)
        self._taken = 0
        self._sent = behind

    @property
    def response(self) -> JsonObject:
        """The response as it stands."""
        return self.job.snapshot

    @property
    def over(self) -> bool:
        """Whether nothing more will come: all was said, or the response was cancelled."""
        if self._taken == len(self._steps):
            return True
        return self.job.cancelled and not self._ready(self._steps[self._taken])

    @property
    def terminates(self) -> bool:
        """Whether its terminal event was or will be handed out."""
        return not self.job.cancelled and any(
            isinstance(step, Send) and ends(step.event) for step in self._steps
        )

    def take(self) -> Step | None:
        """The next step, or None where it is still to be made."""
        step = self._steps[self._taken]
        if not self._ready(step):
            return None
        self._taken += 1
        self._sent += isinstance(step, Send)
        return step

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have a function called at each change of the response."""
        return self.job.watch(changed)

    def close(self) -> None:
        """Nobody listens any more: the response does not mind."""

    def _ready(self, step: Step) -> bool:
        return not isinstance(step, Send) or self._sent < self.job.made


def _behind(events: Sequence[JsonObject], number: int) -> int:
    """How many events stand up to and with a sequence number; none where they have none."""
    places = [
        place
        for place, event in enumerate(events, start=1)
        if isinstance(found := event.get("sequence_number"), int) and found <= number
    ]
    return places[-1] if places else 0
