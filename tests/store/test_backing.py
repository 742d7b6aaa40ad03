"""Copies of a database that is in use: whole, of one moment, and never over something else."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import turnlog
from turnlog.errors import Closed, InvalidInput, NotSupported, StoreCorrupt, StoreUnavailable
from turnlog.store import SqlStore, open_store
from turnlog.store.backing import back_up
from turnlog.store.opening import address
from turnlog.testing import scripted, text


def script(count: int) -> turnlog.Transport:
    return scripted([text(f"Answer {n}.") for n in range(count)])


async def verified(path: Path) -> int:
    """How many events a copy holds, all of which verify."""
    async with turnlog.open(path, transport=script(0)) as log:
        report = await log.verify()
        assert report.ok, report.findings
        return report.events


async def test_a_copy_is_one_state_while_others_write(tmp_path: Path) -> None:
    source = tmp_path / "agent.db"
    agent = turnlog.Agent("a", model="gpt-5")
    async with turnlog.open(source, agents=[agent], transport=script(60)) as log:
        chats = [await log.conversation(f"c{n}", agent=agent) for n in range(6)]

        async def talk(chat: turnlog.Conversation) -> None:
            for n in range(10):
                await chat.run(f"Question {n}.")

        talking = asyncio.gather(*map(talk, chats))
        sizes: list[int] = []
        while not talking.done():
            copy = tmp_path / f"copy-{len(sizes)}.db"
            await log.backup(copy)
            sizes.append(await verified(copy))
        await talking
        await log.backup(tmp_path / "last.db")
        assert sizes == sorted(sizes)
        assert await verified(tmp_path / "last.db") == (await log.verify()).events
    assert not list(tmp_path.glob("*.part"))


async def test_a_running_turn_is_left_by_a_dead_owner_in_the_copy(tmp_path: Path) -> None:
    agent = turnlog.Agent("a", model="gpt-5")
    way = scripted([text("Slow.").but(stall_after=3)])
    async with turnlog.open(tmp_path / "agent.db", agents=[agent], transport=way) as log:
        chat = await log.conversation("c", agent=agent)
        turn = await chat.send("Go.")
        while "response.started" not in [one.tag for one in await chat.events()]:
            await asyncio.sleep(0.01)
        await log.backup(tmp_path / "copy.db")
        async with turnlog.open(
            tmp_path / "copy.db", agents=[agent], transport=scripted([text("Done.")], checks=False)
        ) as copy:
            assert [one.turn for one in await copy.recover()] == [turn.id, turn.id]
            resumed = await (await (await copy.get("c")).turn(turn.id)).resume()
            assert (await resumed.result()).output_text == "Done."


async def test_a_log_that_is_read_only_can_be_copied(tmp_path: Path) -> None:
    source = tmp_path / "agent.db"
    async with turnlog.open(source, transport=script(0)) as log:
        await (await log.conversation("c", model="gpt-5")).add("Hello.")
    async with turnlog.open(source, transport=script(0), readonly=True) as log:
        await log.backup(tmp_path / "copy.db")
    assert await verified(tmp_path / "copy.db") > 0
    assert (tmp_path / "copy.db").stat().st_mode & 0o077 == 0 or os.name == "nt"


async def test_nothing_is_written_over(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "agent.db")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(InvalidInput, match="is there already"):
        await store.backup(str(tmp_path / "there"))
    assert (tmp_path / "there").read_text() == "mine"
    with pytest.raises(InvalidInput, match="cannot be written"):
        await store.backup(str(tmp_path / "nowhere" / "copy.db"))
    await store.close()
    with pytest.raises(Closed):
        await store.backup(str(tmp_path / "late.db"))


def test_what_came_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "some.db", tmp_path / "copy.db"
    sqlite3.connect(source).close()
    link = os.link

    def late(made: Path, wanted: Path) -> None:
        wanted.write_text("mine")
        link(made, wanted)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(InvalidInput, match="is there already"):
        back_up(address(source, "ro"), "some.db", target)
    assert target.read_text() == "mine"
    assert not list(tmp_path.glob("*.part"))


async def test_what_cannot_be_read_leaves_no_copy(tmp_path: Path) -> None:
    source, target = tmp_path / "agent.db", tmp_path / "copy.db"
    store = await open_store(source)
    assert isinstance(store, SqlStore)
    await store.close()
    with pytest.raises(StoreUnavailable):
        back_up(address(tmp_path / "gone.db", "ro"), "gone.db", target)
    with closing(sqlite3.connect(source)) as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    with source.open("r+b") as file:
        file.truncate(4096 * (pages // 2))
    with pytest.raises((StoreCorrupt, StoreUnavailable)):
        back_up(address(source, "ro"), "agent.db", target)
    assert not target.exists()


async def test_a_disk_that_is_full_is_that_of_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "agent.db", tmp_path / "copy.db"
    await (await open_store(source)).close()

    def connect(path: str | Path, *, isolation_level: None, uri: bool = False) -> object:
        made = sqlite3.Connection(path, isolation_level=isolation_level, uri=uri)
        if not uri:  # it is the copy: it may have three pages
            made.execute("PRAGMA max_page_count = 3")
        return made

    monkeypatch.setattr(sqlite3, "connect", connect)
    with pytest.raises(StoreUnavailable, match=r"copy\.db cannot grow"):
        back_up(address(source, "ro"), "agent.db", target)
    assert not list(tmp_path.glob("copy.db*"))


async def test_a_log_in_memory_says_what_to_do() -> None:
    async with turnlog.open(":memory:", transport=script(0)) as log:
        with pytest.raises(NotSupported, match=r"log\.export"):
            await log.backup("copy.db")
