"""Retries have one owner, a budget, and a reason in the log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import pytest

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.conversation import Conversation
from turnlog.errors import (
    ConfigurationError,
    InvalidInput,
    NotSent,
    StaleEpoch,
    StoreUnavailable,
)
from turnlog.ports import (
    PARENT_GONE,
    Append,
    Appended,
    Create,
    Endpoint,
    Frame,
    Late,
    Profile,
    Request,
)
from turnlog.state import Parent
from turnlog.store import MemoryStore
from turnlog.testing import Reply, call, error, failed, refuse_upgrade, text
from turnlog_transports import fallback, http, replay, websocket
from turnlog_transports.profiles import OPENAI
from turnlog_transports.replay import ReplayTransport
from turnlog_transports.simulator import Simulator

from .given import add, agent, all_of, collect, opened, recorded, said, tags, talking, texts

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


# -- the budget of a turn ------------------------------------------------------------------


def two_refused(script: int) -> list[Reply]:
    """Requests that are each refused twice and then ask for a call."""
    return [one for n in range(script) for one in (error(503), error(503), call("add", a=n, b=1))]


async def test_a_turn_has_a_budget_of_retries_over_all_its_requests() -> None:
    async with talking([*two_refused(9), text("Done.")]) as (chat, way):
        with pytest.raises(turnlog.TurnFailed, match="8 retries in this turn"):
            await chat.run("Go.")
        assert len(way.requests) == 13  # four requests with two retries each, and one more


async def test_the_budget_is_a_setting_of_the_agent_and_of_the_turn() -> None:
    async with talking([error(503), text("Fine.")], agent(max_retries=0)) as (chat, way):
        with pytest.raises(turnlog.TurnFailed, match="0 retries in this turn"):
            await chat.run("Go.")
        assert (await chat.run("Again.", max_retries=1)).output_text == "Fine."
        assert len(way.requests) == 2
    async with talking([*two_refused(6), text("Done.")]) as (chat, _):
        assert (await chat.run("Go.", max_retries=12)).output_text == "Done."
    with pytest.raises(InvalidInput, match="max_retries= is a whole number, 0 or more"):
        agent(max_retries=-1)
    async with talking([]) as (chat, _):
        with pytest.raises(InvalidInput, match="max_retries= is a whole number, 0 or more"):
            await chat.run("Go.", max_retries=-1)


async def test_a_lost_chain_costs_no_retry() -> None:
    lost = error(400, "previous_response_not_found", "Not found.")
    script = [text("One."), lost, text("Two.")]
    async with talking(script, agent(max_retries=0), checks=False) as (chat, _):
        await chat.run("Go.")
        assert (await chat.run("On.")).output_text == "Two."


class Forgetting(ReplayTransport):
    """A transport that loses an unstored parent between the plan and the request."""

    losses = 1

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Say that the parent is gone, as often as it is to."""
        if isinstance(request, Create) and request.parent is not None and self.losses:
            self.losses -= 1
            self.gone = request.parent
            raise NotSent("its lane has moved on", code=PARENT_GONE)
        async for frame in super().send(request):
            yield frame

    def remembers(self, parent: Parent, *, via: str, conversation: str) -> bool:
        """Whether it was not lost."""
        lost = getattr(self, "gone", None) == parent
        return not lost and super().remembers(parent, via=via, conversation=conversation)


async def test_a_parent_that_is_lost_before_the_request_costs_no_retry_and_no_delay() -> None:
    way = Forgetting([text("One."), text("Two.")])
    async with opened(way, agent(store=False, max_retries=0)) as log:
        chat = await log.conversation("c", agent="test")
        await chat.run("Go.")
        assert (await chat.run("On.")).output_text == "Two."
        first, second, third = await prepared(chat)
        assert [one.kind for one in (first, second, third)] == ["full", "delta", "full"]
        assert (third.delay_ms, third.try_number) == (0, 1)
        (rejected,) = await all_of(chat, ev.ResponseRejected)
        assert rejected.error == {"message": "its lane has moved on", "code": "parent_gone"}


async def test_a_parent_that_is_lost_for_ever_ends_the_turn() -> None:
    way = Forgetting([text("One."), text("Never.")])
    way.losses = 99
    async with opened(way, agent()) as log:
        chat = await log.conversation("c", agent="test")
        await chat.run("Go.")
        with pytest.raises(turnlog.TurnFailed, match="its lane has moved on"):
            await chat.run("On.")


async def test_w33_a_failed_response_says_how_long_to_wait_too() -> None:
    problem: JsonObject = {
        "type": "error",
        "error": {"code": "server_error", "message": "Broke.", "headers": {"retry-after": "9"}},
    }
    begun: JsonObject = {"type": "response.created", "response": {"id": "resp_b"}}
    async with talking([Reply(events=(begun, problem)), text("Fine.")]) as (chat, _):
        assert (await chat.run("Go.")).output_text == "Fine."
        assert (await prepared(chat))[1].delay_ms >= 9000


# -- abandoned responses -------------------------------------------------------------------


class Draining(ReplayTransport):
    """A transport that hears abandoned responses to their end, and tells when the test says so."""

    tell: Callable[[Late], None] | None = None

    def on_late(self, tell: Callable[[Late], None]) -> None:
        """Keep whom to tell."""
        self.tell = tell


async def test_what_an_abandoned_response_used_is_noted() -> None:
    way = Draining([text("Long.").but(stall_after=4), text("Fine.")])
    async with opened(way, agent()) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        await recorded(chat, "response.started")
        await turn.cancel()
        (attempt,) = [one.attempt for one in await prepared(chat)]
        usage: JsonObject = {"input_tokens": 5, "output_tokens": 50, "total_tokens": 55}
        ended: JsonObject = {"response": {"id": "resp_1", "usage": usage, "output": []}}
        frame = Frame(type="response.completed", data=ended, terminal="completed")
        assert way.tell is not None
        way.tell(Late(conversation="c", attempt=attempt, frame=frame))
        assert (await chat.run("Next.")).output_text == "Fine."
        (noted,) = await all_of(chat, ev.ProviderNoted)
        assert (noted.kind, noted.attempt) == ("late_response", attempt)
        assert noted.data == {"response": "resp_1", "ended": "completed", "usage": usage}
        way.tell(Late(conversation="c", attempt="att_x", frame=Frame(type="error", data={})))
    # Closing waits until it is in the log.


async def test_what_comes_late_for_a_conversation_that_was_never_written_is_not_kept() -> None:
    way = Draining([text("Fine.")])
    async with opened(way, agent()) as log:
        assert way.tell is not None
        way.tell(Late(conversation="c", attempt="att_x", frame=Frame(type="error", data={})))
        chat = await log.conversation("c", agent="test")
        await chat.run("Go.")
        assert (await tags(chat))[0] == "conversation.started"
        assert await all_of(chat, ev.ProviderNoted) == []


async def test_what_comes_late_where_nothing_can_be_written_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    way = Draining([])
    store = MemoryStore()
    async with opened(way, agent(), store=store):
        assert way.tell is not None
        await store.close()
        way.tell(Late(conversation="c", attempt="att_x", frame=Frame(type="error", data={})))
    assert "what attempt att_x used was not recorded" in caplog.text


async def test_text_that_the_database_did_not_take_at_once_is_in_the_log_later() -> None:
    class Full(MemoryStore):
        full = 2

        async def append(self, append: Append) -> Appended:
            if any(isinstance(one.event, ev.OutputCheckpointed) for one in append.events):
                self.full -= 1
                if self.full >= 0:
                    raise StoreUnavailable("the disk is full")
            return await super().append(append)

    said_ = "It was a bright cold day in April. " * 300
    store = Full()
    async with talking([text(said_).but(cut_after=1100), text("Fine.")], store=store) as (chat, _):
        assert (await chat.run("Go.")).output_text == "Fine."
        kept = await all_of(chat, ev.OutputCheckpointed)
        whole = "".join(one.text for one in kept)
        assert store.full < 0
        assert said_.startswith(whole) and len(whole) > 4096
        assert next(one.offset for one in kept) == 0


async def test_an_owner_that_was_taken_over_hears_of_it_at_its_next_checkpoint() -> None:
    class Lost(MemoryStore):
        async def append(self, append: Append) -> Appended:
            if any(isinstance(one.event, ev.OutputCheckpointed) for one in append.events):
                raise StaleEpoch("the lease is another's")
            return await super().append(append)

    store = Lost()
    slow = text("It was a bright cold day in April. " * 300).but(delay=0.002)
    async with opened([slow], agent(), store=store) as log:
        chat = await log.conversation("c", agent="test")
        turn = await chat.send("Go.")
        runner = log._engine.live["c"]  # pyright: ignore[reportPrivateUsage]
        await runner.wait()
        assert runner.turn == turn.id
        assert "turn.ended" not in await tags(chat)
