"""A provider of canned answers: `python -m bench.server [--port PORT]`, on loopback, without TLS.

The one rule: it does as little as can be for each answer, so that clients are what is measured. A
request is not parsed: its bytes are searched for the names of a model and a lane. What is answered
follows from the model's name (`canned.Asked`).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import hashlib
import re
import resource
import time
from collections import deque
from collections.abc import Callable, Iterator

from .answering import Answer, Ticker
from .canned import PIECE, Asked, head_of

PATH = b"/v1/responses"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MODEL = re.compile(rb'"model"\s*:\s*"((?:deltas|first|rate)[-0-9]*)"')
_LANE = re.compile(rb'"stream_id"\s*:\s*"([A-Za-z0-9_.-]{1,256})"')
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_KEY = re.compile(rb"\r\nsec-websocket-key:[ \t]*(\S+)", re.IGNORECASE)
_STREAMING = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_tickers: dict[int, Ticker] = {}


class Connection(asyncio.Protocol):
    """One connection: HTTP until it is upgraded, and WebSocket frames from then on."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = 1
        self._read: Callable[[int], bool] = self._read_http
        self._waiting: deque[Iterator[bytes]] = deque()
        self._paused = False
        self._message = b""

    # -- what asyncio calls ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of where to write."""
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=2 * PIECE)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was not sent."""
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        """Look whether a request is whole; that is when it is taken as received."""
        received = time.monotonic_ns()
        self._buffer += data
        while len(self._buffer) >= self._needed and self._read(received):
            pass

    def pause_writing(self) -> None:
        """The client is behind."""
        self._paused = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._paused = False
        self._pump()

    # -- what comes in -----------------------------------------------------------------------

    def _take(self, start: int, end: int) -> bytes:
        taken = bytes(self._buffer[start:end])
        del self._buffer[:end]
        self._needed = 1
        return taken

    def _read_http(self, received: int) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            self._needed = len(self._buffer) + 1
            return False
        head = bytes(self._buffer[:end])
        length = _LENGTH.search(head)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(self._buffer) < whole:
            self._needed = whole
            return False
        self._answer_http(head, self._take(end + 4, whole), received)
        return True

    def _answer_http(self, head: bytes, body: bytes, received: int) -> None:
        method, target = head.split(b" ", 2)[:2]
        key = _KEY.search(head)
        if target.partition(b"?")[0] != PATH:
            self._refuse(b"404 Not Found")
        elif method == b"GET" and key:
            accept = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n"
                b"connection: Upgrade\r\nsec-websocket-accept: %b\r\n\r\n" % accept
            )
            self._read = self._read_frame
        elif method == b"POST":
            self._answer(body, received, streamed=True)
        else:
            self._refuse(b"405 Method Not Allowed")

    def _refuse(self, status: bytes) -> None:
        self._transport.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)

    def _read_frame(self, received: int) -> bool:
        buffer = self._buffer
        if len(buffer) < 2:
            self._needed = 2
            return False
        size, start = buffer[1] & 0x7F, 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:start], "big") if len(buffer) >= start else 0
        end = start + 4 + size  # clients mask, with four bytes
        if len(buffer) < end:
            self._needed = end
            return False
        first = buffer[0]
        masked = self._take(start, end)
        self._hear(first, _unmasked(masked[4:], masked[:4]), received)
        return True

    def _hear(self, first: int, payload: bytes, received: int) -> None:
        opcode = first & 0x0F
        if opcode == 9:
            self._transport.write(head_of(10, len(payload)) + payload)
        elif opcode == 8:
            self._transport.write(head_of(8, len(payload)) + payload)
            self._transport.close()
        elif opcode < 3:
            self._message += payload
            if first & 0x80:
                message, self._message = self._message, b""
                self._answer(message, received, streamed=False)

    # -- what goes out -----------------------------------------------------------------------

    def _answer(self, request: bytes, received: int, *, streamed: bool) -> None:
        model = _MODEL.search(request)
        asked = Asked.parse(model[1].decode()) if model else None
        if asked is None:
            self._transport.abort()
            return
        lane = None if streamed else _LANE.search(request)
        name = lane[1].decode() if lane else None
        if streamed:
            self._transport.write(_STREAMING)
        self._begin(Answer(asked, name, received, streamed=streamed))

    def _begin(self, answer: Answer) -> None:
        asked, write = answer.asked, self._transport.write
        match asked.kind:
            case "deltas":
                self._waiting.append(answer.pieces())
                self._pump()
            case "first" if asked.pause:
                write(answer.begin())
                loop = asyncio.get_running_loop()
                loop.call_later(asked.pause, lambda: write(answer.rest()))
            case "first":
                write(answer.begin() + answer.rest())
            case _:
                write(answer.begin())
                ticker = _tickers.setdefault(asked.rate, Ticker(asked.rate))
                ticker.add(lambda: self._stream(answer))

    def _stream(self, answer: Answer) -> bool:
        if self._transport.is_closing():
            return False
        self._transport.write(answer.next())
        return not answer.over

    def _pump(self) -> None:
        while self._waiting and not self._paused:
            for piece in self._waiting[0]:
                self._transport.write(piece)
                if self._paused:
                    return
            self._waiting.popleft()


def _unmasked(masked: bytes, key: bytes) -> bytes:
    size = len(masked)
    mask = int.from_bytes((key * (size // 4 + 1))[:size], "big")
    return (int.from_bytes(masked, "big") ^ mask).to_bytes(size, "big")


def raise_open_files() -> None:
    """Let this process open as many files, and so connections, as it ever may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def serve(port: int) -> None:
    """Listen until the process ends, and say where as the first line."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", port, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    gc.freeze()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    raise_open_files()
    asyncio.run(serve(parser.parse_args().port))
