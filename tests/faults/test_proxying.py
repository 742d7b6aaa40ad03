"""The proxy of these tests finds the frames, changes nothing, and does the harm that it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest

from .given import in_no_time
from .proxy import DELAY_SECONDS, Fault, Frame, Kind, Point, Proxy, Sender, frames

MORE = b"GET /more HTTP/1.1\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"

SPLIT: Mapping[str, tuple[Sender, list[tuple[bytes, bytes]]]] = {
    "requests": (
        "client",
        [(b"GET / HTTP/1.1\r\n\r\n", b""), (b"PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\n", b"hi")],
    ),
    "answers": (
        "provider",
        [(HEAD + b"Content-Length: 2\r\n\r\n", b"{}"), (b"HTTP/1.1 204 Gone\r\n\r\n", b"")],
    ),
    "events until the end": (
        "provider",
        [(HEAD + b"\r\n", b""), (b"", b"data: 1\n\n"), (b"", b"data: 2\n\n"), (b"", b"da")],
    ),
    "an event a chunk": (
        "provider",
        [(CHUNKED, b""), (b"9\r\n", b"data: 1\n\n\r\n"), (b"0\r\n", b"\r\n"), (CHUNKED, b"")],
    ),
    "two events in a chunk": (
        "provider",
        [
            (CHUNKED, b""),
            (b"12\r\n", b"data: 1\n\n"),
            (b"", b"data: 2\n\n\r\n"),
            (b"0\r\n", b"\r\n"),
        ],
    ),
    "an event in two chunks": (
        "provider",
        [
            (CHUNKED, b""),
            (b"8\r\n", b"data: 1\n\r\n2\r\n\n"),
            (b"", b"d\r\n8\r\nata: 2\n\n\r\n"),
            (b"0\r\n", b"\r\n"),
        ],
    ),
    "no event in a chunk": ("provider", [(CHUNKED, b""), (b"2\r\n", b"{}\r\n0\r\n\r\n")]),
    "messages": (
        "provider",
        [
            (UPGRADED, b""),
            (b"\x81\x02", b"hi"),
            (b"\x81\x7e\x01\x00", b"x" * 256),
            (b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00", b"x" * 65536),
            (b"\x88\x00", b""),
        ],
    ),
    "masked messages": (
        "client",
        [(UPGRADED, b""), (b"\x81\x82\x01\x02\x03\x04", b"hi"), (b"", b"\x81\x82\x01")],
    ),
}


@pytest.mark.parametrize("case", SPLIT)
async def test_frames_are_found_and_nothing_is_changed(case: str) -> None:
    sender, expected = SPLIT[case]
    reader = asyncio.StreamReader()
    reader.feed_data(b"".join(header + payload for header, payload in expected))
    reader.feed_eof()
    found = [(frame.header, frame.payload) async for frame in frames(reader, sender)]
    assert found == expected


def test_the_places_of_a_frame() -> None:
    assert dict(Frame(b"1234", b"567890").places()) == {
        "before": 0,
        "in header": 2,
        "behind header": 4,
        "in payload": 7,
        "short": 9,
        "after": 10,
    }
    assert dict(Frame(b"12").places()) == {"before": 0, "in header": 1, "after": 2}
    assert dict(Frame(b"", b"1").places()) == {"before": 0, "after": 1}


@dataclass(slots=True)
class Line:
    """A client's connection through a proxy whose fault is four bytes into the first event."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    heard: asyncio.Queue[bytes]
    """What the provider hears behind the request; empty when the client has left."""


@asynccontextmanager
async def line(kind: Kind) -> AsyncGenerator[Line]:
    """The head and the four bytes have arrived."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"\r\n" + b"data: 1\n\n" + b"data: 2\n\n")
        with suppress(ConnectionResetError):
            heard.put_nowait(await reader.read(100))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port: int = server.sockets[0].getsockname()[1]
        async with Proxy(port, Fault(kind, Point("provider", 2, "in payload"))) as proxy:
            port = int(proxy.base_url.rpartition(":")[2].partition("/")[0])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert await reader.readexactly(len(HEAD) + 6) == HEAD + b"\r\ndata"
            assert proxy.struck.is_set()
            yield Line(reader, writer, heard)
            writer.close()


@in_no_time
async def test_a_cut_resets_the_connection() -> None:
    async with line("cut") as now:
        with pytest.raises(ConnectionResetError):
            await now.reader.read()


@in_no_time
async def test_a_close_ends_both_ways() -> None:
    async with line("close") as now:
        assert await now.reader.read() == b""
        assert await now.heard.get() == b""


@in_no_time
async def test_a_half_close_leaves_the_other_way_open() -> None:
    async with line("half-close") as now:
        assert await now.reader.read() == b""
        now.writer.write(MORE)
        assert await now.heard.get() == MORE


@in_no_time
async def test_a_stall_is_silent_one_way() -> None:
    async with line("stall") as now:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(now.reader.read(1), 3600)
        now.writer.write(MORE)
        assert await now.heard.get() == MORE
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(now.reader.read(1), 3600)


@pytest.mark.parametrize(("kind", "takes"), [("delay", DELAY_SECONDS), ("trickle", 0.0)])
@in_no_time
async def test_what_does_no_harm_only_takes_longer(kind: Kind, takes: float) -> None:
    async with line(kind) as now:
        begun = asyncio.get_running_loop().time()
        rest = b": 1\n\ndata: 2\n\n"
        assert await now.reader.readexactly(len(rest)) == rest
        assert takes <= asyncio.get_running_loop().time() - begun < takes + 0.5
        now.writer.write(MORE)
        assert await now.heard.get() == MORE
        assert await now.reader.read() == b""
