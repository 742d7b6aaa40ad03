"""Processes that talk until they are killed: `python -m turnlog.testing.torture_worker <job>`.

The one rule: a worker knows nothing but the log. Whatever it finds, it goes on from there: it
recovers, sends the next turn under its number as the key, decides what waits for somebody, and
says `ACK` and the ids of events once it was told of them. Several do so on one file, and none
knows of the others.

Each line on the launcher's input, `<owner> <seed> <transport> [<trap>]`, forks a worker, whose
process id is printed. A job is a `Job` as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Self

from ..agent import Agent
from ..call import Call
from ..conversation import Conversation
from ..errors import Busy, NotSupported, StateError, Waiting
from ..log import Log, find_transport
from ..log import open as open_log
from ..ports import Endpoint, Store
from ..turn import Turn
from ..updates import Delta, Retracted, Update
from .traps import Trap, trapped
from .victims import ALL_DONE, NOTHING, Effects, agent_of, done, said

BEGINNINGS = (0, len(ALL_DONE) + 1)
IDS_IN_A_LINE = 80
"""So that a line is written whole, whoever else writes to the pipe."""


def shown(updates: Iterable[Update]) -> str:
    """The text that a watcher saw, without what was retracted."""
    texts: dict[str, str] = {}
    for update in updates:
        if isinstance(update, Retracted):
            texts.pop(update.attempt, None)
        elif isinstance(update, Delta) and update.type == "text.delta":
            texts[update.cursor.attempt] = texts.get(update.cursor.attempt, "") + update.delta
    return "".join(texts.values())


def say(*words: str) -> None:
    """One line, whole or not at all."""
    os.write(sys.stdout.fileno(), (" ".join(words) + "\n").encode())


def keep_quiet(*words: str) -> None:
    """For a worker that nobody listens to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all workers have in common.

    `store` names the function that opens the store, as `module:function`: it is called with the
    path and `owner=`, a name that no other process has. `at_once` is how many conversations a
    worker goes on with at a time.
    """

    path: str
    base_url: str
    conversations: int
    turns: int
    store: str = "turnlog.store:open_store"
    profile: str = "openai"
    at_once: int = 3

    @property
    def names(self) -> list[str]:
        """The conversations."""
        return [f"c{number}" for number in range(self.conversations)]

    @property
    def effects(self) -> Effects:
        """Where tools leave what they did: beside the database."""
        return Effects(Path(f"{self.path}.effects"))

    async def open(self, owner: str) -> Store:
        """The store, as one more owner."""
        module, _, function = self.store.partition(":")
        opened: Callable[..., Awaitable[Store]] = getattr(import_module(module), function)
        return await opened(self.path, owner=owner)

    def dump(self) -> str:
        """The job as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Self:
        """A job from JSON."""
        return cls(**json.loads(text))


@dataclass(slots=True)
class Worker:
    """One process of them: it takes any conversation that is not finished, and goes on with it."""

    job: Job
    log: Log
    agent: Agent
    draw: random.Random
    say: Callable[..., None] = keep_quiet
    _told: dict[str, int] = field(default_factory=dict[str, int])

    async def work(self) -> None:
        """Go on until all conversations are finished, perhaps with a service beside it."""
        await self.log.recover()
        left, stop = set(self.job.names), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            if self.draw.random() < 0.5:
                group.create_task(self.log.work(stop=stop, poll=0.1))
            async with asyncio.TaskGroup() as takers:
                for _ in range(self.job.at_once):
                    takers.create_task(self.take(left))
            stop.set()

    async def take(self, left: set[str]) -> None:
        """Go on with any of these, until none is left."""
        while left:
            name = self.draw.choice(sorted(left))
            chat = await self.log.conversation(name, agent=self.agent)
            try:
                finished = await self.go_on(chat)
            except (Busy, Waiting, NotSupported):
                # Somebody else has it, or had it and is dead by now.
                await asyncio.sleep(self.draw.uniform(0, 0.02))
            else:
                left -= {name} if finished else set()

    async def go_on(self, chat: Conversation) -> bool:
        """Take the next turn of a conversation to its end; whether there was none.

        Further steps that a conversation is to go through belong here, or in `_meanwhile`.
        """
        rows = await chat.turns(last=1)
        number = 1 if not rows else int(rows[-1].key) + (rows[-1].outcome is not None)
        if number > self.job.turns:
            return True
        turn = await chat.send(said(chat.id, number), idempotency_key=str(number))
        await self.acknowledge(chat)
        await self._meanwhile(chat, turn, number)
        while (await turn.peek()).status == "waiting":
            await self.decide(chat)
            await turn.resume()
        await self.acknowledge(chat)
        return False

    async def _meanwhile(self, chat: Conversation, turn: Turn[str], number: int) -> None:
        """What others do to a turn, wherever it runs: queue behind it, watch it, cancel it."""
        if number < self.job.turns and self.draw.random() < 0.2:
            words = said(chat.id, number + 1)
            await chat.send(words, idempotency_key=str(number + 1), if_busy="queue")
            await self.acknowledge(chat)
        if self.draw.random() < 0.2:
            text = shown([update async for update in turn])
            assert f"{ALL_DONE}\n{NOTHING}".find(text) in BEGINNINGS, f"{turn.id} shows {text!r}"
        if self.draw.random() < 0.05:
            await turn.cancel(by="torture")

    async def acknowledge(self, chat: Conversation) -> None:
        """Say which events this process was told of that it had not been told of before."""
        events = await chat.events(after=self._told.get(chat.id, 0))
        for start in range(0, len(events), IDS_IN_A_LINE):
            self.say("ACK", *(one.id for one in events[start : start + IDS_IN_A_LINE]))
        if events:
            self._told[chat.id] = events[-1].version

    async def decide(self, chat: Conversation) -> None:
        """Do what somebody would do about the calls that wait, who can look at their effects."""
        for call in (await chat.state()).pending:
            # Somebody else may be deciding the same.
            with suppress(StateError):
                await self._decide(call)

    async def _decide(self, call: Call) -> None:
        match call.waits_for:
            case "approval":
                agrees = self.draw.random() < 0.8
                await (call.approve(by="torture") if agrees else call.reject(by="torture"))
            case "deferred":
                await call.answer(done(call.id), by="torture")
            case "uncertain" if self.job.effects.times()[call.id]:
                await call.answer(done(call.id), by="torture")
            case "uncertain":
                await call.rerun(by="torture")
            case _:  # one that runs waits for nobody
                pass


@asynccontextmanager
async def working(
    job: Job,
    owner: str,
    *,
    seed: str = "1",
    transport: str = "auto",
    trap: Trap | None = None,
    say: Callable[..., None] = keep_quiet,
) -> AsyncGenerator[Worker]:
    """A worker over a log of its own, which may die in a trap."""
    trap = trap or Trap()
    agent = agent_of(job.effects, trap)
    endpoint = Endpoint(base_url=job.base_url, profile=job.profile)
    store, way = trapped(await job.open(owner), find_transport(transport, endpoint), trap)
    async with open_log(job.path, store=store, transport=way, agents=[agent]) as log:
        yield Worker(job, log, agent, random.Random(seed), say)


async def warm(job: Job) -> None:
    """Open everything once: the database is there, and so are the modules that workers need."""
    async with working(job, "launcher") as worker:
        await worker.log.recover()


async def work(job: Job, line: str, say: Callable[..., None] = say) -> None:
    """A worker as a line on the launcher's input describes it; says how it ended."""
    owner, seed, transport, *rest = line.split()
    try:
        trap = Trap.parse("".join(rest), lambda words: say("DIES", words))
        async with working(
            job, owner, seed=seed, transport=transport, trap=trap, say=say
        ) as worker:
            await worker.work()
    except Exception:
        # The one place where it is seen: whatever a worker did not expect is a finding.
        say("BAD", json.dumps(traceback.format_exc()))
    else:
        say("DONE", owner)


def main(arguments: Sequence[str], lines: Iterable[str]) -> None:
    """Fork a worker for each line."""
    job = Job.load(arguments[0])
    asyncio.run(warm(job))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in lines:
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return asyncio.run(work(job, line))
        say("PID", str(pid))


if __name__ == "__main__":
    main(sys.argv[1:], sys.stdin)
