"""What all who talk share, and the agent that answers them.

The one rule: what is wrong is taken down where it is seen, and nothing else is remembered.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import turnlog

from .meter import Meter
from .story import Load, origin

WRONG = 20
"""How much of what is wrong is told; one is too much."""


@dataclass(slots=True)
class Soak:
    """What all talkers share: what they count, what is wrong, and which tools ran.

    `at_once` bounds how many turns are under way, so that a slow machine is not asked for more than
    it can do. `leak` is how many bytes are kept of each turn, to see what a leak looks like.
    """

    seed: str
    load: Load
    at_once: asyncio.Semaphore
    meter: Meter
    counts: Counter[str] = field(default_factory=Counter[str])
    waits: Counter[int] = field(default_factory=Counter[int])
    wrong: list[str] = field(default_factory=list[str])
    ran: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    leak: int = 0
    leaked: list[bytes] = field(default_factory=list[bytes])

    def count(self, what: str) -> None:
        """One more of these."""
        self.counts[what] += 1

    def check(self, holds: bool, what: str) -> None:
        """Take down what does not hold."""
        if not holds and len(self.wrong) < WRONG:
            self.wrong.append(what[:600])

    def agent(self) -> turnlog.Agent:
        """Who answers all conversations, with a tool whose runs are counted."""

        @turnlog.tool(on_crash="give_up")
        async def note(ctx: turnlog.ToolContext[None], token: str, n: int) -> str:
            """Note something down."""
            runs = self.ran.get(token)
            own = token.startswith(f"{origin(ctx.conversation)}t") and runs is not None
            self.check(own, f"{ctx.conversation} ran the tool of {token}")
            if runs is not None:
                runs[ctx.idempotency_key] += 1
            await asyncio.sleep(0.01)
            return f"{token} noted {n}"

        return turnlog.Agent("soaked", model="gpt-5", tools=[note])

    def forget(self, word: str) -> None:
        """A turn is over, and with it what ran in it."""
        del self.ran[word]
        if self.leak:
            self.leaked.append(b"." * self.leak)
