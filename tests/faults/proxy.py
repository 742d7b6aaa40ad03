"""A proxy on loopback that knows where frames begin and end, and does harm at one of them.

The one rule: a fault strikes once, at one point, and everything else passes byte for byte. A frame
passes once all of it is there. It is the head of an HTTP message with what its length says (a
request, a plain answer), the head of one that is chunked or runs to the end of the connection,
each server-sent event of such a body with the chunk that carries it, or a WebSocket message.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, assert_never

Sender = Literal["provider", "client"]
Kind = Literal["cut", "close", "half-close", "stall", "delay", "trickle"]
Where = Literal["before", "in header", "behind header", "in payload", "short", "after"]

KINDS: tuple[Kind, ...] = ("cut", "close", "half-close", "stall", "delay", "trickle")
PLACES: tuple[Where, ...] = (
    "before",
    "in header",
    "behind header",
    "in payload",
    "short",
    "after",
)
HARMLESS: frozenset[Kind] = frozenset({"delay", "trickle"})
DELAY_SECONDS = 1.0

_LIMIT = 1 << 24
_RESET = struct.pack("ii", 1, 0)
_NO_BODY = (b"HTTP/1.1 1", b"HTTP/1.1 204", b"HTTP/1.1 304")


@dataclass(frozen=True, slots=True)
class Point:
    """A place on the wire: in the how-manieth frame of one side, counted over all connections.

    "in header" is in the middle of the frame's header, "behind header" at its end, "in payload"
    in the middle of its payload, and "short" before the frame's last byte.
    """

    sender: Sender
    frame: int
    where: Where


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at a point.

    `cut` resets the connection, both ways. `close` ends it in good order, as a peer does that has
    forgotten the WebSocket's own goodbye. `half-close` ends the sender's side only. `stall` keeps
    it open, and passes nothing more that way. `delay` holds the frame up for a second, and
    `trickle` passes it byte by byte: from those, nothing may come.
    """

    kind: Kind
    point: Point


@dataclass(frozen=True, slots=True)
class Frame:
    """What goes over the wire as one."""

    header: bytes
    payload: bytes = b""

    @property
    def raw(self) -> bytes:
        """All of it."""
        return self.header + self.payload

    def places(self) -> Iterator[tuple[Where, int]]:
        """Where a fault can strike, and behind how many bytes that is; each number once."""
        head, size = len(self.header), len(self.header) + len(self.payload)
        offsets = (0, head // 2, head, (head + size) // 2, size - 1, size)
        taken: set[int] = set()
        for where, offset in zip(PLACES, offsets, strict=True):
            named = where in ("before", "after")
            if named or (0 < offset < size and offset not in taken):
                taken.add(offset)
                yield where, offset


# -- finding the frames --------------------------------------------------------------------


class Wire:
    """What one side sends, as it is read: `held` is what is not part of a frame yet."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.held = bytearray()
        self._reader = reader

    async def until(self, end: bytes) -> bytes:
        """Read to the end of this."""
        return await self._keep(self._reader.readuntil(end))

    async def exactly(self, size: int) -> bytes:
        """Read so many bytes."""
        return await self._keep(self._reader.readexactly(size))

    def frame(self, header: int = 0, size: int | None = None) -> Frame:
        """What was read is a frame, or the first so many bytes of it."""
        raw = bytes(self.held[:size])
        del self.held[: len(raw)]
        return Frame(raw[:header], raw[header:])

    async def _keep(self, reading: Coroutine[None, None, bytes]) -> bytes:
        try:
            raw = await reading
        except asyncio.IncompleteReadError as error:
            self.held += error.partial
            raise
        self.held += raw
        return raw


async def frames(reader: asyncio.StreamReader, sender: Sender) -> AsyncGenerator[Frame]:
    """Everything that one side sends; what breaks off at the end comes too, as it is."""
    wire = Wire(reader)
    try:
        while True:
            async with aclosing(_exchange(wire, sender)) as found:
                async for frame in found:
                    yield frame
    except asyncio.IncompleteReadError:
        if wire.held:
            yield wire.frame()


async def _exchange(wire: Wire, sender: Sender) -> AsyncGenerator[Frame]:
    """One HTTP message, and a whole WebSocket behind the head of its handshake."""
    head = await wire.until(b"\r\n\r\n")
    fields = _fields(head)
    if fields.get(b"upgrade") == b"websocket":
        yield wire.frame(len(head))
        while True:
            yield await _message(wire)
    elif fields.get(b"transfer-encoding") == b"chunked":
        yield wire.frame(len(head))
        async with aclosing(_chunks(wire)) as events:
            async for event in events:
                yield event
    elif b"content-length" in fields or sender == "client" or head.startswith(_NO_BODY):
        await wire.exactly(int(fields.get(b"content-length", 0)))
        yield wire.frame(len(head))
    else:
        yield wire.frame(len(head))
        while True:
            await wire.until(b"\n\n")
            yield wire.frame()


def _fields(head: bytes) -> dict[bytes, bytes]:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.lower(): value.strip().lower() for name, _, value in lines}


async def _chunks(wire: Wire) -> AsyncGenerator[Frame]:
    """The events of a chunked body, however they lie in its chunks, and the last chunk."""
    size, header, last = -1, 0, b""
    while size:
        between = not wire.held
        line = await wire.until(b"\r\n")
        header = len(line) if between else header
        size = int(line, 16)
        data = last + (await wire.exactly(size + 2))[:-2]
        begun = len(wire.held) - len(data) - 2
        done = 0
        for blank in re.finditer(b"\n\n", data):
            end = begun + blank.end() + (2 if blank.end() == len(data) else 0) - done
            yield wire.frame(header, end)
            header, done = 0, done + end
        last = data[-1:] if wire.held else b""
    yield wire.frame(header)


async def _message(wire: Wire) -> Frame:
    """A WebSocket message, masked or not (RFC 6455, section 5.2)."""
    head = await wire.exactly(2)
    size = head[1] & 0x7F
    if size > 125:
        size = int.from_bytes(await wire.exactly(2 if size == 126 else 8))
    if head[1] & 0x80:
        await wire.exactly(4)
    header = len(wire.held)
    await wire.exactly(size)
    return wire.frame(header)


# -- passing them on -----------------------------------------------------------------------


class Proxy:
    """Passes every connection on to a port of this machine, with one fault or none.

    `passed` is what was sent, in order, and by whom; `struck` is set once the fault has struck.
    """

    def __init__(self, port: int, fault: Fault | None = None) -> None:
        self.passed: list[tuple[Sender, Frame]] = []
        self.struck = asyncio.Event()
        self._port = port
        self._fault = fault
        self._links: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()
        self._server: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        """The address to give to a client."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_LIMIT)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._closed.set()
        await asyncio.gather(*self._links)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._links.add(asyncio.create_task(self._connect(reader, writer)))

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port, limit=_LIMIT)
        link = Link(writer, back)
        ways = [
            asyncio.create_task(self._relay(link, "client", reader, back)),
            asyncio.create_task(self._relay(link, "provider", there, writer)),
        ]
        ends = [asyncio.create_task(event.wait()) for event in (link.over, self._closed)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        tasks: list[asyncio.Task[object]] = [*ways, *ends]
        for task in tasks:
            task.cancel()
        came = await asyncio.gather(*tasks, return_exceptions=True)
        await link.close()
        for error in came:
            if isinstance(error, Exception):
                raise error

    async def _relay(
        self,
        link: Link,
        sender: Sender,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        try:
            async with aclosing(frames(reader, sender)) as found:
                async for frame in found:
                    self.passed.append((sender, frame))
                    await self._pass(link, sender, frame, writer)
            writer.write_eof()
            link.ended()
        except OSError:
            link.reset()
        except BaseException:
            link.over.set()
            raise

    async def _pass(
        self, link: Link, sender: Sender, frame: Frame, writer: asyncio.StreamWriter
    ) -> None:
        fault, number = self._fault, sum(by == sender for by, _ in self.passed)
        offset = None
        if fault is not None and (fault.point.sender, fault.point.frame) == (sender, number):
            offset = dict(frame.places()).get(fault.point.where)
        if fault is None or offset is None:
            writer.write(frame.raw)
            await writer.drain()
            return
        writer.write(frame.raw[:offset])
        await writer.drain()
        self.struck.set()
        await link.strike(fault.kind, writer, frame.raw[offset:])


class Link:
    """A connection through the proxy: two sockets, and two ways between them.

    `over` is set once neither way passes anything any more.
    """

    def __init__(self, client: asyncio.StreamWriter, provider: asyncio.StreamWriter) -> None:
        self.over = asyncio.Event()
        self._writers = (client, provider)
        self._left = len(self._writers)

    def ended(self) -> None:
        """One of the ways will pass nothing more."""
        self._left -= 1
        if not self._left:
            self.over.set()

    def reset(self) -> None:
        """Drop both sockets, so that their peers get an error."""
        for writer in self._writers:
            raw: socket.socket | None = writer.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        self.over.set()

    async def close(self) -> None:
        """Close both sockets in good order."""
        for writer in self._writers:
            writer.close()
        for writer in self._writers:
            with suppress(OSError):
                await writer.wait_closed()

    async def strike(self, kind: Kind, writer: asyncio.StreamWriter, rest: bytes) -> None:
        """Do harm before the rest of a frame; comes back only where more is to be passed."""
        match kind:
            case "cut":
                self.reset()
            case "close":
                self.over.set()
            case "half-close":
                writer.write_eof()
                self.ended()
            case "stall":
                self.ended()
            case "delay":
                await asyncio.sleep(DELAY_SECONDS)
                writer.write(rest)
            case "trickle":
                for byte in rest:
                    writer.write(bytes((byte,)))
                    await asyncio.sleep(0)
            case _:
                assert_never(kind)
        if kind not in HARMLESS:
            await asyncio.Event().wait()
