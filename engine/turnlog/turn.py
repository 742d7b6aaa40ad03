"""A turn, as people hold it: one accepted input and all that follows.

The one rule: the log owns the turn and runs it; a handle watches, waits, cancels and resumes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Generic, NoReturn, TypeVar, cast

from .agent import Agent
from .cancelling import cancel
from .canonical import integer, text
from .context import every, turn_row
from .engine import Engine
from .errors import NotSupported, TurnFailed, Waiting
from .events import CancelMode
from .result import TurnResult, result_of
from .schemas import parse_output
from .starting import resume
from .updates import Cursor, Update
from .watching import watch

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Turn(Generic[T]):
    """One turn. Iterate it to watch it from its start; `result` waits for it."""

    id: str
    conversation: str
    _engine: Engine = field(repr=False, compare=False)
    _agent: Agent | None = field(default=None, repr=False, compare=False)
    _output_type: object = field(default=None, repr=False, compare=False)

    def __aiter__(self) -> AsyncIterator[Update]:
        return self.updates()

    async def updates(self, after: Cursor | str | None = None) -> AsyncGenerator[Update]:
        """What happens in the turn, from its start or behind a cursor, to its end."""
        cursor = Cursor.parse(after) if isinstance(after, str) else after
        stream = watch(self._engine, self.conversation, cursor, turn=self.id)
        async with aclosing(stream):
            async for update in stream:
                yield update

    async def result(self) -> TurnResult[T]:
        """Wait until the turn ended or waits for an answer, and say what it came to.

        Raises what `peek` raises, TurnFailed where it failed, OutputInvalid where the answer does
        not fit its `output_type`, and what stopped the turn, where the store or a lease did.
        """
        found = await self.peek()
        if found.status == "failed":
            raise failure(found)
        if self._output_type is None or found.status != "completed":
            return cast("TurnResult[T]", found)
        parsed = parse_output(self._output_type, found.output_text)
        return replace(cast("TurnResult[T]", found), output=cast("T", parsed))

    async def peek(self) -> TurnResult[str]:
        """Wait like `result`, and raise nothing for a turn that failed.

        Raises Waiting where the process of the turn is gone, so that nobody runs it, and
        NotSupported where another process does.
        """
        runner = self._engine.live.get(self.conversation)
        if runner is not None and runner.turn == self.id:
            await runner.wait()
        row = await turn_row(self._engine.store, self.conversation, self.id)
        events = await every(self._engine.store, self.conversation, row.started - 1, row.ended)
        found = result_of(self.conversation, self.id, events)
        if found.status == "running":
            await self._not_here()
        return found

    async def _not_here(self) -> NoReturn:
        if await self._engine.elsewhere(self.conversation) == self.id:
            raise NotSupported(
                f"another process runs turn {self.id}: waiting for it from here comes with a later"
                " version"
            )
        raise Waiting(
            f"turn {self.id} has no process any more: `await turn.resume()` goes on", turn=self.id
        )

    async def cancel(
        self, *, mode: CancelMode = "now", reason: str | None = None, by: str = "user"
    ) -> None:
        """Stop the turn; its calls get an output, and the conversation stays usable.

        With `mode="after_request"` the response under way is still heard, and its calls are not
        run. A turn that ended already stays as it is. Raises NotSupported where another process
        runs it.
        """
        await cancel(self._engine, self.conversation, self.id, mode=mode, reason=reason, actor=by)

    async def leave(self) -> None:
        """Stop watching: a turn that still runs here is cancelled, and one that waits is not."""
        runner = await self._engine.runner(self.conversation)
        if runner is not None and runner.turn == self.id:
            await self.cancel(reason="the caller left")

    async def resume(self) -> Turn[T]:
        """Continue the turn here, where it waits or its process is gone.

        Raises Busy where another process runs it, ConfigurationError without a key.
        """
        await resume(self._engine, self.conversation, self.id, self._agent)
        return self


def failure(result: TurnResult[str]) -> TurnFailed:
    """The error that a failed turn raises from `run`."""
    error = result.error or {}
    return TurnFailed(
        f"turn {result.turn} failed: {result.reason}",
        result=result,
        code=text(error, "code"),
        status=integer(error, "status"),
    )
