"""Whoever watches a turn in this process, and what passes through to them.

The one rule: telling never waits. What a watcher does not take in time waits in its own queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from .record import Recorded
from .updates import Delta, HostedUpdate

Seen: TypeAlias = Recorded | Delta | HostedUpdate
Watch: TypeAlias = "asyncio.Queue[Seen | None]"


@dataclass(slots=True)
class Watchers:
    """A queue for each watcher of a turn, None at its end."""

    queues: set[Watch] = field(default_factory=set[Watch])

    def add(self) -> Watch:
        """A queue of what happens from now on."""
        queue: Watch = asyncio.Queue()
        self.queues.add(queue)
        return queue

    def tell(self, seen: Iterable[Seen | None]) -> None:
        """Pass on what happened."""
        for one in seen:
            for queue in self.queues:
                queue.put_nowait(one)
