"""The log: its conversations, its inbox, its events in order, and its secrets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from openai import AsyncOpenAI

import turnlog
from turnlog.canonical import JsonObject
from turnlog.draft import Ambient
from turnlog.ports import Endpoint
from turnlog.testing import call, scripted, text
from turnlog_transports import http
from turnlog_transports.profiles import OPENAI
from turnlog_transports.simulator import Simulator

from .given import PATIENCE, add, agent, opened, pay, talking

KEY = "sk-very-secret-key-0123456789"
TOKEN = "mcp-very-secret-token-987654321"


# -- lists ---------------------------------------------------------------------------------


async def test_conversations_are_paged_and_selected() -> None:
    async with opened([text("a"), call("pay", amount=1), text("c")], agent(add, pay)) as log:
        for id, team in (("a", "x"), ("b", "y"), ("c", "x")):
            chat = await log.conversation(id, agent="test", metadata={"team": team})
            await chat.run("Hi.")
        rows = await log.conversations()
        assert [row.id for row in rows] == ["a", "b", "c"]
        assert [row.id for row in await log.conversations(after="a", limit=1)] == ["b"]
        assert [row.id for row in await log.conversations(status="waiting")] == ["b"]
        assert [row.id for row in await log.conversations(metadata={"team": "x"})] == ["a", "c"]
        middle = rows[1].updated / 1e6
        assert [row.id for row in await log.conversations(since=middle)] == ["b", "c"]
        assert [row.id for row in await log.conversations(until=middle)] == ["a", "b"]
        assert rows[0].metadata == {"team": "x"}
        assert (await log.get("a")).id == "a"


async def test_metadata_counts_where_a_conversation_is_new() -> None:
    async with opened([text("a"), text("b")], agent()) as log:
        await (await log.conversation("c", agent="test", metadata={"n": "1"})).run("Hi.")
        await (await log.conversation("c", agent="test", metadata={"n": "2"})).run("Hi.")
        assert (await (await log.get("c")).state()).metadata == {"n": "1"}


async def test_follow_gives_every_event_once_behind_a_checkpoint() -> None:
    async with opened([text("a"), text("b")], agent()) as log:
        chat = await log.conversation("c", agent="test")
        await chat.run("1")
        first = [one async for one in log.follow(wait=False)]
        assert [one.event for one in first] == await chat.events()
        await chat.run("2")
        rest = [one async for one in log.follow(first[-1].checkpoint, wait=False)]
        assert [one.event for one in (*first, *rest)] == await chat.events()
        again = [one async for one in log.follow(first[3].checkpoint, wait=False)]
        assert again[0].event == first[4].event


async def test_follow_waits_for_what_comes() -> None:
    async with opened([text("a")], agent()) as log:
        chat = await log.conversation("c", agent="test")
        events = log.follow()
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        await chat.run("1")
        async with asyncio.timeout(PATIENCE):
            assert (await waiting).event.tag == "conversation.started"
        await events.aclose()


async def test_verify_counts_and_finds(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "a.db"
    async with opened([text("a"), text("b")], agent(), path=str(path)) as log:
        for id in ("a", "b"):
            await (await log.conversation(id, agent="test")).run("Hi.")
        report = await log.verify()
        assert (report.conversations, report.ok) == (2, True)
        assert report.events == sum([row.version for row in await log.conversations()])
        one = await log.verify("a")
        assert (one.conversations, one.events) == (1, (await log.conversations())[0].version)
    database = sqlite3.connect(path)
    database.execute("update events set actor = 'mallory' where conversation = 'b' and version = 3")
    database.commit()
    database.close()
    async with opened([], path=str(path)) as log:
        report = await log.verify()
        assert not report.ok
        assert {(found.conversation, found.version) for found in report.findings} == {("b", 3)}
        assert (await log.verify("a")).ok


async def test_a_log_can_be_awaited_and_closed() -> None:
    log = await turnlog.open(":memory:", transport=scripted([]))
    assert await log.conversations() == []
    await log.close()


async def test_the_clock_and_randomness_are_arguments() -> None:
    """Law 14: the same times and tokens give the same log, byte for byte."""
    found: list[list[str]] = []
    for _ in range(2):
        ticks, tokens = iter(range(10**9)), iter(range(10**9))
        ambient = Ambient(
            now=lambda ticks=ticks: 10**15 + next(ticks),  # type: ignore[misc]
            token=lambda size, tokens=tokens: next(tokens).to_bytes(size, "big"),  # type: ignore[misc]
        )
        async with talking([text("a")], ambient=ambient) as (chat, _):
            await chat.run("Hi.")
            found.append([one.hash.hex() for one in await chat.events()])
    assert found[0] == found[1]


# -- secrets -------------------------------------------------------------------------------


def bytes_beside(path: Path) -> bytes:
    """Everything that stands in the database's files."""
    return b"".join(one.read_bytes() for one in path.parent.rglob("*") if one.is_file())


async def test_keys_and_secrets_never_reach_the_log_an_error_or_a_repr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNLOG_TEST_TOKEN", TOKEN)
    path = tmp_path / "a.db"
    mcp: JsonObject = {
        "type": "mcp",
        "server_label": "crm",
        "server_url": "https://example.com/mcp",
    }
    tool = {**mcp, "authorization": turnlog.Secret("env:TURNLOG_TEST_TOKEN")}
    async with Simulator([text("Hi."), text("On.")], key=KEY) as simulator:
        chosen = turnlog.Agent("test", model="gpt-5", tools=[tool])
        endpoint = Endpoint(base_url=simulator.base_url, profile=OPENAI, key=lambda: KEY)
        async with turnlog.open(
            str(path), agents=[chosen], transport=http.open_transport(endpoint)
        ) as log:
            chat = await log.conversation("c", agent=chosen)
            result = await chat.run("Hi.")
            shown = repr([result, chat, log, chosen, endpoint, await chat.events()])
            assert TOKEN not in shown and KEY not in shown
        assert TOKEN in str(simulator.creates[0]["tools"])
        wrong = Endpoint(base_url=simulator.base_url, profile=OPENAI, key=f"{KEY}-wrong")
        async with turnlog.open(
            str(path), agents=[chosen], transport=http.open_transport(wrong)
        ) as log:
            chat = await log.conversation("c", agent=chosen)
            with pytest.raises(turnlog.TurnFailed) as caught:
                await chat.run("On.")
            assert KEY not in repr(caught.value)
    held = bytes_beside(path)
    assert KEY.encode() not in held
    assert TOKEN.encode() not in held
    assert b"env:TURNLOG_TEST_TOKEN" in held


async def test_a_secret_in_plain_text_is_refused() -> None:
    with pytest.raises(turnlog.errors.ConfigurationError, match="Secret") as caught:
        turnlog.Agent(
            "a",
            model="m",
            tools=[
                {
                    "type": "mcp",
                    "server_label": "crm",
                    "server_url": "https://example.com/mcp",
                    "authorization": TOKEN,
                }
            ],
        )
    assert TOKEN not in str(caught.value)


async def test_a_client_lends_its_address_key_and_headers() -> None:
    async with Simulator([text("Hi.")], key=KEY) as simulator:
        async with AsyncOpenAI(api_key=KEY, base_url=simulator.base_url) as client:
            opening = turnlog.open(
                ":memory:", agents=[agent()], client=client, transport="http", profile=OPENAI
            )
            assert KEY not in repr(opening)
            async with opening as log:
                chat = await log.conversation("c", agent="test")
                assert (await chat.run("Hi.")).output_text == "Hi."


@pytest.mark.parametrize("key", [KEY, lambda: KEY])
async def test_a_key_is_text_or_a_callable(key: object) -> None:
    async with Simulator([text("Hi.")], key=KEY) as simulator:
        async with turnlog.open(
            ":memory:",
            agents=[agent()],
            base_url=simulator.base_url,
            api_key=key,
            transport="http",
        ) as log:
            chat = await log.conversation("c", agent="test")
            assert (await chat.run("Hi.")).output_text == "Hi."


async def test_owners_may_be_known_by_their_beats_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with turnlog.open(
        path, agents=[agent()], transport=scripted([text("Hi.")]), owners="beats"
    ) as log:
        assert (await (await log.conversation("c", agent="test")).run("Hi.")).output_text == "Hi."
        assert [one.stem for one in path.with_name("a.db-owners").iterdir()] == ["opening"]
        assert await log.recover() == []
