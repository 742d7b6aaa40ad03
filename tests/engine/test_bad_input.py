"""Bad input gets a typed error that names the thing and the fix, and nothing is written."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

import turnlog
from turnlog.conversation import Conversation
from turnlog.errors import (
    ConfigurationError,
    InvalidInput,
    NotFound,
    NotTurnlog,
    SchemaMismatch,
    StoreCorrupt,
    StoreReadOnly,
    StoreUnavailable,
)
from turnlog.record import Recorded
from turnlog.settings import Settings
from turnlog.store import MemoryStore, open_store
from turnlog.testing import scripted, text

from .given import add, agent, opened


async def everything(log: turnlog.Log) -> list[Recorded]:
    """Every event of the log."""
    return [one.event async for one in log.follow(wait=False)]


@asynccontextmanager
async def untouched(script_left: int = 1) -> AsyncGenerator[tuple[turnlog.Log, Conversation]]:
    """A log with one conversation, in which nothing is written and nothing sent."""
    way = scripted([text("Hi."), *[text("Never.")] * script_left])
    async with opened(way, agent()) as log:
        chat = await log.conversation("c", agent="test")
        await chat.run("Hi.")
        before, head = await everything(log), (await chat.state()).head
        yield log, chat
        assert await everything(log) == before
        assert (await chat.state()).head == head
        assert way.left == script_left


# -- conversations and their ids -----------------------------------------------------------


async def test_an_unknown_conversation() -> None:
    async with untouched() as (log, _):
        with pytest.raises(NotFound, match=r"no conversation 'nobody'.*log\.conversation"):
            await log.get("nobody")
        nobody = await log.conversation("nobody", agent="test")
        for verb in (nobody.state, nobody.fork):
            with pytest.raises(NotFound, match="nobody"):
                await verb()
        with pytest.raises(NotFound, match="nobody"):
            await log.verify("nobody")
        assert [await nobody.items(), await nobody.turns(), await nobody.events()] == [[], [], []]


@pytest.mark.parametrize(
    "id",
    ["", "x" * 257, 7, None, b"c", " c", "c ", "a\nb", "a\x00b"],
    ids=repr,
)
async def test_an_id_that_is_empty_too_long_or_not_text(id: object) -> None:
    wrong = cast("str", id)
    async with untouched() as (log, chat):
        for verb in (log.get, log.conversation):
            with pytest.raises(InvalidInput, match="id"):
                await verb(wrong)
        if id is not None:
            with pytest.raises(InvalidInput, match="id"):
                await chat.fork(wrong)


@pytest.mark.parametrize("key", ["", "k" * 257, 7])
async def test_an_idempotency_key_that_is_none(key: object) -> None:
    async with untouched() as (_, chat):
        with pytest.raises(InvalidInput, match="idempotency key"):
            await chat.run("Hi.", idempotency_key=cast("str", key))


@pytest.mark.parametrize("by", ["", "b" * 257, 7])
async def test_an_actor_that_is_none(by: object) -> None:
    async with untouched() as (_, chat):
        actor = cast("str", by)
        verbs: list[Callable[[], Awaitable[object]]] = [
            lambda: chat.run("Hi.", by=actor),
            lambda: chat.request("Hi.", by=actor),
            lambda: chat.add("Hi.", by=actor),
            lambda: chat.fork(by=actor),
        ]
        for verb in verbs:
            with pytest.raises(InvalidInput, match="by="):
                await verb()


# -- input ---------------------------------------------------------------------------------


NO_INPUT: list[tuple[tuple[object, ...], str]] = [
    ((), "empty"),
    (("",), "empty"),
    (([],), "empty"),
    (({"role": "user", "content": ""},), "empty"),
    (({"role": "user", "content": []},), "empty"),
    (({},), 'needs a "type"'),
    (({"content": "x"},), 'needs a "type"'),
    (({"type": "message", "content": "x"},), 'needs a "role"'),
    (({"type": "function_call_output", "output": "x"},), "id of the call"),
    ((7,), "is no input"),
    ((None,), "is no input"),
    ((object(),), "is no input"),
]


@pytest.mark.parametrize(("given", "says"), NO_INPUT)
async def test_input_that_is_none(given: tuple[object, ...], says: str) -> None:
    async with untouched() as (_, chat):
        for verb in (chat.run, chat.send, chat.request, chat.add):
            with pytest.raises(InvalidInput, match=says):
                await verb(*given)


async def test_settings_that_are_none() -> None:
    async with untouched() as (log, chat):
        with pytest.raises(InvalidInput, match="did you mean 'temperature'"):
            await chat.run("Hi.", temperatur=1)  # type: ignore[call-overload]
        with pytest.raises(InvalidInput, match="no tool of this agent"):
            await chat.run("Hi.", tool_choice="subtract")
        with pytest.raises(InvalidInput, match="no setting"):
            await log.conversation("c", settings=cast("Settings", {"stream": True}))
        with pytest.raises(ConfigurationError, match="no agent 'nobody' is registered"):
            await log.conversation("c", agent="nobody")


@pytest.mark.parametrize("name", ["model", "instructions"])
async def test_a_model_or_instructions_that_are_not_text(name: str) -> None:
    async with untouched() as (log, chat):
        wrong = {name: 7}
        with pytest.raises(InvalidInput, match=name):
            await chat.run("Hi.", **wrong)  # type: ignore[call-overload]
        with pytest.raises(InvalidInput, match=name):
            await log.conversation("c", **wrong)  # type: ignore[arg-type]


async def test_metadata_that_is_not_json() -> None:
    async with untouched() as (log, _):
        with pytest.raises(InvalidInput, match="JSON"):
            await log.conversation("d", metadata={"a": object()})


# -- agents and tools ----------------------------------------------------------------------


def test_a_tool_whose_signature_cannot_be_described() -> None:
    class Odd:
        """A type that has no JSON schema."""

    def odd(x: Odd) -> str:
        return str(x)

    with pytest.raises(InvalidInput, match="'odd'"):
        turnlog.Agent("a", model="m", tools=[odd])


def test_duplicate_tool_names_and_a_tool_choice_without_tools() -> None:
    with pytest.raises(InvalidInput, match="two tools named 'add'"):
        turnlog.Agent("a", model="m", tools=[add, add])
    with pytest.raises(InvalidInput, match="needs tools"):
        turnlog.Agent("a", model="m", tool_choice="required")


async def test_two_agents_of_one_name() -> None:
    with pytest.raises(ConfigurationError, match="two different agents are named 'test'"):
        async with opened([], agent(), agent(instructions="Other.")):
            raise AssertionError
    async with opened([], agent()) as log:
        with pytest.raises(ConfigurationError, match="two different agents"):
            await log.conversation("c", agent=agent(instructions="Other."))


# -- opening -------------------------------------------------------------------------------


async def opening(path: Path, **options: object) -> None:
    """Open a log and close it."""
    async with turnlog.open(str(path), transport=scripted([]), **options):  # type: ignore[arg-type]
        pass


async def made(path: Path) -> None:
    async with opened([text("Hi.")], agent(), path=str(path)) as log:
        await (await log.conversation("c", agent="test")).run("Hi.")


async def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        await opening(tmp_path / "nowhere" / "a.db")
    with pytest.raises(NotFound):
        await opening(tmp_path / "a.db", readonly=True)
    assert list(tmp_path.iterdir()) == []


async def test_a_database_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute("create table mine (x)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(NotTurnlog, match=r"other\.db"):
        await opening(path)
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("Hello. " * 1000)
    with pytest.raises((NotTurnlog, StoreCorrupt), match=r"text\.db"):
        await opening(path)
    assert path.read_text() == "Hello. " * 1000


async def test_a_database_that_is_newer(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await made(path)
    database = sqlite3.connect(path)
    database.execute("update alembic_version set version_num = '9999'")
    database.commit()
    database.close()
    with pytest.raises(SchemaMismatch, match="newer"):
        await opening(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_database_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await made(path)
    path.chmod(0o444)
    with pytest.raises(StoreReadOnly):
        await opening(path)


async def test_a_log_that_was_opened_to_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await made(path)
    way = scripted([text("Never.")])
    async with turnlog.open(str(path), agents=[agent()], transport=way, readonly=True) as log:
        chat = await log.get("c")
        assert [one.text for one in await chat.items()] == ["Hi.", "Hi."]
        for verb in (chat.run, chat.add):
            with pytest.raises(StoreReadOnly, match=r"read-only|readonly"):
                await verb("More.")
        assert way.requests == []


async def test_a_database_that_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await made(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin exclusive")
    try:
        store = open_store(path, busy_timeout=0.05)
        with pytest.raises(StoreUnavailable, match="locked"):
            await store
    finally:
        other.rollback()
        other.close()


# -- the way to the provider ---------------------------------------------------------------


@pytest.mark.parametrize("address", ["", "nonsense", "ftp://example.com", "http://"])
async def test_a_base_url_that_is_not_one(address: str) -> None:
    with pytest.raises(ConfigurationError, match="base"):
        async with turnlog.open(":memory:", agents=[agent()], base_url=address, api_key="k") as log:
            chat = await log.conversation("c", agent="test")
            await chat.run("Hi.")


async def test_a_transport_that_is_not_installed() -> None:
    with pytest.raises(ConfigurationError, match="no transport 'pigeon': installed are auto, http"):
        async with turnlog.open(":memory:", transport="pigeon"):
            raise AssertionError


async def test_a_key_in_the_clear_is_not_sent() -> None:
    async with turnlog.open(
        ":memory:", agents=[agent()], base_url="http://example.com/v1", api_key="k"
    ) as log:
        chat = await log.conversation("c", agent="test")
        with pytest.raises(ConfigurationError, match="clear"):
            await chat.run("Hi.")
        assert await chat.events() == []


async def test_a_client_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="AsyncOpenAI, not a str"):
        turnlog.open(":memory:", client="sk-key")


async def test_a_checkpoint_that_is_none() -> None:
    async with untouched() as (log, _):
        for wrong in ("x", "1:2:3", "1:a"):
            with pytest.raises(InvalidInput, match="not a checkpoint"):
                await anext(log.follow(wrong, wait=False))


async def test_a_write_that_the_store_refuses_reaches_the_caller() -> None:
    store, way = MemoryStore(), scripted([text("Hi.")])
    async with opened(way, agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        await chat.run("Hi.")
        await store.close()
        with pytest.raises(turnlog.errors.Closed):
            await chat.run("More.")
        assert len(way.requests) == 1
