"""The database fails under a turn: a typed error, nothing half written, and it goes on afterwards.

The faults are real: a file that may not grow, a lock that another process holds, rights that were
taken away, and two processes that send to one conversation.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

import turnlog
from turnlog.errors import Busy, StoreError, StoreReadOnly, StoreUnavailable
from turnlog.store import open_store
from turnlog.testing import call, scripted
from turnlog.testing import text as says

from .given import ASK, SUM, for_ever, inputs, leaping, sound

BLOB = 400_000


@contextmanager
def small_files(path: Path, more: int) -> Generator[None]:
    """No file may grow beyond what the write-ahead log has now and a little more."""
    wal = path.with_name(f"{path.name}-wal")
    size = (wal.stat().st_size if wal.exists() else 0) + more
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Another connection writes, and does not end."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


AGENT = turnlog.Agent("test", model="gpt-5", tools=[add])


@asynccontextmanager
async def opened(
    path: Path, agent: turnlog.Agent = AGENT, *, busy: float = 0.05
) -> AsyncGenerator[tuple[turnlog.Log, turnlog.Conversation]]:
    """A log on a file, whose writer waits `busy` seconds for others."""
    store = await open_store(str(path), busy_timeout=busy)
    async with turnlog.open(
        path, agents=[agent], transport=scripted(for_ever()), store=store, ambient=leaping()
    ) as log:
        yield log, await log.conversation("c", agent=agent)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is."""
    return tmp_path / "log.db"


# -- no room -------------------------------------------------------------------------------


async def test_there_is_no_room_for_the_first_append(path: Path) -> None:
    async with opened(path) as (log, chat):
        await chat.run("Hello.")
        before = await chat.events()
        with small_files(path, 4096), pytest.raises(StoreError):
            await chat.run("x" * BLOB)
        assert await chat.events() == before
        await sound(log, chat)
        assert (await chat.run(ASK)).output_text == SUM


async def test_there_is_no_room_for_what_a_tool_answered(path: Path) -> None:
    """The call has started and its answer is lost: nobody knows, and its tool is asked about."""
    limit = small_files(path, 4096)
    runs: list[int] = []

    @turnlog.tool(on_crash="rerun")
    def large() -> str:
        """Give much, where there is little room."""
        runs.append(1)
        if len(runs) == 1:
            limit.__enter__()
        return os.urandom(BLOB // 2).hex()

    agent = turnlog.Agent("test", model="gpt-5", tools=[large])
    store = await open_store(str(path), busy_timeout=0.05)
    script = scripted([call("large"), says("Much."), says("Fine.")])
    async with turnlog.open(
        path, agents=[agent], transport=script, store=store, ambient=leaping()
    ) as log:
        chat = await log.conversation("c", agent=agent)
        try:
            with pytest.raises(StoreError):
                await chat.run("Give.")
            assert [one.tag for one in await chat.events()].count("call.started") == 1
            assert inputs(await chat.items()) == ["Give."]
        finally:
            limit.__exit__(None, None, None)
        (row,) = await chat.turns()
        turn = await (await chat.turn(row.turn)).resume()
        assert (await turn.result()).output_text == "Much."
        assert len(runs) == 2
        await sound(log, chat, reruns=True)
        assert (await chat.run("And now?")).output_text == "Fine."


# -- a lock --------------------------------------------------------------------------------


async def test_somebody_else_writes_and_does_not_end(path: Path) -> None:
    async with opened(path) as (log, chat):
        await chat.run("Hello.")
        before = await chat.events()
        with locked(path), pytest.raises(StoreUnavailable, match="locked"):
            await chat.run(ASK)
        assert await chat.events() == before
        assert (await chat.run(ASK)).output_text == SUM
        await sound(log, chat)


async def test_somebody_else_writes_in_the_middle_of_a_turn(path: Path) -> None:
    lock = locked(path)
    runs: list[int] = []

    async def grab() -> str:
        """Lock the database."""
        runs.append(1)
        lock.__enter__()
        return "grabbed"

    agent = turnlog.Agent("test", model="gpt-5", tools=[turnlog.tool(grab, on_crash="give_up")])
    store = await open_store(str(path), busy_timeout=0.05)
    script = scripted([call("grab"), says("Done."), says("Fine.")])
    async with turnlog.open(
        path, agents=[agent], transport=script, store=store, ambient=leaping()
    ) as log:
        chat = await log.conversation("c", agent=agent)
        turn = await chat.send("Grab.")
        with pytest.raises(StoreUnavailable, match="locked"):
            await turn.result()
        assert (await chat.state()).status in ("busy", "waiting")
        lock.__exit__(None, None, None)
        assert (await (await turn.resume()).result()).output_text == "Done."
        assert len(runs) == 1
        await sound(log, chat)
        assert (await chat.run("And now?")).output_text == "Fine."


# -- rights --------------------------------------------------------------------------------


async def test_a_log_that_was_opened_to_read_writes_nothing(path: Path) -> None:
    async with opened(path) as (_, chat):
        await chat.run("Hello.")
    async with turnlog.open(
        path, agents=[AGENT], transport=scripted(for_ever()), readonly=True
    ) as log:
        chat = await log.conversation("c", agent=AGENT)
        before = await chat.events()
        for verb in (chat.run(ASK), chat.add("More."), chat.fork()):
            with pytest.raises(StoreReadOnly):
                await verb
        assert await chat.events() == before
        await sound(log, chat)


# -- two processes -------------------------------------------------------------------------

RIVAL = """
import asyncio, sys
import turnlog
from turnlog.errors import Busy
from turnlog.testing import scripted, text

async def main(path, rounds):
    way = scripted([text("Mine.").but(delay=0.001)] * rounds, seed=sys.argv[3])
    agent = turnlog.Agent("test", model="gpt-5")
    async with turnlog.open(path, agents=[agent], transport=way) as log:
        for n in range(rounds):
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            chat = await log.conversation(f"c{n}", agent=agent)
            try:
                turn = await chat.send(f"from {sys.argv[3]}")
                await turn.result()
                print("won", flush=True)
            except Busy:
                print("busy", flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_two_processes_send_to_one_conversation_at_once(path: Path) -> None:
    """One wins and the other is Busy, or comes behind it; a conflict of versions is never seen."""
    rounds = 10
    async with turnlog.open(path):
        pass
    rivals = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", RIVAL, str(path), str(rounds), name, stdin=PIPE, stdout=PIPE
        )
        for name in ("left", "right")
    ]
    said: list[list[str]] = []
    for _ in range(rounds):
        for word in ("ready", None):
            lines = await asyncio.gather(*(_line(rival.stdout) for rival in rivals))
            if word is None:
                said.append(lines)
                continue
            assert lines == [word, word]
            for rival in rivals:
                assert rival.stdin is not None
                rival.stdin.write(b"go\n")
    assert [await rival.wait() for rival in rivals] == [0, 0]
    assert all(sorted(pair) in (["busy", "won"], ["won", "won"]) for pair in said), said
    async with turnlog.open(path, readonly=True) as log:
        for n, pair in enumerate(said):
            chat = await log.get(f"c{n}")
            await sound(log, chat)
            assert len(inputs(await chat.items())) == pair.count("won")
    print(f"{sum('busy' in pair for pair in said)} of {rounds} rounds had a loser")


async def _line(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    return (await stream.readline()).decode().strip()


async def test_one_that_is_busy_elsewhere_is_named(path: Path) -> None:
    async with opened(path) as (_, chat):
        turn = await chat.send(ASK)
        async with opened(path) as (_, other):
            with pytest.raises(Busy) as caught:
                await other.run("Me too.")
            assert caught.value.turn == turn.id
        assert (await turn.result()).output_text == SUM
