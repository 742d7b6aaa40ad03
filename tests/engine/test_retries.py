"""Retries have one owner, a budget, and a reason in the log."""

from __future__ import annotations

import pytest

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.conversation import Conversation
from turnlog.errors import ConfigurationError
from turnlog.ports import Endpoint, Profile
from turnlog.testing import Reply, call, error, failed, refuse_upgrade, text
from turnlog_transports import fallback, http, replay, websocket
from turnlog_transports.profiles import OPENAI
from turnlog_transports.simulator import Simulator

from .given import add, agent, all_of, collect, opened, said, tags, talking, texts

BODIES = ("model", "instructions", "input")


async def prepared(chat: Conversation) -> list[ev.RequestPrepared]:
    return await all_of(chat, ev.RequestPrepared)


@pytest.mark.parametrize(
    "first",
    [
        error(408),
        error(409),
        error(429, retry_after=2.0),
        error(500),
        error(503, "overloaded"),
        failed("server_error"),
        failed("rate_limit_exceeded"),
        text("Half").but(cut_after=0),
        text("Half").but(cut_after=5),
        text("Half").but(no_terminal=True),
    ],
)
async def test_w33_what_may_pass_is_tried_again(first: Reply) -> None:
    async with talking([first, text("Fine.")]) as (chat, way):
        result = await chat.run("Go.", max_requests=1)
        assert result.output_text == "Fine."
        one, two = await prepared(chat)
        assert (one.cause, two.cause, two.try_number) == ("first", "retry", 2)
        assert len(way.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_w32_what_the_provider_refuses_for_good_is_final(status: int) -> None:
    async with talking([error(status), text("Fine.")]) as (chat, way):
        with pytest.raises(turnlog.TurnFailed) as caught:
            await chat.run("Go.")
        assert caught.value.status == status
        assert len(way.requests) == 1
        assert (await chat.run("Again.")).output_text == "Fine."


async def test_w31_one_owner_counts_the_tries_and_gives_up() -> None:
    async with talking([error(500)] * 12) as (chat, way):
        with pytest.raises(turnlog.TurnFailed, match="given up after 4 tries"):
            await chat.run("Go.")
        assert len(way.requests) == 4
        assert [one.try_number for one in await prepared(chat)] == [1, 2, 3, 4]
        assert way.requests == [way.requests[0]] * 4


async def test_w35_the_delay_is_a_fact_of_the_log_and_no_shorter_than_retry_after() -> None:
    async with talking([error(429, retry_after=7.5), error(500), text("Fine.")]) as (chat, _):
        await chat.run("Go.")
        _, second, third = await prepared(chat)
        assert second.delay_ms >= 7500
        assert 0 <= third.delay_ms <= 1000


async def test_w30_visible_text_is_retracted_and_never_doubled() -> None:
    async with talking([text("Hello world").but(cut_after=6), text("Hello world")]) as (chat, _):
        async with chat.stream("Go.") as turn:
            updates = await collect(aiter(turn))
        place = [one.type for one in updates].index("retracted")
        assert texts(updates[place:]) == "Hello world"
        assert (await turn.result()).output_text == "Hello world"


async def test_w34_what_cannot_be_said_is_not_tried() -> None:
    async with talking([text("Fine.")]) as (chat, way):
        with pytest.raises(turnlog.TurnlogError, match="float"):
            await chat.run(float("nan"))
        assert (await chat.events(), way.requests) == ([], [])


# -- nothing heard -------------------------------------------------------------------------


async def test_nothing_heard_is_sent_again_unless_the_provider_has_effects() -> None:
    silent = text("Half").but(cut_after=0)
    async with talking([silent, text("Fine.")]) as (chat, _):
        assert (await chat.run("Go.")).output_text == "Fine."
        assert len(await all_of(chat, ev.ResponseUnknown)) == 1
    effects = agent(add, {"type": "code_interpreter", "container": {"type": "auto"}})
    async with talking([silent, text("Fine.")], effects) as (chat, way):
        with pytest.raises(turnlog.TurnFailed, match="on_unknown='stop'"):
            await chat.run("Go.")
        assert len(way.requests) == 1
    async with talking([silent, text("Fine.")], effects, on_unknown="resend") as (chat, _):
        assert (await chat.run("Go.")).output_text == "Fine."
    async with talking([silent, text("Fine.")], on_unknown="stop") as (chat, _):
        with pytest.raises(turnlog.TurnFailed, match="unknown whether"):
            await chat.run("Go.")
        assert (await chat.run("Go on.")).output_text == "Fine."


# -- another way ---------------------------------------------------------------------------


async def test_a_websocket_that_is_refused_is_followed_by_http_and_the_log_says_so() -> None:
    async with Simulator([refuse_upgrade(403), text("Fine."), text("More.")]) as simulator:
        way = fallback.open_transport(Endpoint(base_url=simulator.base_url, profile=OPENAI))
        async with opened(way, agent()) as log:
            chat = await log.conversation("c", agent="test")
            assert (await chat.run("Go.")).output_text == "Fine."
            await chat.run("On.")
            (switched,) = await all_of(chat, ev.TransportSwitched)
            assert (switched.before, switched.after) == ("websocket", "http")
            assert "403" in switched.reason
            one, two, three = await prepared(chat)
            assert [one.transport, two.transport, three.transport] == ["websocket", "http", "http"]
            (rejected,) = await all_of(chat, ev.ResponseRejected)
            assert rejected.reason == "not_sent"
        assert len(simulator.creates) == 2
        assert simulator.creates[1]["previous_response_id"] == "resp_1"


async def test_the_websocket_is_taken_away_between_two_turns() -> None:
    async with Simulator([text("One."), text("Two.")]) as simulator:
        way = fallback.open_transport(Endpoint(base_url=simulator.base_url, profile=OPENAI))
        async with opened(way, agent()) as log:
            chat = await log.conversation("c", agent="test")
            await chat.run("1")
            simulator.websocket = False
            assert (await chat.run("2")).output_text == "Two."
            assert "transport.switched" in await tags(chat)
        assert simulator.creates[-1]["previous_response_id"] == "resp_1"
        assert said(simulator.creates[-1]) == ["2"]


async def test_a_provider_that_cannot_be_reached_fails_the_turn_in_the_end() -> None:
    async with Simulator([]) as simulator:
        gone = simulator.base_url
    way = http.open_transport(Endpoint(base_url=gone, profile=OPENAI))
    async with opened(way, agent()) as log:
        chat = await log.conversation("c", agent="test")
        with pytest.raises(turnlog.TurnFailed, match="given up after 4 tries"):
            await chat.run("Go.")
        assert (await tags(chat)).count("response.rejected") == 4


async def test_w32_a_key_that_is_refused_at_the_upgrade_is_final() -> None:
    async with Simulator([text("Fine.")], key="right") as simulator:
        endpoint = Endpoint(base_url=simulator.base_url, profile=OPENAI, key="wrong-key-value")
        async with opened(websocket.open_transport(endpoint), agent()) as log:
            chat = await log.conversation("c", agent="test")
            with pytest.raises(turnlog.TurnFailed):
                await chat.run("Go.")
            assert len(await prepared(chat)) == 1
            assert "wrong-key-value" not in str(await chat.events())


async def test_w20_a_terminal_frame_with_nulls_ends_the_turn() -> None:
    """Null code, null param, null error, null usage: each of them is an end."""
    null: JsonObject = {"type": "error", "error": {"message": None, "code": None, "param": None}}
    bare: JsonObject = {"type": "response.failed", "response": {"id": "resp_1", "error": None}}
    for frame in (null, bare):
        async with talking([Reply(events=(frame,))]) as (chat, _):
            with pytest.raises(turnlog.TurnFailed):
                await chat.run("Go.")
            assert (await chat.state()).status == "idle"


async def test_w24_a_frame_behind_the_end_belongs_to_nobody() -> None:
    response: JsonObject = {"id": "resp_1", "status": "completed", "output": []}
    twice = Reply(
        events=(
            {"type": "response.created", "response": {"id": "resp_1"}},
            {"type": "response.completed", "response": response},
            {"type": "error", "error": {"message": "late"}},
        )
    )
    async with talking([twice, text("Fine.")]) as (chat, _):
        assert (await chat.run("Go.")).status == "completed"
        assert (await chat.run("On.")).output_text == "Fine."
        assert len(await all_of(chat, ev.ResponseCompleted)) == 2


async def test_a_turn_that_broke_on_the_way_can_be_resumed_when_that_is_mended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A secret that is missing at the second request stops the turn, and does not lose it."""
    monkeypatch.setenv("TURNLOG_TEST_TOKEN", "s3cret-value")

    def forget() -> str:
        monkeypatch.delenv("TURNLOG_TEST_TOKEN")
        return "ok"

    mcp: JsonObject = {
        "type": "mcp",
        "server_label": "crm",
        "server_url": "https://example.com/mcp",
        "authorization": {"$secret": "env:TURNLOG_TEST_TOKEN"},
    }
    async with talking([call("forget"), text("Done.")], agent(forget, mcp)) as (chat, way):
        with pytest.raises(ConfigurationError, match="TURNLOG_TEST_TOKEN"):
            await chat.run("Go.")
        state = await chat.state()
        assert (state.status, state.paused) == ("waiting", "stopped")
        monkeypatch.setenv("TURNLOG_TEST_TOKEN", "s3cret-value")
        assert state.turn is not None
        turn = await (await chat.turn(state.turn)).resume()
        assert (await turn.result()).output_text == "Done."
        assert "s3cret-value" not in str(await chat.events())
        assert "s3cret-value" in str(way.requests[-1]["tools"])


async def test_a_profile_without_stored_ids_gets_everything_each_time() -> None:
    plain = Profile(name="plain", key_env=None, stored_ids=False, store_default=False)
    way = replay.ReplayTransport([text("1"), text("2")], profile=plain, checks=False)
    async with opened(way, agent(add, store=None)) as log:
        chat = await log.conversation("c", agent="test")
        await chat.run("1")
        first = (await prepared(chat))[0]
        assert first.store is False
        await chat.run("2")
        assert said(way.requests[1])[-1] == "2"
