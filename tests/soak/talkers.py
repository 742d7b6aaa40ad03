"""Those who talk: each takes one turn behind the other, in its own conversation, in many ways.

The one rule: everything that is said is checked where it is said, and forgotten; what the process
holds must not grow by what the test remembers.
"""

from __future__ import annotations

import asyncio
import traceback
from array import array
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Literal

import turnlog
from turnlog import events as ev
from turnlog.conversation import Conversation
from turnlog.errors import Closed, Waiting
from turnlog.items import output_text
from turnlog.result import TurnResult
from turnlog.settings import Settings
from turnlog.turn import Turn

from .home import Home
from .said import Said
from .soak import Soak
from .story import Plan, fork_of, name_of, pace, plan, token

Way = Literal[
    "watch", "run", "send", "reload", "leave", "cancel", "after_request", "timeout", "fork"
]

WAYS: dict[Way, int] = {
    "watch": 40,
    "run": 18,
    "send": 10,
    "reload": 10,
    "leave": 8,
    "cancel": 6,
    "after_request": 4,
    "timeout": 4,
}
"""How turns are taken, and how often of a hundred."""

TIMED: frozenset[Way] = frozenset({"watch", "send"})
"""Ways of which it is said how long they take: nobody stops such a turn, or looks away."""

STOPPED: frozenset[Way] = frozenset({"leave", "cancel", "after_request", "timeout"})


@dataclass(slots=True)
class Talker:
    """One conversation, and who talks in it; `turns` and `forks` are where inputs were accepted."""

    number: int
    home: Home
    soak: Soak
    draw: Random
    turns: array[int] = field(default_factory=lambda: array("I"))
    forks: array[int] = field(default_factory=lambda: array("I"))

    async def talk(self, until: float) -> None:
        """Take one turn behind the other; whatever is raised is wrong."""
        loop = asyncio.get_running_loop()
        rests = self.soak.load.rests(self.number)
        turn, burst = 0, self.draw.randint(1, 3)
        await self._rest(self.draw.uniform(0, rests), until)
        while loop.time() < until:
            turn, burst = turn + 1, burst - 1
            try:
                async with self.soak.at_once:
                    if loop.time() < until:
                        with self.soak.meter.taking():
                            await self._take(turn)
            except Exception:
                self.soak.check(False, f"{self._word(turn)}: {traceback.format_exc(limit=-6)}")
                return
            if burst > 0:
                await self._rest(self.draw.choice((0.0, 0.5)), until)
            else:
                burst = self.draw.randint(1, 3)
                await self._rest(self.draw.uniform(0, 2 * rests), until)

    async def _rest(self, seconds: float, until: float) -> None:
        left = until - asyncio.get_running_loop().time()
        await asyncio.sleep(min(seconds, max(0.0, left)))

    async def _take(self, turn: int) -> None:
        way = self._way()
        word, planned = self._word(turn), plan(self.soak.seed, self.number, turn)
        runs = self.soak.ran[word] = Counter[str]()
        result, again = await self._taken(way, turn)
        if result is None:
            self.soak.count("never accepted")
        else:
            (self.forks if way == "fork" else self.turns).append(turn)
            self.soak.meter.turns += 1
            self.soak.count(f"{way} {result.status}")
            self._judge(word, way, planned, result, runs, again=again)
        self.soak.forget(word)

    def _way(self) -> Way:
        load = self.soak.load
        if load.forks and self.turns and self.draw.random() < load.forks:
            return "fork"
        ways = list(WAYS)
        return self.draw.choices(ways, [WAYS[each] for each in ways])[0]

    async def _taken(self, way: Way, turn: int) -> tuple[TurnResult[str] | None, bool]:
        """What a turn came to, None if it was never accepted; whether the log was closed under it.

        A turn that was stopped, because the log was closed, is gone on with in the next one.
        """
        loop = asyncio.get_running_loop()
        try:
            chat = await self._chat()
            await self._add(chat, turn)
            begun = loop.time()
            held = await self._by(way, chat, turn)
            result = await held.peek() if held is not None else None
            if result is None or result.status != "waiting":
                await self._time(way, chat, turn, loop.time() - begun)
                return result, False
        except (Closed, Waiting):
            pass
        while True:
            self.soak.count("closed under")
            with suppress(Closed):
                return await self._again(way, turn), True

    async def _again(self, way: Way, turn: int) -> TurnResult[str]:
        """The same turn, in the log as it was opened again."""
        chat = await self._chat(fork_of(self.number, turn) if way == "fork" else None)
        held = await chat.send(self._input(turn), idempotency_key=str(turn))
        with suppress(Waiting):
            result = await held.peek()
            if result.status != "waiting":
                return result
        await held.resume()
        return await held.peek()

    async def _chat(self, id: str | None = None) -> Conversation:
        """The conversation, or its fork, in the log that is open."""
        log = await self.home.log()
        settings: Settings = {"store": self.soak.load.stores(self.number)}
        name = name_of(self.number)
        return await log.conversation(
            id or name, agent=self.home.agent, instructions=name, settings=settings
        )

    async def _add(self, chat: Conversation, turn: int) -> None:
        """Add something to what is asked next, now and then."""
        if self.soak.load.adds and self.draw.random() < self.soak.load.adds:
            begun = asyncio.get_running_loop().time()
            await chat.add({"role": "developer", "content": f"{self._word(turn)} " + "." * 200})
            self.soak.meter.note("append", asyncio.get_running_loop().time() - begun)

    async def _time(self, way: Way, chat: Conversation, turn: int, seconds: float) -> None:
        """Take down how long a turn took, if it took nothing but itself.

        Nobody waited for the model or a tool, nothing went wrong, and the chain was there.
        """
        planned = plan(self.soak.seed, self.number, turn)
        slow = pace(self.soak.seed, self.soak.load, self.number, turn) > 0
        if way not in TIMED or slow or planned.calls or planned.ending != "completed":
            return
        with suppress(Closed):
            (row,) = await chat.turns(last=1)
            events = [one.event for one in await chat.events(after=row.started - 1)]
            sent = [one.kind for one in events if isinstance(one, ev.RequestPrepared)]
            if sent == ["delta"]:
                self.soak.meter.note("turn", seconds)

    def _judge(
        self,
        word: str,
        way: Way,
        planned: Plan,
        result: TurnResult[str],
        runs: Counter[str],
        *,
        again: bool,
    ) -> None:
        check, said = self.soak.check, f"{word} by {way}: {result}, ran {runs}"
        check(all(times == 1 for times in runs.values()) and len(runs) <= planned.calls, said)
        match result.status:
            case "completed":
                check(planned.ending == "completed" and result.output_text == planned.text, said)
                # A tool that ran when the log was closed may have to be given up unheard.
                check(again or len(runs) == planned.calls, said)
            case "cancelled":
                check(way in STOPPED, said)
            case "incomplete":
                check(planned.ending == "incomplete" and result.output_text == planned.text, said)
            case "failed" if (result.reason or "").startswith("given up after"):
                self.soak.counts["given up"] += 1
            case "failed":
                check(planned.ending == "failed" and word in (result.reason or ""), said)
            case _:
                check(False, said)

    def _word(self, turn: int) -> str:
        return token(self.number, turn)

    # -- ways of taking a turn -------------------------------------------------------------

    async def _by(self, way: Way, chat: Conversation, turn: int) -> Turn[str] | None:
        match way:
            case "watch" | "leave":
                return await self._watch(chat, turn, leave=way == "leave")
            case "run" | "timeout":
                return await self._run(chat, turn, limited=way == "timeout")
            case "fork":
                return await self._send(await chat.fork(fork_of(self.number, turn)), turn, "send")
            case "send" | "reload" | "cancel" | "after_request":
                return await self._send(chat, turn, way)

    async def _watch(self, chat: Conversation, turn: int, *, leave: bool) -> Turn[str]:
        most = self.draw.randint(0, 25) if leave else None
        said = Said(self.soak, self._word(turn))
        async with chat.stream(self._input(turn), idempotency_key=str(turn)) as held:
            whole = await said.hear(held.updates(), most=most)
        if whole:
            said.compare(await held.peek(), plan(self.soak.seed, self.number, turn))
        return held

    async def _run(self, chat: Conversation, turn: int, *, limited: bool) -> Turn[str] | None:
        with suppress(turnlog.TurnFailed, TimeoutError):
            async with asyncio.timeout(self.draw.uniform(0, 4) if limited else None):
                await chat.run(self._input(turn), idempotency_key=str(turn))
        # Whoever was stopped while it began cannot know whether it did: the record does.
        rows = await chat.turns(last=1)
        accepted = bool(rows) and rows[0].key == str(turn)
        self.soak.check(accepted or limited, f"{self._word(turn)} was run and not recorded")
        return await chat.turn(rows[0].turn) if accepted else None

    async def _send(self, chat: Conversation, turn: int, way: Way) -> Turn[str]:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        held = await chat.send(self._input(turn), idempotency_key=str(turn))
        took = loop.time() - begun
        self.soak.waits[int(float(f"{took * 1000:.2g}"))] += 1
        self.soak.meter.note("send", took)
        said = Said(self.soak, self._word(turn))
        if way == "send":
            await held.peek()
            return held
        whole = await said.hear(held.updates(), most=self.draw.randint(0, 25))
        if way == "reload":
            if not whole:
                await said.hear(chat.attach(after=said.cursor))
            said.compare(await held.peek(), plan(self.soak.seed, self.number, turn))
        else:
            await held.cancel(mode="now" if way == "cancel" else "after_request")
        return held

    def _input(self, turn: int) -> str:
        return f"{self._word(turn)}, please."

    # -- what is left of it ----------------------------------------------------------------

    async def look_back(self) -> None:
        """The record holds every turn with its outcome, and the context everything in order."""
        chat = await self._chat()
        rows = await chat.turns(last=len(self.turns) + 1)
        keys = [(row.key, row.outcome is not None) for row in rows]
        self.soak.check(
            keys == [(str(turn), True) for turn in self.turns], f"{chat.id} has turns {keys}"
        )
        expected: list[str] = []
        found: list[str] = []
        for row in rows:
            expected.append(self._input(int(row.key)))
            if row.outcome == "completed":
                expected.append(plan(self.soak.seed, self.number, int(row.key)).text)
        for item in await chat.items():
            if item.raw.get("type") == "message" and item.raw.get("role") != "developer":
                found.append(output_text(item.raw))
        self.soak.check(found == expected, f"{chat.id} holds {found}, not {expected}")
