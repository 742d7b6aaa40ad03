"""One response on its way from the reader of a connection to whoever asked for it.

The one rule: the reader never waits for whoever reads behind it. What has not been taken is kept
up to a bound; beyond it the response is given up, so that the other lanes and the pings go on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from turnlog.errors import Lost, TransportError, Unheard
from turnlog.ports import Frame, Timeouts

from .deadlines import Deadline, deadline
from .lanes import Asked


class Stream:
    """The frames of one response, and its deadlines.

    `put` is the reader's side, `take` that of whoever asked. `listening` lasts until the response
    was given up: by whoever left, at a deadline, or because its reader fell too far behind. What
    arrives afterwards is dropped. `over` says that nothing more comes from the connection.

    `unread` says whether more has arrived on the connection than was put anywhere.

    Deadlines count from when frames arrive. One timer serves them all: it is set when the first
    frame comes, and otherwise looks when it fires how much later it is due by now.
    """

    def __init__(
        self,
        asked: Asked,
        timeouts: Timeouts,
        *,
        bound: int,
        expired: Callable[[Stream, bool], None],
        unread: Callable[[], bool],
    ) -> None:
        self.asked = asked
        self.listening = True
        self.over = False
        self.heard = 0
        self._timeouts = timeouts
        self._bound = bound
        self._expired = expired
        self._unread = unread
        self._frames: deque[tuple[Frame, int]] = deque()
        self._behind = 0
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._begun = self._loop.time()
        self._last: float | None = None
        self._timer: asyncio.Handle | None = None
        self._looked = False
        self._spared = False
        self._arm()

    async def take(self) -> Frame:
        """The next frame; raises what ended the response, behind the frames that came first."""
        while (frame := self.now()) is None:
            if self._error is not None:
                raise self._error
            if self._spared:
                self._arm()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return frame

    def now(self) -> Frame | None:
        """The next frame, where one has arrived; what came together is taken without awaiting."""
        if not self._frames:
            return None
        frame, size = self._frames.popleft()
        self._behind -= size
        return frame

    # -- the reader's side -----------------------------------------------------------------

    def put(self, frame: Frame, size: int) -> bool:
        """A frame arrived. False says that it was one too many, and that the response is given up.

        One frame always fits, however large it is, and so does the last one.
        """
        self.heard += 1
        self._last = self._loop.time()
        if self.heard == 1:
            self._arm()
        if not self.listening:
            return True
        if self._frames and self._behind + size > self._bound and frame.terminal is None:
            self.fail(Lost(f"the reader fell more than {self._bound} bytes behind the provider"))
            return False
        self._frames.append((frame, size))
        self._behind += size
        self._wake()
        return True

    def gone(self, why: str) -> TransportError:
        """The error that says that the response is lost, by what was heard of it."""
        return Lost(f"{why}, after {self.heard} frames") if self.heard else Unheard(why)

    def fail(self, error: Exception) -> None:
        """End the response with an error, behind the frames that arrived."""
        self.listening = False
        self._error = self._error or error
        self._wake()

    def cut(self, error: Exception) -> None:
        """End the response with an error at once, whatever has arrived (W-47)."""
        self._drop()
        self._error = error
        self.fail(error)

    def leave(self) -> Frame | None:
        """Nobody takes frames any more: the terminal frame, where it had come already."""
        last = self._frames[-1][0] if self._frames else None
        self.listening = False
        self._drop()
        return last if last is not None and last.terminal is not None else None

    def drain(self) -> None:
        """Give the provider as long again to end a response that nobody waits for."""
        self._begun = self._last = self._loop.time()
        self._arm()

    def finish(self) -> None:
        """Nothing more comes from the connection."""
        self.over = True
        self._disarm()

    # -- deadlines -------------------------------------------------------------------------

    @property
    def due(self) -> Deadline | None:
        """The next deadline."""
        return self._due(behind=self.listening and bool(self._frames))

    def _due(self, *, behind: bool) -> Deadline | None:
        return deadline(self._timeouts, begun=self._begun, last=self._last, behind=behind)

    def _arm(self) -> None:
        self._disarm()
        self._looked = False
        self._spared = bool(self._frames)
        due = self.due
        if due is not None and not self.over:
            self._timer = self._loop.call_at(due.at, self._look)

    def _look(self) -> None:
        due = self.due
        if due is None or self._loop.time() < due.at:
            self._arm()
            return
        if due.silent and self._unread():
            # What has arrived counts even where nobody has had the time to read it. That breaks a
            # silence; the response as a whole may take no longer for it.
            due = self._due(behind=True)
        if not self._looked or due is None or self._loop.time() < due.at:
            self._looked = True
            self._timer = self._loop.call_soon(self._look)
            return
        listening = self.listening
        if listening:
            self.fail(self.gone(due.why))
        self._expired(self, listening)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop(self) -> None:
        self._frames.clear()
        self._behind = 0

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
