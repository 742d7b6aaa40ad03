"""A provider to soak in a process of its own: `python -m tests.soak.provider <seed> <load>`.

It prints the address to give to a client, and goes on until its input ends; then it prints what it
counted. Between it and its clients stands a wire that is cut now and then, whatever goes over it.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import struct
import sys
from random import Random
from urllib.parse import urlsplit

from turnlog_transports.simulator import Simulator

from .story import LOADS, Model

REQUESTS = 1_000_000
"""For how many requests the script is long enough."""

_RESET = struct.pack("ii", 1, 0)


class End(asyncio.Protocol):
    """One end of a connection through the wire: what arrives here leaves at the other end."""

    def __init__(self, wire: Wire, other: End | None = None) -> None:
        self.wire = wire
        self.other = other
        self.transport: asyncio.Transport | None = None
        self.waiting: list[bytes] = []
        self.first = other is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there; the first end opens the second."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.other is None:
            self.wire.opened(self)
        else:
            transport.writelines(self.other.waiting)
            self.other.waiting.clear()
            self.other.other = self
            if self.other.transport is None:
                transport.close()

    def data_received(self, data: bytes) -> None:
        """Pass it on, or keep it until the second end is open."""
        if self.first:
            self.first = False
            self.wire.asked(self, data)
        if self.other is None or self.other.transport is None:
            self.waiting.append(data)
        else:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end goes too, with what was written to it before."""
        self.transport = None
        self.wire.gone(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def cut(self, *, reset: bool) -> None:
        """End both sides without a goodbye."""
        for end in (self, self.other):
            if end is None or end.transport is None:
                continue
            if reset:
                raw: socket.socket = end.transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.transport.abort()


class Wire:
    """Passes connections on to a port, and cuts one of them now and then."""

    def __init__(self, port: int, draw: Random) -> None:
        self.ends: dict[End, None] = {}
        self.websockets: set[End] = set()
        self.most = 0
        self.cuts = 0
        self._port = port
        self._draw = draw
        self._opening: set[asyncio.Task[None]] = set()

    def opened(self, end: End) -> None:
        """A client has connected: connect to the provider."""
        self.ends[end] = None
        task = asyncio.create_task(self._open(end))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def asked(self, end: End, request: bytes) -> None:
        """A client asks for something: count the WebSockets that are open on its side.

        The provider counts one that was cut until it has heard of it; its client does not.
        """
        if b"upgrade: websocket" in request.lower():
            self.websockets.add(end)
            self.most = max(self.most, len(self.websockets))

    def gone(self, end: End) -> None:
        """A connection has ended."""
        self.ends.pop(end, None)
        self.websockets.discard(end)

    async def _open(self, end: End) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: End(self, end), "127.0.0.1", self._port)

    async def cut_now_and_then(self, every: float) -> None:
        """Cut some connection, whatever is under way on it, again and again."""
        while True:
            await asyncio.sleep(self._draw.uniform(0.1, 2 * every))
            if self.ends:
                self._draw.choice(list(self.ends)).cut(reset=self._draw.random() < 0.5)
                self.cuts += 1


async def main(seed: str, kind: str) -> None:
    """Answer until the input ends."""
    load = LOADS[kind]
    model = Model(seed, load)
    simulator = Simulator(
        [model] * REQUESTS,
        seed=seed,
        record=False,
        keep=load.keep,  # whoever continues from an older one has lost its chain
        lanes=True,
        connection_seconds=load.connection_seconds,
    )
    loop = asyncio.get_running_loop()
    async with simulator:
        wire = Wire(urlsplit(simulator.base_url).port or 0, Random(seed))
        server = await loop.create_server(lambda: End(wire), "127.0.0.1", 0)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
        cutting = asyncio.create_task(wire.cut_now_and_then(load.cuts_every))
        await asyncio.to_thread(sys.stdin.read)
        cutting.cancel()
        server.close()
    spent = resource.getrusage(resource.RUSAGE_SELF)
    counted = {
        "counts": dict(model.counts),
        "wrong": model.wrong[:20],
        "cuts": wire.cuts,
        "connections_most": wire.most,
        "connections_total": simulator.connections.total,
        "connections_left": simulator.connections.now,
        "in_flight_most": simulator.in_flight.most,
        "cpu_seconds": round(spent.ru_utime + spent.ru_stime, 1),
    }
    print(json.dumps(counted), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
