"""A byte is changed in every column of every table, and `verify` says where."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from turnlog.draft import Ambient
from turnlog.engine import Engine
from turnlog.errors import NotFound, StoreCorrupt, StoreUnavailable
from turnlog.ports import ConversationRow, Finding, Store
from turnlog.state import Status
from turnlog.store import MemoryStore, open_store, schema
from turnlog.testing import scripted
from turnlog.testing.store_contract import Author, begun
from turnlog.verifying import Report, verify

from .damage import story
from .files import behind, opened, tamper

NOT_BOUND = {
    ("conversations", "head_format"): "a head of another format is not read, but made anew",
    ("turns", "state_format"): "so is a state",
    ("owners", "beat"): "how often an owner has beaten follows from nothing",
    ("conversations", "epoch"): "an epoch may be given out without an event; a lower one is found",
}
"""What can be changed without anybody's notice, and why that does no harm."""


async def report_of(store: Store, conversation: str | None = None) -> Report:
    engine = Engine(
        store=store, transport=scripted([]), agents={}, ambient=Ambient(), on_unknown=None
    )
    return await verify(engine, conversation)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with everything in it."""
    path = tmp_path_factory.mktemp("bytes") / "log.db"

    async def make() -> None:
        store = await open_store(path)
        await story(store, chats=3, turns=2)
        author = Author("open")
        await store.append(author.begin())
        await store.append(author.write(begun("t"), turn="t", lease="acquire", epoch=1))
        await store.close()

    asyncio.run(make())
    return path


@pytest.fixture
def copy(made: Path, path: Path) -> Path:
    shutil.copy(made, path)
    return path


COLUMNS = [
    (table.name, column.name)
    for table in schema.metadata.sorted_tables
    if table.name != "meta"
    for column in table.columns
]


def changed(path: Path, table: str, column: str) -> tuple[object, ...] | None:
    """Change one byte of one value, as a bad disk would; the row as it was, None without a value.

    A key is changed as well: what stood there is gone, and something else is there instead.
    """
    with behind(path) as connection:
        # The lease of a stopped owner, and the last of everything else.
        rows = connection.execute(
            f'SELECT rowid, "{column}" FROM {table} WHERE "{column}" IS NOT NULL'
            " ORDER BY rowid DESC"
        ).fetchall()
        if not rows:
            return None
        rowid, value = rows[len(rows) // 2]
        row = connection.execute(f"SELECT * FROM {table} WHERE rowid = {rowid}").fetchone()
        if isinstance(value, int):
            value += 1 << 20
        elif isinstance(value, str):
            value = f"{value[:-1]}{chr(ord(value[-1]) ^ 64)}"
        else:
            value = bytes([*value[:-1], value[-1] ^ 1])
        connection.execute(f'UPDATE {table} SET "{column}" = ? WHERE rowid = {rowid}', (value,))
        return tuple(row)


@pytest.mark.parametrize(("table", "column"), COLUMNS)
async def test_a_byte_of_every_column_is_named(copy: Path, table: str, column: str) -> None:
    row = changed(copy, table, column)
    if row is None:
        pytest.skip("nothing is stored there")
    store = await opened(copy, readonly=True)
    try:
        found = (await report_of(store)).findings
    finally:
        await store.close()
    if (table, column) in NOT_BOUND:
        assert not found
        return
    assert found
    if table == "owners":
        assert all(one.conversation in ("", "open") for one in found)
        return
    names = [one.name for one in schema.metadata.tables[table].columns]
    values = dict(zip(names, row, strict=True))
    whose = values.get("conversation", values.get("id"))
    mine = [one for one in found if one.conversation == whose]
    assert mine, found
    if table == "events":
        assert values["version"] in {one.version for one in mine}, mine


async def test_a_change_is_told_once(copy: Path) -> None:
    tamper(copy, "UPDATE events SET actor = 'eve' WHERE version = 3 AND conversation = 'chat-02'")
    store = await opened(copy)
    report = await report_of(store)
    (finding,) = report.findings
    assert (finding.conversation, finding.version) == ("chat-02", 3)
    assert report.conversations == 5
    await store.close()


async def test_every_event_that_is_wrong_is_named(copy: Path) -> None:
    versions = (2, 3, 8)
    tamper(
        copy,
        f"UPDATE events SET time = 7 WHERE conversation = 'chat-02' AND version IN {versions}",
        "DELETE FROM events WHERE conversation = 'chat-02' AND version IN (5, 6)",
    )
    store = await opened(copy)
    found = await store.check("chat-02")
    assert [one.version for one in found] == [2, 3, 5, 6, 8]
    whole = await store.check("")
    assert sum("nothing is at position" in one.problem for one in whole) == 1
    await store.close()


async def test_a_fork_of_what_is_damaged_is_named(copy: Path) -> None:
    tamper(
        copy,
        "UPDATE events SET body = replace(body, 'in-1.0', 'in-9.0')"
        " WHERE conversation = 'chat-01' AND version = 3",
    )
    store = await opened(copy)
    report = await report_of(store, "fork")
    (finding,) = report.findings
    assert finding.version == 1
    assert "'chat-01', is damaged at version 3" in finding.problem
    await store.close()


DAMAGED: dict[str, tuple[str, str]] = {
    "UPDATE events SET position = position + 1000 WHERE position > 20": ("", "21 to 1020"),
    "DELETE FROM events WHERE position = 1": ("", "nothing is at position 1"),
    "UPDATE events SET position = 'x' WHERE position = 20": ("", "'x', which is no position"),
    "UPDATE events SET partition = 7 WHERE position = 30": ("", "partition 7, which is none"),
    "DELETE FROM owners": ("open", "who is not among the owners"),
    "UPDATE blobs SET data = x'00'": ("chat-00", "holds something else"),
    "UPDATE blobs SET conversation = 'nobody'": ("nobody", "rows in blobs, and no head"),
    "INSERT INTO blobs VALUES (0, 'open', x'00', x'00')": ("open", "belongs to no event"),
    "UPDATE blobs SET digest = 'text' WHERE conversation = 'chat-00'": ("chat-00", "'text' holds"),
    "DELETE FROM conversations WHERE id = 'open'": ("open", "rows in events, and no head"),
    "UPDATE conversations SET epoch = 0 WHERE id = 'open'": ("open", "the log has 1"),
    "UPDATE conversations SET head_format = 'x' WHERE id = 'open'": ("open", "head_format"),
    "UPDATE conversations SET version = 99 WHERE id = 'open'": ("open", "that there are 99"),
    "DELETE FROM events WHERE conversation = 'open' AND version = 2": ("open", "that there are 2"),
    "UPDATE events SET tag = x'00' WHERE conversation = 'open' AND version = 2": (
        "open",
        "another type",
    ),
    "UPDATE events SET body = 'text' WHERE conversation = 'open'": ("open", "another type"),
    "UPDATE events SET actor = CAST(x'ff' AS TEXT) WHERE conversation = 'open'": (
        "open",
        "cannot be read",
    ),
    "DROP INDEX ix_conversations_owner": ("", ""),
    "DROP TABLE calls": ("", "calls cannot be checked"),
}


@pytest.mark.parametrize(("statement", "wanted"), DAMAGED.items())
async def test_what_belongs_to_none_is_found(
    copy: Path, statement: str, wanted: tuple[str, str]
) -> None:
    tamper(copy, statement)
    store = await opened(copy, readonly=True)
    try:
        found = (await report_of(store)).findings
    finally:
        await store.close()
    conversation, problem = wanted
    if not problem:
        assert not found
        return
    assert any(one.conversation == conversation and problem in one.problem for one in found), found


def overwritten(path: Path, table: str, *, index: bool = False) -> int:
    """Make the first leaf of a table or of its key unreadable; how many leaves there are."""
    with behind(path) as connection:
        name = f"sqlite_autoindex_{table}_1" if index else table
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)
        ).fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages = path.read_bytes()
    leaf, leaves = root, 1
    page = pages[(root - 1) * 4096 : root * 4096]
    if page[0] in (2, 5):
        leaves = int.from_bytes(page[3:5], "big") + 1
        cell = int.from_bytes(page[12:14], "big")
        leaf = int.from_bytes(page[cell : cell + 4], "big")
    with path.open("r+b") as file:
        file.seek((leaf - 1) * 4096)
        file.write(bytes(4096))
    return leaves


@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("table", ["events", "conversations", "context", "turns", "calls", "blobs"])
async def test_a_page_that_cannot_be_read_ends_nothing(copy: Path, table: str, index: bool) -> None:
    leaves = overwritten(copy, table, index=index)
    store = await opened(copy, readonly=True)
    try:
        report = await report_of(store)
        found = report.findings
        assert any(not one.conversation for one in found)
        whole = {"chat-00", "chat-01", "chat-02", "fork", "open"}
        for name in sorted(whole - {one.conversation for one in found}):
            assert await store.events(name)
        if table == "events" and leaves > 1 and not index:
            versions = [one.version for one in found if one.conversation == "chat-00"]
            assert versions and versions == sorted(versions, key=lambda one: one or 0)
            assert await store.events("chat-02")
    finally:
        await store.close()


async def test_an_unknown_conversation_is_not_found(copy: Path) -> None:
    store = await opened(copy, readonly=True)
    with pytest.raises(NotFound):
        await report_of(store, "nobody")
    tamper(copy, "DELETE FROM conversations WHERE id = 'open'")
    assert not (await report_of(store, "open")).ok
    await store.close()


async def test_a_head_that_cannot_be_read_is_a_finding(copy: Path) -> None:
    tamper(copy, "UPDATE conversations SET version = 'x' WHERE id = 'open'")
    store = await opened(copy, readonly=True)
    (finding,) = (await report_of(store, "open")).findings
    assert "version" in finding.problem
    assert {one.conversation for one in (await report_of(store)).findings} >= {"", "open"}
    await store.close()


class Broken(MemoryStore):
    """A store of somebody else's, whose disk fails: nothing of it can be listed or checked."""

    async def check(self, conversation: str) -> list[Finding]:
        """Fail."""
        raise StoreUnavailable(f"no disk for {conversation!r}")


class Unlisted(Broken):
    """One of which not even the heads can be listed."""

    logs = True

    async def conversations(
        self,
        *,
        after: str | None = None,
        limit: int = 50,
        status: Status | None = None,
        metadata: Mapping[str, str] | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> list[ConversationRow]:
        """Fail."""
        raise StoreCorrupt("no disk")

    async def moved(self, positions: Mapping[int, int]) -> tuple[dict[int, int], frozenset[str]]:
        """Say whose events there are, or fail."""
        if not self.logs:
            raise StoreCorrupt("no disk")
        return await super().moved(positions)


class Ghost(MemoryStore):
    """One that names somebody who is not there."""

    async def check(self, conversation: str) -> list[Finding]:
        """Name somebody."""
        named = Finding(conversation="ghost", version=None, problem="is named")
        return [] if conversation else [named]


async def test_who_is_named_and_not_there_is_reported_once() -> None:
    report = await report_of(Ghost())
    assert (report.conversations, len(report.findings)) == (0, 1)


async def test_a_store_that_cannot_be_read_at_all_is_reported() -> None:
    store = Broken()
    await store.append(Author("c").begin())
    report = await report_of(store)
    assert [(one.conversation, one.problem) for one in report.findings] == [
        ("", "it cannot be checked: no disk for ''"),
        ("c", "it cannot be checked: no disk for 'c'"),
    ]
    unlisted = Unlisted()
    await unlisted.append(Author("c").begin())
    report = await report_of(unlisted)
    assert [one.conversation for one in report.findings] == ["", "", "c"]
    unlisted.logs = False
    assert [one.conversation for one in (await report_of(unlisted)).findings] == ["", ""]


# -- while others write --------------------------------------------------------------------

WRITER = """
import asyncio, sys
from turnlog.store import open_store
from turnlog.testing.store_contract import Author, added, begun, called, prepared

async def main(path):
    store = await open_store(path)
    async def write(author):
        await store.append(author.begin())
        await store.append(author.write(begun(), turn="t", lease="acquire", epoch=1))
        n = 0
        while True:
            item = {"role": "user", "content": str(n) + "x" * 17_000 * (n % 2)}
            await store.append(author.write(added(f"a{n}", item=item), turn="t", epoch=1))
            n += 1
            if n == 3:
                print("ready", flush=True)
    await asyncio.gather(*(write(Author(f"live-{n}")) for n in range(3)))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_file_that_is_in_use_has_no_false_findings(copy: Path) -> None:
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(copy), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    store = await opened(copy, readonly=True)
    try:
        await writer.stdout.readline()
        sizes: list[int] = []
        while len(sizes) < 5 or sizes[-1] == sizes[0]:
            report = await report_of(store)
            assert report.ok, report.findings
            sizes.append(report.events)
        assert sizes == sorted(sizes)
    finally:
        writer.kill()
        await writer.wait()
        await store.close()
    print(f"\n{len(sizes)} reports while others wrote, of {sizes[0]} to {sizes[-1]} events")
