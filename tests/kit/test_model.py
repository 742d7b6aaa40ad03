"""Our stores against the model of a store; and stores with a planted fault, which it must find.

`TURNLOG_HISTORIES=<examples>` says how many histories are tried; without it, a few.
"""

from __future__ import annotations

import shutil
import sqlite3
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO
from itertools import count
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from turnlog import events as ev
from turnlog.errors import TurnlogError
from turnlog.ports import Append, Appended, Head, Placed, Store
from turnlog.record import Recorded
from turnlog.store import MemoryStore, open_store
from turnlog.store.migrating import upgrade
from turnlog.testing.histories import Told, by_runner
from turnlog.testing.model import Database, StoreModel, run_model, store_machine
from turnlog.testing.store_contract import Author, begun, called, prepared

ROOT = Path(__file__).resolve().parent.parent.parent


def config(path: Path) -> Config:
    """What `alembic -x db=PATH` gives to env.py."""
    found = Config(ROOT / "alembic.ini", stdout=StringIO())
    found.cmd_opts = Namespace(x=[f"db={path}"])
    return found


OLDEST, *_ = [
    script.revision for script in ScriptDirectory.from_config(config(Path("none"))).walk_revisions()
][::-1]


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Empty databases, of the newest schema and of the oldest."""
    path = tmp_path_factory.mktemp("schemas")
    upgrade(lambda: sqlite3.connect(path / "newest.db", isolation_level=None))
    command.upgrade(config(path / "oldest.db"), OLDEST)
    return [path / "newest.db", path / "oldest.db"]


class OnFile(Database):
    """A database on a file; its owners die by leaving the file as it is."""

    def __init__(self, path: Path, template: Path) -> None:
        self.path = path
        self.template = template
        self.lives = count()
        self.file = self._new()
        shutil.copy(template, self.file)

    def _new(self) -> Path:
        directory = self.path / f"life{next(self.lives)}"
        directory.mkdir(parents=True)
        return directory / "log.db"

    async def open(self) -> Store:
        return await open_store(self.file, durability="process")

    async def crash(self, stores: Sequence[Store]) -> None:
        """The file and its log are taken away as they are, without closing, and without locks."""
        left, self.file = self.file, self._new()
        shutil.copy(left, self.file)
        wal = left.with_name("log.db-wal")
        if wal.exists():
            shutil.copy(wal, self.file.with_name("log.db-wal"))
        await super().crash(stores)

    async def age(self) -> None:
        command.downgrade(config(self.file), OLDEST)

    async def copied(self, store: Store) -> Store | None:
        copy = self._new()
        await store.backup(str(copy))
        return await open_store(copy, readonly=True)

    async def close(self) -> None:
        shutil.rmtree(self.path)


def said(what: str, ran: Mapping[str, int]) -> None:
    print(f"\nmodel, {what}:", ", ".join(f"{ran[name]} {name}" for name in sorted(ran)))


def test_a_file_is_what_the_model_says(tmp_path: Path, schemas: list[Path]) -> None:
    number = count()

    def make() -> Database:
        here = next(number)
        return OnFile(tmp_path / str(here), schemas[here % 4 == 3])

    ran = run_model(make, examples=7)
    said("sqlite", ran)
    assert ran["upgrades"] and ran["crashes"] and ran["backups"] and ran["races"]


class InMemory(Database):
    """A database that is a store in memory, and those beside it."""

    def __init__(self, kind: type[MemoryStore] = MemoryStore) -> None:
        self.kind = kind
        self.first = kind(partitions=3)

    async def open(self) -> Store:
        return self.kind(shelf=self.first.shelf)


def test_memory_is_what_the_model_says() -> None:
    ran = run_model(InMemory, examples=20)
    said("memory", ran)
    assert ran["forks"] and ran["StaleEpoch"] and ran["VersionConflict"] and ran["IdConflict"]


# -- planted faults ------------------------------------------------------------------------


class SkipsTheEpoch(MemoryStore):
    """Whoever writes for a turn may do so."""

    async def append(self, append: Append) -> Appended:
        lent = append.lease is None or append.lease == "acquire"
        return await super().append(append if lent else replace(append, lease=None))


class WritesTwice(MemoryStore):
    """What is there already counts as written."""

    async def append(self, append: Append) -> Appended:
        return replace(await super().append(append), already=False)


class ForgetsThePast(MemoryStore):
    """The context is the newest one, whichever version is asked for."""

    async def context(
        self,
        conversation: str,
        *,
        start: int = 0,
        stop: int | None = None,
        version: int | None = None,
        last: int | None = None,
    ) -> list[Placed]:
        return await super().context(conversation, start=start, stop=stop, last=last)


class SkipsWhenFollowed(MemoryStore):
    """The first event of a page is left out where it has several."""

    async def follow(
        self, positions: Mapping[int, int], *, limit: int = 500
    ) -> list[tuple[int, int, Recorded]]:
        page = await super().follow(positions, limit=limit)
        return page[1:] if len(page) > 1 else page


class NobodyDies(MemoryStore):
    """Every owner is taken to live."""

    async def head(self, conversation: str) -> Head | None:
        head = await super().head(conversation)
        return head and replace(head, alive=head.owner is not None)


@pytest.mark.parametrize(
    "kind", [SkipsTheEpoch, WritesTwice, ForgetsThePast, SkipsWhenFollowed, NobodyDies]
)
def test_a_planted_fault_is_found(kind: type[MemoryStore]) -> None:
    with pytest.raises((AssertionError, TurnlogError)):
        run_model(lambda: InMemory(kind), examples=40, shrink=False)


class LosesTheLastEvent(InMemory):
    """What was acknowledged last is gone after a crash."""

    async def crash(self, stores: Sequence[Store]) -> None:
        await super().crash(stores)
        (*_, last) = self.first.shelf.kept.values()
        last.events.pop()


def test_an_event_that_a_crash_loses_is_found_in_a_short_history() -> None:
    with pytest.raises(AssertionError) as failed:
        run_model(LosesTheLastEvent, examples=40, steps=8)
    steps = [note for note in failed.value.__notes__ if "state." in note]
    assert steps and "state.live(" in "".join(steps)


def test_what_a_database_must_say() -> None:
    class Empty(Database):
        """One that cannot even be opened."""

    with pytest.raises(NotImplementedError):
        run_model(Empty, examples=1, shrink=False)
    with pytest.raises(NotImplementedError):
        StoreModel()
    assert issubclass(store_machine(Empty), StoreModel)


# -- the model itself ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ([("move", 1)], "approved"),
        ([("move", 0)], "started"),
        ([("move", 0), ("move", 0)], "deferred"),
        ([("move", 0), ("move", 1)], "uncertain"),
        ([("move", 0), ("move", 1), ("move", 0)], "started"),
        ([("settle", 0)], None),
        ([("settle", 1)], None),
        ([("settle", 2)], None),
        ([("settle", 1), ("late", 0)], None),
        ([("move", 0), ("settle", 2)], None),
    ],
)
async def test_a_call_lives_as_the_engine_has_it(
    steps: list[tuple[str, int]], status: str | None
) -> None:
    store, names = MemoryStore(), count()
    told = Told.new(Author("c"))

    async def write(*events: ev.Event, turn: str | None = "t") -> None:
        author, append = told.draft(events, turn=turn)
        await store.append(append)
        told.take(author, append)

    await write(ev.ConversationStarted(id="c"), turn=None)
    await write(begun())
    await write(prepared("a"), *called("a", "x"))
    for what, pick in steps:
        await write(*by_runner(told, what, pick, lambda: f"n{next(names)}"))
    assert await store.pending() == list(told.calls.values())
    assert [row.status for row in told.calls.values()] == ([] if status is None else [status])
    assert await store.context("c") == told.context.placed()
    assert await store.check("c") == []
