"""The log that everybody talks through, and that is closed and opened again under them.

The one rule: whoever wants the log asks for it each time, and waits while there is none.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

import turnlog
from turnlog.log import Log, Opening
from turnlog.ports import Timeouts
from turnlog_transports.profiles import OPENAI

from .soak import Soak

CONNECTIONS = 63
ROTATE_SECONDS = 5.0


class Home:
    """`async with Home(…) as home`, and then `await home.log()`."""

    def __init__(self, path: str, base_url: str, soak: Soak) -> None:
        self.opened = 0
        self.recovered = 0
        self._path = path
        self._base_url = base_url
        self._load = soak.load
        self._meter = soak.meter
        self.agent = soak.agent()
        self._log: Log | None = None
        self._there = asyncio.Event()

    async def log(self) -> Log:
        """The log that is open, as soon as there is one."""
        await self._there.wait()
        assert self._log is not None
        return self._log

    async def reopen(self) -> None:
        """Close the log, whatever goes on in it, and open it again."""
        await self._close()
        await self._meter.look_at_closed()
        await self._open()

    async def reopen_every(self, seconds: float, until: float) -> None:
        """Do that again and again, and not close to the end."""
        loop = asyncio.get_running_loop()
        while loop.time() + 1.5 * seconds < until:
            await asyncio.sleep(seconds)
            await self.reopen()

    async def __aenter__(self) -> Home:
        await self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    def _opening(self) -> Opening:
        patience = self._load.patience
        timeouts = Timeouts()
        if patience is not None:
            timeouts = Timeouts(first_frame=patience, idle=patience)
        return turnlog.open(
            self._path,
            agents=[self.agent],
            transport="websocket",
            base_url=self._base_url,
            profile=OPENAI,
            durability=self._load.durability,
            timeouts=timeouts,
            options={"max_connections": CONNECTIONS, "rotate_seconds": ROTATE_SECONDS},
        )

    async def _open(self) -> None:
        self._log = await self._opening()
        self.recovered += len(await self._log.recover())
        self.opened += 1
        self._there.set()

    async def _close(self) -> None:
        self._there.clear()
        log, self._log = self._log, None
        if log is not None:
            await log.close()
