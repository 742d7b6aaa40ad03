"""Every transport of ours passes the contract, the network ones against the simulator."""

from collections.abc import Callable, Sequence

import pytest

from turnlog.ports import Endpoint, Timeouts, Transport
from turnlog.testing.scripts import Reply
from turnlog.testing.transport_contract import TransportContract
from turnlog_transports import fallback, http, replay, websocket
from turnlog_transports.profiles import OPENAI
from turnlog_transports.simulator import Simulator


class Networked(TransportContract):
    """A transport to a simulator of its own in each test."""

    open_transport: Callable[[Endpoint], Transport]
    simulator: Simulator | None = None

    async def serve(self, replies: Sequence[Reply]) -> Transport:
        self.simulator = await Simulator(list(replies)).__aenter__()
        endpoint = Endpoint(
            base_url=self.simulator.base_url, profile=OPENAI, timeouts=Timeouts(idle=5)
        )
        return type(self).open_transport(endpoint)

    async def stop(self) -> None:
        if self.simulator is not None:
            await self.simulator.__aexit__(None, None, None)


class TestWebSocket(Networked):
    open_transport = staticmethod(websocket.open_transport)


class TestHttp(Networked):
    open_transport = staticmethod(http.open_transport)


class TestAuto(Networked):
    open_transport = staticmethod(fallback.open_transport)


class TestReplay(TransportContract):
    async def serve(self, replies: Sequence[Reply]) -> Transport:
        return replay.open_transport(Endpoint(options={"script": list(replies)}))


async def test_a_transport_that_cannot_be_served_says_so() -> None:
    with pytest.raises(NotImplementedError):
        await TransportContract().serve([])
