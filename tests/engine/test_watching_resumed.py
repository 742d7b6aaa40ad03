"""A turn that was resumed is watched past its pause."""

from __future__ import annotations

from turnlog.testing import call, text

from .given import agent, opened, pay


async def test_a_pause_in_the_log_does_not_end_the_watching_of_a_resumed_turn() -> None:
    async with opened([call("pay", amount=3.0), text("Paid.")], agent(pay)) as log:
        chat = await log.conversation("c", agent="test")
        paused = await chat.run("Pay three.")
        for waiting in (await chat.state()).pending:
            await waiting.approve(by="ana")
        turn = await (await chat.turn(paused.turn)).resume()
        seen = [update async for update in turn]
    ends = [update.status for update in seen if update.type == "turn.done"]
    assert ends == ["waiting", "completed"]
    assert "".join(update.delta for update in seen if update.type == "text.delta") == "Paid."
