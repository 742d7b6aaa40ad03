"""One WebSocket of the simulator: it takes creates as they come, and answers who is next.

The one rule: a fault is real, and it is the connection's. A cut takes every lane along, a stall is
of its own lane only; a connection that is too old says so, also while it is idle, and is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass
from typing import assert_never

from starlette.websockets import WebSocket, WebSocketDisconnect

from turnlog.canonical import JsonObject, dumps, text

from . import answer as answers
from .admission import Admission, Rules, Waiting
from .answer import Answer, refusal
from .carriers import PATH, Connections, for_ever, parsed, race
from .generation import Cut, Garble, Source, Stall
from .generation import Send as SendEvent
from .hearing import Count, Heard
from .pacing import play
from .provider import Given, Provider

_GOING_AWAY = 1001


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What every WebSocket of a simulator shares.

    `seconds` is how long one may live; None is for ever.
    """

    provider: Provider
    connections: Connections
    hear: Callable[[Heard], None]
    rules: Rules
    seconds: float | None
    in_flight: Count


class Socket:
    """An open WebSocket with its lanes."""

    def __init__(self, websocket: WebSocket, host: Host, number: int) -> None:
        self._websocket = websocket
        self._host = host
        self._number = number
        self._name = f"connection-{number}"
        self._lanes = Admission(host.rules)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def converse(self, leaving: asyncio.Event) -> None:
        """Take part until either side leaves; `leaving` has this side do so."""

        async def leave() -> None:
            await leaving.wait()
            await self._close(_GOING_AWAY)

        async def answer() -> None:
            await self._over
            await self._close()

        try:
            with suppress(WebSocketDisconnect):
                await race(self._read(), answer(), leave(), self._age())
        finally:
            await self._stop()
            self._host.provider.disconnect(self._name)

    async def _age(self) -> None:
        if self._host.seconds is None:
            await for_ever()
        else:
            await asyncio.sleep(self._host.seconds)
            await self._stop()
            await self._say(answers.frame(_TOO_OLD), None)
            await self._close()

    async def _close(self, code: int = 1000) -> None:
        await self._stop()
        await self._websocket.close(code)

    async def _stop(self) -> None:
        self._stopped = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what comes in ---------------------------------------------------------------------

    async def _read(self) -> None:
        while (message := await self._websocket.receive())["type"] != "websocket.disconnect":
            await self._hear(message.get("text") or message.get("bytes") or "")

    async def _hear(self, raw: str | bytes) -> None:
        message = parsed(raw)
        refused = self._accept(raw, message)
        if refused is not None:
            await self._say(refused, None)
        self._go_on()

    def _accept(self, raw: str | bytes, message: JsonObject | None) -> JsonObject | None:
        """Put a create into its lane, or say how the message is refused."""
        kind = "" if message is None else text(message, "type") or ""
        body = {key: value for key, value in (message or {}).items() if key not in _OWN}
        name = (message or {}).get("stream_id")
        lane = name if isinstance(name, str) else None
        self._host.hear(
            Heard(
                carrier="websocket",
                method=kind,
                path=PATH,
                size=len(raw.encode() if isinstance(raw, str) else raw),
                body=None if message is None else body,
                connection=self._number,
                lane=lane,
            )
        )
        if kind != "response.create":
            return answers.frame(_NOT_A_CREATE)
        refused = self._lanes.enter(name)
        if refused is None:
            self._lanes.add(Waiting(lane=lane, body=body))
        return refused

    # -- what goes out ---------------------------------------------------------------------

    def _go_on(self) -> None:
        """Begin every response whose turn it is, in the order in which they were asked for."""
        while not self._stopped and (create := self._lanes.next()) is not None:
            found = self._host.provider.create(create.body, connection=self._name, lane=create.lane)
            task = asyncio.create_task(self._answer(found, create.lane))
            self._tasks.add(task)
            task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._over.done():
            self._over.set_exception(error)

    async def _answer(self, found: Given, lane: str | None) -> None:
        with self._host.in_flight.one():
            if isinstance(found, Answer):
                await self._say(answers.frame(found), lane)
            else:
                with closing(found):
                    await self._stream(found, lane)
        self._lanes.done(lane)
        self._go_on()

    async def _stream(self, found: Source, lane: str | None) -> None:
        async with aclosing(play(found)) as steps:
            async for step in steps:
                match step:
                    case SendEvent(event=event):
                        await self._say(answers.nested(event), lane)
                    case Garble(text=garbled):
                        await self._websocket.send_text(garbled)
                    case Stall():
                        await for_ever()
                    case Cut():
                        self._host.connections.drop(self._websocket.scope)
                        await for_ever()
                    case _:
                        assert_never(step)
        if not found.terminates and not self._over.done():
            self._over.set_result(None)

    async def _say(self, event: JsonObject, lane: str | None) -> None:
        named: JsonObject = event if lane is None else {**event, "stream_id": lane}
        await self._websocket.send_text(dumps(named).decode("utf-8"))


_OWN = ("type", "stream_id")
"""What only a WebSocket's message has."""

_NOT_A_CREATE = refusal("A message must be a JSON object of type 'response.create'.", param="type")
_TOO_OLD = refusal(
    "The connection has reached its longest duration: open a new one.",
    code="websocket_connection_limit_reached",
)
