"""How often text that streams is saved: `turnlog.open(…, checkpoints=Checkpoints(…))`."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ConfigurationError

LONGEST = 86_400
"""A day, in seconds: no response takes longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """When text that streams gets into the log, before its response is complete (law 1).

    That is at the latest after so many `seconds`, or so many `points` of it (code points). Who
    watches a turn here sees each delta at once, whatever this says; a process that dies loses what
    came since the last checkpoint, and so later does whoever watches from another process. Each
    checkpoint is an append: 1,000 conversations that stream at the same time are 4,000 appends a
    second, and 1,000 with `Checkpoints(seconds=1.0)`. Raises ConfigurationError.
    """

    seconds: float = 0.25
    points: int = 2048

    def __post_init__(self) -> None:
        if type(self.seconds) not in (int, float) or not 0 < self.seconds <= LONGEST:
            raise ConfigurationError(
                f"Checkpoints(seconds=…) is a number above 0, and at most {LONGEST:,}, not"
                f" {self.seconds!r:.40}"
            )
        if type(self.points) is not int or self.points < 1:
            raise ConfigurationError(
                f"Checkpoints(points=…) is a whole number, 1 or more, not {self.points!r:.40}"
            )
