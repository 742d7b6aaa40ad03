"""A process that dies in a turn: run as `python dying.py <database> <place> <base url>`.

It kills itself with SIGKILL at the place that it is told, so that nothing of it can be tidied up.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Literal

import turnlog
from turnlog.ports import Endpoint
from turnlog_transports import websocket
from turnlog_transports.profiles import OPENAI

OnCrash = Literal["rerun", "ask", "give_up"]


def die() -> None:
    """The end, without a goodbye."""
    os.kill(os.getpid(), signal.SIGKILL)


def agent_of(on_crash: OnCrash, *, dies: bool, ran: str) -> turnlog.Agent:
    """Two tools: one that works, and one in which the process may die."""

    def note(words: str) -> None:
        with open(ran, "a", encoding="utf-8") as file:
            file.write(f"{words}\n")

    def safe(ctx: turnlog.ToolContext[None], n: int) -> str:
        note(f"safe {ctx.idempotency_key} {ctx.run}")
        return "safe"

    @turnlog.tool(on_crash=on_crash)
    def deadly(ctx: turnlog.ToolContext[None], n: int) -> str:
        note(f"deadly {ctx.idempotency_key} {ctx.run}")
        if dies:
            die()
        return "survived"

    return turnlog.Agent("mortal", model="gpt-5", tools=[safe, deadly], max_parallel_tools=1)


async def main(path: str, place: str, base_url: str) -> None:
    """One turn, and the end where it was asked for."""
    on_crash: OnCrash = "rerun" if place == "rerun" else "give_up" if place == "give_up" else "ask"
    agent = agent_of(on_crash, dies=place in ("rerun", "give_up", "ask"), ran=f"{path}.ran")
    transport = websocket.open_transport(Endpoint(base_url=base_url, profile=OPENAI))
    async with turnlog.open(path, agents=[agent], transport=transport) as log:
        chat = await log.conversation("c", agent=agent)
        turn = await chat.send("Go.", idempotency_key="k")
        if place == "sent":
            die()
        async for update in turn:
            if place == "text" and update.type == "text.delta":
                await asyncio.sleep(0.4)  # so that a checkpoint is in the log
                die()
        die()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
