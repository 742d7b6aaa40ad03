"""The replay transport: the contract of every transport, and what is its own."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from turnlog.canonical import Json, JsonObject
from turnlog.errors import (
    Closed,
    ConfigurationError,
    InvalidInput,
    Lost,
    NotSent,
    Unheard,
)
from turnlog.ports import (
    Cancel,
    Compact,
    Create,
    Endpoint,
    Frame,
    Profile,
    Request,
    Retrieve,
    Timeouts,
    Transport,
)
from turnlog.state import Parent
from turnlog.testing import call, refuse_upgrade, scripted, text
from turnlog.testing.scripts import Reply
from turnlog_transports.replay import ReplayTransport, open_transport


def held(transport: Transport, parent: Parent) -> bool:
    return transport.remembers(parent, via="replay", conversation="")


def create(**fields: Json) -> Create:
    return Create(body={"model": "m", "input": "Hi.", **fields})


async def frames(transport: Transport, request: Request) -> list[Frame]:
    return [frame async for frame in transport.send(request)]


async def ended(transport: Transport, **fields: Json) -> Frame:
    return (await frames(transport, create(**fields)))[-1]


def parent(frame: Frame, connection: str | None) -> Parent:
    response = frame.data["response"]
    assert isinstance(response, dict)
    return Parent(
        response=str(response["id"]),
        end=0,
        version=0,
        time=0,
        store=False,
        transport="replay",
        connection=connection,
    )


async def test_a_scripted_agent_gets_the_refusals_of_the_service() -> None:
    transport = scripted([call("refund", order="7"), text("Done.")])
    await ended(transport)
    refused = await ended(transport, previous_response_id="resp_1")
    assert refused.problem is not None
    assert refused.problem.message == "No tool output found for function call call_1."
    unchecked = scripted([text("Done.")], checks=False)
    assert (await ended(unchecked, previous_response_id="resp_x")).terminal == "completed"


async def test_it_keeps_what_was_sent() -> None:
    transport = ReplayTransport([text("Hi."), text("Ho.")])
    asked: dict[str, Json] = {"model": "m", "input": "Hi."}
    await frames(transport, Create(body=asked))
    asked["input"] = "changed"
    assert transport.requests == [{"model": "m", "input": "Hi."}]
    assert transport.left == 1


async def test_an_unstored_parent_is_remembered_until_the_connection_is_lost() -> None:
    transport = ReplayTransport([text("Hi."), text("Cut.").but(cut_after=1), text("Again.")])
    first = await ended(transport, store=False)
    assert held(transport, parent(first, first.connection))
    assert not held(transport, parent(first, "replay-9"))
    assert not held(transport, parent(first, None))
    with pytest.raises(Lost, match="dropped the connection"):
        await ended(transport)
    assert not held(transport, parent(first, first.connection))
    again = await ended(transport)
    assert (first.connection, again.connection) == ("replay-1", "replay-2")


async def test_a_refused_upgrade_means_that_nothing_was_sent() -> None:
    transport = ReplayTransport([refuse_upgrade(403), text("Hi.")])
    with pytest.raises(NotSent) as caught:
        await ended(transport)
    assert caught.value.status == 403
    assert transport.requests == []
    assert (await ended(transport)).terminal == "completed"


@pytest.mark.parametrize(("after", "error"), [(0, Unheard), (2, Lost)])
async def test_silence_lasts_as_long_as_the_endpoint_says(
    after: int, error: type[Exception]
) -> None:
    timeouts = Timeouts(first_frame=0.01, idle=0.01)
    transport = ReplayTransport([text("Hi.").but(stall_after=after)], timeouts=timeouts)
    heard: list[Frame] = []
    with pytest.raises(error, match=r"silent for 0\.01 seconds"):
        async for frame in transport.send(create()):
            heard.append(frame)
    assert len(heard) == after


async def test_frames_may_be_slow() -> None:
    transport = ReplayTransport([text("Hi.").but(delay=0.001)])
    assert (await ended(transport)).terminal == "completed"


async def test_closing_ends_a_slow_answer_at_once() -> None:
    transport = ReplayTransport([text("Hi.").but(delay=60)])
    waiting = asyncio.create_task(ended(transport))
    await asyncio.sleep(0)
    await transport.close()
    with pytest.raises(Closed):
        await waiting


async def test_an_answer_left_early_is_not_remembered() -> None:
    transport = ReplayTransport([text("Hi.")])
    async with aclosing(transport.send(create(store=False))) as stream:
        first = await anext(stream)
    assert not held(transport, parent(first, first.connection))


async def test_a_background_response_is_resumed_cancelled_and_polled() -> None:
    transport = ReplayTransport([text("Slow.").but(hold=4, cut_after=3)])
    with pytest.raises(Lost):
        await ended(transport, background=True)
    resumed = asyncio.create_task(frames(transport, Retrieve(response="resp_1", starting_after=2)))
    await asyncio.sleep(0)
    (looked,) = await frames(transport, Retrieve(response="resp_1"))
    assert (looked.type, looked.terminal) == ("response.in_progress", None)
    transport.release()
    heard = await resumed
    assert [frame.data["sequence_number"] for frame in heard] == list(range(3, 10))
    assert (heard[-1].terminal, heard[-1].connection) == ("completed", None)
    (kept,) = await frames(transport, Cancel(response="resp_1"))
    assert kept.terminal == "completed"
    assert "stream" not in transport.requests[0]


async def test_a_cancelled_background_response_ends_its_stream() -> None:
    transport = ReplayTransport([text("Never.").but(hold=4)])
    waiting = asyncio.create_task(ended(transport, background=True))
    await asyncio.sleep(0)
    (cancelled,) = await frames(transport, Cancel(response="resp_1"))
    assert (cancelled.type, cancelled.terminal) == ("response.cancelled", "cancelled")
    with pytest.raises(Lost, match="without a terminal frame"):
        await waiting


async def test_closing_ends_those_who_wait_for_a_background_response() -> None:
    held, slow = text("Held.").but(hold=3), text("Slow.").but(delay=60)
    transport = ReplayTransport([held, slow])
    waiting = [asyncio.create_task(ended(transport, background=True)) for _ in range(2)]
    while len(transport.requests) < 2:
        await asyncio.sleep(0)
    await transport.close()
    for found in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(found, Closed)


async def test_a_slow_background_response_is_made_in_its_time() -> None:
    transport = ReplayTransport([text("Slow.").but(delay=0.001, hold=2)])
    waiting = asyncio.create_task(ended(transport, background=True))
    (found,) = await frames(transport, Retrieve(response="resp_1"))
    while found.type != "response.queued":
        (found,) = await frames(transport, Retrieve(response="resp_1"))
    transport.release()
    assert (await waiting).terminal == "completed"


async def test_a_window_is_compacted() -> None:
    transport = ReplayTransport([text("Hi.")])
    first = await ended(transport)
    body: JsonObject = {"model": "m", "previous_response_id": parent(first, None).response}
    (frame,) = await frames(transport, Compact(body=body))
    assert (frame.type, frame.terminal) == ("response.compaction", "completed")


async def test_with_lanes_each_conversation_has_one_of_its_own() -> None:
    transport = ReplayTransport([text("Hi.")] * 3, profile=Profile(name="mine", lanes=True))
    found: list[Frame] = []
    for conversation in ("a", "b", "a"):
        request = replace(create(store=False), conversation=conversation)
        found.append((await frames(transport, request))[-1])
    assert [frame.lane for frame in found] == ["a", "b", "a"]
    remembered = [held(transport, parent(frame, frame.connection)) for frame in found]
    assert remembered == [False, True, True]


async def test_a_stream_that_is_lost_late_leaves_a_new_connection_alone() -> None:
    cut, late = text("Cut.").but(cut_after=1), text("Late.").but(delay=0.005, cut_after=1)
    transport = ReplayTransport([late, cut, text("New.")])
    slow = asyncio.create_task(ended(transport))
    await asyncio.sleep(0)
    with pytest.raises(Lost):
        await ended(transport)
    fresh = await ended(transport, store=False)
    with pytest.raises(Lost):
        await slow
    assert held(transport, parent(fresh, fresh.connection))


# -- the factory ---------------------------------------------------------------------------


def opened(**options: object) -> ReplayTransport:
    return open_transport(Endpoint(options=options))


async def test_the_factory_takes_replies_callables_and_json() -> None:
    def answer(body: JsonObject) -> Reply:
        return text(str(body["input"]))

    transport = opened(script=[text("One."), answer, {"text": "Three."}], seed="s")
    last = [await ended(transport) for _ in range(3)]
    assert ["One." in repr(last[0]), "Hi." in repr(last[1]), "Three." in repr(last[2])] == [
        True
    ] * 3
    assert parent(last[0], None).response == "resp_s1"


async def test_the_factory_takes_the_path_of_a_script(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text(json.dumps([{"text": "Hi."}]), encoding="utf-8")
    assert (await ended(opened(script=path))).terminal == "completed"


def test_the_factory_takes_the_profile_of_the_endpoint() -> None:
    profile = Profile(name="mine")
    transport = open_transport(Endpoint(profile=profile, options={"script": []}))
    assert transport.profile is profile
    named = open_transport(Endpoint(profile="openai", options={"script": []}))
    assert named.profile.name == "openai"
    assert opened(script=[]).profile.name == "replay"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"script": [], "transcript": "t.json"},
        {"script": [], "colour": "red"},
        {"script": [], "checks": "yes"},
        {"script": [], "seed": 7},
        {"script": 7},
        {"transcript": 7},
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        opened(**options)


def test_an_entry_that_is_nothing_is_named() -> None:
    with pytest.raises(InvalidInput, match="entry 2 of the script"):
        opened(script=[text("Hi."), 7])
