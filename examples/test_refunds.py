"""A test of an agent: a script answers for the model, and everything else is real.

Run it with `pytest examples/test_refunds.py`. It needs `pip install pytest` beside turnlog; the
environment of `make setup` has it.
"""

import asyncio
from pathlib import Path

import turnlog
from turnlog.testing import call, scripted, text

paid: list[str] = []


@turnlog.tool
def refund(order: str) -> str:
    """Pay an order back."""
    paid.append(order)
    return "paid"


support = turnlog.Agent("support", model="gpt-5.5", tools=[refund])


async def talk(database: Path) -> None:
    """The five lines."""
    model = scripted([call("refund", order="7"), text("Done.")])
    async with turnlog.open(str(database), agents=[support], transport=model) as log:
        chat = await log.conversation("customer-42", agent=support)
        assert (await chat.run("Please refund order 7.")).output_text == "Done."
    assert paid == ["7"] and model.left == 0


def test_a_refund_is_paid_once(tmp_path: Path) -> None:
    asyncio.run(talk(tmp_path / "agent.db"))
