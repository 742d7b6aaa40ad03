"""Appends to a database whose disk fails: `python kernel_workload.py <database>`.

It writes the same events whenever it is run, each append again until it is answered, and reads back
what it wrote. It prints `ACK` with the ids of an append that was answered, `TYPED` with the name of
a turnlog error, `BAD` with any other, `LOST` where it cannot read what it was told was written, and
at the end `DONE`, or `LEFT` where an append was not answered however often it was tried.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from turnlog import events as ev
from turnlog.errors import TurnlogError
from turnlog.index import Change, advance
from turnlog.ports import Append
from turnlog.record import NewEvent, Recorded, Stamp, record
from turnlog.state import start
from turnlog.store import MemoryStore, SqlStore, open_store

T = TypeVar("T")

TRIES = 6
APPENDS = 4


def appends(conversation: str) -> list[Append]:
    """A conversation of two events an append, some of them large."""
    state, made = start(conversation), list[Append]()
    for number in range(APPENDS):
        ids = [f"{conversation}-{number}-{place}" for place in range(2)]
        text = "x" * (18_000 if number == 1 else 40)
        facts: list[ev.Event] = [
            ev.ItemAdded(key=f"k{number}", item={"role": "user", "content": f"{number}{text}"}),
            ev.ProviderNoted(kind="note", data={"number": number}),
        ]
        if not number:
            facts[0] = ev.ConversationStarted(id=conversation, metadata={})
        stamp = Stamp(
            time=1_000 + number, actor="test", epoch=None, ids=ids, salts=[bytes(16), bytes(16)]
        )
        new = [NewEvent(event=one) for one in facts]
        expected = state.version
        recorded: list[Recorded] = record(
            conversation, expected, bytes.fromhex(state.hash), new, stamp
        )
        changes: list[Change] = []
        for one in recorded:
            state, more = advance(state, one)
            changes += more
        made.append(
            Append(
                conversation=conversation,
                expected=expected,
                events=recorded,
                head=state,
                changes=changes,
            )
        )
    return made


def say(*words: str) -> None:
    """One line, whole or not at all."""
    os.write(sys.stdout.fileno(), (" ".join(words) + "\n").encode())


async def tried(what: Callable[[], Awaitable[T]]) -> T | None:
    """Do something until it works, or until it is clear that it does not."""
    for _ in range(TRIES):
        try:
            async with asyncio.timeout(20):
                return await what()
        except TurnlogError as error:
            say("TYPED", type(error).__name__)
        except Exception as error:
            say("BAD", type(error).__name__, str(error))
    return None


async def main(path: str) -> None:
    """Write, and read back."""
    store: SqlStore | MemoryStore | None = await tried(partial(open_store, path, busy_timeout=1))
    if store is None:
        say("LEFT")
        return
    acked: list[str] = []
    for append in appends("c"):
        if await tried(partial(store.append, append)) is None:
            say("LEFT")
            break
        acked += [one.id for one in append.events]
        say("ACK", *(one.id for one in append.events))
        events = await tried(partial(store.events, "c"))
        if events is not None and [one.id for one in events] != acked:
            say("LOST", *acked)
    else:
        say("DONE")
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
