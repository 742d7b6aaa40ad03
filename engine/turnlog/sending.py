"""Sending a request that is committed, and recording what comes of it.

The one rule: deltas reach the watchers at once and the log without being awaited; the outcome and
all that it decides are one append (laws 1, 3 and 5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from . import events as ev
from .commands import Finish, Note
from .draft import Draft
from .engine import Act, Outgoing
from .errors import Closed, ConfigurationError, Lost, NotSent, ProviderError, StoreError, Unheard
from .following import SILENT, follow
from .held import Held
from .ports import Create, Frame, Lease
from .reception import Reception
from .request import revealed
from .settling import ask, finish
from .unbroken import begun

FINAL = frozenset({400, 401, 403, 404, 405, 413, 422, 426})
"""Refusals of an upgrade that no repetition changes."""

NOTE_TURNS = 8
NOTE_SECONDS = 0.05
"""How long a note waits at the most for the first text on its way to those who watch.

So many turns of the event loop, because the same frames make the same log (law 14); and so many
seconds, where each of them takes long. A note of a response in the background waits for nothing:
its id is all that there is to find the response by.
"""


@dataclass(slots=True)
class Due:
    """Something that is to be done within a time; what is due sooner counts."""

    do: Callable[[], None]
    _timer: asyncio.Handle | None = None
    _seconds: float = 0.0

    def within(self, seconds: float) -> None:
        """Do it within so many seconds; at once means behind those whose turn it is already."""
        if self._timer is not None and self._seconds <= seconds:
            return
        self.stop()
        self._seconds = seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._now)

    def soon(self, turns: int, seconds: float) -> None:
        """Do it when those who are to be woken have had so many turns, unless it is due already.

        It waits for no more turns once so many seconds have passed.
        """
        if self._timer is None:
            self._pass(turns, asyncio.get_running_loop().time() + seconds)

    def stop(self) -> None:
        """It is not to be done any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pass(self, turns: int, until: float) -> None:
        loop = asyncio.get_running_loop()
        if turns and loop.time() < until:
            self._timer = loop.call_soon(self._pass, turns - 1, until)
        else:
            self._timer = loop.call_soon(self._now)

    def _now(self) -> None:
        self._timer = None
        self.do()


@dataclass(slots=True)
class Sending:
    """One attempt under way. `then` sees the draft of its outcome, and may end the turn in it."""

    held: Held
    reception: Reception
    then: Act
    _unsaved: list[ev.Event] = field(default_factory=list[ev.Event])
    _flush: asyncio.Task[None] | None = None
    _owed: Due | None = None
    _patience: int = NOTE_TURNS
    _note: Due = field(init=False)
    _text: Due = field(init=False)

    def __post_init__(self) -> None:
        self._note, self._text = Due(self._save_notes), Due(self._save_text)

    async def run(self, outgoing: Outgoing) -> None:
        """Send, listen to the end, and record the outcome; on cancellation record nothing.

        Raises ConfigurationError where a key or a secret cannot be had.
        """
        outcome: ev.OutcomeEvent | None = None
        fetched: Reception | str | None = None
        wrong: ConfigurationError | None = None
        try:
            await self._receive(outgoing)
        except NotSent as error:
            via = outgoing.transport
            other = self.held.engine.transport.choose(
                before=via, failed=True, background=outgoing.background
            )
            other_way = other != via
            outcome = never_sent(outgoing.attempt, error, other_way=other_way)
        except (Unheard, Lost) as error:
            fetched = await self._fetched()
            outcome = self._lost(fetched or str(error))
        except Closed:
            outcome = self.reception.interrupted("closed")
        except ConfigurationError as error:
            # A key or a secret cannot be had: nothing was sent, and it can be once that is mended.
            wrong = error
            outcome = never_sent(outgoing.attempt, NotSent(str(error)), other_way=True)
        finally:
            await self._quiet()
        await self._finish(outcome, fetched)
        if wrong is not None:
            raise wrong

    async def resume(self) -> None:
        """Hear a background response that an earlier owner began, and record the outcome."""
        try:
            fetched = await self._fetched()
        finally:
            await self._quiet()
        await self._finish(self._lost(fetched or SILENT), fetched)

    def _lost(self, fetched: Reception | str) -> ev.OutcomeEvent | None:
        """The outcome of a response that was lost for this reason; None where it was heard."""
        return None if isinstance(fetched, Reception) else self.reception.interrupted(fetched)

    async def _receive(self, outgoing: Outgoing) -> None:
        if outgoing.background:
            self._patience = 0
        frames = self.held.engine.transport.send(
            Create(
                body=revealed(outgoing.take()),
                parent=outgoing.parent,
                conversation=self.held.conversation,
                attempt=outgoing.attempt,
                via=outgoing.transport,
            )
        )
        async with aclosing(frames):
            async for frame in frames:
                if self._hear(frame):
                    await self.held.watchers.room()
        await asyncio.sleep(0)  # who watches comes before what is to be recorded

    async def _take(self, frame: Frame) -> None:
        """Take a frame in; a slow watcher holds up the next one, within a bound."""
        self._hear(frame)
        await self.held.watchers.room()

    def _hear(self, frame: Frame) -> bool:
        """Take a frame in; whether a watcher is too slow for the next one."""
        update, watchers = self.reception.feed(frame), self.held.watchers
        full = watchers.full if update is None else watchers.show(update)
        self._keep_up()
        return full

    async def _fetched(self) -> Reception | str | None:
        """What became of a response whose stream was lost, as after a crash (design section 4).

        None where it is not stored, the provider does not know it, or nobody answers; of one in
        the background, why it was lost.
        """
        engine, conversation = self.held.engine, self.held.conversation
        attempt, response = (await self.held.state()).attempt, self.reception.response
        if attempt is None or response is None or not engine.transport.profile.retrieve:
            return None
        if attempt.background:
            return await follow(engine, conversation, attempt, response, self.reception, self._take)
        if not attempt.store:
            return None
        try:
            return await ask(engine, conversation, attempt, response)
        except ProviderError:
            return None

    async def _finish(
        self, outcome: ev.OutcomeEvent | None, fetched: Reception | str | None
    ) -> None:
        engine, reception = self.held.engine, self.reception
        heard = fetched if isinstance(fetched, Reception) else reception
        finished = finish(engine, heard) if outcome is None else Finish(outcome=outcome)
        notes = [*self._unsaved, *reception.take_notes()]
        if not isinstance(finished.outcome, ev.ResponseCompleted):
            notes += reception.take_checkpoints()

        async def act(draft: Draft) -> Lease | None:
            draft.do(Note(events=tuple(notes)))
            draft.do(finished)
            return await self.then(draft)

        await self.held.commit(act)

    # -- checkpoints -------------------------------------------------------------------------

    def _keep_up(self) -> None:
        """Get notes and text into the log, without waiting for it (law 1)."""
        if self._flush is not None and self._flush.done():
            if (error := self._refused()) is not None:
                raise error
            self._flush = None
        if self.reception.notes:
            self._note.soon(self._patience, NOTE_SECONDS)
        unsaved, checkpoints = self.reception.unsaved(), self.held.engine.checkpoints
        if unsaved >= checkpoints.points:  # also while something is saved: then right behind it
            self._text.within(0.0)
        elif unsaved:
            self._text.within(checkpoints.seconds)

    def _save_notes(self) -> None:
        self._begin(self._note, text=False)

    def _save_text(self) -> None:
        self._begin(self._text, text=True)

    def _begin(self, due: Due, *, text: bool) -> None:
        if self._flush is not None and not self._flush.done():
            # One at a time; what saves text saves the notes before it too.
            self._owed = due if text else self._owed or due
        elif self._refused() is None:
            self._flush = begun(self._save(text=text))
            self._flush.add_done_callback(self._saved)

    def _saved(self, save: asyncio.Task[None]) -> None:
        """Go on with what became due meanwhile; the next frame, or `_quiet`, tells of an error."""
        _ = save.cancelled() or save.exception()
        owed, self._owed = self._owed, None
        if owed is not None:
            owed.within(0.0)

    async def _save(self, *, text: bool) -> None:
        self._unsaved += self.reception.take_notes()
        if text:
            self._unsaved += self.reception.take_checkpoints()
        await self.held.do(Note(events=tuple(self._unsaved)))
        self._unsaved.clear()

    def _refused(self) -> BaseException | None:
        """Why nothing more may be saved: the turn is another owner's (StaleEpoch).

        What a database did not take just now goes with the next save.
        """
        if self._flush is None or not self._flush.done():
            return None
        error = self._flush.exception()
        return None if isinstance(error, StoreError) else error

    async def _quiet(self) -> None:
        """Wait for what is being saved; nothing more is saved behind it."""
        self._note.stop()
        self._text.stop()
        self._owed = None
        if self._flush is not None:
            await asyncio.wait([self._flush])
        if (error := self._refused()) is not None:
            raise error


def never_sent(attempt: str, error: NotSent, *, other_way: bool) -> ev.ResponseRejected:
    """Nothing reached the provider: try again, unless the refusal was final (law 10, W-32).

    A WebSocket that is refused may still go by HTTP; a refused key may not.
    """
    final = error.status == 401 or (error.status in FINAL and not other_way)
    return ev.ResponseRejected(
        attempt=attempt,
        error={"message": str(error)}
        | ({"status": error.status} if error.status else {})
        | ({"code": error.code} if error.code else {}),
        reason="not_sent",
        retryable=not final,
        retry_after_ms=None if error.retry_after is None else round(error.retry_after * 1000),
    )
