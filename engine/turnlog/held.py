"""A lease that this process holds, and the watchers of the turn that it is for.

The one rule: whoever runs a turn appends through `Held.commit`, so that a stale epoch stops it at
the next fact (law 11).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from .commands import Command
from .draft import Draft
from .engine import Act, Engine
from .ports import Lease
from .record import Recorded
from .state import State
from .updates import Delta, HostedUpdate

Seen: TypeAlias = Recorded | Delta | HostedUpdate
Watch: TypeAlias = "asyncio.Queue[Seen | None]"


@dataclass(slots=True)
class Watchers:
    """Whoever watches a turn in this process: a queue for each, None at its end."""

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


@dataclass(frozen=True, slots=True)
class Held:
    """The right to run one turn, at an epoch."""

    engine: Engine
    conversation: str
    turn: str
    epoch: int
    watchers: Watchers = field(default_factory=Watchers)

    async def state(self) -> State:
        """The conversation, as this process knows it."""
        return await self.engine.state(self.conversation)

    async def commit(self, act: Act) -> Draft:
        """Append under the lease; raises StaleEpoch where somebody took it over."""
        return await self.engine.commit(self.conversation, act, epoch=self.epoch)

    async def do(self, *commands: Command) -> None:
        """Append what follows from these commands, and keep the lease."""

        async def act(draft: Draft) -> Lease:
            for command in commands:
                draft.do(command)
            return "keep"

        await self.commit(act)
