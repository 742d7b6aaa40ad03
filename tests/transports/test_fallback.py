"""Which way `auto` chooses, and that it never sends again by itself."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection

from turnlog.canonical import JsonObject
from turnlog.errors import Closed, ConfigurationError, Lost, NotSent, Unheard
from turnlog.ports import Endpoint, Retrieve
from turnlog_transports import http, websocket
from turnlog_transports.endpoint import Access
from turnlog_transports.fallback import Choice, FallbackTransport, open_transport
from turnlog_transports.profiles import GENERIC, OPENAI

from .servers import (
    Talk,
    Web,
    answering,
    ask,
    completed,
    create,
    created,
    endpoint,
    event,
    held,
    outcome,
    parent,
    plain,
    stream,
    tell,
    web_server,
    websocket_server,
)

RESPONSE: JsonObject = {"id": "r1", "object": "response", "status": "completed", "output": []}
WHOLE = stream(event(created("r1")), event(completed("r1")))


# -- the choice ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [None, 400, 403, 404, 405, 426, 502])
def test_a_websocket_that_brings_nothing_across_is_left_alone_for_a_while(
    status: int | None,
) -> None:
    choice = Choice().failed(NotSent("no", status=status), 100.0, 60.0)
    assert [choice.way(now) for now in (100.0, 159.9, 160.0)] == ["http", "http", "websocket"]


@pytest.mark.parametrize("status", [401, 429])
def test_w32_what_http_would_be_told_as_well_changes_nothing(status: int) -> None:
    assert Choice().failed(NotSent("no", status=status), 100.0, 60.0) == Choice()


def test_the_websocket_comes_first() -> None:
    assert Choice().way(0.0) == "websocket"


# -- both ways -----------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def both(ws_url: str, http_url: str, clock: Clock | None = None) -> FallbackTransport:
    """`auto` with its two ways to two servers, so that each sees only its own requests."""
    return FallbackTransport(
        websocket.WebSocketTransport(Access(endpoint(ws_url))),
        http.HttpTransport(Access(endpoint(http_url))),
        pause=60.0,
        clock=clock or Clock(),
    )


@asynccontextmanager
async def two(
    talk: Talk, web: Web, *, status: int | None = None
) -> AsyncGenerator[FallbackTransport]:
    refused = None if status is None else (status, "no")
    async with websocket_server(talk, refuse=lambda request: refused) as url:
        transport = both(url, web.url)
        try:
            yield transport
        finally:
            await transport.close()


async def test_a_response_is_asked_for_over_the_websocket() -> None:
    seen: list[tuple[int, JsonObject]] = []
    async with web_server() as web, two(answering(seen), web) as transport:
        assert transport.choose() == "websocket"
        frames = await ask(transport)
        assert frames[-1].connection is not None
        assert held(transport, parent("resp_1", frames[-1].connection))
        assert transport.profile is OPENAI
        transport.check()
    assert len(seen) == 1
    assert web.asked == []


async def test_all_else_is_asked_for_by_http() -> None:
    async with web_server(plain(200, RESPONSE)) as web, two(answering(), web) as transport:
        await ask(transport, Retrieve(response="r1"))
        assert transport.choose() == "websocket"
    assert [asked.method for asked in web.asked] == ["GET"]


@pytest.mark.parametrize("status", [403, 404, 405, 426])
async def test_w31_a_refused_websocket_ends_its_attempt_and_http_comes_next(status: int) -> None:
    async with web_server(WHOLE) as web, two(answering(), web, status=status) as transport:
        types, error = await outcome(transport)
        assert types == []
        assert isinstance(error, NotSent)
        assert error.status == status
        assert web.asked == []  # chosen and reported, not sent again
        assert transport.choose() == "http"
        assert len(await ask(transport)) == 2
        assert len(web.asked) == 1


async def test_the_websocket_is_tried_again_when_the_pause_is_over() -> None:
    clock = Clock()
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    async with web_server(WHOLE) as web:
        transport = both(nobody, web.url, clock)
        assert isinstance((await outcome(transport))[1], NotSent)
        assert transport.choose() == "http"
        clock.now = 60.0
        assert transport.choose() == "websocket"
        assert isinstance((await outcome(transport))[1], NotSent)
        await ask(transport)
        await transport.close()
    assert len(web.asked) == 1


async def test_w32_a_wrong_key_is_no_reason_to_change_the_way() -> None:
    async with web_server() as web, two(answering(), web, status=401) as transport:
        _, error = await outcome(transport)
        assert isinstance(error, NotSent)
        assert error.status == 401
        assert transport.choose() == "websocket"


async def test_http_that_cannot_connect_changes_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    transport = both(nobody, nobody)
    assert isinstance((await outcome(transport, Retrieve(response="r1")))[1], NotSent)
    assert transport.choose() == "websocket"
    await transport.close()


@pytest.mark.parametrize("after", [0, 1])
async def test_w31_once_written_a_request_is_not_sent_another_way(after: int) -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.recv()
        await tell(connection, *[created("r1")][:after])
        connection.transport.abort()

    async with web_server() as web, two(talk, web) as transport:
        _, error = await outcome(transport)
        assert isinstance(error, Lost if after else Unheard)
        assert transport.choose() == "websocket"
    assert web.asked == []


async def test_what_the_websocket_remembers_is_of_no_use_by_http() -> None:
    allowed = iter([None, (403, "no")])
    async with websocket_server(answering(), refuse=lambda request: next(allowed)) as url:
        async with web_server() as web:
            transport = both(url, web.url)
            first = (await ask(transport, create(store=False)))[-1]
            own = parent("resp_1", first.connection)
            assert held(transport, own)
            assert isinstance((await outcome(transport))[1], NotSent)
            assert transport.choose() == "http"
            assert not held(transport, own)
            await transport.close()


async def test_leaving_early_reaches_the_way_that_was_chosen() -> None:
    left = asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        await connection.recv()
        await tell(connection, created("r1"))
        await connection.wait_closed()
        left.set()

    async with web_server() as web, two(talk, web) as transport:
        async with aclosing(transport.send(create())) as frames:
            await anext(frames)
        await left.wait()


# -- opened by its entry point -------------------------------------------------------------


async def test_a_provider_without_a_websocket_is_asked_by_http() -> None:
    async with web_server(WHOLE) as web:
        transport = open_transport(Endpoint(base_url=web.url))
        assert (transport.choose(), transport.profile) == ("http", GENERIC)
        assert len(await ask(transport)) == 2
        await transport.close()
        with pytest.raises(Closed):
            await ask(transport)


async def test_it_takes_the_options_of_both_ways_and_its_own() -> None:
    options = {"max_frame_bytes": 9, "keep_idle_seconds": 9, "websocket_pause_seconds": 9}
    transport = open_transport(Endpoint(options=options))
    assert transport.choose() == "websocket"
    await transport.close()
    with pytest.raises(ConfigurationError):
        open_transport(Endpoint(options={"websocket_pause_seconds": -1}))
