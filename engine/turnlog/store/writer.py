"""The writer: one thread for each open file, which groups what waits into one transaction.

The one rule: a caller hears of an append only after its COMMIT, and a caller that goes away
changes nothing. Callers never touch the connection: it is made, used and closed in this thread
(storage 3.2, 3.3).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from ..errors import Closed, OutcomeUnknown, StoreMoved, TurnlogError
from ..ports import Appended
from .bell import Bell
from .driving import THREADS, Driver
from .faults import FAILED, translate
from .opening import Opened
from .room import BACKLOG, Backlog, Room
from .transaction import Torn, Transaction

GROUP = 256
"""At most how many jobs share a transaction."""

LOOK = 0.1
"""How often the appends of others are looked for while somebody waits for them, in seconds."""

Work = Callable[[Transaction], Appended]

_UNANSWERED = OutcomeUnknown("the writer ended before it answered: append the same events again")


@dataclass(slots=True, eq=False)
class Job:
    """Something to write, and the future of the caller who waits for it."""

    work: Work
    future: asyncio.Future[Appended]
    size: int = 0
    result: Appended | Exception = _UNANSWERED


class Writer:
    """Owns the only connection that writes."""

    def __init__(
        self,
        open: Callable[[], Opened],
        bell: Bell,
        driver: Driver = THREADS,
        backlog: Backlog = BACKLOG,
    ) -> None:
        self._open = open
        self._room = Room(backlog)
        self._bell = bell
        self.others = Bell()
        self._watchers = 0
        self._handed: list[Job] = []
        self._queue: deque[Job] = deque()
        self._lock = threading.Lock()
        self._waking = set[asyncio.AbstractEventLoop]()
        self._closed = False
        self._broke: Exception | None = None
        self.ready: Future[Opened] = Future()
        self.done: Future[None] = Future()
        # A running future cannot be cancelled: what was begun is finished.
        self.ready.set_running_or_notify_cancel()
        self.done.set_running_or_notify_cancel()
        self._wake = driver.start(self._run())

    async def submit(self, work: Work, size: int = 0) -> Appended:
        """Hand something of so many bytes over to be written, once there is room for it.

        Raises Closed, StoreUnavailable (the writer is too far behind) and what `work` raises.
        """
        await self._room.take(size)
        loop = asyncio.get_running_loop()
        job = Job(work, loop.create_future(), size)
        with self._lock:
            if self._closed:
                self._room.give([size])
                raise Closed("the store is closed") from self._broke
            self._handed.append(job)
        if loop not in self._waking:
            self._waking.add(loop)
            loop.call_soon(self._wake_once, loop)
        return await job.future

    def _wake_once(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake the writer behind everything that a turn of the event loop has handed over.

        It goes into one transaction then, and the two threads do not fight over the interpreter
        meanwhile: with 100 conversations at once that is half of what an append costs. A writer
        that is awake would take the first few otherwise, and those who were together never meet
        again: groups of 100 become groups of 9.
        """
        self._waking.discard(loop)
        with self._lock:
            self._hand_over()
        self._wake()

    def _hand_over(self) -> None:
        """Let the writer have what was handed over; under the lock."""
        self._queue += self._handed
        self._handed = []

    def stop(self) -> None:
        """Take nothing more; `done` is resolved when all that was handed over is written."""
        self._refuse()
        self._wake()

    def _refuse(self) -> None:
        with self._lock:
            self._closed = True
            self._hand_over()
        self._room.close()

    @contextlib.contextmanager
    def watching(self) -> Generator[None]:
        """Ring `others` soon after somebody else wrote, for as long as this lasts."""
        with self._lock:
            self._watchers += 1
        self._wake()
        try:
            yield
        finally:
            with self._lock:
                self._watchers -= 1

    # -- in the thread ---------------------------------------------------------------------

    def _run(self) -> Iterator[float | None]:
        """Write until the end; where nothing waits, say for how long at most (`Driver.start`)."""
        try:
            opened = self._open()
        except Exception as error:  # whoever opens is told, whatever it is
            self.ready.set_exception(error)
            self.done.set_result(None)
            return
        self.ready.set_result(opened)
        try:
            yield from self._serve(opened)
        except Exception as error:  # nobody else would ever answer those who wait
            self._break(error)
        self.others.ring()
        try:
            opened.close()
        finally:
            self.done.set_result(None)

    def _serve(self, opened: Opened) -> Iterator[float | None]:
        """Write what is handed over, beat, and look for what others write, until the end."""
        closing = False
        while not closing:
            closing = self._closed  # what was handed over before that is in the queue
            while jobs := self._waiting():
                try:
                    self._group(opened, jobs)
                finally:
                    self._answer(jobs)
            if opened.pulse.wait() == 0.0:
                self._group(opened, [])
            if self._watchers:
                self._look(opened)
            if not closing:
                yield self._rest(opened)

    def _answer(self, jobs: Sequence[Job]) -> None:
        _settle(jobs)
        self._room.give(job.size for job in jobs)

    def _break(self, error: Exception) -> None:
        """Take nothing more: the writer itself failed, and not the database."""
        self._broke = error
        self._refuse()
        while jobs := self._waiting():
            _fail(jobs, Closed(f"the writer failed, and nothing was written: {error!r}"))
            self._answer(jobs)

    def _rest(self, opened: Opened) -> float | None:
        """For how long nothing is to be done, unless somebody hands something over."""
        waits = [opened.pulse.wait(), LOOK if self._watchers else None]
        return min((one for one in waits if one is not None), default=None)

    def _waiting(self) -> list[Job]:
        """Whatever waits now, as much as one transaction takes."""
        with self._lock:
            return [self._queue.popleft() for _ in range(min(GROUP, len(self._queue)))]

    def _group(self, opened: Opened, jobs: Sequence[Job]) -> None:
        """Write jobs in one transaction; each has its result afterwards, whatever happens."""
        try:
            beats = opened.pulse.take()
            connection = opened.begin()
            if self._watchers and opened.others_wrote():
                self.others.ring()
            try:
                wrote = self._write(opened, connection, jobs, beats)
            except Torn:
                connection.execute("ROLLBACK")
                connection = opened.begin()
                wrote = self._write(opened, connection, jobs, beats, apart=True)
            if wrote:
                self._commit(opened, connection, jobs)
            else:
                connection.execute("ROLLBACK")
        except StoreMoved as error:
            # The connection is kept: it may be the only way to what is in a file without a name.
            _fail(jobs, error)
        except Exception as error:  # each caller is told, whatever it is, and the thread lives on
            failed = translate(error, opened.name) if isinstance(error, FAILED) else error
            _fail(jobs, failed)
            opened.drop()

    def _look(self, opened: Opened) -> None:
        """Say so where somebody else wrote."""
        try:
            if opened.others_wrote():
                self.others.ring()
        except StoreMoved:  # whoever reads or writes next is told
            pass
        except FAILED:  # here too
            opened.drop()

    def _write(
        self,
        opened: Opened,
        connection: sqlite3.Connection,
        jobs: Sequence[Job],
        beats: bool,
        *,
        apart: bool = False,
    ) -> bool:
        """Do what can be done; whether there is something to commit.

        Raises Torn, unless the jobs are kept `apart`.
        """
        transaction = opened.transaction(connection)
        transaction.check_schema()
        for job in jobs:
            try:
                job.result = transaction.run(job.work, apart=apart)
            except TurnlogError as error:
                job.result = error
        transaction.finish()
        if beats:
            transaction.roll.beat()
        return transaction.wrote or transaction.roll.wrote

    def _commit(self, opened: Opened, connection: sqlite3.Connection, jobs: Sequence[Job]) -> None:
        try:
            connection.execute("COMMIT")
        except FAILED as error:
            unknown = OutcomeUnknown(
                f"a commit to {opened.name} failed ({error}), and may have happened all the same:"
                " append the same events again"
            )
            unknown.__cause__ = error
            _fail(jobs, unknown)
            opened.drop()
        else:
            self._bell.ring()


def _fail(jobs: Iterable[Job], error: Exception) -> None:
    for job in jobs:
        job.result = error


def _settle(jobs: Sequence[Job]) -> None:
    """Tell the callers, with one wake-up for each event loop."""
    for loop in {job.future.get_loop() for job in jobs}:
        mine = [job for job in jobs if job.future.get_loop() is loop]
        # A loop that was closed has nobody left who waits; what was written stays.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_tell, mine)


def _tell(jobs: Iterable[Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if isinstance(job.result, Appended):
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.result)
