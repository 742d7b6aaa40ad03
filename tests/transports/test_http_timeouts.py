"""How long HTTP waits, on a clock that the tests move: for what, until when, and what it means."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from turnlog.canonical import Json
from turnlog.errors import Lost, NotSent, TurnlogError, Unheard
from turnlog.ports import Frame, Timeouts
from turnlog_transports.http import HttpTransport, open_transport

from .clock import advance, on_clock, settle
from .servers import (
    Answer,
    Web,
    completed,
    create,
    created,
    delta,
    endpoint,
    event,
    plain,
    stream,
    web_server,
)

COMMENT = b": still there\n\n"


@asynccontextmanager
async def serving(
    *answers: Answer, timeouts: Timeouts | None = None, **options: object
) -> AsyncGenerator[tuple[HttpTransport, Web]]:
    async with web_server(*answers) as web:
        own = replace(
            endpoint(web.url, idle_timeout=5.0, **options), timeouts=timeouts or Timeouts()
        )
        transport = open_transport(own)
        try:
            yield transport, web
        finally:
            await transport.close()


class Asking:
    """One request in a task of its own, and what has come of it so far."""

    def __init__(self, transport: HttpTransport) -> None:
        self.frames: list[Frame] = []
        self.error: TurnlogError | None = None
        self._came = asyncio.Condition()
        self._task = asyncio.create_task(self._run(transport))

    async def _run(self, transport: HttpTransport) -> None:
        try:
            async with aclosing(transport.send(create())) as frames:
                async for frame in frames:
                    async with self._came:
                        self.frames.append(frame)
                        self._came.notify_all()
        except TurnlogError as error:
            self.error = error

    async def heard(self, count: int) -> None:
        async with self._came:
            await self._came.wait_for(lambda: len(self.frames) >= count)

    @property
    def done(self) -> bool:
        return self._task.done()

    async def end(self) -> None:
        await self._task

    async def cancel(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


def talking(*pieces: bytes, every: float, then: bytes, reached: asyncio.Event) -> Answer:
    """A stream of these pieces, and of another one again and again."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        await stream(*pieces, end=False)(writer)
        reached.set()
        while not writer.is_closing():
            await asyncio.sleep(every)
            writer.write(f"{len(then):x}\r\n".encode() + then + b"\r\n")
            await writer.drain()

    return answer


@on_clock
async def test_w23_a_provider_that_takes_a_request_and_says_nothing_is_unheard() -> None:
    asked, hang = asyncio.Event(), asyncio.Event()

    async def silent(writer: asyncio.StreamWriter) -> None:
        asked.set()
        await hang.wait()

    async with serving(silent) as (transport, web):
        asking = Asking(transport)
        await asked.wait()
        await advance(119)
        assert not asking.done
        await advance(1.1)
        await asking.end()
        hang.set()
    assert isinstance(asking.error, Unheard)
    assert "no frame within 120.0 seconds" in str(asking.error)
    assert len(web.asked) == 1  # and never again by itself (W-31)


@pytest.mark.parametrize("pieces", [[], [COMMENT]])
@on_clock
async def test_w23_comments_are_no_frame_of_an_answer(pieces: list[bytes]) -> None:
    reached = asyncio.Event()
    answer = talking(*pieces, every=10, then=COMMENT, reached=reached)
    async with serving(answer) as (transport, _):
        asking = Asking(transport)
        await reached.wait()
        await advance(119)
        assert not asking.done
        await advance(1.1)
        await asking.end()
    assert isinstance(asking.error, Unheard)


@pytest.mark.parametrize("then", [COMMENT, b"data: half a frame that goes on and on"])
@on_clock
async def test_w23_silence_between_frames_is_a_loss_whatever_trickles_in(then: bytes) -> None:
    reached = asyncio.Event()
    answer = talking(event(created("r1")), every=10, then=then, reached=reached)
    async with serving(answer) as (transport, _):
        asking = Asking(transport)
        await asking.heard(1)
        await advance(299)
        assert not asking.done
        await advance(1.1)
        await asking.end()
    assert isinstance(asking.error, Lost)
    assert "no frame within 300.0 seconds, after 1 frames" in str(asking.error)


@pytest.mark.parametrize(("then", "expected"), [(event(delta("a")), Lost), (COMMENT, Unheard)])
@on_clock
async def test_w23_a_response_that_never_ends_ends_in_time(
    then: bytes, expected: type[TurnlogError]
) -> None:
    reached = asyncio.Event()
    answer = talking(every=7, then=then, reached=reached)
    async with serving(answer, timeouts=Timeouts(total=100)) as (transport, _):
        asking = Asking(transport)
        await reached.wait()
        await advance(99)
        assert not asking.done
        await advance(1.1)
        await asking.end()
    assert isinstance(asking.error, expected)
    assert "no end within 100 seconds" in str(asking.error)


@on_clock
async def test_no_limit_is_no_limit() -> None:
    limits = Timeouts(queue=None, first_frame=None, idle=None, total=None)
    asked, answer, hang = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(writer: asyncio.StreamWriter) -> None:
        asked.set()
        await answer.wait()
        await stream(event(created("r1")), event(completed("r1")), hang=hang)(writer)

    async with serving(slow, timeouts=limits) as (transport, _):
        asking = Asking(transport)
        await asked.wait()
        await advance(10**6)
        answer.set()
        await asking.heard(2)
        hang.set()
        await asking.end()
    assert asking.error is None


@on_clock
async def test_a_body_that_does_not_come_is_silence_too() -> None:
    asked, hang = asyncio.Event(), asyncio.Event()

    async def half(writer: asyncio.StreamWriter) -> None:
        await plain(200, b"", content_length="100")(writer)
        asked.set()
        await hang.wait()

    async with serving(half) as (transport, _):
        asking = Asking(transport)
        await asked.wait()
        await settle()
        await advance(121)
        await asking.end()
        hang.set()
    assert isinstance(asking.error, Unheard)


@on_clock
async def test_behind_the_terminal_frame_nothing_is_late() -> None:
    hang = asyncio.Event()
    whole = [event(created("r1")), event(completed("r1"))]
    async with serving(stream(*whole, hang=hang)) as (transport, _):
        async with aclosing(transport.send(create())) as frames:
            assert [(await anext(frames)).type, (await anext(frames)).terminal] == [
                "response.created",
                "completed",
            ]
            await advance(10_000)
            last = asyncio.ensure_future(anext(frames, None))
            await settle()
            assert not last.done()  # the stream may end now, so that its connection can be kept
            await advance(0.3)
            assert await last is None
        hang.set()


@on_clock
async def test_who_is_slow_to_listen_loses_nothing() -> None:
    frames_: list[dict[str, Json]] = [created("r1"), delta("a"), completed("r1")]
    async with serving(stream(*map(event, frames_))) as (transport, _):
        got: list[str] = []
        async with aclosing(transport.send(create())) as frames:
            async for frame in frames:
                got.append(frame.type)
                await advance(1000)
    assert len(got) == 3


@on_clock
async def test_a_wait_for_a_connection_of_the_pool_ends() -> None:
    hang = asyncio.Event()
    whole = [event(created("r1")), event(completed("r1"))]
    async with serving(stream(whole[0], hang=hang), stream(*whole), max_http_connections=1) as (
        transport,
        web,
    ):
        first = Asking(transport)
        await first.heard(1)
        second = Asking(transport)
        await settle()
        await advance(29)
        assert not second.done
        await advance(1.1)
        await second.end()
        assert isinstance(second.error, NotSent)
        assert second.error.code == "no_connection_free"
        assert "30.0 seconds" in str(second.error)
        third = Asking(transport)
        await settle()
        await first.cancel()
        await third.end()
        hang.set()
    assert [frame.type for frame in third.frames] == ["response.created", "response.completed"]
    assert len(web.asked) == 2


# -- handshakes ----------------------------------------------------------------------------


class Left:
    """A server that says these bytes to whoever connects, and when it was left again."""

    def __init__(self, said: bytes = b"") -> None:
        self.connected, self.gone = asyncio.Event(), asyncio.Event()
        self._said = said

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected.set()
        writer.write(self._said)
        await reader.read()
        self.gone.set()
        writer.close()

    @asynccontextmanager
    async def serve(self, scheme: str) -> AsyncGenerator[HttpTransport]:
        server = await asyncio.start_server(self.handle, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            own = replace(endpoint(f"{scheme}://127.0.0.1:{port}/v1"), timeouts=Timeouts())
            transport = open_transport(own)
            yield transport
            await transport.close()


@on_clock
async def test_w23_a_handshake_ends_in_time_and_leaves_no_socket() -> None:
    deaf = Left()
    async with deaf.serve("https") as transport:
        asking = Asking(transport)
        await deaf.connected.wait()
        await settle()
        await advance(10.1)
        await asking.end()
        await deaf.gone.wait()
    assert isinstance(asking.error, NotSent)
    assert "no connection within 10.0 seconds" in str(asking.error)


@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_w46_a_handshake_that_is_given_up_leaves_no_socket(how: str) -> None:
    deaf = Left()
    async with deaf.serve("https") as transport:
        asking = Asking(transport)
        await deaf.connected.wait()
        await settle()
        await (asking.cancel() if how == "cancel" else transport.close())
        await deaf.gone.wait()


# -- what is left --------------------------------------------------------------------------

BEGUN = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + event(created("r1"))


@pytest.mark.parametrize("how", ["leave", "cancel", "close"])
async def test_w47_a_stream_that_is_left_closes_its_connection_and_leaves_nothing(
    how: str,
) -> None:
    before = asyncio.all_tasks()
    endless = Left(BEGUN)
    async with endless.serve("http") as transport:
        if how == "leave":
            async with aclosing(transport.send(create())) as frames:
                await anext(frames)
        else:
            asking = Asking(transport)
            await asking.heard(1)
            await (asking.cancel() if how == "cancel" else transport.close())
        await endless.gone.wait()
    await settle()
    assert asyncio.all_tasks() <= before
