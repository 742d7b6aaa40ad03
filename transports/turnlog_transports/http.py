"""Responses over HTTP: server-sent events, plain answers, and what only HTTP can ask for.

The one rule: a request goes out once, whatever happens to it (law 10). The same frames and the
same errors come back as over a WebSocket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import quote

import httpcore2
import httpx2

from turnlog.errors import ConfigurationError, NotSupported
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
)
from turnlog.state import Parent

from . import wire
from .endpoint import Access, Life, masked
from .network import check_socks
from .progress import Progress
from .sse import Events

Frames: TypeAlias = Iterable[Frame]
"""What arrived together: an await for each of its frames would cost more than reading them.

Each is read when it is taken, so that who waits for the first one does not wait for the others.
"""

OPTIONS = frozenset({"max_frame_bytes", "max_http_connections"})

RESPONSES = "responses"
"""The path that creates a response."""

_DRAIN = 0.25
"""How many seconds a stream may take to end behind its terminal frame, and keep its connection."""


def open_transport(endpoint: Endpoint) -> HttpTransport:
    """The transport `http`; raises ConfigurationError for options that do not fit.

    Options: `max_frame_bytes` (64 MiB), `max_http_connections` (as many as there are requests).
    """
    access = Access(endpoint)
    access.known_options(OPTIONS)
    return HttpTransport(access)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A request as HTTP has it. `settles`: a plain answer must say how the response ended."""

    method: str
    path: str
    content: bytes | None = None
    query: dict[str, str] = field(default_factory=dict[str, str])
    settles: bool = False


class HttpTransport:
    """A Transport over HTTP. Everything happens on the event loop of the first `send`."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._life = Life()
        self._max_frame = int(access.option("max_frame_bytes", 64 * 1024 * 1024))
        self._max_connections = access.count("max_http_connections")
        self._client: httpx2.AsyncClient | None = None
        self._responses: httpx2.URL | None = None

    def choose(
        self, *, before: str | None = None, failed: bool = False, background: bool = False
    ) -> str:
        """`http`."""
        return "http"

    @property
    def profile(self) -> Profile:
        """What the provider can do."""
        return self._access.profile

    def check(self) -> None:
        """Raise ConfigurationError where a request cannot go out."""
        self._access.check()
        check_socks(self._access.proxy, "socksio")
        self._address(RESPONSES, {})

    def remembers(self, parent: Parent, *, via: str, conversation: str) -> bool:
        """Never: a provider keeps no memory behind an HTTP connection."""
        return False

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Send a request and yield its frames, as `ports.Transport` says.

        Raises InvalidInput for a body that is not JSON.
        """
        self._life.check()
        call = self._call(request)
        progress = Progress(self._access.endpoint.timeouts)
        async with aclosing(self._exchange(call, progress)) as arriving:
            while (frames := await self._next(arriving, progress)) is not None:
                waiting = True
                for frame in frames:
                    self._life.check()
                    progress.took(frame)
                    yield frame
                    if waiting and frame.type.endswith(".delta"):
                        waiting = False
                        # Who watches has it before the rest is read: 0.4 ms earlier.
                        await asyncio.sleep(0)

    def on_late(self, tell: Callable[[Late], None]) -> None:
        """Nothing is drained here, so nothing is told."""

    async def warm(self) -> None:
        """Nothing to connect ahead; raises Closed."""
        self._life.check()

    async def close(self) -> None:
        """Close every connection; streams under way raise Closed (W-47)."""
        await self._life.close()
        if self._client is not None:
            await self._client.aclose()

    def _call(self, request: Request) -> _Call:
        match request:
            case Create(body=body):
                content = wire.post_payload(body)
                return _Call(method="POST", path=RESPONSES, content=content, settles=True)
            case Compact(body=body):
                self._need(self.profile.compact, request)
                content = wire.post_payload(body, stream=False)
                return _Call(method="POST", path="responses/compact", content=content, settles=True)
            case Retrieve(response=response, starting_after=after):
                self._need(self.profile.retrieve, request)
                resumed = {"stream": "true", "starting_after": str(after)}
                query = {} if after is None else resumed
                return _Call(method="GET", path=_of(response), query=query)
            case Delete(response=response):
                self._need(self.profile.retrieve, request)
                return _Call(method="DELETE", path=_of(response))
            case Cancel(response=response):
                self._need(self.profile.background, request)
                return _Call(method="POST", path=f"{_of(response)}/cancel")
            case _:
                # What is sent may have been made by a newer engine than this was written for.
                raise NotSupported(f"the http transport has no {type(request).__name__}")

    def _need(self, able: bool, request: Request) -> None:
        if not able:
            name, what = self.profile.name, type(request).__name__
            raise NotSupported(f"the profile {name!r} has no {what}: give one whose provider can")

    async def _next(self, arriving: AsyncGenerator[Frames], progress: Progress) -> Frames | None:
        try:
            async with self._life.within(None) as move:
                progress.wait(move)
                return await anext(arriving, None)
        except (TimeoutError, httpx2.HTTPError) as error:
            raise progress.failed(error) from error

    async def _exchange(self, call: _Call, progress: Progress) -> AsyncGenerator[Frames]:
        url = self._address(call.path, call.query)
        headers = await self._access.headers()
        sent = {**headers, "Accept": "text/event-stream, application/json"}
        if call.content is not None:
            sent["Content-Type"] = "application/json"
        asking = self._opened().stream(
            call.method,
            url,
            content=call.content,
            headers=sent,
            extensions={"trace": progress.note},
        )
        try:
            async with (
                asking as response,
                aclosing(self._answer(call, response, headers)) as arriving,
            ):
                async for frames in arriving:
                    yield frames
        finally:
            await progress.abandon()

    async def _answer(
        self, call: _Call, response: httpx2.Response, headers: dict[str, str]
    ) -> AsyncGenerator[Frames]:
        streams = response.headers.get("content-type", "").startswith("text/event-stream")
        if response.is_success and streams:
            async with aclosing(self._stream(response)) as arriving:
                async for frames in arriving:
                    yield frames
            return
        body = masked(await self._whole(response), headers, self.profile.key_header)
        frame = _answered(call, response, body)
        yield [frame]
        if not frame.type or (call.settles and frame.terminal is None):
            raise httpx2.ReadError("the answer does not say how the response ended")

    async def _whole(self, response: httpx2.Response) -> bytes:
        """A plain answer; raises where it is larger than a frame may be, however it was packed."""
        parts: list[bytes] = []
        size = 0
        async for part in response.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > self._max_frame:
                raise httpx2.DecodingError(
                    f"the answer is larger than {self._max_frame} bytes: raise the option"
                    " max_frame_bytes"
                )
        return b"".join(parts)

    async def _stream(self, response: httpx2.Response) -> AsyncGenerator[Frames]:
        events, reading = Events(self._max_frame), _Reading()
        async with aclosing(response.aiter_bytes()) as pieces:
            while not reading.over:
                piece = await anext(pieces, None)
                data = events.end() if piece is None else events.feed(piece)
                if data:
                    yield reading.frames(data)
                if reading.terminal:
                    await _drain(pieces)
                    return
                if events.too_large:
                    raise httpx2.SSEError(
                        f"Server-sent event exceeded the {self._max_frame} byte limit."
                    )
                if piece is None:
                    break
            # What comes behind such a stream would be taken for the answer to another request
            # (W-24).
            socket: object = response.extensions["network_stream"]
            assert isinstance(socket, httpcore2.AsyncNetworkStream)
            await socket.aclose()
        raise httpx2.ReadError("the stream ended without a terminal frame")  # W-25

    def _address(self, path: str, query: Mapping[str, str]) -> httpx2.URL:
        if path == RESPONSES and self._responses is not None:
            return self._responses
        try:
            found = httpx2.URL(self._access.url(path)).copy_merge_params(query)
        except httpx2.InvalidURL as error:
            raise ConfigurationError(f"the base URL cannot be used: {error}") from error
        if path == RESPONSES:
            self._responses = found  # nearly every request goes there: saves 0.2 ms
        return found

    def _opened(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = self._made()
        return self._client

    def _made(self) -> httpx2.AsyncClient:
        access, tls = self._access, self._access.tls
        proxy = None
        if access.proxy is not None:
            # The certificates count for the proxy as well, where it is spoken to in TLS.
            secure = access.proxy.startswith("https:")
            proxy = httpx2.Proxy(access.proxy, ssl_context=tls if secure else None)
        try:
            return httpx2.AsyncClient(
                # How long anything else may take is the business of `Progress`.
                timeout=httpx2.Timeout(None, pool=access.endpoint.timeouts.queue),
                limits=httpx2.Limits(
                    max_connections=self._max_connections, max_keepalive_connections=20
                ),
                verify=True if tls is None else tls,
                proxy=proxy,
                trust_env=access.environment_proxies,
            )
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            raise ConfigurationError(
                "a proxy of the environment cannot be used, or needs the package socksio:"
                " look at HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or give `proxy`"
            ) from error


class _Reading:
    """Frames of a stream; whether the `terminal` one, or the end of all, was among them."""

    def __init__(self) -> None:
        self.terminal = False
        self.over = False

    def frames(self, data: list[str]) -> Iterator[Frame]:
        """The frames of some events, up to and with a terminal one."""
        for each in data:
            if each == wire.STREAM_END:
                self.over = True
                return
            frame = wire.read(each)
            self.terminal = frame.terminal is not None
            yield frame
            if self.terminal:
                return


def _of(response: str) -> str:
    return f"responses/{quote(response, safe='')}"


def _answered(call: _Call, response: httpx2.Response, body: bytes) -> Frame:
    if call.method == "DELETE" and response.is_success and not body:
        return Frame(type="response.deleted", data={}, terminal="completed")
    return wire.answer(response.status_code, response.headers, body)


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    # A body read to its end leaves a connection that can be used again.
    with suppress(httpx2.HTTPError, TimeoutError):
        async with asyncio.timeout(_DRAIN):
            async for _ in pieces:
                pass
