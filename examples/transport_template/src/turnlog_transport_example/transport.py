"""The transport: a POST for each request, and the lines that come back.

The one rule: a request goes out once. What failed is said in one of three errors, so that turnlog
knows what to do: `NotSent`, `Unheard` or `Lost`.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from inspect import isawaitable
from urllib.parse import urlsplit

import httpx2
from turnlog.canonical import dumps
from turnlog.errors import (
    Closed,
    ConfigurationError,
    Lost,
    NotSent,
    NotSupported,
    TransportError,
    Unheard,
)
from turnlog.ports import Create, Endpoint, Frame, Late, Profile, Request
from turnlog.state import Parent

from . import wire

PROFILE = Profile(
    name="example",
    base_url="https://api.example.com",
    stored_ids=False,
    store_default=False,
    key_env="EXAMPLE_API_KEY",
)
"""What the provider can do: full requests, and nothing is kept. Its quirks are fields of this."""

NAME = "example"
OPTIONS = frozenset({"max_line_bytes"})
THIS_MACHINE = frozenset({"127.0.0.1", "::1", "localhost"})

_BEFORE = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.LocalProtocolError,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
)
"""What goes wrong before anything of a request is written."""


def open_transport(endpoint: Endpoint) -> ExampleTransport:
    """The transport `example`; nothing is connected, and no key needed, before the first request.

    Options: `max_line_bytes` (64 MiB). Raises ConfigurationError for what does not fit.
    """
    unknown = endpoint.options.keys() - OPTIONS
    if unknown or endpoint.profile not in (None, NAME, PROFILE):
        what = ", ".join(sorted(unknown)) or f"the profile {endpoint.profile!r}"
        raise ConfigurationError(f"the transport {NAME!r} does not know {what}")
    max_line = endpoint.options.get("max_line_bytes", 64 * 1024 * 1024)
    if not isinstance(max_line, int) or max_line < 1:
        raise ConfigurationError("the option 'max_line_bytes' is a whole number above zero")
    return ExampleTransport(endpoint, max_line=max_line)


class ExampleTransport:
    """A `turnlog.ports.Transport`. It needs no base class: having the methods is enough."""

    def __init__(self, endpoint: Endpoint, *, max_line: int) -> None:
        self._endpoint = endpoint
        self._max_line = max_line
        self._client: httpx2.AsyncClient | None = None
        self._waits: set[asyncio.Timeout] = set()
        self._closed = False

    @property
    def profile(self) -> Profile:
        """What the provider can do."""
        return PROFILE

    def choose(
        self, *, before: str | None = None, failed: bool = False, background: bool = False
    ) -> str:
        """There is one way, and this is its name."""
        return NAME

    def check(self) -> None:
        """Raise ConfigurationError where a request cannot go out."""
        address = urlsplit(self._address)
        clear = address.scheme != "https" and address.hostname not in THIS_MACHINE
        if not address.hostname or (clear and not self._endpoint.allow_insecure):
            raise ConfigurationError("base_url needs https, since the key goes there")
        if not self._key:
            raise ConfigurationError(f"no key: pass api_key=, or set {PROFILE.key_env}")

    def remembers(self, parent: Parent, *, via: str, conversation: str) -> bool:
        """Never: the provider keeps nothing."""
        return False

    def on_late(self, tell: Callable[[Late], None]) -> None:
        """What is left is cut off, so there is never anything to tell."""

    async def warm(self) -> None:
        """Nothing to connect ahead; raises Closed."""
        self._check_open()

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Send a `Create` and yield its frames, as `turnlog.ports.Transport` says."""
        self._check_open()
        if not isinstance(request, Create):
            raise NotSupported(f"the transport {NAME!r} has no {type(request).__name__}")
        content = dumps(request.body)  # InvalidInput, before anything is connected
        key = await self._asked_key()
        times, heard = self._endpoint.timeouts, False
        end = _later(times.total)
        async with aclosing(self._exchange(content, key)) as frames:
            while True:
                next_one = _later(times.idle if heard else times.first_frame)
                frame = await self._next(frames, min(end, next_one), heard)
                heard = True
                yield frame
                if frame.terminal is not None:
                    return

    async def close(self) -> None:
        """End every wait with Closed, and let go of the connections. Idempotent."""
        self._closed = True
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(_now())
        if self._client is not None:
            await self._client.aclose()

    # -- inside ----------------------------------------------------------------------------

    async def _next(self, frames: AsyncGenerator[Frame], end: float, heard: bool) -> Frame:
        try:
            async with self._until(end):
                return await anext(frames)
        except (TimeoutError, httpx2.HTTPError) as error:
            self._check_open()
            raise _failed(error, heard) from error

    @asynccontextmanager
    async def _until(self, end: float) -> AsyncGenerator[None]:
        # A deadline never stands around a `yield` of `send`: whoever takes the frames may be slow.
        self._check_open()
        async with asyncio.timeout_at(end) as wait:
            self._waits.add(wait)
            try:
                yield
            finally:
                self._waits.discard(wait)

    async def _exchange(self, content: bytes, key: str) -> AsyncGenerator[Frame]:
        headers = {**self._endpoint.headers, "Authorization": f"Bearer {key}"}
        address = f"{self._address.rstrip('/')}/talk"
        asking = self._opened().stream("POST", address, content=content, headers=headers)
        async with asking as response:
            if not response.is_success:
                said = (await response.aread()).replace(key.encode(), b"***")
                yield wire.refusal(response.status_code, response.headers, said)
                return
            async with aclosing(self._lines(response)) as lines:
                async for line in lines:
                    yield wire.read(line)
        raise httpx2.ReadError("the answer ended without a terminal frame")

    async def _lines(self, response: httpx2.Response) -> AsyncGenerator[bytes]:
        # Only b"\n" ends a line: `aiter_lines` would also break at what may stand inside of JSON.
        rest = bytearray()
        async for chunk in response.aiter_bytes():
            rest += chunk
            if b"\n" in chunk:
                *lines, rest = rest.split(b"\n")
                for line in filter(None, lines):
                    yield bytes(line)
            if len(rest) > self._max_line:
                raise httpx2.ReadError(f"a line has more than {self._max_line} bytes")

    def _opened(self) -> httpx2.AsyncClient:
        if self._client is None:
            times, tls = self._endpoint.timeouts, self._endpoint.tls
            try:
                trusted = ssl.create_default_context(cafile=tls) if isinstance(tls, str) else tls
                self._client = httpx2.AsyncClient(
                    params=dict(self._endpoint.query),
                    timeout=httpx2.Timeout(None, connect=times.connect, pool=times.queue),
                    proxy=self._endpoint.proxy,
                    verify=trusted or True,
                )
            except (OSError, ValueError, ImportError, httpx2.InvalidURL) as error:
                raise ConfigurationError(f"`proxy` or `tls` cannot be used: {error}") from error
        return self._client

    @property
    def _address(self) -> str:
        return self._endpoint.base_url or PROFILE.base_url or ""

    @property
    def _key(self) -> object:
        return self._endpoint.key or os.environ.get(PROFILE.key_env or "")

    async def _asked_key(self) -> str:
        self.check()
        key = self._key
        try:
            given = key() if callable(key) else key
            found = await given if isawaitable(given) else given
        except Exception as error:  # the callable is the application's, and nothing was sent
            name = type(error).__name__
            raise NotSent(f"the callable that gives the key failed: {name}") from error
        if not isinstance(found, str) or not (found and found.isascii() and found.isprintable()):
            raise ConfigurationError("the key is not text that a header can carry")
        return found

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the transport was closed: open another one")


def _failed(error: Exception, heard: bool) -> TransportError:
    why = str(error) or type(error).__name__
    if heard:
        return Lost(f"the answer broke off: {why}")
    if isinstance(error, _BEFORE):
        return NotSent(f"cannot reach the provider: {why}")
    return Unheard(f"the provider said nothing: {why}")


def _later(seconds: float | None) -> float:
    return float("inf") if seconds is None else _now() + seconds


def _now() -> float:
    return asyncio.get_running_loop().time()
