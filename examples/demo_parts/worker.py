"""A process that runs the agent: what the demo starts, kills, and starts again.

    python -m demo_parts.worker DATABASE BASE_URL EFFECTS say "Hello"
    python -m demo_parts.worker DATABASE BASE_URL EFFECTS recover
    python -m demo_parts.worker DATABASE BASE_URL EFFECTS approve

It prints the updates of the turn as they come. What the demo proves, it reads from the database and
the effects file, never from what is printed here.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterable
from pathlib import Path

import turnlog
from demo_parts.agent import World, support
from demo_parts.stage import console

CONVERSATION = "customer-7"


async def main(database: str, base_url: str, effects: str, verb: str, *said: str) -> None:
    """Open the log, and say, recover or approve."""
    world = World(Path(effects), hesitation=float(os.environ.get("BANK_HESITATES", "0")))
    agent = support(world)
    async with turnlog.open(database, agents=[agent], base_url=base_url, profile="openai") as log:
        chat = await log.conversation(CONVERSATION, agent=agent)
        if verb == "say":
            await watch((await chat.send(*said)).updates())
            return
        if verb == "recover":
            for done in await log.recover():
                tell(f"[bold]recover[/]          {done.action}  [dim]({done.reason})[/]")
        state = await chat.state()
        if verb == "approve":
            for call in state.pending:
                await call.approve(by="ana", reason="a good customer")
        if state.turn is not None:
            turn = await (await chat.turn(state.turn)).resume()
            await watch(turn.updates(after=turnlog.Cursor(state.version)))


async def watch(updates: AsyncIterable[turnlog.Update]) -> None:
    """Show what happens: facts line by line, text as it streams."""
    streaming = False
    async for update in updates:
        if update.type == "text.delta":
            if not streaming:
                tell("text             ", end="")
            streaming = True
            console.print(update.delta, style="green", end="", highlight=False)
            continue
        if streaming:
            console.print()
        streaming = False
        if (line := describe(update)) is not None:
            tell(line)


def describe(update: turnlog.Update) -> str | None:
    """A fact in a line; nothing where the text was shown already."""
    match update.type:
        case "call.requested":
            return f"{update.type:<16} {update.name} [dim]{update.arguments}[/]"
        case "turn.done":
            why = f" [dim]for {update.reason}[/]" if update.status == "waiting" else ""
            return f"{update.type:<16} {update.status}{why}"
        case _ if update.type.startswith("call."):
            return f"{update.type:<16} {getattr(update, 'name', '')}"
        case _:
            return None


def tell(line: str, end: str = "\n") -> None:
    """A line of this process."""
    console.print(f"  [cyan]worker {os.getpid()}[/] │ {line}", end=end, highlight=False)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
