"""A transport that answers in this process, from a script or a recorded transcript.

The one rule: no socket, and still the simulated provider whole: what it refuses, cuts
or leaves hanging reaches the caller as the same frames and errors that a network would bring.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, closing, suppress
from itertools import count
from pathlib import Path
from typing import assert_never, cast

from turnlog.canonical import Json, JsonObject, dumps, loads_object
from turnlog.errors import Closed, ConfigurationError, Lost, NotSent, NotSupported, Unheard
from turnlog.ports import (
    Cancel,
    Compact,
    Create,
    Delete,
    Endpoint,
    Frame,
    Late,
    Profile,
    Request,
    Retrieve,
    Timeouts,
)
from turnlog.state import Parent
from turnlog.testing.scripts import Reply

from . import script, transcript, wire
from .answer import Answer
from .generation import Cut, Garble, Send, Source, Stall
from .pacing import Makers, play
from .profiles import profile_for
from .provider import Given, Playable, Provider

PROFILE = Profile(
    name="replay",
    retrieve=True,
    background=True,
    compact=True,
    warm_by=frozenset({"replay"}),
    reasoning_replay=True,
    key_env=None,
)
"""What the simulated provider can do, as seen without a network."""


def open_transport(endpoint: Endpoint) -> ReplayTransport:
    """The transport for an endpoint, whose options say what to answer.

    `script` is a list of replies, of callables, or of JSON entries, or the path of a script file;
    `transcript` is the path of a transcript file. `checks` and `seed` are those of
    `ReplayTransport`. Raises ConfigurationError where neither or both are given, and InvalidInput
    where what they name cannot be read.
    """
    options = dict(endpoint.options)
    known = {"script", "transcript", "checks", "seed"}
    if options.keys() - known or ("script" in options) == ("transcript" in options):
        raise ConfigurationError(
            "the replay transport needs an option `script` or `transcript`, and takes"
            f" `checks` and `seed`; it was given {', '.join(sorted(options)) or 'none'}"
        )
    checks, seed = options.get("checks"), options.get("seed", "")
    if not isinstance(checks, bool | None) or not isinstance(seed, str):
        raise ConfigurationError("`checks` is true, false or None, and `seed` is text")
    named = endpoint.profile
    return ReplayTransport(
        _playable(options),
        checks=checks,
        seed=seed,
        profile=profile_for(None, named) if isinstance(named, str) else named,
        timeouts=endpoint.timeouts,
    )


def _playable(options: Mapping[str, object]) -> Playable:
    recorded, scripted = options.get("transcript"), options.get("script")
    if isinstance(recorded, (str, Path)):
        return transcript.load(recorded)
    if isinstance(scripted, (str, Path)):
        return script.load(scripted)
    if not isinstance(scripted, (list, tuple)):
        raise ConfigurationError(
            "`script` is a list of replies or the path of a script file, and `transcript` the path"
            " of a transcript file"
        )
    entries = cast("list[object]", scripted)
    return [_entry(entry, place) for place, entry in enumerate(entries, start=1)]


def _entry(entry: object, place: int) -> Reply | Callable[[JsonObject], Reply]:
    if isinstance(entry, Reply):
        return entry
    if callable(entry):
        return cast("Callable[[JsonObject], Reply]", entry)
    # Whatever else it is, reading it says so.
    return script.parse_entry(cast(Json, entry), place)


class ReplayTransport:
    """A transport that answers from a script or a transcript; None is the echo.

    It stands for one connection that stays open: unstored responses are remembered like on a
    WebSocket, until a fault cuts it. With a profile that has lanes, each conversation has one of
    its own. What a WebSocket cannot carry goes beside it, as over HTTP: background responses,
    their streams, cancelling, compaction. `requests` holds the bodies of all creates, in order.
    With `checks` it refuses what the service refuses: by default a script does and a transcript,
    which is answered in order whatever was asked, does not. `seed` stands in the ids it makes up;
    `timeouts` are the deadlines of a response, on the time of the event loop.
    """

    def __init__(
        self,
        playable: Playable,
        *,
        checks: bool | None = None,
        seed: str = "",
        profile: Profile | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.requests: list[JsonObject] = []
        self._makers = Makers()
        self._provider = Provider(playable, checks=checks, seed=seed, started=self._makers.start)
        self._profile = profile or PROFILE
        self._timeouts = timeouts or Timeouts()
        self._numbers = count(1)
        self._connection: str | None = None
        self._closed = asyncio.Event()

    def choose(
        self, *, before: str | None = None, failed: bool = False, background: bool = False
    ) -> str:
        """`replay`."""
        return "replay"

    @property
    def profile(self) -> Profile:
        """What the simulated provider can do."""
        return self._profile

    @property
    def left(self) -> int:
        """How many entries of the script are still to be answered."""
        return self._provider.left

    def release(self, events: int | None = None) -> None:
        """Let background responses that are held go on: for so many events, or to their end."""
        self._provider.release(events)

    def check(self) -> None:
        """Nothing is needed: neither a key nor an address."""

    def remembers(self, parent: Parent, *, via: str, conversation: str) -> bool:
        """Whether the connection that made an unstored parent is open and still holds it."""
        if parent.connection is None or parent.connection != self._connection:
            return False
        return self._provider.remembers(parent.connection, parent.response)

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Answer a request; raises what `turnlog.ports.Transport.send` lists."""
        self._check_open()
        connection, lane = self._place(request)
        answer = self._ask(request, connection, lane)
        if isinstance(answer, Answer):
            await self._pause(0.0)
            yield wire.answer(answer.status, answer.headers, dumps(answer.body))
            return
        with closing(answer):
            async with aclosing(self._play(answer, connection)) as frames:
                async for raw in frames:
                    yield wire.read(raw, connection=connection, lane=lane)

    def on_late(self, tell: Callable[[Late], None]) -> None:
        """Nothing is drained here, so nothing is told."""

    async def warm(self) -> None:
        """Nothing to connect ahead; raises Closed."""
        self._check_open()

    async def close(self) -> None:
        """Close; streams under way raise Closed. Idempotent."""
        self._closed.set()
        self._provider.wake()
        await self._makers.stop()

    # -- inside ----------------------------------------------------------------------------

    def _place(self, request: Request) -> tuple[str | None, str | None]:
        """The connection and the lane that a request takes; none goes beside them."""
        if not isinstance(request, Create) or request.body.get("background"):
            return None, None
        lane = request.conversation if self._profile.lanes else ""
        return self._connected(), lane or None

    def _ask(self, request: Request, connection: str | None, lane: str | None) -> Given:
        match request:
            case Create(body=body):
                sent = self._taken(body)
                asked = sent if connection is not None else {**sent, "stream": True}
                return self._provider.create(asked, connection=connection, lane=lane)
            case Retrieve(response=response, starting_after=after):
                stream = after is not None
                return self._provider.retrieve(response, stream=stream, starting_after=after)
            case Delete(response=response):
                return self._provider.delete(response)
            case Cancel(response=response):
                return self._provider.cancel(response)
            case Compact(body=body):
                return self._provider.compact(loads_object(dumps(body)))
            case _:
                # It may have been made by a newer engine than this was written for.
                raise NotSupported(f"the replay transport has no {type(request).__name__}")

    def _taken(self, body: JsonObject) -> JsonObject:
        # A copy by way of bytes: what goes out cannot change behind the sender's back.
        sent = loads_object(dumps(body))
        self.requests.append(sent)
        return sent

    def _connected(self) -> str:
        if self._connection is None:
            refused = self._provider.upgrade()
            if refused is not None:
                raise NotSent(
                    f"the provider refused to connect: HTTP {refused.status}",
                    status=refused.status,
                )
            self._connection = f"replay-{next(self._numbers)}"
        return self._connection

    async def _play(self, source: Source, connection: str | None) -> AsyncGenerator[str | bytes]:
        heard = False
        end = _later(self._timeouts.total)

        async def wait(seconds: float) -> None:
            quiet = self._timeouts.idle if heard else self._timeouts.first_frame
            left = min(end, _later(quiet)) - _now()
            await self._pause(min(seconds, left))
            if left <= seconds:
                raise self._gone(heard, connection, f"was silent for {left:.2g} seconds")

        async with aclosing(play(source, wait)) as steps:
            async for step in steps:
                match step:
                    case Send(event=event):
                        yield dumps(event)
                    case Garble(text=text):
                        yield text
                    case Stall():
                        await wait(math.inf)
                    case Cut():
                        raise self._gone(heard, connection, "dropped the connection")
                    case _:
                        assert_never(step)
                heard = True
        if not source.terminates:
            how = "ended the response without a terminal frame"
            raise self._gone(heard, connection, how)

    def _gone(self, heard: bool, connection: str | None, how: str) -> Lost | Unheard:
        if connection is not None:
            self._provider.disconnect(connection)
            self._connection = None if connection == self._connection else self._connection
        return Lost(f"the provider {how}") if heard else Unheard(f"the provider {how}")

    async def _pause(self, seconds: float) -> None:
        """Let others run for so long; raises Closed as soon as the transport is closed."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), seconds)
        else:
            await asyncio.sleep(0)
        self._check_open()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise Closed("the transport was closed")


def _later(seconds: float | None) -> float:
    return math.inf if seconds is None else _now() + seconds


def _now() -> float:
    return asyncio.get_running_loop().time()
