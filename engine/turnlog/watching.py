"""Watching a turn: the log behind a cursor, and then what happens, without a gap between them.

The one rule: the queue is opened before the log is read, and whatever the log said already is not
told again. Live watching is within this process; what another one records comes from the log, as it
is written: facts and checkpoints, and not each delta.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from .engine import Engine, Running, is_elsewhere
from .narrator import Narrator
from .news import Ear
from .ports import Head
from .record import Recorded
from .updates import Cursor, TurnDone, Update
from .watchers import Seen, Watch

MOST_WAITS = 5
"""How often a watcher looks whether somebody begins a turn that is first in the queue."""


async def watch(
    engine: Engine, conversation: str, after: Cursor | None, *, turn: str | None = None
) -> AsyncGenerator[Update]:
    """Updates behind a cursor, then live; ends when no turn runs anywhere, or with the turn `turn`.

    Without a cursor it begins where the open turn (or `turn`) began.
    """
    with engine.news.listen(conversation) as ear:
        await _begun(engine, conversation, turn, ear)
        start = await _start(engine, conversation, after, turn)
        hope = _Hope(engine, conversation)
        view = _View(engine, conversation, Narrator(after or Cursor(start)), start, hope)
        while True:
            with view.taking_part():
                while (told := await view.next()) is not None:
                    for update in told:
                        if turn is None or not isinstance(update, TurnDone):
                            yield update
                        elif update.turn == turn:  # and not another that has left the queue since
                            yield update
                            # A pause in the log is over where the turn was resumed since.
                            if not (view.reading and update.status == "waiting"):
                                return
            if not await view.goes_on(turn, ear):
                return


@dataclass(slots=True)
class _Hope:
    """That a conversation goes on: somebody runs it, or is about to, which is believed for a while.

    `_waits` is how often it was looked in vain.
    """

    engine: Engine
    conversation: str
    _waits: int = 0

    def holds(self, head: Head) -> bool:
        """Whether to wait for more, as the head is now."""
        if self.engine.runs(self.conversation) or is_elsewhere(head):
            self._waits = 0
            return True
        self._waits += 1
        return is_about_to_run(head) and self._waits <= MOST_WAITS


@dataclass(slots=True)
class _View:
    """What one watcher was told: the log up to `version`, and what streamed behind it.

    `reading` says that what it is told stands in the log, and may be long past; `_missing` that
    there may be more there.
    """

    engine: Engine
    conversation: str
    narrator: Narrator
    version: int
    _hope: _Hope
    reading: bool = True
    _missing: bool = True
    _runner: Running | None = None
    _place: Watch | None = None

    @contextmanager
    def taking_part(self) -> Generator[None]:
        """Have `next` tell what the log says by now, and what follows as long as a turn runs here.

        It tells lists and is no generator, since what streams would have to pass one more of them.
        """
        runner = self._runner = self.engine.live.get(self.conversation)
        place = self._place = runner.watchers.add() if runner is not None else None
        self.reading = self._missing = True
        try:
            yield
        finally:
            if runner is not None and place is not None:
                runner.watchers.remove(place)

    async def next(self) -> list[Update] | None:
        """What comes next, if anything; None where nothing more comes.

        Whoever was left behind reads the log again, and what has streamed, and goes on from there.
        """
        if self._missing:
            return await self._missed()
        if self._place is None:
            return None
        seen = self._place.now() or await self._place.take()
        if not isinstance(seen, str):
            return self._told(seen)
        if seen == "over":
            return None
        self._place.rejoin()
        self._missing = True
        return []

    async def _missed(self) -> list[Update]:
        """More of what the log tells; behind its end, what has streamed so far."""
        if not self._knows_all():
            page = await self.engine.store.events(self.conversation, after=self.version)
            if page:
                self.version = page[-1].version
                return [update for one in page for update in self.narrator.event(one)]
        self._missing = self.reading = False
        streamed = self._runner.streamed() if self._runner is not None else []
        return [update for delta in streamed for update in self.narrator.delta(delta)]

    async def goes_on(self, turn: str | None, ear: Ear) -> bool:
        """Wait until there is more to tell; not where nobody runs what is watched."""
        head = await self.engine.store.head(self.conversation)
        if head is None:
            return False
        if head.state.version > self.version:
            return True
        if not self._expects(head, turn):
            return False
        await ear.wait()
        return True

    def _expects(self, head: Head, turn: str | None) -> bool:
        open_ = head.state.turn
        if open_ is not None and turn not in (None, open_.id):
            if head.state.in_queue(turn) is None:
                return False
        return self._hope.holds(head)

    def _knows_all(self) -> bool:
        """Whether nothing can have been written that would not be passed on live."""
        known = self.engine.heads.get(self.conversation)
        return known is not None and known.version <= self.version

    def _told(self, seen: Seen) -> list[Update]:
        """What the watcher sees of it; nothing of a fact that it was told from the log."""
        if not isinstance(seen, Recorded):
            return self.narrator.delta(seen)
        if seen.version <= self.version:
            return []
        self.version = seen.version
        return self.narrator.event(seen)


async def _begun(engine: Engine, conversation: str, turn: str | None, ear: Ear) -> None:
    """Wait until a turn that is queued has begun, or its queue does not go on."""
    hope = _Hope(engine, conversation)
    while turn is not None and not _runs_here(engine, conversation, turn):
        head = await engine.store.head(conversation)
        if head is None or head.state.in_queue(turn) is None:
            return
        if not hope.holds(head):
            return
        await ear.wait()


def _runs_here(engine: Engine, conversation: str, turn: str | None) -> bool:
    """Whether it is the open turn, as this process knows without asking the store."""
    known = engine.heads.get(conversation)
    return known is not None and known.turn is not None and known.turn.id == turn


def is_about_to_run(head: Head) -> bool:
    """Whether a turn was taken on a moment ago, or is the next in the queue."""
    return bool(head.state.queued) if head.state.turn is None else head.mine


async def _start(engine: Engine, conversation: str, after: Cursor | None, turn: str | None) -> int:
    """The version to read behind: where the turn of the cursor began, so that calls are known."""
    state = await engine.state(conversation)
    if after is None and turn is not None and (state.turn is None or state.turn.id != turn):
        row = await engine.store.turn(conversation, id=turn)
        # One that is queued still, behind a turn that waits, has nothing to tell so far.
        return row.started - 1 if row is not None else state.version
    if after is None:
        return state.turn.version - 1 if state.turn is not None else state.version
    before = after.version + 1
    while rows := await engine.store.turns(conversation, before=before, limit=8):
        for row in rows:
            if row.ended != row.started:  # what never left the queue began nothing
                return min(row.started - 1, after.version)
        before = rows[-1].started
    return 0
