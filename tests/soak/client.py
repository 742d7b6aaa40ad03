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
import sys
from contextlib import suppress
from pathlib import Path
from random import Random

from turnlog.context import every
from turnlog.log import Log
from turnlog.store import open_store
from turnlog.testing.invariants import Checked
from turnlog.verifying import Report

from ..faults.given import sound
from .home import Home
from .ledger import Ledger
from .memory import sockets
from .meter import Meter, cpu
from .soak import Soak
from .story import LOADS, fork_of, name_of, origin
from .talkers import Talker

CONVERSATIONS = 1000
LAST_SECONDS = 10.0
"""How long before the end nothing new is begun, so that what was begun can end."""

SAMPLES = 240
"""How many samples are taken, if that is not more than one a second."""

WINDOWS = 60

RULED = 50
"""How many conversations, and forks, are held against the invariants of the testing kit."""


async def talk(home: Home, soak: Soak, seconds: float) -> list[Talker]:
    """Have all of them talk for so long, and finish what they have begun."""
    talkers = [
        Talker(number, home, soak, Random(f"{soak.seed} {number}"))
        for number in range(CONVERSATIONS)
    ]
    until = asyncio.get_running_loop().time() + seconds - LAST_SECONDS
    talking = [talker.talk(until) for talker in talkers]
    if soak.load.reopen is not None:
        talking.append(home.reopen_every(min(soak.load.reopen, seconds / 4), until))
    await asyncio.gather(*talking)
    return talkers


async def look_back(log: Log, soak: Soak, talkers: list[Talker], verified: int) -> Ledger:
    """See what is in the log: of all conversations what was said, of some everything."""
    for talker in talkers:
        await talker.look_back()
    for talker in Random(soak.seed).sample(talkers, verified):
        try:
            await sound(log, await log.conversation(name_of(talker.number)))
        except AssertionError as error:
            soak.check(False, f"{name_of(talker.number)} is not sound: {error}")
    ledger = Ledger()
    await ledger.read(log)
    return ledger


async def verify(log: Log, soak: Soak) -> dict[str, float]:
    """Verify the log, forks and all, as far as there is time; how far that was."""
    loop, seconds = asyncio.get_running_loop(), soak.load.verify_seconds
    looked = {"conversations": 0.0, "events": 0.0, "whole": 0.0}

    def told(report: Report) -> None:
        looked["conversations"] += report.conversations
        looked["events"] += report.events
        soak.check(report.ok, f"does not verify: {report.findings}")

    begun = loop.time()
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await log.verify(told=told)
            looked["whole"] = 1.0
    return {**looked, "seconds": round(loop.time() - begun, 1)}


async def keep_the_rules(path: str, soak: Soak, talkers: list[Talker]) -> None:
    """Hold some conversations, and forks of them, against the invariants of the testing kit."""
    store = await open_store(path, readonly=True)
    forked = [talker for talker in talkers if talker.forks]
    heard = [talker for talker in talkers if talker.turns]
    some = Random(soak.seed).sample(heard, min(RULED, len(heard)))
    names = [name_of(talker.number) for talker in some]
    names += [fork_of(talker.number, talker.forks[-1]) for talker in forked[:RULED]]
    try:
        for name in names:
            log = {one: await every(store, one) for one in {name, origin(name)}}
            for found in await Checked(
                store, name, log, again=(), samples=4, repeat=False
            ).violations():
                soak.check(False, f"{name} keeps not to {found}")
    finally:
        await store.close()


def progress(line: str) -> None:
    """Say how it goes, to whoever waits for the end."""
    print(line, file=sys.stderr, flush=True)


async def main(
    seed: str, kind: str, seconds: float, path: str, base_url: str, verified: int
) -> None:
    """Talk, look back, close, and say what came of it."""
    load = LOADS[kind]
    meter = Meter(Path(path), max(4.0, seconds / WINDOWS), progress if load.reopen else None)
    soak = Soak(seed, load, asyncio.Semaphore(load.at_once), meter)
    soak.leak = int(os.environ.get("TURNLOG_SOAK_LEAK", "0"))
    loop, before = asyncio.get_running_loop(), sockets()
    async with Home(path, base_url, soak) as home:
        watching = asyncio.create_task(meter.go_on(max(1.0, seconds / SAMPLES)))
        begun, used = loop.time(), cpu()
        talkers = await talk(home, soak, seconds)
        talked, spent = loop.time() - begun, cpu() - used
        watching.cancel()
        await asyncio.wait([watching])
        ledger = await look_back(await home.log(), soak, talkers, verified)
        looked = loop.time() - begun - talked
        whole = await verify(await home.log(), soak) if load.verify_seconds else None
    if load.verify_seconds:
        await keep_the_rules(path, soak, talkers)
    opened, recovered = home.opened, home.recovered
    del home
    for talker in talkers:
        del talker.home
    gc.collect()
    await asyncio.sleep(0)
    found = {
        "wrong": soak.wrong,
        "wrong_in_log": ledger.wrong,
        "counts": dict(sorted(soak.counts.items())),
        "log": dict(sorted(ledger.counts.items())),
        "turns": meter.turns,
        "forks": sum(len(talker.forks) for talker in talkers),
        "longest_turns": max(len(talker.turns) for talker in talkers),
        "opened": opened,
        "recovered": recovered,
        "verified": whole,
        "began_seconds": seconds - LAST_SECONDS,
        "talked_seconds": round(talked, 1),
        "looked_back_seconds": round(looked, 1),
        "cpu_seconds": round(spent, 1),
        "send_ms": {share: within(soak, share / 100) for share in (50, 90, 99, 100)},
        "samples": [json.loads(row) for row in meter.samples],
        "windows": [json.loads(row) for row in meter.windows],
        "closed": [json.loads(row) for row in meter.closed],
        "tasks_left": [
            repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()
        ],
        "sockets_left": None if before is None else sorted(set(sockets() or ()) - set(before)),
    }
    print(json.dumps(found), flush=True)


def within(soak: Soak, share: float) -> int | None:
    """Within how many milliseconds this share of all sends was durable."""
    waits = sorted(soak.waits.elements())
    return waits[min(len(waits) - 1, int(share * len(waits)))] if waits else None


if __name__ == "__main__":
    given = sys.argv[1:]
    asyncio.run(main(given[0], given[1], float(given[2]), given[3], given[4], int(given[5])))
