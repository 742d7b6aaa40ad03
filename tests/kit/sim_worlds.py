"""What the simulation is put through: careful callers, and a world that outlives their processes.

The one rule: a caller does what the documentation tells it to: it sends again under the same key,
settles what is uncertain by looking at the world, and resumes. Whatever happens, everything is
done in the end, and done once.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import cast

import turnlog
from turnlog.canonical import JsonObject, objects
from turnlog.conversation import Conversation
from turnlog.errors import Busy, Conflict, NotPending, StoreError, Waiting
from turnlog.items import type_of
from turnlog.ports import Append, Appended, Store
from turnlog.store import migrate
from turnlog.testing import Reply, call, calls
from turnlog.testing import text as says
from turnlog.testing.invariants import Effect, Violation, violations
from turnlog.testing.simulation import Gone, Process, Simulation
from turnlog.testing.store_contract import Author, added
from turnlog_transports.replay import ReplayTransport

LIVES = 6
"""How often a role begins anew at the most: a process dies once or twice."""

TRIES = 400
"""How often a caller tries at the most until it is done."""

BREAK = 0.1
"""For how many seconds a caller waits where it has to."""

PAY = "Pay twice."
ASK = "Pay with approval."
SAY = "Say something."
ENDS: Mapping[str, str] = {PAY: "Paid.", ASK: "Paid.", SAY: "Something."}


@cache
def empty() -> Path:
    """A new database, made once: every run begins with a copy."""
    path = Path(tempfile.mkdtemp(prefix="turnlog-simulation-")) / "empty.db"
    migrate(path)
    return path


def model(body: JsonObject) -> Reply:
    """Pay where it is asked to, and say so."""
    last = objects(body, "input")[-1]
    if type_of(last) == "function_call_output":
        reply = says("Paid.")
    elif PAY in str(last):
        reply = calls(call("pay", n=1), call("pay", n=2))
    elif ASK in str(last):
        reply = call("approved", n=3)
    else:
        reply = says("Something.")
    return reply.but(delay=0.002)


class Told:
    """A store that notes which events it told a caller of as written."""

    def __init__(self, store: Store, told: list[str]) -> None:
        self._store = store
        self._told = told

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def append(self, append: Append) -> Appended:
        """Append, and note it."""
        appended = await self._store.append(append)
        self._told += [event.id for event in append.events]
        return appended


Open = Callable[[Process, Path], Coroutine[object, object, Store]]
Work = Callable[["World", turnlog.Log], Coroutine[object, object, None]]


async def opened(process: Process, path: Path) -> Store:
    """The store as it is shipped."""
    return await process.store(path)


async def beating(process: Process, path: Path) -> Store:
    """A store whose owner is known by its beat."""
    return await process.store(path, owners="beats")


@dataclass(slots=True)
class Follower:
    """What a follower of the log has seen, and from where it goes on."""

    checkpoint: str = ""
    seen: list[str] = field(default_factory=list[str])

    async def follow(self, log: turnlog.Log) -> None:
        """Follow the log until it is closed."""
        while True:
            try:
                async with aclosing(log.follow(self.checkpoint, poll=0.05)) as events:
                    async for one in events:
                        self.seen.append(one.event.id)
                        self.checkpoint = one.checkpoint
            except StoreError:
                await asyncio.sleep(BREAK)


@dataclass(slots=True)
class World:
    """What is outside every process: a file, what tools did, and what somebody was told.

    Where a process `wakes` that was taken for dead, nobody lets its tools run again.
    """

    simulation: Simulation
    open: Open = opened
    wakes: bool = False
    told: list[str] = field(default_factory=list[str])
    effects: list[Effect] = field(default_factory=list[Effect])
    providers: list[ReplayTransport] = field(default_factory=list[ReplayTransport])
    followers: dict[str, Follower] = field(default_factory=dict[str, "Follower"])
    ends: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    agent: turnlog.Agent = field(init=False)

    def __post_init__(self) -> None:
        shutil.copyfile(empty(), self.path)

        async def pay(ctx: turnlog.ToolContext[None], n: int) -> str:
            """Do something that must not be done twice."""
            self.effects.append(Effect(key=ctx.idempotency_key, run=ctx.run))
            await asyncio.sleep(0.003)
            return f"paid {n}"

        async def approved(ctx: turnlog.ToolContext[None], n: int) -> str:
            """The same, once somebody has approved it."""
            return await pay(ctx, n)

        tools = [turnlog.tool(pay), turnlog.tool(approved, needs_approval=True)]
        self.agent = turnlog.Agent("test", model="gpt-5", tools=tools)

    @property
    def path(self) -> Path:
        """Where the database is."""
        return self.simulation.directory / "log.db"

    async def log(self, process: Process) -> turnlog.Log:
        """Open the log in a process, with a provider that knows nothing of earlier ones."""
        store = await self.open(process, self.path)
        provider = ReplayTransport([model] * 50, seed=process.name)
        self.providers.append(provider)
        log = await turnlog.open(
            "",
            agents=[self.agent],
            transport=provider,
            store=cast(Store, Told(store, self.told)),
            ambient=self.simulation.ambient,
        )
        await log.recover()
        return log

    # -- what must be so ---------------------------------------------------------------------

    async def look(self) -> None:
        """Look at what a process left that died: everything is as promised, so far."""
        async with looking(self.simulation, self.path, readonly=True) as store:
            assert not (found := await self._violations(store, repeat=False)), found

    async def _violations(self, store: Store, *, repeat: bool) -> list[Violation]:
        told, effects = tuple(self.told), tuple(self.effects)
        bodies = [body for provider in self.providers for body in provider.requests]
        return await violations(
            store,
            acknowledged=told,
            requests=bodies,
            effects=effects,
            samples=2,
            repeat=repeat,
        )

    async def check(self) -> None:
        """Look at what is left in the end: everything is done, and done once."""
        async with looking(self.simulation, self.path) as store:
            assert not (found := await self._violations(store, repeat=True)), found
            log = [event.id for _, _, event in await store.follow({}, limit=10_000)]
        for follower in self.followers.values():
            assert follower.seen == log[: len(follower.seen)], "a follower saw something else"
        times = Counter(effect.key for effect in self.effects)
        assert all(number == 1 for number in times.values()), times
        assert not self.simulation.loop.problems, self.simulation.loop.problems


@asynccontextmanager
async def looking(
    simulation: Simulation, path: Path, *, readonly: bool = False
) -> AsyncGenerator[Store]:
    """A store in a process that is spared."""
    process = simulation.process(f"auditor-{len(simulation.processes)}", spared=True)
    store = await process.store(path, readonly=readonly)
    yield store
    await store.close()


# -- callers -------------------------------------------------------------------------------


def talks(name: str, said: str, key: str = "1") -> Work:
    """Have one turn of a conversation done, however far it came."""

    async def work(world: World, log: turnlog.Log) -> None:
        chat = await log.conversation(name, agent=world.agent)
        for _ in range(TRIES):
            try:
                turn = await chat.send(said, idempotency_key=key)
                await _settled(world, chat)
                result = await (await turn.resume()).peek()
            except (Busy, Conflict, NotPending, StoreError, Waiting):
                await asyncio.sleep(BREAK)
                continue
            if result.status != "waiting":
                world.ends[name, key] = result.status
                assert result.status != "completed" or result.output_text == ENDS[said]
                return
        raise AssertionError(f"{name} {key} is not done after {TRIES} tries")

    return work


async def _settled(world: World, chat: Conversation) -> None:
    """Answer what waits, as somebody who can look at the world."""
    for one in (await chat.state()).pending:
        if one.waits_for == "approval":
            await one.approve(by="ana")
        elif one.waits_for == "uncertain":
            if world.wakes or any(effect.key == one.id for effect in world.effects):
                await one.answer("paid, as far as anybody can see", by="ana")
            else:
                await one.rerun(by="ana")


# -- processes -----------------------------------------------------------------------------


async def role(world: World, name: str, works: Sequence[Work]) -> None:
    """Have one process after another do some work, until one of them lives to its end."""
    follower = world.followers[name] = Follower()
    for number in range(LIVES):
        process = world.simulation.process(f"{name}-{number}")
        try:
            await _live(world, process, works, follower)
            return
        except (Gone, StoreError):
            if process.alive:
                process.kill()
            await world.look()
    raise AssertionError(f"{name} is not done after {LIVES} lives")


async def _live(world: World, process: Process, works: Sequence[Work], follower: Follower) -> None:
    log = await process.run(world.log(process))
    following = asyncio.create_task(process.run(follower.follow(log)))
    try:
        await asyncio.gather(*(_done(world, process, log, work) for work in works))
        await process.run(log.close())
    finally:
        following.cancel()
        await asyncio.wait([following])


async def _done(world: World, process: Process, log: turnlog.Log, work: Work) -> None:
    """Do something; who is cancelled tries again, in the same process."""
    while True:
        try:
            await process.run(work(world, log))
            return
        except Gone:
            if not process.alive:
                raise


def scenario(
    roles: Mapping[str, Sequence[Work]], *, open: Open = opened, wakes: bool = False
) -> Callable[[Simulation], Coroutine[object, object, None]]:
    """Roles that work at once, each in a process of its own, and a look at what is left."""

    async def run(simulation: Simulation) -> None:
        world = World(simulation, open, wakes)
        await asyncio.gather(*(role(world, name, works) for name, works in roles.items()))
        await world.check()

    return run


TINY = {"one": [talks("c", PAY)]}
SMALL = {"one": [talks("a", PAY), talks("b", ASK), talks("c", SAY), talks("c", SAY, "2")]}
TWO = {
    "one": [talks("a", PAY), talks("c", SAY)],
    "two": [talks("b", ASK), talks("c", PAY, "2")],
}

SAME = {name: [talks("a", PAY), talks("c", ASK)] for name in ("one", "two")}


# -- the store alone -----------------------------------------------------------------------


def appends(open: Open = opened) -> Callable[[Simulation], Coroutine[object, object, None]]:
    """Two callers that append at once until they are told that it is done, and a reader."""

    async def run(simulation: Simulation) -> None:
        path = simulation.directory / "log.db"
        shutil.copyfile(empty(), path)
        told: list[str] = []
        a, b = Author("a"), Author("b")
        scripts = [[a.begin(), a.write(added("k1"), added("k2"))], [b.begin()]]
        for number in range(LIVES):
            process = simulation.process(f"one-{number}")
            try:
                store = await process.run(open(process, path))
                works = [_appended(store, script, told) for script in scripts]
                await asyncio.gather(*(process.run(work) for work in [*works, _read(store)]))
                await process.run(store.close())
                break
            except (Gone, StoreError):
                process.kill()
            async with looking(simulation, path, readonly=True) as store:
                found = await violations(store, acknowledged=told, samples=1, repeat=False)
                assert not found, found
        async with looking(simulation, path) as store:
            found = await violations(store, acknowledged=told, samples=2)
            assert not found, found
        assert set(told) == {
            event.id for script in scripts for one in script for event in one.events
        }
        assert not simulation.loop.problems, simulation.loop.problems

    return run


async def _appended(store: Store, script: Sequence[Append], told: list[str]) -> None:
    for append in script:
        await store.append(append)
        told += [event.id for event in append.events]


async def _read(store: Store) -> None:
    """Read what is there, which may be nothing so far."""
    await store.follow({})
    await store.head("a")
