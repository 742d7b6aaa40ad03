"""A lease that this process holds, and the watchers of the turn that it is for.

The one rule: whoever runs a turn appends through `Held.commit`, so that a stale epoch stops it at
the next fact (law 11).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .commands import Command
from .draft import Draft
from .engine import Act, Engine
from .ports import Lease
from .state import State
from .watchers import Watchers


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
