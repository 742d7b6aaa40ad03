"""Turns whose tools the caller runs: one request, one response, and no tool (`chat.request`).

The one rule: such a turn is an ordinary one that waits after each response; the caller answers its
calls and asks again.
"""

from __future__ import annotations

from .agent import Agent
from .commands import AddItems
from .draft import Draft
from .engine import Engine, Outgoing
from .errors import Waiting
from .ports import Lease
from .recovery import Send
from .starting import Input, acquiring, requested_with, runner_for
from .state import State


async def manual_turn(engine: Engine, conversation: str) -> State | None:
    """The state of a conversation, where its open turn is one whose tools the caller runs."""
    head = await engine.look(conversation)
    turn = head.state.turn if head is not None else None
    return head.state if head is not None and turn is not None and turn.manual else None


async def continue_manual(
    engine: Engine, state: State, given: Input, agent: Agent | None
) -> str | None:
    """Send the next request of the open turn: the outputs of its calls, and what was passed.

    The turn's id; None where it has ended since the state was read, and then nothing was done.
    Raises Waiting while a call has no output, InvalidInput where there is nothing to send.
    """
    engine.transport.check()
    assert state.turn is not None
    turn, over = state.turn.id, False
    outgoing: Outgoing | None = None
    config = await engine.configuration(state)
    settings = await engine.turn_settings(state)

    async def act(draft: Draft) -> Lease | None:
        nonlocal outgoing, over
        open_ = draft.state.turn
        over = open_ is None or open_.id != turn
        if over:
            return None
        _check_ready(draft, turn)
        draft.expect_new(given.items)
        draft.do(AddItems(items=engine.keyed(*given.items)))
        send, lacks = Send(cause="tools_answered"), "pass an input, or answer the calls"
        outgoing = await requested_with(engine, draft, given, send, config, settings, lacks)
        return "acquire"

    def run(draft: Draft) -> None:
        if not over:
            runner = runner_for(engine, draft, turn, config, settings, agent)
            runner.start(draft.state, outgoing)

    await acquiring(engine, state.id, act, given.actor, run)
    return None if over else turn


def _check_ready(draft: Draft, turn: str) -> None:
    if draft.state.pending:
        calls = ", ".join(call.name or call.kind for call in draft.state.pending)
        raise Waiting(f"answer these calls first: {calls}", turn=turn)
