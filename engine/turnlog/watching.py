"""Watching a turn: the log behind a cursor, and then what happens, without a gap between them.

The one rule: the queue is opened before the log is read, and whatever the log said already is not
told again. Live watching is within this process; what another one recorded comes from the log.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from .engine import Engine, Running
from .errors import NotSupported
from .events import TurnEnded
from .narrator import Narrator
from .record import Recorded
from .updates import Cursor, TurnDone, Update
from .watchers import Seen, Watch


async def watch(
    engine: Engine, conversation: str, after: Cursor | None, *, turn: str | None = None
) -> AsyncGenerator[Update]:
    """Updates behind a cursor, then live; ends when nothing runs here, or with the turn `turn`.

    Without a cursor it begins where the open turn (or `turn`) began. Raises NotSupported where
    another process runs the turn.
    """
    runner = engine.live.get(conversation)
    running = await engine.elsewhere(conversation) if runner is None else None
    if running is not None and turn in (None, running):
        raise NotSupported(
            f"another process runs turn {running}: watching it from here comes with a later version"
        )
    queue = runner.watchers.add() if runner is not None else None
    try:
        start = await _start(engine, conversation, after, turn)
        narrator = Narrator(after or Cursor(start))
        version = start
        while page := await engine.store.events(conversation, after=version):
            for one in page:
                for update in narrator.event(one):
                    yield update
                    # A pause in the log is over where the turn was resumed since.
                    if isinstance(one.event, TurnEnded) and _is_last(update, turn):
                        return
            version = page[-1].version
        if runner is not None and queue is not None:
            async for update in _live(narrator, runner, queue, version):
                yield update
                if _is_last(update, turn):
                    return
    finally:
        if runner is not None and queue is not None:
            runner.watchers.queues.discard(queue)


async def _live(
    narrator: Narrator, runner: Running, queue: Watch, version: int
) -> AsyncGenerator[Update]:
    """What has streamed of the attempt under way, and then what comes."""
    for delta in runner.streamed():
        for update in narrator.delta(delta):
            yield update
    while (seen := await queue.get()) is not None:
        for update in _told(narrator, seen, version):
            yield update


def _told(narrator: Narrator, seen: Seen, version: int) -> list[Update]:
    """What the watcher sees of it; nothing of a fact that it was told from the log."""
    if not isinstance(seen, Recorded):
        return narrator.delta(seen)
    return narrator.event(seen) if seen.version > version else []


async def _start(engine: Engine, conversation: str, after: Cursor | None, turn: str | None) -> int:
    """The version to read behind: where the turn of the cursor began, so that calls are known."""
    if after is None and turn is not None:
        row = await engine.store.turn(conversation, id=turn)
        return row.started - 1 if row is not None else 0
    state = await engine.state(conversation)
    if after is None:
        return state.turn.version - 1 if state.turn is not None else state.version
    rows = await engine.store.turns(conversation, before=after.version + 1, limit=1)
    return min(rows[0].started - 1, after.version) if rows else 0


def _is_last(update: Update, turn: str | None) -> bool:
    return turn is not None and isinstance(update, TurnDone) and update.turn == turn
