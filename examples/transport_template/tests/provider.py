"""The provider on this machine: it speaks the wire, and answers from a script.

The one rule: it knows nothing of responses. `turnlog.testing.scripted` makes them, with everything
that a script may have go wrong, and here they are only written down in the provider's words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Self

from turnlog.canonical import Json, dumps, loads_object
from turnlog.errors import Closed, Lost, Unheard
from turnlog.ports import Create, Frame
from turnlog.testing import Reply, scripted


class Provider:
    """A server on loopback, as an async context manager; a `port` of 0 takes a free one."""

    def __init__(self, replies: Sequence[Reply], *, port: int = 0) -> None:
        self.port = port
        self.heads: list[str] = []
        self._model = scripted(replies)
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        await self._model.close()
        await asyncio.gather(*self._talks)
        await self._server.wait_closed()

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whatever goes wrong, the connection ends: without a terminal line, if none was written.
        with suppress(Lost, Unheard, Closed, ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            length = int(head.lower().partition("content-length:")[2].split()[0])
            await self._answer(await reader.readexactly(length), writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def _answer(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        async with aclosing(self._model.send(Create(body=loads_object(body)))) as frames:
            first = await anext(frames)
            if first.terminal == "error":
                writer.write(_refusal(first))
                return
            writer.write(_head("200 OK") + _line(first))
            async for frame in frames:
                writer.write(_line(frame))
                await writer.drain()


def _head(status: str, *headers: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", "Connection: close", *headers, "", "")).encode()


def _line(frame: Frame) -> bytes:
    if frame.text is not None:
        return f"{frame.text}\n".encode()
    rest = dict(frame.data)
    said: dict[str, Json] = {"kind": str(rest.pop("type")).removeprefix("response.")}
    if "sequence_number" in rest:
        said["n"] = rest.pop("sequence_number")
    return dumps({**said, "with": rest}) + b"\n"


def _refusal(frame: Frame) -> bytes:
    found = frame.problem
    assert found is not None
    wait = [] if found.retry_after is None else [f"Retry-After: {found.retry_after:g}"]
    fault = {
        "why": found.message,
        "kind": found.type,
        "code": found.code,
        "field": found.param,
    }
    return _head(f"{found.status} No", *wait) + dumps({"fault": fault})
