"""What time does to WebSockets: deadlines, rotation, idleness, warm-up and closing."""

from __future__ import annotations

import asyncio
import weakref
from contextlib import aclosing
from dataclasses import replace

import pytest

from turnlog.canonical import Json
from turnlog.errors import Closed, ConfigurationError, Lost, NotSent, Unheard
from turnlog.ports import Endpoint, Late, Timeouts
from turnlog_transports.network import NO_CONNECTION_FREE
from turnlog_transports.profiles import OPENAI
from turnlog_transports.websocket import open_transport

from .clock import advance, on_clock, settle
from .lane_server import QUIET, came_of, lanes, of, said, turn
from .servers import ask, completed, created, delta, held

ONE_EACH = replace(OPENAI, max_in_flight=1)


async def closed(connection: object) -> bool:
    """Whether the server's end of a connection is closed, once what is under way has happened."""
    await settle(50)
    return bool(getattr(connection, "close_code", None) is not None)


# -- deadlines -----------------------------------------------------------------------------


@on_clock
async def test_w23_a_response_that_never_begins_is_unheard() -> None:
    async with lanes(timeouts=replace(QUIET, first_frame=30)) as (server, transport):
        asking = asyncio.create_task(came_of(transport, of("a")))
        await server.next()
        await advance(29)
        assert not asking.done()
        await advance(2)
        types, error = await asking
    assert types == []
    assert isinstance(error, Unheard) and "30 seconds" in str(error)


@on_clock
async def test_w23_silence_between_two_frames_is_a_loss_and_every_frame_begins_it_anew() -> None:
    timeouts = replace(QUIET, first_frame=None, idle=30, total=None)
    async with lanes(timeouts=timeouts) as (server, transport):
        asking = asyncio.create_task(came_of(transport, of("a")))
        asked = await server.next()
        await advance(1000)  # no limit
        await asked.tell(created("a1"))
        for _ in range(3):
            await advance(29)
            await asked.tell(delta("x"))
            await asked.settled()
        await advance(29)
        assert not asking.done()
        await advance(2)
        types, error = await asking
    assert len(types) == 4
    assert isinstance(error, Lost) and "30 seconds, after 4 frames" in str(error)


@on_clock
async def test_w23_a_response_that_goes_on_for_ever_is_a_loss() -> None:
    async with lanes(timeouts=replace(QUIET, idle=60, total=100)) as (server, transport):
        asking = asyncio.create_task(came_of(transport, of("a")))
        asked = await server.next()
        for _ in range(3):
            await asked.tell(delta("x"))
            await asked.settled()
            await advance(33)
        assert not asking.done()
        await advance(2)
        assert "not over within 100 seconds" in str((await asking)[1])


@on_clock
async def test_w23_silence_is_not_counted_against_a_provider_whose_frames_wait() -> None:
    async with lanes(timeouts=replace(QUIET, idle=10, total=None)) as (server, transport):
        async with aclosing(transport.send(of("a"))) as stream:
            asking = asyncio.ensure_future(anext(stream))
            asked = await server.next()
            await asked.tell(created("a1"))
            await asking
            await asked.tell(delta("x"))
            await asked.settled()
            await advance(25)  # a slow reader
            assert (await anext(stream)).type == "response.output_text.delta"
            with pytest.raises(Lost):
                await anext(stream)


@on_clock
async def test_a_slow_reader_gets_what_is_there_even_past_the_last_deadline() -> None:
    async with lanes(timeouts=replace(QUIET, idle=10, total=50)) as (server, transport):
        async with aclosing(transport.send(of("a"))) as stream:
            asking = asyncio.ensure_future(anext(stream))
            asked = await server.next()
            await asked.tell(created("a1"))
            await asking
            await asked.tell(delta("x"))
            await asked.settled()
            await advance(51)
            assert (await anext(stream)).type == "response.output_text.delta"
            with pytest.raises(Lost, match="not over within 50"):
                await anext(stream)


@on_clock
async def test_w23_a_lane_that_is_silent_ends_alone() -> None:
    told: list[Late] = []
    async with lanes(timeouts=replace(QUIET, idle=10)) as (server, transport):
        transport.on_late(told.append)
        asking = [asyncio.create_task(came_of(transport, of(who))) for who in "ab"]
        silent, other = [await server.next() for _ in asking]
        await silent.tell(created("a1"))
        await other.tell(created("b1"))
        await other.settled()
        await advance(6)
        await other.tell(delta("x"))
        await other.settled()
        await advance(6)
        assert isinstance((await asking[0])[1], Lost)
        await other.tell(completed("b1"))
        assert (await asking[1])[1] is None
        await silent.tell(completed("a1"))
        await silent.settled()
        assert [late.conversation for late in told] == ["a"]
        assert (await turn(server, transport, of("c"), "c1"))[0].number == 1


@on_clock
async def test_a_lane_that_does_not_end_in_time_costs_its_connection_when_the_others_are_done() -> (
    None
):
    async with lanes(timeouts=replace(QUIET, idle=10)) as (server, transport):
        other = asyncio.create_task(said(transport, of("a")))
        asked = await server.next()
        await asked.tell(created("a1"))
        async with aclosing(transport.send(of("b"))) as stream:
            asking = asyncio.ensure_future(anext(stream))
            left = await server.next()
            await left.tell(created("b1"))
            await asking
        for _ in range(3):
            await advance(4)
            await asked.tell(delta("x"))
            await asked.settled()
        again, _ = await turn(server, transport, of("c"), "c1")
        assert again.number == 2  # the first takes nothing new
        await left.tell(completed("b1"))  # too late to matter
        await asked.tell(completed("a1"))
        assert (await other)[-1].terminal == "completed"
        assert await closed(asked.socket)


@on_clock
async def test_w23_a_peer_that_answers_no_ping_is_lost() -> None:
    async with lanes(timeouts=Timeouts(ping=20)) as (server, transport):
        asking = asyncio.create_task(came_of(transport, of("a")))
        asked = await server.next()
        await asked.tell(created("a1"))
        await asked.settled()
        asked.socket.transport.pause_reading()
        await advance(45)
        assert isinstance((await asking)[1], Lost)
        asked.socket.transport.resume_reading()


@on_clock
async def test_w44_nobody_waits_for_a_connection_longer_than_the_queue_allows() -> None:
    timeouts = replace(QUIET, queue=30)
    async with lanes(ONE_EACH, timeouts, max_connections=1) as (server, transport):
        first = asyncio.create_task(said(transport, of("a")))
        asked = await server.next()
        waiting = asyncio.create_task(came_of(transport, of("b")))
        await settle()
        await advance(29)
        assert not waiting.done()
        await advance(2)
        _, error = await waiting
        assert isinstance(error, NotSent) and error.code == NO_CONNECTION_FREE
        assert "no connection was free within 30 seconds" in str(error)
        await asked.answer("a1")
        await first
        assert server.arrived.empty()


@on_clock
async def test_no_limit_means_no_limit() -> None:
    timeouts = Timeouts(queue=None, first_frame=None, idle=None, total=None, ping=None)
    async with lanes(ONE_EACH, timeouts, max_connections=1) as (server, transport):
        asking = [asyncio.create_task(said(transport, of(who))) for who in "ab"]
        asked = await server.next()
        await settle()
        await advance(2000)
        await asked.tell(created("a1"))
        await asked.settled()
        await advance(500)
        await asked.tell(completed("a1"))
        await (await server.next()).answer("b1")
        await asyncio.gather(*asking)


# -- rotation and idleness -----------------------------------------------------------------


@on_clock
async def test_w42_an_idle_connection_is_closed_before_the_provider_does_it() -> None:
    async with lanes(keep_idle_seconds=5000) as (server, transport):
        asked, parent = await turn(server, transport, of("a"), "a1")
        await advance(2990)
        assert held(transport, parent, "a")
        await advance(20)
        assert not held(transport, parent, "a")
        assert await closed(asked.socket)


@on_clock
async def test_w42_a_busy_connection_takes_nothing_new_and_ends_what_it_has() -> None:
    async with lanes(rotate_seconds=100) as (server, transport):
        long = asyncio.create_task(said(transport, of("a")))
        asked = await server.next()
        await asked.tell(created("a1"))
        _, parent = await turn(server, transport, of("b"), "b1")
        await advance(101)
        assert not held(transport, parent, "b")
        assert (await turn(server, transport, of("c"), "c1"))[0].number == 2
        assert not await closed(asked.socket)
        await asked.tell(completed("a1"))
        assert (await long)[-1].terminal == "completed"
        assert await closed(asked.socket)


@on_clock
async def test_w42_a_provider_that_allows_less_is_left_sooner() -> None:
    async with lanes(replace(OPENAI, connection_seconds=600)) as (server, transport):
        asked, _ = await turn(server, transport, of("a"), "a1")
        await advance(499)
        assert not await closed(asked.socket)
        await advance(2)
        assert await closed(asked.socket)


@on_clock
async def test_w44_a_connection_that_nobody_uses_is_closed_in_time() -> None:
    async with lanes(keep_idle_seconds=60) as (server, transport):
        asked, parent = await turn(server, transport, of("a"), "a1")
        await advance(50)
        _, parent = await turn(server, transport, of("a", parent), "a2")
        await advance(50)
        assert held(transport, parent, "a")
        long = asyncio.create_task(said(transport, of("a", parent)))
        again = await server.next()
        await again.start("a3")
        await again.settled()
        await advance(70)
        await again.tell(completed("a3"))
        await long
        assert not await closed(asked.socket)
        await advance(61)
        assert await closed(asked.socket)


async def test_w44_what_is_remembered_is_kept_beyond_the_bound() -> None:
    async with lanes(ONE_EACH, max_idle_connections=1) as (server, transport):
        asking = [
            asyncio.create_task(said(transport, of(who, store=store)))
            for who, store in (("a", False), ("b", True), ("c", True))
        ]
        asked = [await server.next() for _ in asking]
        for each in asked:
            await each.answer(f"r{each.number}")
        answers = await asyncio.gather(*asking)
        await settle(50)
        assert len({frames[-1].connection for frames in answers}) == 3
        kept = [each.number for each in asked if not await closed(each.socket)]
    assert len(kept) == 2


# -- warm-up -------------------------------------------------------------------------------


async def test_w46_a_warm_connection_is_there_before_the_first_request() -> None:
    async with lanes() as (server, transport):
        await asyncio.gather(transport.warm(), transport.warm())
        await transport.warm()
        await server.opened(1)
        asked, _ = await turn(server, transport, of("a"), "a1")
        assert asked.number == len(server.sockets) == 1


async def test_w46_a_warm_up_that_failed_may_be_tried_again() -> None:
    fail = [True, False]

    def key() -> str:
        if fail.pop(0):
            raise OSError
        return "k"

    async with lanes(key=key) as (server, transport):
        with pytest.raises(NotSent):
            await transport.warm()
        await transport.warm()
        assert (await turn(server, transport, of("a"), "a1"))[0].number == 1


async def test_w46_a_warm_up_that_was_cancelled_disturbs_nobody() -> None:
    go_on = asyncio.Event()

    async def key() -> str:
        await go_on.wait()
        return "k"

    async with lanes(key=key) as (server, transport):
        warming = [asyncio.create_task(transport.warm()) for _ in range(2)]
        await settle()
        warming[0].cancel()
        go_on.set()
        await asyncio.wait(warming)
        assert warming[0].cancelled() and warming[1].exception() is None
        assert len(server.sockets) == 1


# -- closing -------------------------------------------------------------------------------


async def test_w47_closing_ends_every_stream_and_whoever_waits_and_leaves_nothing() -> None:
    before = asyncio.all_tasks()
    async with lanes(ONE_EACH, Timeouts(ping=20), max_connections=2) as (server, transport):
        under_way = asyncio.create_task(came_of(transport, of("a")))
        asked = await server.next()
        await asked.tell(created("a1"), delta("x"))
        async with aclosing(transport.send(of("b"))) as stream:
            asking = asyncio.ensure_future(anext(stream))
            other = await server.next()
            await other.start("b1")
            await asking
            waiting = asyncio.create_task(came_of(transport, of("c")))
            await asked.settled()
            await transport.close()
            with pytest.raises(Closed):
                await anext(stream)
        assert isinstance((await under_way)[1], Closed)
        assert isinstance((await waiting)[1], Closed)
        for refused in (ask(transport, of("a")), transport.warm()):
            with pytest.raises(Closed):
                await refused
        await asyncio.gather(asked.socket.wait_closed(), other.socket.wait_closed())
        await transport.close()
        await settle()  # the server's own
        left = {each for each in asyncio.all_tasks() - before if "server.py" not in repr(each)}
        assert left == set()


async def test_w46_closing_while_connecting_ends_a_warm_up_too() -> None:
    async def key() -> str:
        await asyncio.Event().wait()
        return "never"

    async with lanes(key=key) as (_, transport):
        warming = asyncio.create_task(transport.warm())
        waiting = asyncio.create_task(came_of(transport, of("a")))
        await settle()
        await transport.close()
        with pytest.raises(Closed):
            await warming
        assert isinstance((await waiting)[1], Closed)


# -- how it connects -----------------------------------------------------------------------


async def test_w33_a_refused_upgrade_says_how_long_to_wait() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 429 Slow down\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        transport = open_transport(Endpoint(base_url=f"http://127.0.0.1:{port}/v1", profile=OPENAI))
        with pytest.raises(NotSent, match="HTTP 429") as caught:
            await ask(transport, of("a"))
        await transport.close()
    assert (caught.value.status, caught.value.retry_after) == (429, 7)


async def test_a_proxy_that_needs_what_is_not_installed_says_so() -> None:
    async with lanes() as (server, _):
        transport = open_transport(
            Endpoint(base_url=server.url, profile=OPENAI, proxy="socks5://127.0.0.1:9")
        )
        with pytest.raises(ConfigurationError):
            await ask(transport, of("a"))
        await transport.close()


@pytest.mark.parametrize("path", ["/v1", "/v1/responses", "/v1/"])
async def test_w48_the_address_keeps_its_scheme_and_names_responses_once(path: str) -> None:
    async with lanes() as (server, _):
        transport = open_transport(
            Endpoint(base_url=server.url.removesuffix("/v1") + path, profile=OPENAI)
        )
        asked, _ = await turn(server, transport, of("a"), "a1")
        request = asked.socket.request
        await transport.close()
    assert request is not None and request.path == "/v1/responses"


@on_clock
async def test_w44_no_more_connections_are_open_than_are_allowed_rotation_included() -> None:
    async with lanes(rotate_seconds=100, max_connections=1) as (server, transport):
        old = asyncio.create_task(said(transport, of("a")))
        first = await server.next()
        await first.start("a1")
        await first.settled()
        await advance(101)
        new = asyncio.create_task(said(transport, of("b")))
        await advance(1)
        assert len(server.sockets) == 1
        await first.tell(completed("a1"))
        await old
        second = await server.next()
        assert second.number == 2
        await second.answer("b1")
        await new


@on_clock
async def test_what_was_sent_is_not_kept_while_the_answer_streams() -> None:
    class Input(list[Json]):
        """Something whose end can be seen."""

    async with lanes() as (server, transport):
        asking = of("a")
        body = Input()
        seen = weakref.ref(body)
        stream = transport.send(replace(asking, body={**asking.body, "input": body}))
        del body
        waiting = asyncio.ensure_future(anext(stream))
        asked = await server.next()
        await asked.start("a1")
        await waiting
        assert seen() is None
        await stream.aclose()
