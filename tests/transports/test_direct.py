"""What a connection hands over is what `websockets` would read, however the bytes are cut."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.uri import parse_uri
from websockets.utils import accept_key

from turnlog_transports.direct import FEW, MOST_AT_ONCE, DirectConnection

LARGEST = 300


class Wire(asyncio.Transport):
    """The way to a server that is not there: it keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.paused = False

    def write(self, data: object) -> None:
        assert isinstance(data, (bytes, bytearray))
        self.written.append(bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.written.append(b"EOF")

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


@dataclass(slots=True)
class Read:
    """What came of some bytes."""

    messages: list[bytes]
    written: list[int]
    end: str


def frame(first: int, payload: bytes, *, mask: int = 0, wide: bool = False) -> bytes:
    size = len(payload)
    if size > 65535:
        header = bytes([first, mask | 127]) + size.to_bytes(8, "big")
    elif size > 125 or wide:
        header = bytes([first, mask | 126]) + size.to_bytes(2, "big")
    else:
        header = bytes([first, mask | size])
    return header + payload


TEXT, BINARY, GOES_ON, LAST = 0x81, 0x82, 0x00, 0x80
PING, PONG, CLOSE = 0x89, 0x8A, 0x88
payloads = st.binary(max_size=6) | st.integers(120, 130).map(bytes) | st.just(b"\r\n\r\n")
whole = st.builds(frame, st.sampled_from([TEXT, TEXT, BINARY]), payloads, wide=st.booleans())
control = st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=4))
odd = st.one_of(
    st.builds(frame, st.sampled_from([0x01, 0x02, GOES_ON, LAST]), payloads),
    st.builds(frame, st.sampled_from([TEXT, BINARY]), st.sampled_from([bytes(301), bytes(65536)])),
    st.builds(frame, st.sampled_from([0xC1, 0x83, 0x09]), payloads),
    st.builds(frame, st.just(TEXT), payloads, mask=st.just(0x80)),
    st.builds(frame, st.just(CLOSE), st.sampled_from([b"", b"\x03\xe8", b"\x03\xe9bye"])),
)


@st.composite
def fragmented(draw: st.DrawFn) -> bytes:
    parts = draw(st.lists(payloads, min_size=2, max_size=3))
    firsts = [draw(st.sampled_from([0x01, 0x02])), *[GOES_ON] * (len(parts) - 2), LAST]
    between = draw(st.just(b"") | control)
    return between.join(map(frame, firsts, parts))


streams = st.lists(whole | whole | control | fragmented() | odd, max_size=8).map(b"".join)


async def opened(made: type[ClientConnection], *, along: bytes = b"") -> ClientConnection:
    """A connection behind its handshake; `along` comes with the end of that."""
    protocol = ClientProtocol(parse_uri("ws://test/"), max_size=LARGEST)
    connection = made(protocol, max_queue=None)
    wire = Wire()
    connection.connection_made(wire)
    asking = asyncio.create_task(connection.handshake())
    await asyncio.sleep(0)
    assert connection.request is not None
    accepted = accept_key(connection.request.headers["Sec-WebSocket-Key"])
    answer = (
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Accept: {accepted}\r\n\r\n"
    ).encode()
    wire.written.clear()
    for start, stop in pairwise((0, 50, len(answer) - 2, len(answer) + len(along))):
        connection.data_received((answer + along)[start:stop])
    await asking
    return connection


async def read(
    made: type[ClientConnection], said: bytes, cuts: Sequence[int], *, along: int
) -> Read:
    """Have a connection read this; the first `along` bytes come with the end of the handshake."""
    connection = await opened(made, along=said[:along])
    messages: list[bytes] = []
    if isinstance(connection, DirectConnection):
        connection.hand_over(messages.extend, largest=LARGEST)
    edges = sorted({along, len(said), *(cut for cut in cuts if along < cut < len(said))})
    for start, stop in pairwise(edges):
        connection.data_received(said[start:stop])
    connection.eof_received()
    connection.connection_lost(None)
    with pytest.raises(ConnectionClosed) as end:
        while True:
            messages.append(await connection.recv(decode=False))
    assert isinstance(connection.transport, Wire)
    # What goes out is masked at random: its length says enough.
    return Read(messages, [len(each) for each in connection.transport.written], str(end.value))


@given(streams, st.lists(st.integers(0, 80), max_size=6), st.integers(0, 20) | st.just(0))
def test_whatever_arrives_is_read_as_websockets_reads_it(
    said: bytes, cuts: list[int], along: int
) -> None:
    async def both() -> tuple[Read, Read]:
        along_ = min(along, len(said))
        return (
            await read(DirectConnection, said, cuts, along=along_),
            await read(ClientConnection, said, cuts, along=along_),
        )

    ours, theirs = asyncio.run(both())
    assert ours == theirs


EVERYTHING = b"".join(
    (
        *(frame(TEXT, b"one"), frame(TEXT, bytes(130)), frame(TEXT, b"", wide=True)),
        *(frame(PING, b"?"), frame(0x01, b"tw"), frame(PONG, b"")),
        *(frame(GOES_ON, b""), frame(LAST, b"o"), frame(BINARY, b"three"), frame(TEXT, bytes(300))),
        *(frame(TEXT, b"four"), frame(CLOSE, b"\x03\xe8bye"), frame(TEXT, b"five")),
    )
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 1000])
@pytest.mark.parametrize("last", [b"", frame(TEXT, bytes(301)), frame(TEXT, bytes(65536))])
@pytest.mark.parametrize("along", [0, 5])
async def test_a_read_may_end_anywhere(size: int, last: bytes, along: int) -> None:
    said = EVERYTHING.replace(frame(CLOSE, b"\x03\xe8bye"), last) if last else EVERYTHING
    cuts = range(0, len(said), size)
    ours = await read(DirectConnection, said, cuts, along=along)
    assert ours == await read(ClientConnection, said, cuts, along=along)


@pytest.mark.parametrize("more", [0, 1])
async def test_many_messages_at_once_are_handed_over_a_few_in_each_turn(more: int) -> None:
    connection = await opened(DirectConnection)
    assert isinstance(connection, DirectConnection)
    assert isinstance(connection.transport, Wire)
    found: list[list[bytes]] = []
    connection.hand_over(found.append, largest=LARGEST)
    said = [b"message %d" % number for number in range(3 * MOST_AT_ONCE - FEW + more)]
    connection.data_received(b"".join(frame(TEXT, each) for each in said))
    while connection.behind:
        assert connection.transport.paused
        known = len(found)
        for _ in range(2):  # whoever is told of some has a turn before there are more
            assert len(found) == known
            await asyncio.sleep(0)
    assert not connection.transport.paused
    last = [MOST_AT_ONCE] * 2 + [1] * more
    assert [len(messages) for messages in found] == [FEW, 16, 32, 64, *last]
    assert [each for messages in found for each in messages] == said


async def test_what_came_before_the_end_is_handed_over_before_it() -> None:
    connection = await opened(DirectConnection)
    assert isinstance(connection, DirectConnection)
    found: list[bytes] = []
    connection.hand_over(found.extend, largest=LARGEST)
    said = [b"message %d" % number for number in range(3 * MOST_AT_ONCE)]
    for half in said[:MOST_AT_ONCE], said[MOST_AT_ONCE:]:  # reading may not stop at once
        connection.data_received(b"".join(frame(TEXT, each) for each in half))
    assert len(found) == FEW
    connection.connection_lost(None)
    assert found == said


async def test_a_ping_is_answered_behind_the_messages_before_it() -> None:
    connection = await opened(DirectConnection)
    assert isinstance(connection, DirectConnection)
    assert isinstance(connection.transport, Wire)
    found: list[int] = []
    written = connection.transport.written
    connection.hand_over(lambda said: found.extend([len(written)] * len(said)), largest=LARGEST)
    text, ping = frame(TEXT, b"hello"), frame(PING, b"")
    connection.data_received((text * (FEW + 1) + ping) * 2 + text)
    while connection.behind:
        await asyncio.sleep(0)
    assert found == [0] * (FEW + 1) + [1] * (FEW + 1) + [2]


async def test_what_came_before_the_handshake_was_looked_at_is_handed_over() -> None:
    connection = await opened(DirectConnection)
    assert isinstance(connection, DirectConnection)
    found: list[bytes] = []
    connection.data_received(frame(TEXT, b"hello") * (2 * FEW))
    connection.hand_over(found.extend, largest=LARGEST)
    assert found == [b"hello"] * (2 * FEW)


async def test_what_nobody_will_take_does_not_keep_a_connection_from_its_end() -> None:
    connection = await opened(DirectConnection)
    connection.data_received(frame(TEXT, b"") * (2 * MOST_AT_ONCE))
    connection.connection_lost(None)
    with pytest.raises(ConnectionClosed):
        await connection.recv()


async def test_what_nobody_took_is_forgotten_with_the_connection() -> None:
    connection = await opened(DirectConnection)
    connection.data_received(frame(TEXT, b"hello"))
    connection.connection_lost(None)
    with pytest.raises(ConnectionClosed):
        await connection.recv()
