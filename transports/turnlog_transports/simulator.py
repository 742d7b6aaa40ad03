"""A provider to run on this machine: start it, script it, and point any client at its address.

The one rule: loopback only unless told otherwise, no key needed, and the same script gives the same
bytes. `turnlog serve-simulator` runs it from the command line, and so does
`python -m turnlog_transports.simulator`. It needs the extra `simulator`.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from turnlog.canonical import JsonObject
from turnlog.errors import ConfigurationError, TurnlogError

from . import script as scripts
from . import transcript as transcripts
from .admission import MAX_IN_FLIGHT, MAX_LANES, Rules
from .memory import KEEP
from .pacing import Makers
from .provider import Playable, Provider

try:
    import uvicorn
    from uvicorn.server import ServerState

    from .carriers import PATH, Connections
    from .hearing import Count, Heard
    from .server import Service
except ImportError as error:
    raise ConfigurationError(
        "the simulator needs its HTTP server: install it with `pip install 'turnlog[simulator]'`"
    ) from error

_CREATES = (("POST", PATH), ("response.create", PATH))
_LARGEST_MESSAGE = 1 << 30
_KEEP_ALIVE = 75


Ready: TypeAlias = "Callable[[Simulator], None]"
"""What is told that a simulator takes requests."""


class Simulator:
    """A provider on loopback, over HTTP and WebSocket, as an async context manager.

    It answers from a script (`turnlog.testing`), a `Transcript`, or, with None, as an echo for
    ever. `key` is what clients must present, if any; `checks` and `seed` are those of the
    provider; a `port` of 0 takes a free one.

    A WebSocket carries `max_in_flight` responses at once on its lanes, of which `max_lanes` may
    have names; without `lanes` it carries one at a time, and a `stream_id` is refused. After
    `connection_seconds` it is told so and closed; None is never. With `record`, `requests` keeps
    what was asked; of the responses, the newest `keep` are kept. Raises ConfigurationError where
    the address cannot be had.
    """

    def __init__(
        self,
        script: Playable = None,
        *,
        key: str | None = None,
        checks: bool | None = None,
        seed: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
        lanes: bool = True,
        max_in_flight: int = MAX_IN_FLIGHT,
        max_lanes: int = MAX_LANES,
        connection_seconds: float | None = None,
        record: bool = True,
        keep: int = KEEP,
    ) -> None:
        self._makers = Makers()
        self._provider = Provider(
            script, checks=checks, seed=seed, keep=keep, started=self._makers.start
        )
        self._host = host
        self._port = port
        state = ServerState()
        self._connections = Connections(state)
        self._service = Service(
            self._provider,
            key=key,
            connections=self._connections,
            rules=Rules(lanes=lanes, max_in_flight=max_in_flight, max_lanes=max_lanes),
            seconds=connection_seconds,
            record=record,
        )
        config = uvicorn.Config(
            self._service.app,
            http="h11",
            ws="websockets-sansio",
            ws_max_size=_LARGEST_MESSAGE,
            ws_per_message_deflate=False,
            timeout_keep_alive=_KEEP_ALIVE,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._server.server_state = state

    @property
    def base_url(self) -> str:
        """The address to give to a client, such as `http://127.0.0.1:8080/v1`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/v1"

    @property
    def requests(self) -> list[Heard]:
        """Everything that clients asked so far, in order."""
        return self._service.requests

    @property
    def creates(self) -> list[JsonObject]:
        """The bodies of the creates among them, whatever they came by."""
        return [
            heard.body
            for heard in self.requests
            if heard.body is not None and (heard.method, heard.path) in _CREATES
        ]

    @property
    def left(self) -> int:
        """How many entries of the script are still to be answered."""
        return self._provider.left

    @property
    def websocket(self) -> bool:
        """Whether a WebSocket may be opened; False refuses upgrades (426) and closes open ones."""
        return self._service.websocket

    @websocket.setter
    def websocket(self, offered: bool) -> None:
        self._service.websocket = offered

    @property
    def connections(self) -> Count:
        """How many WebSockets are open, were at most at once, and were opened."""
        return self._service.sockets

    @property
    def in_flight(self) -> Count:
        """How many responses are under way on WebSockets, were at most at once, and were begun."""
        return self._service.in_flight

    def release(self, events: int | None = None) -> None:
        """Let background responses that are held go on: for so many events, or to their end."""
        self._provider.release(events)

    def play(self, script: Playable) -> None:
        """Answer from this from now on; stored responses stay."""
        self._provider.play(script)

    async def __aenter__(self) -> Self:
        listener = self._listen()
        self._port = listener.getsockname()[1]
        self._server.config.load()
        self._server.lifespan = self._server.config.lifespan_class(self._server.config)
        await self._server.startup(sockets=[listener])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in self._server.servers:
            server.close()
        self._connections.abort()
        await self._makers.stop()
        await asyncio.gather(*self._server.server_state.tasks, return_exceptions=True)
        for server in self._server.servers:
            await server.wait_closed()

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listener = socket.create_server((self._host, self._port), family=family)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {self._host}, port {self._port}: {error}"
            ) from error
        # Connections inherit it. Without it each small frame waits for the client to acknowledge
        # the one before: 40 ms a turn (asyncio sets it only for sockets that name their protocol).
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener


# -- by hand -------------------------------------------------------------------------------


def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    script: str | Path | None = None,
    transcript: str | Path | None = None,
    key: str | None = None,
    connection_seconds: float | None = None,
    on_ready: Ready,
) -> None:
    """Run a simulator until the process is interrupted or terminated.

    `on_ready` is called once it takes requests. `script` and `transcript` are paths of JSON files;
    without either it is an echo. It may run for long, and keeps no record of what was asked.
    Raises InvalidInput where a file cannot be read, and ConfigurationError where both are given or
    the address cannot be had.
    """
    if script is not None and transcript is not None:
        raise ConfigurationError("a simulator plays a script or a transcript: name one of them")
    playable: Playable = None
    if script is not None:
        playable = scripts.load(script)
    if transcript is not None:
        playable = transcripts.load(transcript)
    # A simulator that is started again must not repeat the ids of the one before.
    simulator = Simulator(
        playable,
        key=key,
        seed=secrets.token_hex(4),
        host=host,
        port=port,
        connection_seconds=connection_seconds,
        record=False,
    )
    asyncio.run(_until_stopped(simulator, on_ready))


async def _until_stopped(simulator: Simulator, on_ready: Ready) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Where there are no such handlers, an interrupt ends asyncio.run all the same.
        with suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(number, stop.set)
    async with simulator:
        on_ready(simulator)
        await stop.wait()


def announce(simulator: Simulator) -> None:
    """Print the address to give to clients."""
    print(simulator.base_url, flush=True)


def main(arguments: Sequence[str] | None = None, *, on_ready: Ready = announce) -> None:
    """The command `python -m turnlog_transports.simulator`."""
    parser = argparse.ArgumentParser(
        prog="python -m turnlog_transports.simulator",
        description="Run a provider on this machine, which echoes where it has no script.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--key", help="what clients must present; none by default")
    parser.add_argument(
        "--connection-seconds", type=float, help="how long a WebSocket lives; for ever by default"
    )
    played = parser.add_mutually_exclusive_group()
    played.add_argument("--script", help="a JSON file with replies")
    played.add_argument("--transcript", help="a JSON file with recorded exchanges")
    found = parser.parse_args(arguments)
    try:
        serve(
            found.host,
            found.port,
            script=found.script,
            transcript=found.transcript,
            key=found.key,
            connection_seconds=found.connection_seconds,
            on_ready=on_ready,
        )
    except TurnlogError as problem:
        parser.exit(2, f"error: {problem}\n")


if __name__ == "__main__":
    main()
