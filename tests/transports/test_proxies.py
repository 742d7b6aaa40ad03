"""Through a proxy and with certificates of one's own: both transports, a real proxy, real TLS."""

from __future__ import annotations

import asyncio
import base64
import shutil
import ssl
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from websockets.asyncio.server import serve

from turnlog.errors import ConfigurationError, NotSent
from turnlog.ports import Endpoint, Timeouts, Transport
from turnlog_transports import http, websocket

from .clock import advance, on_clock
from .servers import (
    Web,
    answering,
    ask,
    completed,
    create,
    created,
    endpoint,
    event,
    outcome,
    stream,
    web_server,
    websocket_server,
)

SECRET = "hush-hush"
WHOLE = stream(event(created("r1")), event(completed("r1")))
OPEN: dict[str, Callable[[Endpoint], Transport]] = {
    "http": http.open_transport,
    "websocket": websocket.open_transport,
}
BOTH = pytest.mark.parametrize("way", OPEN)


@pytest.fixture(autouse=True)
def no_proxies_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "WS_PROXY", "WSS_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


# -- a proxy, and a provider with a certificate of its own ---------------------------------

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Handle, tls: ssl.SSLContext | None = None) -> AsyncGenerator[str]:
    """A server, by its host and port; at its end every connection to it is gone."""
    tasks: set[asyncio.Task[None]] = set()

    async def until_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(until_gone(reader, writer)))

    async with await asyncio.start_server(begin, "127.0.0.1", 0, ssl=tls) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await asyncio.gather(*tasks)


@dataclass(slots=True)
class Proxy:
    """A proxy that opens tunnels. `refuse` is a status that it answers instead.

    `mute` takes what is asked and says nothing; `drop` hangs up.
    """

    refuse: int | None = None
    mute: bool = False
    drop: bool = False
    heads: list[bytes] = field(default_factory=list[bytes])
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            self.asked.set()
            if self.mute:
                await reader.read()
            elif self.refuse is not None:
                writer.write(f"HTTP/1.1 {self.refuse} No\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
            elif not self.drop:
                await _tunnel(head, reader, writer)


async def _tunnel(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    method, target, _ = head.split(b" ", 2)
    assert method == b"CONNECT", "only tunnels here"
    host, _, port = target.decode().rpartition(":")
    far_reader, far_writer = await asyncio.open_connection(host, int(port))
    writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
    await asyncio.gather(_pipe(reader, far_writer), _pipe(far_reader, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def proxy_server(
    *, refuse: int | None = None, mute: bool = False, drop: bool = False
) -> AsyncGenerator[Proxy]:
    proxy = Proxy(refuse=refuse, mute=mute, drop=drop)
    async with listening(proxy.handle) as where:
        proxy.url = f"http://user:{SECRET}@{where}"
        yield proxy


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that signs itself, in a file of its own, and the key to it."""

    path: str
    key: str

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path, self.key)
        return context


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("needs the command `openssl` to make a certificate")
    folder: Path = tmp_path_factory.mktemp("certificate")
    made = Certificate(str(folder / "own.pem"), str(folder / "own.key"))
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=turnlog test", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", made.key, "-out", made.path, "-days", "2"]
    subprocess.run([openssl, "req", "-x509", *curve, *names, *files], check=True, timeout=60)
    return made


@asynccontextmanager
async def provider(way: str, certificate: Certificate | None = None) -> AsyncGenerator[str]:
    """A provider that answers one response that way, encrypted or not; gives its base URL."""
    if certificate is None:
        if way == "websocket":
            async with websocket_server(answering()) as url:
                yield url
        else:
            async with web_server(WHOLE) as web:
                yield web.url
    elif way == "websocket":
        async with serve(answering(), "127.0.0.1", 0, ssl=certificate.context()) as server:
            yield f"https://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/v1"
    else:
        async with listening(Web([WHOLE]).handle, certificate.context()) as where:
            yield f"https://{where}/v1"


@asynccontextmanager
async def reaching(way: str, to: Endpoint) -> AsyncGenerator[Transport]:
    transport = OPEN[way](to)
    try:
        transport.check()
        yield transport
    finally:
        await transport.close()


# -- certificates --------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("given", ["file", "context"])
async def test_a_certificate_of_ones_own_is_trusted_where_that_is_asked_for(
    way: str, given: str, certificate: Certificate
) -> None:
    tls = certificate.path
    async with provider(way, certificate) as url:
        own = ssl.create_default_context(cafile=tls) if given == "context" else tls
        async with reaching(way, replace(endpoint(url), tls=own)) as transport:
            assert (await ask(transport))[-1].terminal == "completed"


@BOTH
async def test_a_certificate_that_nobody_vouches_for_is_told_nothing(
    way: str, certificate: Certificate
) -> None:
    async with provider(way, certificate) as url:
        async with reaching(way, endpoint(url)) as transport:
            _, error = await outcome(transport)
    assert isinstance(error, NotSent)
    assert "certificate" in str(error).lower()


# -- proxies -------------------------------------------------------------------------------


@BOTH
async def test_a_tunnel_through_a_proxy_shows_it_nothing(
    way: str, certificate: Certificate
) -> None:
    async with provider(way, certificate) as url, proxy_server() as proxy:
        to = replace(endpoint(url), proxy=proxy.url, tls=certificate.path, key="sk-key")
        async with reaching(way, to) as transport:
            assert (await ask(transport))[-1].terminal == "completed"
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT {url.removeprefix('https://').removesuffix('/v1')} ".encode())
    assert base64.b64encode(f"user:{SECRET}".encode()) in head
    assert b"sk-key" not in head


async def test_a_websocket_without_tls_is_a_tunnel_too() -> None:
    async with provider("websocket") as url, proxy_server() as proxy:
        async with reaching("websocket", replace(endpoint(url), proxy=proxy.url)) as transport:
            assert (await ask(transport))[-1].terminal == "completed"
    assert proxy.heads[0].startswith(b"CONNECT 127.0.0.1:")


async def test_http_without_tls_is_passed_on_by_the_proxy() -> None:
    async with web_server(WHOLE) as proxy:
        to = replace(endpoint("http://127.0.0.1:9/v1"), proxy=proxy.url.removesuffix("/v1"))
        async with reaching("http", to) as transport:
            assert (await ask(transport))[-1].terminal == "completed"
    assert proxy.asked[0].path == "http://127.0.0.1:9/v1/responses"


@BOTH
async def test_a_proxy_that_refuses_sent_nothing_and_its_password_is_not_told(
    way: str, certificate: Certificate
) -> None:
    async with proxy_server(refuse=407) as proxy:
        to = replace(endpoint("https://127.0.0.1:9/v1"), proxy=proxy.url)
        async with reaching(way, to) as transport:
            _, error = await outcome(transport)
    assert isinstance(error, NotSent)
    assert "407" in str(error)
    assert SECRET not in f"{error!r} {error.__cause__!r}"


@BOTH
async def test_a_proxy_that_hangs_up_sent_nothing(way: str) -> None:
    async with proxy_server(drop=True) as proxy:
        to = replace(endpoint("https://127.0.0.1:9/v1"), proxy=proxy.url)
        async with reaching(way, to) as transport:
            _, error = await outcome(transport)
    assert isinstance(error, NotSent)


@BOTH
@on_clock
async def test_w23_a_proxy_that_says_nothing_is_given_up_in_time(way: str) -> None:
    async with proxy_server(mute=True) as proxy:
        to = replace(
            endpoint("https://127.0.0.1:9/v1"), proxy=proxy.url, timeouts=Timeouts(connect=20)
        )
        async with reaching(way, to) as transport:
            asking = asyncio.create_task(attempt(transport))
            await proxy.asked.wait()
            await advance(15)
            assert not asking.done()
            await advance(6)
            error = await asking
    assert isinstance(error, NotSent)
    assert "within 20" in str(error)


async def attempt(transport: Transport) -> NotSent | None:
    try:
        async for _ in transport.send(create()):
            pass
    except NotSent as error:
        return error
    return None


# -- the proxies of the environment --------------------------------------------------------


@BOTH
async def test_the_environments_proxy_is_used_for_the_world(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxy_server(refuse=403) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        to = replace(endpoint("https://provider.example/v1"), key="sk-key")
        async with reaching(way, to) as transport:
            _, error = await outcome(transport)
    assert isinstance(error, NotSent)
    assert proxy.heads[0].startswith(b"CONNECT provider.example:443 ")
    assert b"sk-key" not in proxy.heads[0]


@BOTH
async def test_the_environments_proxy_never_sees_what_goes_to_this_machine(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with provider(way) as url, proxy_server() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with reaching(way, endpoint(url)) as transport:
            assert (await ask(transport))[-1].terminal == "completed"
    assert proxy.heads == []


@BOTH
@pytest.mark.parametrize("scheme", ["socks5", "ftp"])
async def test_a_proxy_of_the_environment_that_cannot_be_used_is_an_error_without_its_password(
    way: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://user:{SECRET}@127.0.0.1:9")
    to = replace(endpoint("https://provider.example/v1"), key="sk-key")
    async with reaching(way, to) as transport:
        _, error = await outcome(transport)
    assert isinstance(error, ConfigurationError)
    assert SECRET not in str(error)
