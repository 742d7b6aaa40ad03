"""Every transport of ours passes the contract, the network ones against the simulator."""

import math
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from turnlog.ports import Endpoint, Timeouts, Transport
from turnlog.testing.scripts import Reply
from turnlog.testing.transport_contract import TransportContract
from turnlog_transports import fallback, http, replay, websocket
from turnlog_transports.profiles import OPENAI
from turnlog_transports.simulator import Simulator

from ..faults.given import in_no_time

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


class Busy(TestReplay):
    """A machine that is too busy for anything to come in time, so many times."""

    __test__ = False

    def __init__(self, times: float) -> None:
        self.left = times

    async def serve(
        self, replies: Sequence[Reply], *, timeouts: Timeouts | None = None
    ) -> Transport:
        self.left -= 1
        if self.left < 0:
            return await super().serve(replies, timeouts=timeouts)
        late = [reply.but(stall_after=0) for reply in replies]
        return await super().serve(late, timeouts=Timeouts(first_frame=1))


DEADLINES = [
    TransportContract.test_w23_silence_before_the_first_frame_is_unheard,
    TransportContract.test_w23_silence_behind_a_frame_is_lost,
    TransportContract.test_a_slow_answer_takes_longer_than_any_silence_may,
    TransportContract.test_an_answer_that_never_ends_is_lost_in_the_end,
]


@pytest.mark.parametrize("test", DEADLINES)
@in_no_time
async def test_a_busy_machine_is_given_more_time(
    test: Callable[[TransportContract], Awaitable[None]],
) -> None:
    busy = Busy(1)
    await test(busy)
    assert busy.left == -1
    with pytest.raises(AssertionError):
        await test(Busy(math.inf))
