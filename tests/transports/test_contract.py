"""Every transport of ours passes the contract, the network ones against the simulator."""

import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from turnlog.ports import Endpoint, Timeouts, Transport
from turnlog.testing.scripts import Reply
from turnlog.testing.transport_contract import TransportContract
from turnlog_transports import fallback, http, replay, websocket
from turnlog_transports.profiles import OPENAI
from turnlog_transports.simulator import Simulator

TLS = ssl.create_default_context()
"""Made once: to read the certificates of a machine takes longer than most tests."""


class Networked(TransportContract):
    """A transport to a simulator of its own in each test."""

    open_transport: Callable[[Endpoint], Transport]
    lanes = True
    simulator: Simulator | None = None
    port = 0

    async def serve(
        self, replies: Sequence[Reply], *, timeouts: Timeouts | None = None
    ) -> Transport:
        await self.appear(replies)
        assert self.simulator is not None
        return self.opened(self.simulator.base_url, timeouts or Timeouts(idle=5))

    async def unreachable(self) -> Transport:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        return self.opened(f"http://127.0.0.1:{self.port}/v1", Timeouts())

    async def appear(self, replies: Sequence[Reply]) -> None:
        simulator = Simulator(list(replies), lanes=self.lanes, port=self.port)
        self.simulator = await simulator.__aenter__()

    async def stop(self) -> None:
        if self.simulator is not None:
            await self.simulator.__aexit__(None, None, None)

    def opened(self, base_url: str, timeouts: Timeouts) -> Transport:
        profile = replace(OPENAI, lanes=self.lanes)
        endpoint = Endpoint(base_url=base_url, profile=profile, timeouts=timeouts, tls=TLS)
        return type(self).open_transport(endpoint)


class TestWebSocket(Networked):
    open_transport = staticmethod(websocket.open_transport)


class TestHttp(Networked):
    open_transport = staticmethod(http.open_transport)


class TestAuto(Networked):
    open_transport = staticmethod(fallback.open_transport)


class TestAutoWithoutLanes(Networked):
    open_transport = staticmethod(fallback.open_transport)
    lanes = False


class TestWebSocketWithHttpBesideIt(Networked):
    open_transport = staticmethod(fallback.open_websocket)
    lanes = False


class TestReplay(TransportContract):
    async def serve(
        self, replies: Sequence[Reply], *, timeouts: Timeouts | None = None
    ) -> Transport:
        options = {"script": list(replies)}
        return replay.open_transport(Endpoint(options=options, timeouts=timeouts or Timeouts()))


async def test_a_transport_that_cannot_be_served_says_so() -> None:
    with pytest.raises(NotImplementedError):
        await TransportContract().serve([])
    with pytest.raises(NotImplementedError):
        await TransportContract().appear([])
