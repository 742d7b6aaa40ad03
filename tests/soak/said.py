"""What a watcher was shown of a turn, beside what was said.

The one rule: only the text is kept, and only of the turn that is watched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from turnlog.result import TurnResult
from turnlog.updates import Delta, Retracted, Update

from .story import Plan


class Judge(Protocol):
    """Counts what happens, and takes down what does not hold."""

    def count(self, what: str) -> None: ...
    def check(self, holds: bool, what: str) -> None: ...


@dataclass(slots=True)
class Said:
    """What a watcher was shown of a turn, without what was retracted."""

    judge: Judge
    word: str
    cursor: str | None = None
    shown: dict[str, str] = field(default_factory=dict[str, str])

    async def hear(self, updates: AsyncIterator[Update], *, most: int | None = None) -> bool:
        """Take updates, at most so many; whether these were all. What is left is dropped."""
        taken = 0
        async for update in updates:
            taken += 1
            self.cursor = str(update.cursor)
            if isinstance(update, Retracted):
                self.judge.count("retracted")
                self.shown.pop(update.attempt, None)
            elif isinstance(update, Delta):
                self.judge.count("deltas")
                attempt = update.cursor.attempt
                self.shown[attempt] = self.shown.get(attempt, "") + update.delta
            if taken == most:
                return False
        return True

    def compare(self, result: TurnResult[str], planned: Plan) -> None:
        """All of what was shown is all of what was said, if it was said to its end."""
        shown = "".join(self.shown.values())
        whole = result.status in ("completed", "incomplete")
        holds = shown == planned.text if whole else planned.text.startswith(shown)
        self.judge.check(holds, f"{self.word} was shown {self.shown}, not {planned.text}")
