"""The agent of the demo. Its tools leave their effects in a file outside the database.

That file is the world: it cannot be rolled back, and it is what proves which tool ran, and how
often.
"""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import turnlog


class Effect(TypedDict):
    """One line of the file: what a tool did, in which process, and under which key."""

    tool: str
    key: str
    run: int
    process: int


@dataclass(frozen=True)
class World:
    """What the tools act on. `hesitation` is how many seconds the bank takes."""

    effects: Path
    hesitation: float = 0.0

    def act(self, ctx: "turnlog.ToolContext[World]") -> None:
        """Leave an effect that no crash takes back."""
        effect = Effect(tool=ctx.tool, key=ctx.idempotency_key, run=ctx.run, process=os.getpid())
        with self.effects.open("a", encoding="utf-8") as file:
            file.write(json.dumps(effect) + "\n")


def effects(path: Path, tool: str) -> list[Effect]:
    """What a tool did so far."""
    if not path.exists():
        return []
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [effect for effect in found if effect["tool"] == tool]


BASKET = [
    ("table lamp, brass, with a shade of green glass", 49.0),
    ("light bulb, E27, 8 W, warm white, dimmable, pack of four", 12.9),
    ("replacement shade, linen, natural, 30 cm", 24.5),
    ("textile cable, 3 m, rust red, with a switch on the cable", 17.2),
    ("ceiling rose, brass, for three cables", 21.0),
    ("wall bracket, black steel, 25 cm", 14.8),
    ("screws and wall plugs, assorted", 3.6),
    ("dimmer, for LED, 5 to 150 W, with a frame in white", 38.0),
    ("night light for children, moon, rechargeable", 19.9),
    ("gift wrapping, and a card that says: Let there be light", 4.5),
]


@turnlog.tool
def find_order(ctx: turnlog.ToolContext[World], order: str) -> list[dict[str, object]]:
    """Look an order up, line by line."""
    ctx.deps.act(ctx)
    return [{"order": order, "article": article, "price": price} for article, price in BASKET]


@turnlog.tool(on_crash="rerun")  # The bank knows the key, so asking it twice pays once.
async def refund(ctx: turnlog.ToolContext[World], order: str, amount: float) -> str:
    """Pay an order back."""
    ctx.deps.act(ctx)
    await asyncio.sleep(ctx.deps.hesitation)
    return f"{amount:.2f} EUR for order {order} are on their way."


def is_large(amount: float) -> bool:
    """A voucher that somebody has to agree to."""
    return amount > 20


@turnlog.tool(needs_approval=is_large)
async def send_voucher(ctx: turnlog.ToolContext[World], amount: float) -> str:
    """Send the customer a voucher."""
    ctx.deps.act(ctx)
    return f"A voucher of {amount:.2f} EUR was sent."


def support(world: World) -> turnlog.Agent:
    """The agent, its tools bound to a world. One tool at a time: there is one to be killed in."""
    return turnlog.Agent(
        "support",
        model="gpt-5.5",
        instructions="You help the customers of a lamp shop. Be kind, and be brief.",
        tools=[find_order, refund, send_voucher],
        deps=lambda: world,
        max_parallel_tools=1,
    )
