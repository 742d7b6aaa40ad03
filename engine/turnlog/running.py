"""What a tool sees, what it gives back, and how its function is called.

The one rule: a function is called as what it is, on the loop where it is async and in a thread
where it is not, and what it returns is said to the model in full or not at all.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar, cast

import pydantic_core
from pydantic import BaseModel

from .canonical import Json, JsonObject, dumps
from .errors import InvalidInput
from .inputs import Part
from .secrets import to_log

D = TypeVar("D")
Function: TypeAlias = Callable[..., object]

GRACE_SECONDS = 5.0
"""How long a function that is cancelled has to tidy up, before nobody waits for it any longer."""


class Deferred(Exception):
    """Raised in a tool: the answer comes later, by `call.answer`; a crash leaves it pending."""


async def _unheard(data: JsonObject) -> None:
    """Progress that nobody asked for: a tool that is run by hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext(Generic[D]):
    """What a tool may know of its call: the first parameter, where it is annotated so.

    `deps` comes from the agent's factory. `idempotency_key` is the same in every run of the call,
    and different for every other call; `run` counts its runs from 1. `call_id` is the provider's.
    `reported` is what earlier runs reported by `progress`, in order: where to go on from. A probe
    is given the run that it is asked about, and what that one reported too.
    """

    deps: D
    conversation: str
    turn: str
    tool: str
    idempotency_key: str
    call_id: str | None = None
    run: int = 1
    reported: tuple[JsonObject, ...] = field(default=(), repr=False)
    report: Callable[[JsonObject], Awaitable[None]] = field(
        default=_unheard, repr=False, compare=False
    )

    async def progress(self, **data: object) -> None:
        """Tell the log, and whoever watches, how far the call is.

        It is durable when this returns, and a later run finds it in `reported`. Raises InvalidInput
        for what is not JSON, NotPending where the call has been settled meanwhile, and StaleEpoch
        where another process has taken the turn over: stop then, since nothing more is kept.
        """
        await self.report(cast("JsonObject", to_log(data)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a run came to: an output for the model, text or content parts, or nothing yet."""

    output: str | list[JsonObject] = ""
    failed: bool = False
    deferred: bool = False


class Work:
    """One call of a function, in a task of its own, since it may outlive whoever waits for it.

    It runs on the loop where it is async, else in a thread, with the context's variables. A thread
    cannot be stopped, and a coroutine may not heed that it is cancelled.
    """

    def __init__(self, function: Function, /, *args: object, **kwargs: object) -> None:
        self._in_thread = False
        self._stopped = False
        self._task = asyncio.create_task(self._run(function, args, kwargs))

    @property
    def over(self) -> bool:
        """Whether it has come to an end; where it has not, it goes on behind us."""
        return self._task.done()

    @property
    def cancelled(self) -> bool:
        """Whether it ended because it was cancelled."""
        return self._task.cancelled()

    def value(self) -> object:
        """What it returned; raises what it raised, RuntimeError where it was cancelled."""
        if self.cancelled:
            raise RuntimeError("it was cancelled, and nobody here did that")
        return self._task.result()

    async def wait(self, seconds: float | None) -> bool:
        """Wait for its end, and stop it where that does not come in time; whether it came.

        It is stopped too where the waiting is cancelled. What was stopped has `GRACE_SECONDS` to
        tidy up.
        """
        try:
            await asyncio.wait([self._task], timeout=seconds)
            return self.over
        finally:
            await self._stop()

    def then(self, tell: Callable[[], None]) -> None:
        """Have `tell` called when it has come to an end by itself, soon where it has already."""
        self._task.add_done_callback(lambda task: None if task.cancelled() else tell())

    async def _stop(self) -> None:
        if self._in_thread:
            self._stopped = True
        elif not self.over:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=GRACE_SECONDS)

    async def _run(
        self, function: Function, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> object:
        if inspect.iscoroutinefunction(function):
            value: object = function(*args, **kwargs)
        else:
            self._in_thread = True
            value = await asyncio.to_thread(_in_thread, function, *args, **kwargs)
            self._in_thread = False
        if inspect.isawaitable(value):
            if self._stopped:
                _close(value)
                raise asyncio.CancelledError
            value = await cast("Awaitable[object]", value)
        return value


async def called(function: Function, /, *args: object, **kwargs: object) -> object:
    """Call a function and wait for it, for as long as it takes."""
    work = Work(function, *args, **kwargs)
    await work.wait(None)
    return work.value()


def _close(value: object) -> None:
    """Let go of what was never begun, without a warning that it was not."""
    if inspect.iscoroutine(value):
        value.close()


def _in_thread(function: Function, /, *args: object, **kwargs: object) -> object:
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        # A future cannot hold it: whoever awaits would wait for ever.
        raise RuntimeError("the tool raised StopIteration") from error


def to_output(value: object) -> str | list[JsonObject]:
    """What a result is for the model: text, or content parts where there is a picture or a file.

    Text stays as it is, None is `null`, and a model, a dataclass or anything else becomes its
    JSON text. A list with `image()` or `file()` in it becomes parts, in order. Raises InvalidInput
    for what is not JSON.
    """
    match value:
        case str():
            return value
        case Part():
            return [value.json]
        case list() | tuple():
            entries = cast("Sequence[object]", value)
            if any(isinstance(entry, Part) for entry in entries):
                return [_part(entry) for entry in entries]
            return _json_text(entries)
        case _:
            return _json_text(value)


def _part(value: object) -> JsonObject:
    if isinstance(value, Part):
        return value.json
    return {"type": "input_text", "text": value if isinstance(value, str) else _json_text(value)}


def _json_text(value: object) -> str:
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    try:
        return dumps(cast("Json", value)).decode()
    except InvalidInput:
        # Not JSON as it stands: dates, dataclasses, sets and the like have a JSON form.
        return _json_form(value)


def _json_form(value: object) -> str:
    try:
        return pydantic_core.to_json(value, inf_nan_mode="strings").decode()
    except ValueError as error:
        raise InvalidInput(
            f"the tool returned a {type(value).__name__}, which has no JSON form: return text,"
            " JSON, a pydantic model, image() or file()"
        ) from error
