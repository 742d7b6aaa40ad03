"""Which way `auto` chooses, and that it never sends again by itself."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest
from websockets.asyncio.server import ServerConnection

from turnlog.canonical import JsonObject, obj
from turnlog.errors import Closed, ConfigurationError, Lost, NotSent, Unheard
from turnlog.ports import Cancel, Create, Endpoint, Frame, Late, Retrieve
from turnlog.testing import text as says
from turnlog_transports import http, websocket
from turnlog_transports.breaker import Breaker
from turnlog_transports.endpoint import Access
from turnlog_transports.fallback import FallbackTransport, open_transport, open_websocket
from turnlog_transports.http import HttpTransport
from turnlog_transports.profiles import GENERIC, OPENAI
from turnlog_transports.simulator import Simulator

from .clock import advance, on_clock, settle
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


# -- both ways -----------------------------------------------------------------------------


def both(ws_url: str, http_url: str, *, failures: int = 1, draw: float = 0.5) -> FallbackTransport:
    """`auto` with its two ways to two servers, so that each sees only its own requests."""
    return FallbackTransport(
        websocket.WebSocketTransport(Access(endpoint(ws_url))),
        http.HttpTransport(Access(endpoint(http_url))),
        breaker=Breaker(failures=failures),
        draw=lambda: draw,
    )


def nobody() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/v1"


@asynccontextmanager
async def two(
    talk: Talk, web: Web, *, status: int | None = None, failures: int = 1
) -> AsyncGenerator[FallbackTransport]:
    refused = None if status is None else (status, "no")
    async with websocket_server(talk, refuse=lambda request: refused) as url:
        transport = both(url, web.url, failures=failures)
        try:
            yield transport
        finally:
            await transport.close()


def response_id(frame: Frame) -> str:
    found = obj(frame.data, "response")["id"]
    assert isinstance(found, str)
    return found


def by(way: str) -> Create:
    return replace(create(), via=way)


async def test_a_response_is_asked_for_over_the_websocket() -> None:
    seen: list[tuple[int, JsonObject]] = []
    async with web_server() as web, two(answering(seen), web) as transport:
        assert transport.choose() == "websocket"
        frames = await ask(transport)
        assert frames[-1].connection is not None
        last = frames[-1]
        assert held(transport, parent("resp_1", last.connection, lane=last.lane))
        assert transport.profile is OPENAI
        transport.check()
    assert len(seen) == 1
    assert web.asked == []


async def test_all_else_is_asked_for_by_http() -> None:
    async with web_server(plain(200, RESPONSE)) as web, two(answering(), web) as transport:
        await ask(transport, Retrieve(response="r1"))
        assert transport.choose() == "websocket"
    assert [asked.method for asked in web.asked] == ["GET"]


async def test_a_request_takes_the_way_that_was_chosen_for_it() -> None:
    seen: list[tuple[int, JsonObject]] = []
    async with web_server(WHOLE, WHOLE) as web, two(answering(seen), web) as transport:
        await ask(transport, by("http"))
        await ask(transport, by("websocket"))
        await ask(
            transport, replace(create(background=True), via=transport.choose(background=True))
        )
    assert (len(seen), len(web.asked)) == (1, 2)


async def test_a_turn_that_went_by_http_stays_there() -> None:
    async with web_server() as web, two(answering(), web) as transport:
        assert transport.choose(before="websocket") == "websocket"
        assert transport.choose(before="http") == "http"
        assert transport.choose() == "websocket"  # another turn may take the other way


@pytest.mark.parametrize("status", [403, 404, 405, 426, 502])
async def test_w31_a_refused_websocket_ends_its_attempt_and_http_comes_next(status: int) -> None:
    async with web_server(WHOLE) as web, two(answering(), web, status=status) as transport:
        types, error = await outcome(transport)
        assert types == []
        assert isinstance(error, NotSent)
        assert error.status == status
        assert web.asked == []  # chosen and reported, not sent again
        assert transport.choose(before="websocket", failed=True) == "http"
        assert transport.choose() == "http"
        assert len(await ask(transport)) == 2
        assert len(web.asked) == 1


async def test_a_websocket_that_cannot_connect_leaves_the_turn_to_http() -> None:
    async with web_server(WHOLE) as web:
        transport = both(nobody(), web.url, failures=3)
        for choices in (("websocket", "http"), ("websocket", "http"), ("http", "http")):
            assert isinstance((await outcome(transport, by("websocket")))[1], NotSent)
            failed = transport.choose(before="websocket", failed=True)
            assert (transport.choose(), failed) == choices
        await transport.close()


@pytest.mark.parametrize("status", [401, 429])
async def test_w32_what_http_would_be_told_as_well_says_nothing_against_a_websocket(
    status: int,
) -> None:
    async with web_server() as web, two(answering(), web, status=status) as transport:
        _, error = await outcome(transport)
        assert isinstance(error, NotSent)
        assert error.status == status
        assert transport.choose() == "websocket"


async def test_http_that_cannot_connect_changes_nothing() -> None:
    transport = both(nobody(), nobody())
    assert isinstance((await outcome(transport, Retrieve(response="r1")))[1], NotSent)
    assert isinstance((await outcome(transport, by("http")))[1], NotSent)
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
        # What swallows requests is left alone for a while; what answers is not.
        assert transport.choose() == ("websocket" if after else "http")
    assert web.asked == []


async def test_a_response_that_begins_makes_the_breaker_forget() -> None:
    refusals = iter([(503, "no"), (503, "no"), None, (503, "no"), (503, "no"), (503, "no")])
    async with websocket_server(hanging_up(), refuse=lambda request: next(refusals)) as url:
        transport = both(url, nobody(), failures=3)
        ways: list[str] = []
        for _ in range(6):
            await outcome(transport, by("websocket"))
            ways.append(transport.choose())
        await transport.close()
    assert ways == ["websocket"] * 5 + ["http"]


def hanging_up() -> Talk:
    async def talk(connection: ServerConnection) -> None:
        await connection.recv()
        await tell(connection, created("r1"), completed("r1"))
        await connection.close()

    return talk


async def test_what_the_websocket_remembers_is_of_no_use_by_http() -> None:
    async with web_server() as web, two(answering(), web) as transport:
        first = (await ask(transport, create(store=False)))[-1]
        own = parent("resp_1", first.connection, lane=first.lane)
        assert transport.remembers(own, via="websocket", conversation="")
        assert not transport.remembers(own, via="http", conversation="")


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
        await transport.close()
        await left.wait()


# -- a third party's way, which does and says exactly what a test wants -----------------------


class Own(HttpTransport):
    """A WebSocket of somebody else: what it asks for goes by HTTP, and warming it up is its own."""

    def __init__(self, base_url: str, *, warm: Callable[[], Awaitable[None]]) -> None:
        super().__init__(Access(endpoint(base_url)))
        self._warm = warm
        self.told: list[object] = []

    async def warm(self) -> None:
        await self._warm()

    def on_late(self, tell: Callable[[Late], None]) -> None:
        self.told.append(tell)


class Broken(Own):
    async def close(self) -> None:
        await super().close()
        raise OSError("cannot close")


async def nothing() -> None:
    pass


async def test_both_ways_tell_of_late_responses_and_both_are_closed() -> None:
    first, second = Broken(nobody(), warm=nothing), Own(nobody(), warm=nothing)
    transport = FallbackTransport(first, second, breaker=Breaker())

    def tell(late: Late) -> None: ...

    transport.on_late(tell)
    assert (first.told, second.told) == ([tell], [tell])
    with pytest.raises(OSError, match="cannot close"):
        await transport.close()
    for way in (first, second):
        with pytest.raises(Closed):
            await ask(way)


async def test_warming_up_is_for_the_way_that_comes_next() -> None:
    warmed: list[str] = []

    def noting(name: str) -> Callable[[], Awaitable[None]]:
        async def warm() -> None:
            warmed.append(name)

        return warm

    first = Own(nobody(), warm=noting("first"))
    second = Own(nobody(), warm=noting("second"))
    transport = FallbackTransport(first, second, breaker=Breaker())
    await transport.warm()
    assert isinstance((await outcome(transport))[1], NotSent)
    await transport.warm()
    await transport.close()
    assert warmed == ["first", "second"]


# -- the probe -------------------------------------------------------------------------------


class Probed:
    """A breaker that opened, in front of a way whose warming up ends as each test says."""

    def __init__(self, *ends: Exception | None) -> None:
        self.probes = 0
        self._ends = iter(ends)
        self.release = asyncio.Event()
        first = Own(nobody(), warm=self._warm)
        second = http.HttpTransport(Access(endpoint(nobody())))
        self.transport = FallbackTransport(first, second, breaker=Breaker(), draw=lambda: 0.5)

    async def _warm(self) -> None:
        self.probes += 1
        await self.release.wait()
        if (end := next(self._ends)) is not None:
            raise end

    async def __aenter__(self) -> Probed:
        assert isinstance((await outcome(self.transport))[1], NotSent)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.transport.close()

    async def asked_after(self, seconds: float) -> str:
        """What `choose` says so much later, once a probe that is due has ended."""
        await advance(seconds)
        self.transport.choose()
        self.release.set()
        await settle()
        self.release.clear()
        return self.transport.choose()


@on_clock
async def test_a_probe_is_made_when_the_pause_is_over_and_somebody_asks() -> None:
    async with Probed(None) as probed:
        choose = probed.transport.choose
        await advance(59)
        assert (choose(), probed.probes) == ("http", 0)
        await advance(1)
        await settle()
        assert probed.probes == 0  # nobody asked
        assert choose(before="http") == "http"
        await settle()
        assert (choose(), choose(), probed.probes) == ("http", "http", 1)
        probed.release.set()
        await settle()
        assert (choose(), probed.probes) == ("websocket", 1)


@on_clock
async def test_each_probe_that_fails_makes_the_next_pause_longer() -> None:
    no = NotSent("no", status=403)
    async with Probed(no, no, no, None) as probed:
        for seconds, probes in ((60, 1), (119, 1), (1, 2), (239, 2), (1, 3), (479, 3)):
            assert await probed.asked_after(seconds) == "http"
            assert probed.probes == probes
        assert await probed.asked_after(1) == "websocket"


@pytest.mark.parametrize(
    "end",
    [
        NotSent("no", status=401),
        NotSent("no", code="no_connection_free"),
        ConfigurationError("no key"),
        Closed("closed"),
    ],
)
@on_clock
async def test_a_probe_that_says_nothing_about_websockets_is_made_again(end: Exception) -> None:
    async with Probed(end, None) as probed:
        assert await probed.asked_after(60) == "http"
        assert await probed.asked_after(60) == "websocket"


@on_clock
async def test_a_probe_that_falls_over_is_a_failure_and_not_the_last() -> None:
    async with Probed(RuntimeError("a bug"), None) as probed:
        assert await probed.asked_after(60) == "http"
        assert await probed.asked_after(60) == "http"
        assert await probed.asked_after(60) == "websocket"


@on_clock
async def test_w46_closing_ends_a_probe_and_begins_none() -> None:
    before = asyncio.all_tasks()
    async with Probed(None) as probed:
        await advance(60)
        probed.transport.choose()
        await settle()
        assert probed.probes == 1
    assert asyncio.all_tasks() <= before
    await advance(10_000)
    assert probed.transport.choose() == "http"
    await settle()
    assert probed.probes == 1


class Phases(logging.Handler):
    """The phases of a breaker, as the log tells of them."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.seen = asyncio.Queue[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.put_nowait(record.getMessage().rpartition(" ")[2])


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[Phases], None]]:
    """Have phases told, until the end of the test."""
    logger, handlers = logging.getLogger("turnlog.transports"), list[Phases]()
    caplog.set_level(logging.INFO, logger.name)

    def tell(phases: Phases) -> None:
        handlers.append(phases)
        logger.addHandler(phases)

    yield tell
    for each in handlers:
        logger.removeHandler(each)


@on_clock
async def test_w50_a_probe_is_a_handshake_and_never_a_request(
    told: Callable[[Phases], None],
) -> None:
    told(phases := Phases())
    seen: list[tuple[int, JsonObject]] = []
    refusals = iter([(403, "no"), (403, "no"), None])  # and no handshake beyond these
    async with web_server(WHOLE) as web:
        async with websocket_server(answering(seen), refuse=lambda request: next(refusals)) as url:
            transport = both(url, web.url)
            assert isinstance((await outcome(transport))[1], NotSent)
            assert len(await ask(transport)) == 2  # goes by HTTP meanwhile
            assert await phases.seen.get() == "open"
            for pause, then in ((60, "open"), (120, "closed")):
                await advance(pause)
                assert transport.choose() == "http"
                assert [await phases.seen.get(), await phases.seen.get()] == ["probing", then]
            assert seen == []
            assert transport.choose() == "websocket"
            assert len(await ask(transport)) == 3
            await transport.close()
    assert (len(seen), len(web.asked)) == (1, 1)


# -- to the simulator ------------------------------------------------------------------------


@pytest.mark.parametrize("opened", [open_transport, open_websocket])
async def test_a_background_response_goes_by_http_and_is_taken_up_again(
    opened: Callable[[Endpoint], FallbackTransport],
) -> None:
    async with Simulator([says("Hello.").but(hold=3), says("Never.").but(hold=2)]) as simulator:
        transport = opened(endpoint(simulator.base_url))
        via = transport.choose(background=True)
        asked = replace(create(background=True), via=via)
        async with aclosing(transport.send(asked)) as frames:
            first = await anext(frames)
        assert (via, first.type) == ("http", "response.created")
        id = response_id(first)
        simulator.release()
        rest = await ask(transport, Retrieve(response=id, starting_after=0))
        assert [frame.data["sequence_number"] for frame in rest] == list(range(1, 1 + len(rest)))
        assert rest[-1].terminal == "completed"
        (whole,) = await ask(transport, Retrieve(response=id))
        assert whole.terminal == "completed"
        async with aclosing(transport.send(asked)) as frames:
            other = response_id(await anext(frames))
        (cancelled,) = await ask(transport, Cancel(response=other))
        assert cancelled.terminal == "cancelled"
        await transport.close()
        assert simulator.connections.most == 0


@on_clock
async def test_a_websocket_that_comes_back_is_used_again(told: Callable[[Phases], None]) -> None:
    told(phases := Phases())
    async with Simulator([says("One."), says("Two.")]) as simulator:
        simulator.websocket = False
        transport = open_transport(endpoint(simulator.base_url))
        _, error = await outcome(transport)
        assert isinstance(error, NotSent)
        assert error.status == 426
        assert (await ask(transport))[-1].connection is None
        simulator.websocket = True
        await advance(60 * 1.2)  # the pause, with any jitter
        assert transport.choose() == "http"
        assert [await phases.seen.get() for _ in "abc"] == ["open", "probing", "closed"]
        assert (await ask(transport))[-1].connection is not None
        await transport.close()
        assert len(simulator.creates) == 2


# -- opened by its entry point -------------------------------------------------------------


async def test_a_provider_without_a_websocket_is_asked_by_http() -> None:
    async with web_server(WHOLE) as web:
        transport = open_transport(Endpoint(base_url=web.url))
        transport.on_late(lambda late: None)
        transport.check()
        assert (transport.choose(), transport.profile) == ("http", GENERIC)
        assert len(await ask(transport)) == 2
        await transport.close()
        with pytest.raises(Closed):
            await ask(transport)


async def test_it_takes_the_options_of_both_ways_and_its_own() -> None:
    options = {
        "max_frame_bytes": 9,
        "keep_idle_seconds": 9,
        "websocket_pause_seconds": 9,
        "breaker_failures": 2,
        "max_http_connections": 3,
    }
    transport = open_transport(Endpoint(options=options))
    assert transport.choose() == "websocket"
    await transport.close()
    for wrong in ({"websocket_pause_seconds": -1}, {"breaker_failures": 0}):
        with pytest.raises(ConfigurationError):
            open_transport(Endpoint(options=wrong))


async def test_websocket_alone_has_no_other_way_for_a_response() -> None:
    async with web_server(plain(200, RESPONSE)) as web:
        transport = open_websocket(endpoint(web.url))
        assert isinstance((await outcome(transport))[1], NotSent)
        assert [
            transport.choose(),
            transport.choose(before="websocket", failed=True),
            transport.choose(before="http"),
            transport.choose(background=True),
        ] == ["websocket", "websocket", "websocket", "http"]
        await transport.close()
