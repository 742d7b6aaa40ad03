"""The transport keeps what every transport promises, and carries a conversation."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
import turnlog
from turnlog.errors import ConfigurationError, Lost
from turnlog.ports import Create, Endpoint, Timeouts
from turnlog.testing import Reply, TransportContract, error, text

from turnlog_transport_example import ExampleTransport, open_transport

from .provider import Provider

TLS = ssl.create_default_context()
"""Made once: to read the certificates of a machine takes longer than most tests."""

CREATE = Create(body={"model": "any", "input": "Hello."})


class TestExample(TransportContract):
    """The contract. Everything in it is told to keep to what `serve` gives it."""

    provider: Provider | None = None
    port = 0

    async def serve(
        self, replies: Sequence[Reply], *, timeouts: Timeouts | None = None
    ) -> ExampleTransport:
        await self.appear(replies)
        return self.opened(timeouts)

    async def unreachable(self) -> ExampleTransport:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        return self.opened()

    async def appear(self, replies: Sequence[Reply]) -> None:
        self.provider = await Provider(replies, port=self.port).__aenter__()
        self.port = self.provider.port

    async def stop(self) -> None:
        if self.provider is not None:
            await self.provider.__aexit__(None, None, None)

    def opened(self, timeouts: Timeouts | None = None) -> ExampleTransport:
        return opened(f"http://127.0.0.1:{self.port}", timeouts=timeouts or Timeouts())


def opened(
    base_url: str, *, key: object = "secret", timeouts: Timeouts | None = None, **options: object
) -> ExampleTransport:
    times = timeouts or Timeouts()
    return open_transport(
        Endpoint(base_url=base_url, key=key, timeouts=times, tls=TLS, options=options)
    )


async def test_a_conversation_runs_over_it(tmp_path: Path) -> None:
    async with Provider([text("Hello."), text("Still here.")]) as provider:
        transport = opened(provider.base_url)
        async with turnlog.open(tmp_path / "agent.db", transport=transport) as log:
            chat = await log.conversation("customer-42", model="any")
            assert (await chat.run("Hi.")).output_text == "Hello."
            assert (await chat.run("Are you there?")).output_text == "Still here."
            assert (await log.verify()).ok


async def test_the_key_goes_to_the_provider_and_into_no_frame() -> None:
    async def key() -> str:
        return "secret"

    async with Provider([error(401, message="The key secret is wrong.")]) as provider:
        transport = opened(provider.base_url, key=key)
        frames = [frame async for frame in transport.send(CREATE)]
        await transport.close()
    assert "bearer secret" in provider.heads[0].lower()
    assert "The key *** is wrong." in repr(frames)
    assert "secret" not in repr(frames)


async def test_a_line_without_an_end_is_lost() -> None:
    long = Reply(items=text("Too long to be true. " * 10_000).items, chunk=1_000_000)
    async with Provider([long]) as provider:
        transport = opened(provider.base_url, max_line_bytes=1000)
        with pytest.raises(Lost, match="more than 1000 bytes"):
            _ = [frame async for frame in transport.send(CREATE)]
        await transport.close()


def test_what_does_not_fit_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXAMPLE_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="speed"):
        opened("https://api.example.com", speed=9)
    with pytest.raises(ConfigurationError, match="max_line_bytes"):
        opened("https://api.example.com", max_line_bytes="long")
    with pytest.raises(ConfigurationError, match="https"):
        opened("http://api.example.com").check()
    with pytest.raises(ConfigurationError, match="EXAMPLE_API_KEY"):
        opened("https://api.example.com", key=None).check()
