"""Stopping a turn: recorded first, then carried out where the turn is run.

The one rule: whatever the turn was doing, it ends with a recorded outcome, every call has an
output, and the conversation stays usable.
"""

from __future__ import annotations

from .commands import EndTurn, RequestCancel
from .context import turn_row
from .draft import Draft
from .engine import Engine
from .errors import NotSupported
from .events import CancelMode
from .ports import Lease
from .settling import is_left, settle_left


async def cancel(
    engine: Engine,
    conversation: str,
    turn: str,
    *,
    mode: CancelMode = "now",
    reason: str | None = None,
    actor: str,
) -> None:
    """Stop a turn; nothing where it has ended already.

    With `after_request` the response that is under way is still heard, and its calls are not run.
    Raises NotFound for a turn that never was, NotSupported where another process runs it.
    """
    runner = await engine.runner(conversation)
    head = await engine.head(conversation)
    open_ = head.state.turn
    if open_ is None or open_.id != turn:
        await turn_row(engine.store, conversation, turn)
        if runner is not None and runner.turn == turn:
            await runner.stop("cancelled")  # it is about to hear that the turn has ended
        return
    left = is_left(head, running=runner is not None)
    if runner is None and await engine.elsewhere(conversation) == turn:
        raise NotSupported(
            f"another process runs turn {turn}: cancelling from here comes with a later version"
        )

    async def act(draft: Draft) -> Lease | None:
        if draft.state.turn is None or draft.state.turn.id != turn:
            return None
        draft.do(RequestCancel(mode=mode, reason=reason))
        if draft.state.turn.paused is not None and not engine.runs(conversation):
            why = "the call was not carried out: the turn was cancelled"
            abandon = await engine.abandoned(draft.state, why)
            draft.do(EndTurn(outcome="cancelled", reason=reason, abandon=abandon))
        return None

    await engine.commit(conversation, act, actor=actor)
    if runner is not None and mode == "now":
        await runner.stop("cancelled")
    elif left:
        await settle_left(engine, conversation)
