"""What a checkup finds at an endpoint: at the simulator, and at servers that lack something."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request as Upgrade

from turnlog.canonical import Json, loads_object
from turnlog.checks import NOBODY, Answer, Check, Checkup, compared, unlaned
from turnlog.checkup import check_up
from turnlog.errors import ConfigurationError, Lost
from turnlog.log import find_transport
from turnlog.ports import Endpoint, Frame, Profile, Timeouts
from turnlog_transports.profiles import GENERIC, OPENAI
from turnlog_transports.simulator import Simulator

from ..faults.given import in_no_time
from ..transports import servers
from ..transports.servers import completed, created, event, plain, stream, tell, web_server

KEY = "sk-hush-hush"
MODEL = "gpt-5.5"
DENIED = plain(404, {"error": {"message": f"Response with id '{NOBODY}' not found."}})
NO_UPGRADE = plain(426, {"error": {"message": "No WebSocket is offered here."}})


@pytest.fixture(autouse=True)
def no_key_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


async def examined(
    base_url: str | None,
    profile: Profile | None = OPENAI,
    *,
    model: str | None = None,
    key: str | None = None,
) -> Checkup:
    endpoint = Endpoint(
        base_url=base_url,
        profile=profile,
        key=key,
        timeouts=Timeouts(connect=5, queue=5, first_frame=5, idle=5, total=5),
    )
    return await check_up(endpoint, find_transport, model=model)


def marks(found: Checkup) -> dict[str, bool | None]:
    return {each.name: each.ok for each in found.checks}


def one(found: Checkup, name: str) -> Check:
    return next(each for each in found.checks if each.name == name)


# -- where everything is well --------------------------------------------------------------


async def test_without_a_model_nothing_is_paid_for() -> None:
    async with Simulator(key=KEY) as simulator:
        found = await examined(simulator.base_url, key=KEY)
        assert simulator.creates == []
    assert (found.usable, found.transport, found.profile) == (True, "websocket", "openai")
    assert found.address == simulator.base_url
    good = {"address", "reachable", "key", "websocket", "transport"}
    assert {name for name, ok in marks(found).items() if ok} >= good
    for name in ("model", "lanes", "stored ids"):
        assert one(found, name).said == "not tried: give --model (a few tokens)"
    assert KEY not in repr(found)


async def test_with_a_model_all_is_tried_and_nothing_is_left_behind() -> None:
    async with Simulator() as simulator:
        found = await examined(simulator.base_url, model=MODEL)
        asked = simulator.creates
        stored = [each for each in asked if each["store"]]
        deleted = [each for each in simulator.requests if each.method == "DELETE"]
    assert found.usable and set(marks(found).values()) <= {True, None}
    assert marks(found)["model"] and marks(found)["stored ids"] and marks(found)["lanes"]
    assert all(each["generate"] is False and each["input"] == "ping" for each in asked)
    assert len(stored) == len(deleted) == 2
    assert "previous_response_id" in stored[1]


async def test_what_the_profile_leaves_out_is_found_and_said() -> None:
    """A turn would go by HTTP, so the model is asked by it."""
    async with Simulator() as simulator:
        found = await examined(simulator.base_url, GENERIC, model=MODEL)
        ways = {each.carrier for each in simulator.requests if each.body and "store" in each.body}
    assert (found.usable, found.transport) == (True, "http")
    for name in ("websocket", "lanes", "stored ids"):
        assert (one(found, name).ok, one(found, name).said) == (
            None,
            "yes, but the profile says no",
        )
    assert "stored_ids=True" in (one(found, "stored ids").fix or "")
    assert one(found, "transport").said == "http: the profile has no WebSocket"
    assert ways == {"http"}


# -- address and key -----------------------------------------------------------------------


async def test_why_a_profile_is_taken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this is asked of the world: there is no key to go out with."""
    default = await examined(None, None)
    assert (default.usable, default.transport, marks(default)) == (
        False,
        "http",
        {"address": False},
    )
    assert "no key for openai" in one(default, "address").said
    async with Simulator() as simulator:
        stranger = await examined(simulator.base_url, None)
        named = await examined(simulator.base_url, GENERIC)
    assert "profile generic (no profile has this host)" in one(stranger, "address").said
    assert "profile generic (as asked for)" in one(named, "address").said


async def test_the_default_address_and_a_known_host() -> None:
    async with Simulator() as simulator:
        there = replace(OPENAI, base_url=simulator.base_url)
        assert "(as asked for)" in one(await examined(None, there), "address").said


async def test_no_secret_of_an_address_is_shown() -> None:
    async with Simulator() as simulator:
        found = await examined(f"{simulator.base_url}?token={KEY}")
        assert found.address == simulator.base_url
    refused = await examined(f"https://me:{KEY}@127.0.0.1:1/v1")
    assert marks(refused) == {"address": False}
    assert KEY not in repr(found) and KEY not in repr(refused)


async def test_an_address_that_cannot_be_read() -> None:
    found = await examined("http://[")
    assert (found.address, found.usable) == ("an address that cannot be read", False)


async def test_an_unknown_profile_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="no profile 'opnai'"):
        await check_up(Endpoint(profile="opnai"), find_transport)


@pytest.mark.parametrize("profile", [OPENAI, GENERIC], ids=lambda each: each.name)
async def test_nobody_is_there(profile: Profile) -> None:
    async with web_server() as web:
        gone = web.url
    found = await examined(gone, profile)
    assert (found.usable, marks(found)) == (False, {"address": True, "reachable": False})
    assert "check the address" in (one(found, "reachable").fix or "")


@pytest.mark.parametrize("profile", [OPENAI, GENERIC], ids=lambda each: each.name)
async def test_a_wrong_key(profile: Profile) -> None:
    async with Simulator(key=KEY) as simulator:
        found = await examined(simulator.base_url, profile, key="sk-wrong")
        assert simulator.creates == []
    assert (found.usable, marks(found)["reachable"], marks(found)["key"]) == (False, True, False)
    assert "OPENAI_API_KEY" in (one(found, "key").fix or "")
    assert "sk-wrong" not in repr(found)


async def test_a_key_of_a_provider_without_a_variable() -> None:
    async with Simulator(key=KEY) as simulator:
        found = await examined(simulator.base_url, replace(GENERIC, key_env=None))
    assert (one(found, "key").fix or "").startswith("check the key (--key or")


async def test_an_answer_about_something_else_says_nothing_of_the_key() -> None:
    """A 404 may also mean that there is no such path."""
    lost = plain(404, {"error": {"message": "Invalid URL"}})
    async with web_server(NO_UPGRADE, lost, plain(405, {})) as web:
        found = await examined(web.url)
    assert one(found, "key") == Check(
        "key",
        None,
        "HTTP 404: Invalid URL",
        "check that the address ends before /responses, as most do in /v1",
    )
    assert (found.usable, marks(found)["background"]) == (True, None)


# -- the WebSocket -------------------------------------------------------------------------


async def test_a_websocket_that_is_refused() -> None:
    async with Simulator() as simulator:
        simulator.websocket = False
        found = await examined(simulator.base_url)
        plainly = await examined(simulator.base_url, GENERIC)
    assert (found.usable, found.transport, marks(found)["websocket"]) == (True, "http", False)
    assert one(found, "websocket").said == "refused with HTTP 426"
    assert one(found, "transport").said == "http: no WebSocket was accepted"
    assert one(plainly, "websocket").ok is None
    assert one(plainly, "websocket").said == "refused with HTTP 426, and the profile says no"
    assert (one(plainly, "reachable").ok, one(plainly, "key").ok) == (True, None)


# -- with a model --------------------------------------------------------------------------


def responded(id: str, **fields: Json) -> servers.Answer:
    return stream(event(created(id)), event({**completed(id), **fields}))


def kept(id: str) -> servers.Answer:
    return plain(200, {"object": "response", "id": id, "status": "completed", "output": []})


async def test_a_model_that_does_not_answer() -> None:
    unknown = plain(404, {"error": {"message": "The model 'gpt' does not exist."}})
    async with web_server(NO_UPGRADE, DENIED, DENIED, unknown) as web:
        found = await examined(web.url, model="gpt")
    assert (found.usable, marks(found)["model"]) == (False, False)
    assert one(found, "model").said == "HTTP 404: The model 'gpt' does not exist."
    assert "stored ids" not in marks(found)


GONE = plain(404, {"error": {"message": "Response not found."}})
LOST = plain(400, {"error": {"message": "Previous response not found."}})


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([plain(400, {"error": {"message": "Stateless."}})], "HTTP 400: Stateless."),
        ([responded("resp_2"), GONE, kept("resp_2")], "it cannot be asked about: HTTP 404: Respon"),
        (
            [responded("resp_2"), kept("resp_2"), LOST, kept("resp_2")],
            "it cannot be continued: HTTP 400: Previous response not found.",
        ),
    ],
)
async def test_stored_ids_that_are_gone(answers: list[servers.Answer], said: str) -> None:
    """They cost a full request each time, and no turn."""
    front = (NO_UPGRADE, DENIED, DENIED, responded("resp_1"))
    async with web_server(*front, *answers) as web:
        found = await examined(web.url, model=MODEL)
        assert web.answers == []
    check = one(found, "stored ids")
    assert (found.usable, check.ok) == (True, False)
    assert check.said.startswith(f"the profile says yes; {said}")
    assert "stored_ids=False" in (check.fix or "")


FORGETFUL = replace(OPENAI, retrieve=False, background=False)


async def laneless(connection: ServerConnection) -> None:
    """A WebSocket that answers everything on the one lane it has."""
    async for _ in connection:
        await tell(connection, created("resp_1"), completed("resp_1"))


async def refusing_lanes(connection: ServerConnection) -> None:
    """A WebSocket that refuses what it does not know."""
    async for raw in connection:
        if "stream_id" in loads_object(raw):
            problem: Mapping[str, Json] = {"message": "Unknown parameter: 'stream_id'."}
            await tell(connection, {"type": "error", "status": 400, "error": problem})
        else:
            await tell(connection, created("resp_1"), completed("resp_1"))


@in_no_time
async def test_a_server_without_lanes() -> None:
    async with servers.websocket_server(refusing_lanes) as url:
        found = await examined(url, FORGETFUL, model=MODEL)
    assert (found.usable, marks(found)["lanes"]) == (False, False)
    assert marks(found)["model"] is True
    assert one(found, "lanes").said.startswith("the profile says yes; nothing came back by a lane")
    assert "lanes=False" in (one(found, "lanes").fix or "")


async def test_a_server_that_opens_no_second_websocket() -> None:
    opened: list[Upgrade] = []

    def refuse(request: Upgrade) -> tuple[int, str] | None:
        opened.append(request)
        return (403, "One is enough.") if len(opened) > 1 else None

    async with servers.websocket_server(laneless, refuse=refuse) as url:
        found = await examined(url, FORGETFUL, model=MODEL)
    assert marks(found)["model"] is True
    assert "One is enough." in one(found, "lanes").said
    assert "One is enough." in one(found, "stored ids").said


# -- what an answer means ------------------------------------------------------------------


def answered(*, lane: str | None, connection: str = "ws_1", echo: bool = True) -> Answer:
    named: dict[str, Json] = {"stream_id": lane} if lane is not None and echo else {}
    return Answer(
        [
            Frame(
                type="response.completed",
                data=named,
                terminal="completed",
                connection=connection,
                lane=lane,
            )
        ]
    )


def test_what_two_answers_lack_to_have_come_by_two_lanes() -> None:
    first = answered(lane=None)
    assert unlaned([first, answered(lane="l1")]) is None
    assert unlaned([first, answered(lane=None)]) == "both came by one lane"
    assert unlaned([first, answered(lane="l1", echo=False)]) == "the server did not echo stream_id"
    elsewhere = answered(lane="l1", connection="ws_2")
    assert unlaned([first, elsewhere]) == "each request took a connection of its own"
    assert unlaned([first, Answer([], Lost("It broke off."))]) == (
        "nothing came back by a lane of its own: It broke off."
    )
    assert (unlaned([first, Answer([])]) or "").endswith("the answer ended without saying how")


def test_what_the_profile_says_stands_beside_what_was_found() -> None:
    assert compared("lanes", True, None) == Check("lanes", True, "yes")
    assert compared("lanes", False, "it refused").said == "no, as the profile says: it refused"
    assert compared("lanes", False, "it refused").ok is None


async def test_it_closes_what_it_opened() -> None:
    async with Simulator() as simulator:
        await examined(simulator.base_url, model=MODEL)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in tasks if "turnlog_transports/conn" in repr(task)]
