"""Background responses: made whoever listens, taken up again, polled, held and cancelled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from turnlog.canonical import Json, JsonObject, loads_object, obj
from turnlog.testing import scripts
from turnlog.testing.scripts import Reply
from turnlog_transports.answer import Answer
from turnlog_transports.generation import Cut, Generation, Send, Step
from turnlog_transports.job import Job, View
from turnlog_transports.pacing import play
from turnlog_transports.provider import Given, Provider
from turnlog_transports.simulator import Simulator

say = scripts.text
BODY: dict[str, Json] = {"model": "m", "input": "Hi.", "background": True}
STREAM: dict[str, Json] = {**BODY, "stream": True}
WHOLE = 10
"""How many events `say("Hi.")` has in the background: one more than elsewhere."""


def view(found: Given) -> View:
    assert isinstance(found, View)
    return found


def taken(found: Given) -> list[Step]:
    """What a stream holds so far."""
    steps: list[Step] = []
    while not view(found).over and (step := view(found).take()) is not None:
        steps.append(step)
    return steps


def numbers(steps: list[Step]) -> list[Json]:
    return [step.event["sequence_number"] for step in steps if isinstance(step, Send)]


def status(provider: Provider, id: str = "resp_1") -> Json:
    found = provider.retrieve(id)
    assert isinstance(found, Answer)
    return found.body.get("status") or found.status


def problem(found: Given) -> tuple[int, str]:
    assert isinstance(found, Answer)
    return found.status, str(obj(found.body, "error")["message"])


# -- the life of one -----------------------------------------------------------------------


def test_without_a_stream_it_is_queued_at_once_and_polled() -> None:
    provider = Provider([say("Hi.").but(polls=1)])
    found = provider.create(BODY)
    assert isinstance(found, Answer)
    assert (found.body["status"], found.body["background"]) == ("queued", True)
    assert [status(provider) for _ in range(3)] == ["in_progress", "completed", "completed"]


def test_it_is_made_as_far_as_it_is_let() -> None:
    provider = Provider([say("Hi.").but(hold=0)])
    provider.create(BODY)
    seen = [status(provider)]
    for events in (2, 1, 1, None):
        provider.release(events)
        seen.append(status(provider))
    assert seen == ["queued", "queued", "in_progress", "in_progress", "completed"]


def test_its_stream_begins_queued() -> None:
    steps = taken(Provider([say("Hi.")]).create(STREAM))
    events = [step.event for step in steps if isinstance(step, Send)]
    assert [event["type"] for event in events][:3] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    begun = [obj(event, "response")["status"] for event in events[:3]]
    assert begun == ["queued", "queued", "in_progress"]


@pytest.mark.parametrize("after", [None, 0, 4, 9, 99])
def test_it_is_resumed_from_behind_a_number_while_it_runs_and_later(after: int | None) -> None:
    provider = Provider([say("Hi.").but(hold=6)])
    provider.create(STREAM)
    resumed = provider.retrieve("resp_1", stream=True, starting_after=after)
    first = 0 if after is None else after + 1
    early = numbers(taken(resumed))
    assert early == list(range(first, 6))
    provider.release()
    assert early + numbers(taken(resumed)) == list(range(first, WHOLE))
    assert view(resumed).over
    again = provider.retrieve("resp_1", stream=True, starting_after=after)
    assert numbers(taken(again)) == list(range(first, WHOLE))


def test_the_first_stream_is_lost_and_the_response_is_not() -> None:
    provider = Provider([say("Hi.").but(cut_after=2, hold=4)])
    first = provider.create(STREAM)
    assert taken(first)[-1] == Cut()
    view(first).close()
    assert not view(first).terminates
    provider.release()
    assert status(provider) == "completed"
    resumed = view(provider.retrieve("resp_1", stream=True, starting_after=1))
    assert resumed.terminates
    assert numbers(taken(resumed)) == list(range(2, WHOLE))
    assert resumed.response["status"] == "completed"


def test_a_resumed_stream_may_go_wrong_again() -> None:
    provider = Provider([say("Hi.").but(cut_after=2, again=1)])
    seen: list[Json] = numbers(taken(provider.create(STREAM)))
    for _ in range(2):
        after = len(seen) - 1
        seen += numbers(taken(provider.retrieve("resp_1", stream=True, starting_after=after)))
        assert len(seen) in (4, WHOLE)
    assert seen == list(range(WHOLE))


def test_events_without_numbers_are_all_sent_again() -> None:
    ended: JsonObject = {"id": "resp_r", "object": "response", "status": "completed"}
    events: tuple[JsonObject, ...] = (
        {"type": "response.created", "response": {"id": "resp_r"}},
        {"type": "response.completed", "response": ended},
    )
    provider = Provider([Reply(events=events)])
    provider.create(STREAM)
    resumed = provider.retrieve("resp_r", stream=True, starting_after=0)
    assert taken(resumed) == [Send(event) for event in events]


def test_what_cannot_be_resumed_is_refused() -> None:
    expired = say("Hi.").but(stream_expires=True)
    provider = Provider([expired, say("Hi."), say("Hi.")])
    provider.create(STREAM)
    provider.create(BODY)
    found = provider.create({**STREAM, "background": False})
    assert not isinstance(found, Answer)
    for _ in iter(found.take, None):
        if found.over:
            break
    says = [problem(provider.retrieve(f"resp_{n}", stream=True)) for n in (1, 2, 3, 9)]
    assert [code for code, _ in says] == [400, 400, 400, 404]
    assert "expired" in says[0][1]
    assert "background=true and stream=true" in says[1][1]
    assert "background=true and stream=true" in says[2][1]
    assert status(provider) == "completed"


# -- stopping it ---------------------------------------------------------------------------


def test_a_cancelled_response_ends_its_streams_without_a_terminal_frame() -> None:
    provider = Provider([say("Hi.").but(hold=5)])
    first = view(provider.create(STREAM))
    taken(first)
    late = view(provider.retrieve("resp_1", stream=True, starting_after=2))
    cancelled = provider.cancel("resp_1")
    assert (cancelled.status, cancelled.body["status"]) == (200, "cancelled")
    assert first.over and not first.terminates
    assert numbers(taken(late)) == [3, 4]
    assert late.over
    provider.release()
    assert provider.cancel("resp_1").body == cancelled.body
    assert status(provider) == "cancelled"
    refused = provider.create({"model": "m", "input": "x", "previous_response_id": "resp_1"})
    assert problem(refused)[0] == 400


def test_cancelling_what_is_over_changes_nothing() -> None:
    provider = Provider([say("Hi.")])
    provider.create(BODY)
    assert provider.cancel("resp_1").body["status"] == "completed"
    assert status(provider) == "completed"


def test_only_a_background_response_can_be_cancelled() -> None:
    provider = Provider([say("Hi.")])
    found = provider.create({**BODY, "background": False})
    assert not isinstance(found, Answer)
    while not found.over:
        found.take()
    assert problem(provider.cancel("resp_1")) == (400, "Cannot cancel a synchronous response.")
    assert problem(provider.cancel("resp_9"))[0] == 404


@pytest.mark.parametrize("hold", [None, 3])
def test_a_deleted_response_is_stopped_and_gone(hold: int | None) -> None:
    provider = Provider([say("Hi.").but(hold=hold)])
    stream = view(provider.create(STREAM))
    taken(stream)
    assert provider.delete("resp_1").status == 200
    assert (status(provider), provider.delete("resp_1").status) == (404, 404)
    assert stream.over


async def test_a_stream_whose_response_is_cancelled_just_before_its_next_step_ends() -> None:
    provider = Provider([say("Hi.").but(hold=1)])
    stream = view(provider.create(STREAM))
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            provider.cancel("resp_1")

    assert numbers([step async for step in play(stream, pause)]) == [0]


@pytest.mark.parametrize("reply", [say("Hi."), say("Hi.").but(hold=0)])
def test_what_is_over_or_held_is_made_no_further(reply: Reply) -> None:
    job = Job([{"type": "response.completed"}], reply, response={}, streams=True, ended=print)
    job.at_once()
    made = job.made
    job.advance()
    assert job.made == made


# -- what is kept of it --------------------------------------------------------------------


@pytest.mark.parametrize(("store", "found"), [(True, 200), (False, 400)])
def test_an_unstored_one_is_kept_for_polls_and_is_no_parent(store: bool, found: int) -> None:
    provider = Provider([say("Hi."), say("More.").but(hold=0)])
    provider.create({**BODY, "store": store})
    assert status(provider) == "completed"
    answer = provider.create({**BODY, "previous_response_id": "resp_1"})
    assert isinstance(answer, Answer)
    assert answer.status == found


def test_what_fails_in_the_background_says_so() -> None:
    provider = Provider([scripts.failed("server_error", "It broke.")])
    provider.create(BODY)
    assert status(provider) == "failed"


def test_on_a_websocket_it_is_refused_or_without_checks_made_while_somebody_listens() -> None:
    refused = Provider([say("Hi.")]).create(BODY, connection="a")
    assert problem(refused)[0] == 400
    found = Provider([say("Hi.")], checks=False).create(BODY, connection="a")
    assert isinstance(found, Generation)


def test_a_background_that_is_neither_true_nor_false_is_refused() -> None:
    refused = Provider([say("Hi.")]).create({**BODY, "background": "yes"})
    assert problem(refused)[0] == 400


def test_a_warm_up_may_run_in_the_background() -> None:
    provider = Provider([])
    provider.create({**BODY, "prompt_cache_options": {"prewarm": True}})
    assert status(provider) == "completed"


# -- over HTTP -----------------------------------------------------------------------------


@asynccontextmanager
async def http(simulator: Simulator) -> AsyncGenerator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        base_url=simulator.base_url, timeout=10.0, trust_env=False
    ) as client:
        yield client


async def events(response: httpx2.Response) -> AsyncIterator[JsonObject]:
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield loads_object(line.removeprefix("data: "))


async def resumed(client: httpx2.AsyncClient, after: int) -> list[JsonObject]:
    params = {"stream": "true", "starting_after": str(after)}
    async with client.stream("GET", "/responses/resp_1", params=params) as response:
        return [event async for event in events(response)]


async def test_it_goes_on_when_the_client_leaves_and_several_read_it_live() -> None:
    async with Simulator([say("Hi.").but(hold=5)]) as simulator, http(simulator) as client:
        async with client.stream("POST", "/responses", json=STREAM) as response:
            first = await anext(events(response))
        assert first["type"] == "response.created"
        readers = [asyncio.create_task(resumed(client, after)) for after in (0, 3)]
        while len(simulator.requests) < 3:
            await asyncio.sleep(0.001)
        assert (await client.get("/responses/resp_1")).json()["status"] == "in_progress"
        simulator.release(1)
        simulator.release()
        found = await asyncio.gather(*readers)
        assert (await client.get("/responses/resp_1")).json()["status"] == "completed"
    assert [event["sequence_number"] for event in found[0]] == list(range(1, WHOLE))
    assert [event["sequence_number"] for event in found[1]] == list(range(4, WHOLE))


async def test_a_slow_one_is_made_while_nobody_listens() -> None:
    reply = say("Hi.").but(delay=0.002, cut_after=1)
    async with Simulator([reply]) as simulator, http(simulator) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.post("/responses", json=STREAM)
        found = await resumed(client, 0)
    assert found[-1]["type"] == "response.completed"


async def test_a_slow_one_is_held_too_and_the_simulator_stops_all_the_same() -> None:
    held, slow = say("Hi.").but(delay=0.001, hold=3), say("Hi.").but(delay=60)
    async with Simulator([held, slow]) as simulator, http(simulator) as client:
        for _ in range(2):
            assert (await client.post("/responses", json=BODY)).json()["status"] == "queued"
        while (await client.get("/responses/resp_1")).json()["status"] == "queued":
            await asyncio.sleep(0.001)
        assert (await client.get("/responses/resp_2")).json()["status"] == "queued"
        simulator.release()
        assert (await resumed(client, 0)) == []
        while (await client.get("/responses/resp_1")).json()["status"] != "completed":
            await asyncio.sleep(0.001)


async def test_cancelling_ends_a_running_stream_in_good_order() -> None:
    async with Simulator([say("Hi.").but(hold=2)]) as simulator, http(simulator) as client:
        async with client.stream("POST", "/responses", json=STREAM) as response:
            reader = events(response)
            tags = [(await anext(reader))["type"] for _ in range(2)]
            cancelled = await client.post("/responses/resp_1/cancel")
            tags += [event["type"] async for event in reader]
    assert cancelled.json()["status"] == "cancelled"
    assert tags == ["response.created", "response.queued"]


async def test_cancelling_while_a_slow_one_is_made() -> None:
    async with Simulator([say("Hi.").but(delay=0.02)]) as simulator, http(simulator) as client:
        async with client.stream("POST", "/responses", json=STREAM) as response:
            reader = events(response)
            await anext(reader)
            await client.post("/responses/resp_1/cancel")
            assert [event async for event in reader] == []
        assert (await client.get("/responses/resp_1")).json()["status"] == "cancelled"
        assert json.loads((await client.post("/responses/x/cancel")).text)["error"]
