"""Try what an endpoint can do: the steps of `turnlog doctor`.

The one rule: nothing is asked that costs anything, unless a model is named; then each question is a
word long, its answer is cut short, and what the provider stored is deleted again where it can be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import replace

from .canonical import Json
from .checks import (
    NEEDED,
    NOBODY,
    Answer,
    Check,
    Checkup,
    addressed,
    chosen,
    compared,
    denied,
    handshaken,
    keyed,
    place,
    unlaned,
    upgraded,
)
from .errors import ConfigurationError, NotSent, TurnlogError
from .ports import (
    Cancel,
    Create,
    Delete,
    Endpoint,
    Frame,
    Profile,
    Request,
    Retrieve,
    Transport,
)

Find = Callable[[str, Endpoint], Transport]

_ASK = "not tried: give --model (a few tokens)"
_OUTPUT_TOKENS = 16
"""The least that providers take as a limit."""


async def check_up(endpoint: Endpoint, find: Find, *, model: str | None = None) -> Checkup:
    """Look at everything that can be tried at an endpoint, by transports that `find` gives.

    Raises ConfigurationError where no transport can be made of it, such as an unknown profile.
    """
    async with AsyncExitStack() as stack:
        doctor = _Doctor(endpoint, find, model, stack)
        await doctor.look()
        return doctor.result()


class _Doctor:
    """One examination. Each method looks at one thing, in the order of `look`."""

    def __init__(
        self, endpoint: Endpoint, find: Find, model: str | None, stack: AsyncExitStack
    ) -> None:
        self._endpoint = endpoint
        self._find = find
        self._model = model
        self._stack = stack
        self._checks: list[Check] = []
        self._auto = self._open("auto", endpoint.profile)
        self._profile = self._auto.profile
        self._one_by_one = replace(self._profile, lanes=False)
        self._http = self._open("http")
        self._websocket: Transport | None = None

    async def look(self) -> None:
        """Go on for as long as the answers make sense."""
        self._checks.append(addressed(self._endpoint, self._auto))
        if self._wrong():
            return
        refusal = await self._upgrade()
        self._checks += await self._reach(refusal)
        if self._wrong():
            return
        self._checks.append(upgraded(self._profile, refusal))
        self._checks.append(await self._background())
        self._checks += await self._spend()
        self._checks.append(chosen(self._profile, self._way))

    def result(self) -> Checkup:
        """What was found."""
        return Checkup(
            address=place(self._endpoint, self._profile),
            profile=self._profile.name,
            transport=self._way,
            usable=not self._wrong(),
            checks=tuple(self._checks),
        )

    async def _upgrade(self) -> TurnlogError | None:
        """Open a WebSocket, also where the profile has none: it costs nothing."""
        transport = self._open("websocket", self._one_by_one)
        try:
            await transport.warm()
        except (NotSent, ConfigurationError) as error:
            return error
        self._websocket = transport
        return None

    async def _reach(self, refusal: TurnlogError | None) -> list[Check]:
        """Ask for a response that cannot exist: whoever denies it was reached, with this key."""
        if not self._profile.retrieve:
            return handshaken(self._profile, refusal)
        clock = asyncio.get_running_loop().time
        start = clock()
        answer = await ask(self._http, Retrieve(response=NOBODY))
        if answer.error is not None:
            return [Check("reachable", False, answer.why, "check the address, and the way to it")]
        took = f"yes, in {(clock() - start) * 1000:.0f} ms"
        return [Check("reachable", True, took), keyed(self._profile, answer)]

    async def _background(self) -> Check:
        """Cancel a response that cannot exist: whoever denies it has somewhere to cancel."""
        if not self._profile.background:
            return Check("background", None, "not tried: the profile says no")
        answer = await ask(self._http, Cancel(response=NOBODY))
        if denied(answer):
            return Check("background", True, "there is where to cancel one")
        fix = "try background=True before you rely on it"
        return Check("background", None, f"the profile says yes; {answer.why}", fix)

    async def _spend(self) -> list[Check]:
        """What costs a few tokens, and is asked only of a model that was named."""
        if self._model is None:
            return [Check(name, None, _ASK) for name in ("model", "lanes", "stored ids")]
        answers = await self._ask("model", self._unkept)
        if not answers.done:
            fix = "check the name of the model, and what the provider says of it"
            return [Check("model", False, answers.why, fix)]
        found = [Check("model", True, f"{self._model} answers")]
        if self._websocket is not None:
            found.append(compared("lanes", self._profile.lanes, await self._lanes()))
        kept: list[str] = []
        try:
            missing = await self._stored(kept)
        finally:
            for response in kept if self._profile.retrieve else ():
                await ask(self._http, Delete(response=response))
        return [*found, compared("stored ids", self._profile.stored_ids, missing)]

    async def _lanes(self) -> str | None:
        """Ask two things at once over one WebSocket; what is missing, None for nothing."""
        able = replace(self._profile, websocket=True, lanes=True)
        over = self._open("websocket", able)
        with suppress(NotSent):  # which the requests say as well
            await over.warm()  # or each request would open a connection of its own
        first = self._ask("lane-1", self._unkept, over)
        second = self._ask("lane-2", self._unkept, over)
        return unlaned(await asyncio.gather(first, second))

    async def _stored(self, kept: list[str]) -> str | None:
        """Store a response, ask for it and continue from it by another connection.

        What is missing, None for nothing; `kept` collects what was stored.
        """
        first = await self._ask("stored", {"store": True})
        if not first.done or first.response is None:
            return first.why
        kept.append(first.response)
        if self._profile.retrieve:
            again = await ask(self._http, Retrieve(response=first.response))
            if not again.done:
                return f"it cannot be asked about: {again.why}"
        other = self._http
        if self._way == "websocket":
            other = self._open("websocket", self._one_by_one)
        second = await self._ask(
            "next", {"store": True, "previous_response_id": first.response}, other
        )
        kept += [second.response] if second.response is not None else []
        return None if second.done else f"it cannot be continued: {second.why}"

    # -- what they share ---------------------------------------------------------------------

    def _wrong(self) -> bool:
        return any(each.ok is False and each.name in NEEDED for each in self._checks)

    @property
    def _way(self) -> str:
        """The way that a request would take after all this."""
        return self._auto.choose(failed=self._websocket is None)

    @property
    def _unkept(self) -> dict[str, Json]:
        """What keeps a response from being stored, where it would be."""
        return {"store": False} if self._profile.store_default else {}

    def _open(self, name: str, profile: Profile | str | None = None) -> Transport:
        endpoint = self._endpoint
        if name != "auto":  # whose options are those of the others, which refuse a stranger's
            endpoint = replace(endpoint, profile=profile or self._profile, options={})
        transport = self._find(name, endpoint)
        self._stack.push_async_callback(transport.close)
        return transport

    async def _ask(
        self, who: str, more: Mapping[str, Json], over: Transport | None = None
    ) -> Answer:
        """As little as a model can be asked, by the way that a turn would take."""
        by = over or (self._websocket if self._way == "websocket" else None) or self._http
        body: dict[str, Json] = {"model": self._model, "input": "ping", **more}
        body["max_output_tokens"] = _OUTPUT_TOKENS
        if by is not self._http:
            body["generate"] = False  # a field of WebSockets alone (protocol 1.2)
        return await ask(by, Create(body=body, conversation=f"doctor-{who}"))


async def ask(transport: Transport, request: Request) -> Answer:
    """Send a request, and wait for its end; what goes wrong is part of the answer."""
    frames: list[Frame] = []
    try:
        async with aclosing(transport.send(request)) as sent:
            async for frame in sent:
                frames.append(frame)
    except TurnlogError as error:
        return Answer(frames, error)
    return Answer(frames)
