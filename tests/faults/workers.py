"""Processes that talk until they are killed: `python workers.py <database> <base url>`.

Each line on its input, `<conversation> <seed>`, forks a worker, whose process id is printed. A
worker recovers, finishes what was left, and then sends one input behind the other, each with its
number as the key. It prints the ids of the events that it was told of as done, with `ACK`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from itertools import count

import turnlog
from turnlog.ports import Endpoint
from turnlog_transports import fallback
from turnlog_transports.profiles import OPENAI


def agent_of(path: str) -> turnlog.Agent:
    """Two tools with effects outside the database: one runs at most once, one may run again."""

    def effect(tool: str, ctx: turnlog.ToolContext[None]) -> None:
        file = os.open(f"{path}.effects", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(file, f"{tool} {ctx.idempotency_key}\n".encode())
        os.close(file)

    @turnlog.tool(on_crash="give_up")
    async def once(ctx: turnlog.ToolContext[None], n: int) -> str:
        """Have an effect, at most once."""
        effect("once", ctx)
        await asyncio.sleep(0.01)
        return f"once {n}"

    @turnlog.tool(on_crash="rerun")
    def again(ctx: turnlog.ToolContext[None], n: int) -> str:
        """Have an effect that does no harm when it comes twice."""
        effect("again", ctx)
        return f"again {n}"

    return turnlog.Agent("worker", model="gpt-5", tools=[once, again])


def say(*words: str) -> None:
    """One line, whole or not at all."""
    os.write(sys.stdout.fileno(), (" ".join(words) + "\n").encode())


async def work(path: str, base_url: str, name: str, seed: str) -> None:
    """Go on with a conversation, for ever."""
    agent = agent_of(path)
    transport = fallback.open_transport(Endpoint(base_url=base_url, profile=OPENAI))
    async with turnlog.open(path, agents=[agent], transport=transport) as log:
        await log.recover()
        chat = await log.conversation(name, agent=agent)
        rows = await chat.turns(last=1)
        number = int(rows[-1].key) if rows else 1
        if rows and rows[-1].outcome is None and random.Random(seed).random() < 0.5:
            turn = await (await chat.turn(rows[-1].turn)).resume()
            await turn.result()
        told = 0
        for n in count(number):
            turn = await chat.send(f"input {n}", idempotency_key=str(n))
            events = await chat.events(after=told)
            say("ACK", *(one.id for one in events))
            result = await turn.peek()
            if result.status not in ("completed", "failed"):
                say("BAD", repr(result))
            events = await chat.events(after=told)
            say("ACK", *(one.id for one in events))
            told = events[-1].version


async def warm(path: str) -> None:
    """Open the database once, so that workers have all modules at hand."""
    async with turnlog.open(path) as log:
        await log.recover()


def main(path: str, base_url: str) -> None:
    """Fork a worker for each line."""
    asyncio.run(warm(path))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        name, seed = line.split()
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            asyncio.run(work(path, base_url, name, seed))
        say("PID", str(pid))


if __name__ == "__main__":
    main(*sys.argv[1:])
