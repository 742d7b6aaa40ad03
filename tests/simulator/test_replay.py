"""The replay transport: the contract of every transport, and what is its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from turnlog.canonical import Json, JsonObject
from turnlog.errors import (
    Closed,
    ConfigurationError,
    InvalidInput,
    Lost,
    NotSent,
    NotSupported,
    Unheard,
)
from turnlog.ports import Cancel, Compact, Create, Endpoint, Frame, Profile, Request, Transport
from turnlog.state import Parent
from turnlog.testing import TransportContract, call, refuse_upgrade, scripted, text
from turnlog.testing.scripts import Reply
from turnlog_transports.replay import ReplayTransport, open_transport


def held(transport: Transport, parent: Parent) -> bool:
    return transport.remembers(parent, via="replay", conversation="")


class TestReplayContract(TransportContract):
    """The replay transport keeps what every transport promises."""

    async def serve(self, replies: Sequence[Reply]) -> Transport:
        return ReplayTransport(replies)


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
    transport = ReplayTransport([text("Hi.").but(stall_after=after)], idle_timeout=0.01)
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


@pytest.mark.parametrize("request_", [Cancel(response="r"), Compact(body={})])
async def test_what_it_cannot_do_is_said(request_: Request) -> None:
    with pytest.raises(NotSupported, match="cannot"):
        await frames(ReplayTransport([]), request_)


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
