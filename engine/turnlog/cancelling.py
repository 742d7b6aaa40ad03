"""Stopping a turn: recorded first, then carried out where the turn is run.

The one rule: whatever the turn was doing, it ends with a recorded outcome, every call has an
output, and the conversation stays usable.
"""

from __future__ import annotations

from .commands import DropTurn, EndTurn, RequestCancel
from .context import turn_row
from .draft import Draft
from .engine import Engine, is_elsewhere, is_left
from .events import CancelMode, TurnOutcome
from .ports import Lease
from .settling import settle_left


async def cancel(
    engine: Engine,
    conversation: str,
    turn: str,
    *,
    mode: CancelMode = "now",
    reason: str | None = None,
    actor: str,
) -> bool:
    """Stop a turn; nothing where it has ended already. Whether it ended here, though run nowhere.

    Then nobody else begins what is queued behind it. With `after_request` the response that is
    under way is still heard, and its calls are not run. A turn that another process runs is stopped
    there, which is waited for. Raises NotFound for a turn that never was.
    """
    if await drop_queued(engine, conversation, turn, "cancelled", reason, actor):
        return False
    runner = await engine.runner(conversation)
    head = await engine.head(conversation)
    open_ = head.state.turn
    if open_ is None or open_.id != turn:
        await turn_row(engine.store, conversation, turn)
        if runner is not None and runner.turn == turn:
            await runner.stop("cancelled")  # it is about to hear that the turn has ended
        return False
    left, ended = is_left(head, running=runner is not None), False

    async def act(draft: Draft) -> Lease | None:
        nonlocal ended
        if draft.state.turn is None or draft.state.turn.id != turn:
            return None
        draft.do(RequestCancel(mode=mode, reason=reason))
        ended = draft.state.turn.paused is not None and not engine.runs(conversation)
        if ended:
            why = "the call was not carried out: the turn was cancelled"
            abandon = await engine.abandoned(draft.state, why)
            draft.do(EndTurn(outcome="cancelled", reason=reason, abandon=abandon))
        return None

    await engine.commit(conversation, act, actor=actor)
    if runner is not None and mode == "now":
        await runner.stop("cancelled")
    elif left:
        await settle_left(engine, conversation)
    elif runner is None and mode == "now" and not ended:
        return await _settled_for(engine, conversation, turn)
    return ended or left


async def _settled_for(engine: Engine, conversation: str, turn: str) -> bool:
    """Wait until another process has stopped a turn; whether it died over that, and we settled."""
    with engine.news.listen(conversation) as ear:
        while True:
            head = await engine.head(conversation)
            if head.state.turn is None or head.state.turn.id != turn:
                return False
            if not is_elsewhere(head) and not engine.runs(conversation):
                await settle_left(engine, conversation)
                return True
            await ear.wait()


async def drop_queued(
    engine: Engine,
    conversation: str,
    turn: str,
    outcome: TurnOutcome,
    reason: str | None,
    actor: str,
) -> bool:
    """End a queued turn, which never begins; whether it was queued still."""
    dropped = False

    async def act(draft: Draft) -> Lease | None:
        nonlocal dropped
        dropped = draft.state.in_queue(turn) is not None
        if dropped:
            draft.do(DropTurn(turn=turn, outcome=outcome, reason=reason))
        return None

    await engine.commit(conversation, act, actor=actor)
    return dropped
