"""What an abandoned response comes to when it ends after all: it was paid for, so it is noted.

The one rule: a note changes nothing that the conversation holds. It names the attempt, whose
outcome was recorded when it was abandoned, and stands beside whatever happens meanwhile.
"""

from __future__ import annotations

import asyncio
import logging

from .canonical import Json, obj
from .engine import Engine
from .errors import TurnlogError
from .events import ProviderNoted
from .ports import Late

logger = logging.getLogger(__name__)


class Latecomers:
    """Records how abandoned responses ended; `settle` waits until all that came is recorded."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tasks: set[asyncio.Task[None]] = set()
        engine.transport.on_late(self._tell)

    async def settle(self) -> None:
        """Wait until everything that was told is in the log."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _tell(self, late: Late) -> None:
        task = asyncio.get_running_loop().create_task(self._record(late))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _record(self, late: Late) -> None:
        try:
            await self._engine.note(late.conversation, note_of(late))
        except TurnlogError as error:
            logger.warning("what attempt %s used was not recorded: %s", late.attempt, error)


def note_of(late: Late) -> ProviderNoted:
    """What is kept of an abandoned response: its id, how it ended, and what it used."""
    response = obj(late.frame.data, "response")
    fields: dict[str, Json] = {
        "response": response.get("id"),
        "ended": late.frame.terminal,
        "usage": response.get("usage"),
    }
    data = {name: value for name, value in fields.items() if value is not None}
    return ProviderNoted(kind="late_response", attempt=late.attempt, data=data)
