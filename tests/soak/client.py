"""A thousand conversations in a process of their own, for so many seconds.

    python -m tests.soak.client <seed> <load> <seconds> <database> <base url> <how many to verify>

The one rule: it prints what it found and judges nothing, but for what is wrong at the place where
it happens. TURNLOG_SOAK_LEAK is how many bytes it keeps of each turn, to see the test fail.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
from dataclasses import dataclass, field
from itertools import count
from random import Random

import turnlog
from turnlog_transports.profiles import OPENAI

from ..faults.given import sound
from .ledger import Ledger
from .memory import Sample, resident, sockets
from .story import LOADS, name_of
from .talkers import Soak, Talker

CONVERSATIONS = 1000
CONNECTIONS = 63
ROTATE_SECONDS = 5.0
LAST_SECONDS = 10.0
"""How long before the end nothing new is begun, so that what was begun can end."""

COLLECT_EVERY = 5
"""Before how many samples of memory, one a second, garbage is collected once."""


@dataclass(slots=True)
class Watch:
    """What this process used, as time went on."""

    samples: list[Sample] = field(default_factory=list[Sample])

    async def go_on(self) -> None:
        """Measure again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for number in count():
            if number % COLLECT_EVERY == 0:
                gc.collect()
            size = resident()
            if size is not None:
                self.samples.append((loop.time() - begun, size))
            await asyncio.sleep(1)


def cpu() -> float:
    """Seconds of a processor that this process has used."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


async def talk(log: turnlog.Log, soak: Soak, seconds: float) -> list[Talker]:
    """Have all of them talk for so long, and finish what they have begun."""
    agent, loop = soak.agent(), asyncio.get_running_loop()
    talkers: list[Talker] = []
    for number in range(CONVERSATIONS):
        chat = await log.conversation(
            name_of(number), agent=agent, settings={"store": number % 2 == 0}
        )
        talkers.append(Talker(number, chat, soak, Random(f"{soak.seed} {number}")))
    until = loop.time() + seconds - LAST_SECONDS
    await asyncio.gather(*(talker.talk(until) for talker in talkers))
    return talkers


async def look_back(log: turnlog.Log, soak: Soak, talkers: list[Talker], verified: int) -> Ledger:
    """See what is in the log: of all conversations what was said, of some everything."""
    for talker in talkers:
        await talker.look_back()
    for talker in Random(soak.seed).sample(talkers, verified):
        try:
            await sound(log, talker.chat)
        except AssertionError as error:
            soak.check(False, f"{talker.chat.id} is not sound: {error}")
    ledger = Ledger()
    await ledger.read(log)
    return ledger


async def main(
    seed: str, kind: str, seconds: float, path: str, base_url: str, verified: int
) -> None:
    """Talk, look back, close, and say what came of it."""
    load = LOADS[kind]
    leak = int(os.environ.get("TURNLOG_SOAK_LEAK", "0"))
    soak, watch = Soak(seed, asyncio.Semaphore(load.at_once), load.rest, leak=leak), Watch()
    loop, before = asyncio.get_running_loop(), sockets()
    opening = turnlog.open(
        path,
        transport="websocket",
        base_url=base_url,
        profile=OPENAI,
        durability="process",
        options={"max_connections": CONNECTIONS, "rotate_seconds": ROTATE_SECONDS},
    )
    async with opening as log:
        watching = asyncio.create_task(watch.go_on())
        begun, used = loop.time(), cpu()
        talkers = await talk(log, soak, seconds)
        talked, spent = loop.time() - begun, cpu() - used
        watching.cancel()
        await asyncio.wait([watching])
        ledger = await look_back(log, soak, talkers, verified)
        looked = loop.time() - begun - talked
    del opening, log
    gc.collect()
    await asyncio.sleep(0)
    found = {
        "wrong": soak.wrong,
        "wrong_in_log": ledger.wrong,
        "counts": dict(sorted(soak.counts.items())),
        "log": dict(sorted(ledger.counts.items())),
        "turns": sum(len(talker.turns) for talker in talkers),
        "talked_seconds": round(talked, 1),
        "looked_back_seconds": round(looked, 1),
        "cpu_seconds": round(spent, 1),
        "send_ms": {share: quantile(soak, share / 100) for share in (50, 90, 99, 100)},
        "samples": watch.samples,
        "tasks_left": [
            repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()
        ],
        "sockets_left": None if before is None else sorted(set(sockets() or ()) - set(before)),
    }
    print(json.dumps(found), flush=True)


def quantile(soak: Soak, share: float) -> int | None:
    """Within how many milliseconds this share of all sends was durable."""
    waits = sorted(soak.waits.elements())
    return waits[min(len(waits) - 1, int(share * len(waits)))] if waits else None


if __name__ == "__main__":
    given = sys.argv[1:]
    asyncio.run(main(given[0], given[1], float(given[2]), given[3], given[4], int(given[5])))
