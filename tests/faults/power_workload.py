"""A program to take the power from: `power_workload.py <database> <durability> <turns> <size>`.

It talks in several conversations at once, with tools and with parts that are too large for the
log; moves the write-ahead log while it is at it, so that this is written from its beginning again;
closes the database, and goes on in it. It prints the ids of events that it was told of, with `ACK`.
A `size` is the characters of a large part: 4 million let SQLite move the log by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys

import turnlog
from turnlog.canonical import JsonObject, objects
from turnlog.items import output_text, type_of
from turnlog.store import Durability
from turnlog.testing import Reply, call, scripted, text

NAMES = ("ana", "bob", "eve")


@turnlog.tool(on_crash="give_up")
async def look_up(order: str) -> str:
    """Look something up."""
    return f"{order} is on its way"


AGENT = turnlog.Agent("clerk", model="gpt-5", tools=[look_up])


def clerk(body: JsonObject) -> Reply:
    """Look up what is asked for, and say how it stands."""
    last = objects(body, "input")[-1]
    if type_of(last) == "function_call_output":
        return text("It is on its way.")
    return call("look_up", order="7") if "?" in output_text(last) else text("Fine.")


async def talk(log: turnlog.Log, name: str, turns: int, size: int) -> None:
    """Some turns of a conversation, acknowledged as they are done."""
    chat = await log.conversation(name, agent=AGENT)
    told = 0
    for n in range(turns):
        said = "Where is it?" if n % 2 else "x" * (size if name == "bob" else 10)
        turn = await chat.send(said)
        told = await acknowledge(chat, told)
        await turn.result()
        told = await acknowledge(chat, told)


async def acknowledge(chat: turnlog.Conversation, told: int) -> int:
    """Say which events are there, after so many; the version of the last."""
    events = await chat.events(after=told)
    os.write(sys.stdout.fileno(), f"ACK {' '.join(one.id for one in events)}\n".encode())
    return told + len(events)


def move(path: str) -> None:
    """Move the write-ahead log into the database, as another program may."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


async def work(path: str, durability: Durability, turns: int, size: int) -> None:
    """Open the database twice, and work in it."""
    for _ in range(2):
        transport = scripted([clerk] * 1000)
        async with turnlog.open(
            path, agents=[AGENT], durability=durability, transport=transport
        ) as log:
            for part in range(2):
                await asyncio.gather(*(talk(log, name, turns, size) for name in NAMES))
                if not part:
                    await asyncio.to_thread(move, path)


def main(path: str, durability: str, turns: str, size: str) -> None:
    """Work, as the command line says."""
    promised: Durability = "power" if durability == "power" else "process"
    asyncio.run(work(path, promised, int(turns), int(size)))


if __name__ == "__main__":
    main(*sys.argv[1:])
