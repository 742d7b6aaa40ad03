"""Requests: what goes out, over which chain, and what happens when it is lost."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject, dumps
from turnlog.draft import Ambient
from turnlog.errors import ConfigurationError, InvalidInput
from turnlog.ports import Endpoint, Profile
from turnlog.testing import Reply, call, error, reasoning, reply, text
from turnlog_transports import http, replay, websocket
from turnlog_transports.profiles import OPENAI
from turnlog_transports.simulator import Simulator

from .given import add, agent, all_of, opened, said, tags, talking

GONE = error(404, "previous_response_not_found", "Previous response not found.")


# -- settings ------------------------------------------------------------------------------


async def test_w63_the_turn_wins_over_the_conversation_and_that_over_the_agent() -> None:
    chosen = agent(add, temperature=0.1, top_p=0.5, user="u1", instructions="Agent.")
    async with opened([text("1"), text("2")], chosen) as log:
        chat = await log.conversation(
            "c",
            agent=chosen,
            settings={"temperature": 0.2, "top_p": 0.6},
            instructions="Conversation.",
        )
        await chat.run("1")
        await chat.run("2", temperature=0.3, user=None, model="gpt-5-mini", instructions="Turn.")
        (one, two) = _bodies(log)
        assert (one["temperature"], one["top_p"], one["user"]) == (0.2, 0.6, "u1")
        assert (one["model"], one["instructions"]) == ("gpt-5", "Conversation.")
        assert (two["temperature"], two["top_p"]) == (0.3, 0.6)
        assert (two["model"], two["instructions"]) == ("gpt-5-mini", "Turn.")
        assert "user" not in two


def _bodies(log: turnlog.Log) -> list[JsonObject]:
    transport = log._engine.transport  # pyright: ignore[reportPrivateUsage]
    assert isinstance(transport, replay.ReplayTransport)
    return transport.requests


async def test_w64_what_is_unset_is_absent() -> None:
    async with talking([text("Hi.")], agent(add, temperature=None)) as (chat, way):
        await chat.run("Hi.", top_p=None)
        assert set(way.requests[0]) == {"model", "input", "tools", "include"} - (
            set() if "include" in way.requests[0] else {"include"}
        )
        assert b"null" not in dumps(way.requests[0])


async def test_w60_a_tool_choice_of_any_shape_is_sent_flat() -> None:
    async with talking([text("1"), text("2")]) as (chat, way):
        await chat.run("1", tool_choice={"type": "function", "function": {"name": "add"}})
        await chat.run("2", tool_choice="add")
        for body in way.requests:
            assert body["tool_choice"] == {"type": "function", "name": "add"}


async def test_w61_a_tool_choice_without_tools_writes_and_sends_nothing() -> None:
    bare = turnlog.Agent("bare", model="gpt-5")
    async with talking([text("Hi.")], bare) as (chat, way):
        with pytest.raises(InvalidInput, match="needs tools"):
            await chat.run("Hi.", tool_choice="required")
        assert (await chat.events(), way.requests) == ([], [])


async def test_w62_a_schema_that_nearly_is_strict_is_sent_as_it_is() -> None:
    raw: JsonObject = {
        "type": "function",
        "name": "look",
        "strict": True,
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
    }
    async with talking([text("Hi.")], agent(raw)) as (chat, way):
        await chat.run("Hi.")
        assert way.requests[0]["tools"] == [{**raw, "strict": False}]


async def test_w65_a_part_that_the_provider_cannot_take_is_named_and_nothing_written() -> None:
    deaf = Profile(name="deaf", key_env=None, unsupported=frozenset({"input_audio", "truncation"}))
    transport = replay.ReplayTransport([text("Hi.")], profile=deaf)
    async with opened(transport, agent()) as log:
        chat = await log.conversation("c", agent="test")
        sound = {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}
        with pytest.raises(InvalidInput, match="deaf cannot take an input_audio"):
            await chat.run("Listen.", sound)
        with pytest.raises(InvalidInput, match="deaf does not take 'truncation'"):
            await chat.run("Hi.", truncation="auto")
        assert (await chat.events(), transport.requests) == ([], [])


async def test_w66_a_picture_is_the_same_bytes_in_every_request() -> None:
    picture = turnlog.image(b"\x89PNG\r\n\x1a\n" + bytes(30_000))
    async with talking([text("1"), text("2")], agent(add, store=False)) as (chat, way):
        await chat.run("Look.", picture)
        await chat.edit((await chat.items())[-1], {"role": "assistant", "content": "One."})
        await chat.run("Again.")
        one, two = way.requests
        assert dumps(one["input"])[1:-1] in dumps(two["input"])


async def test_w67_every_setting_reaches_the_body() -> None:
    async with talking([text("Hi.")]) as (chat, way):
        await chat.run(
            "Hi.",
            reasoning={"effort": "low"},
            include=["file_search_call.results"],
            truncation="auto",
            prompt_cache_key="k",
            max_output_tokens=99,
            metadata={"a": "b"},
            service_tier="flex",
            extra={"brand_new": 1},
        )
        (body,) = way.requests
        assert body["reasoning"] == {"effort": "low"}
        assert (body["truncation"], body["prompt_cache_key"], body["brand_new"]) == ("auto", "k", 1)
        assert "file_search_call.results" in list(_list(body["include"]))


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return list(value)  # pyright: ignore[reportUnknownArgumentType]


async def test_encrypted_reasoning_is_asked_for_once_and_sent_back_when_a_chain_is_lost() -> None:
    script = [reply(reasoning("Hm.", encrypted="sealed"), text("1")), GONE, text("2")]
    async with talking(script, checks=False) as (chat, way):
        await chat.run("1", include=["reasoning.encrypted_content"])
        await chat.run("2")
        assert all(
            _list(body["include"]).count("reasoning.encrypted_content") == 1
            for body in way.requests
        )
        assert "sealed" in str(way.requests[2]["input"])
        assert said(way.requests[2]) == ["1", "reasoning", "1", "2"]


async def test_what_is_configured_is_recorded_when_it_differs() -> None:
    async with opened([text("1"), text("2"), text("3")], agent()) as log:
        await (await log.conversation("c", agent="test")).run("1")
        chat = await log.get("c")
        await chat.run("2")
        assert (await tags(chat)).count("conversation.configured") == 1
        other = await log.conversation("c", settings={"temperature": 0.5})
        await other.run("3")
        first, second = await all_of(chat, ev.ConversationConfigured)
        assert (first.agent, second.agent, second.settings) == (
            "test",
            "test",
            {"temperature": 0.5},
        )
        assert "temperature" not in _bodies(log)[1]
        assert _bodies(log)[2]["temperature"] == 0.5


async def test_a_conversation_needs_no_agent_with_a_model_of_its_own() -> None:
    async with opened([text("1"), call("add", a=1, b=2)]) as log:
        chat = await log.conversation("c", model="gpt-5", instructions="Be brief.")
        assert (await chat.run("1")).output_text == "1"
        assert (await chat.run("2")).reason == "unbound"
        (first, *_) = _bodies(log)
        assert (first["model"], first["instructions"]) == ("gpt-5", "Be brief.")


# -- chains --------------------------------------------------------------------------------


async def test_w03_a_delta_never_holds_what_the_parent_said() -> None:
    async with talking([call("add", a=1, b=2), text("3."), text("Bye.")]) as (chat, way):
        await chat.run("Add.")
        await chat.run("Bye.")
        assert [said(body) for body in way.requests] == [
            ["Add."],
            ["function_call_output"],
            ["Bye."],
        ]


async def test_w04_an_output_alone_is_enough_behind_its_call() -> None:
    async with talking([call("add", a=1, b=2), text("3.")]) as (chat, way):
        await chat.run("Add.")
        assert said(way.requests[1]) == ["function_call_output"]
        assert way.requests[1]["previous_response_id"] == "resp_1"


async def test_w08_conversations_on_one_transport_do_not_mix() -> None:
    def answer(body: JsonObject) -> Reply:
        return text(f"You said {said(body)[-1]}.")

    async with opened([answer] * 12, agent()) as log:
        chats = [await log.conversation(id, agent="test") for id in "abc"]
        for word in ("one", "two", "three"):
            results = await asyncio.gather(*(chat.run(f"{word} {chat.id}") for chat in chats))
            assert [one.output_text for one in results] == [
                f"You said {word} {id}." for id in "abc"
            ]
        bodies = _bodies(log)
        assert sum("previous_response_id" in body for body in bodies) == 6
        assert all(len(said(body)) == 1 for body in bodies)
        for chat in chats:
            assert (await chat.state()).items == 6


async def test_w09_a_new_process_continues_the_chain_with_the_new_items_only() -> None:
    from turnlog.store import MemoryStore

    store, script = MemoryStore(), [text("1"), text("2")]
    transport = replay.ReplayTransport(script)
    async with opened(transport, agent(), store=store) as log:
        await (await log.conversation("c", agent="test")).run("1")
    transport = replay.ReplayTransport([text("2")], checks=False)
    async with opened(transport, agent(), store=store.beside()) as log:
        await (await log.get("c")).run("2")
        (body,) = transport.requests
        assert (body["previous_response_id"], said(body)) == ("resp_1", ["2"])


async def test_w12_a_lost_chain_is_rebuilt_once() -> None:
    async with talking([text("1"), GONE, text("2"), text("3")], checks=False) as (chat, way):
        await chat.run("1")
        result = await chat.run("2", max_requests=1)
        assert result.output_text == "2"
        assert "previous_response_id" not in way.requests[2]
        assert said(way.requests[2]) == ["1", "1", "2"]
        (lost,) = await all_of(chat, ev.ChainLost)
        assert lost.parent == "resp_1"
        assert [one.cause for one in await all_of(chat, ev.RequestPrepared)][1:] == [
            "first",
            "chain_lost",
        ]
        await chat.run("3")
        assert way.requests[3]["previous_response_id"] != "resp_1"


async def test_w12_a_chain_that_is_lost_twice_fails_the_turn() -> None:
    async with talking([text("1"), GONE, GONE, text("3")], checks=False) as (chat, way):
        await chat.run("1")
        with pytest.raises(turnlog.TurnFailed, match="lost twice") as caught:
            await chat.run("2")
        assert caught.value.code == "previous_response_not_found"
        assert len(way.requests) == 3
        assert (await chat.run("3")).output_text == "3"
        assert "previous_response_id" not in way.requests[3]


async def test_w13_an_unstored_chain_is_continued_on_its_connection_only() -> None:
    chosen = agent(add, store=False)
    async with Simulator([text("1"), text("2"), text("3"), text("4")]) as simulator:
        way = websocket.open_transport(Endpoint(base_url=simulator.base_url, profile=OPENAI))
        async with opened(way, chosen) as log:
            chat = await log.conversation("c", agent=chosen)
            await chat.run("1")
            await chat.run("2")
            first, second = await all_of(chat, ev.RequestPrepared)
            assert (first.connection, first.store, second.kind) == (None, False, "delta")
            assert second.connection is not None
            simulator.websocket = False
            simulator.websocket = True
            await chat.run("3")
        _, two, *_, three = simulator.creates
        assert (two["previous_response_id"], said(two)) == ("resp_1", ["2"])
        assert "previous_response_id" not in three
        assert said(three) == ["1", "1", "2", "2", "3"]


async def test_w13_an_unstored_chain_over_replay_and_none_over_http() -> None:
    chosen = agent(add, store=False)
    async with talking([text("1"), text("2")], chosen) as (chat, way):
        await chat.run("1")
        await chat.run("2")
        assert way.requests[1]["previous_response_id"] == "resp_1"
    async with Simulator([text("1"), text("2")]) as simulator:
        over = http.open_transport(Endpoint(base_url=simulator.base_url, profile=OPENAI))
        async with opened(over, chosen) as log:
            chat = await log.conversation("c", agent=chosen)
            await chat.run("1")
            await chat.run("2")
        assert "previous_response_id" not in simulator.creates[1]


async def test_w16_another_model_does_not_continue_and_other_settings_do() -> None:
    async with talking([text("1"), text("2"), text("3")]) as (chat, way):
        await chat.run("1")
        await chat.run("2", temperature=0.5)
        await chat.run("3", model="gpt-5-mini")
        assert way.requests[1]["previous_response_id"] == "resp_1"
        assert "previous_response_id" not in way.requests[2]
        assert said(way.requests[2]) == ["1", "1", "2", "2", "3"]


async def test_a_stored_response_expires() -> None:
    weeks = count(2000)
    slow = Ambient(now=lambda: next(weeks) * 7 * 24 * 3600 * 1_000_000)
    async with talking([text("1"), text("2")], ambient=slow) as (chat, way):
        await chat.run("1")
        await chat.run("2")
        assert "previous_response_id" not in way.requests[1]


async def test_a_missing_key_is_an_error_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with turnlog.open(":memory:", agents=[agent()]) as log:
        chat = await log.conversation("c", agent="test")
        for verb in (chat.run, chat.send, chat.request):
            with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
                await verb("Hi.")
        assert await chat.events() == []


async def test_w15_nothing_new_is_nothing_to_send() -> None:
    async with talking([text("1")]) as (chat, way):
        await chat.run("1")
        before = await chat.events()
        with pytest.raises(InvalidInput, match="empty"):
            await chat.run()
        assert (await chat.events(), len(way.requests)) == (before, 1)
