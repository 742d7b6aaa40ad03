"""A writer with a planted bug: it tells its callers before it has committed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from turnlog.ports import Appended, Store
from turnlog.store import SqlStore, settings_for
from turnlog.store.bell import Bell
from turnlog.store.opening import Opened, address, open_database
from turnlog.store.readers import Readers
from turnlog.store.writer import Job, Writer
from turnlog.testing.simulation import Process


class Hasty(Writer):
    """Acknowledges before it commits."""

    def _commit(self, opened: Opened, connection: sqlite3.Connection, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if isinstance(job.result, Appended) and not job.future.done():
                job.future.set_result(job.result)
        super()._commit(opened, connection, jobs)


async def hasty(process: Process, path: Path) -> Store:
    """A store with such a writer."""
    settings = settings_for(path, "process", owner=process.name, driver=process.driver)
    bell = Bell()
    writer = Hasty(partial(open_database, settings), bell, process.driver)
    opened = await asyncio.wrap_future(writer.ready)
    found = address(path, "ro")
    readers = Readers(found, settings.busy_timeout, str(path), opened.place, process.driver)
    return SqlStore(settings, opened.reads, readers, writer, bell)
