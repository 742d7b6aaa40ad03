"""Those who talk: each takes one turn behind the other, in its own conversation, in many ways.

The one rule: everything that is said is checked where it is said, and forgotten; what the process
holds must not grow by what the test remembers.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Literal

import turnlog
from turnlog.conversation import Conversation
from turnlog.items import output_text
from turnlog.result import TurnResult
from turnlog.turn import Turn
from turnlog.updates import Delta, Retracted, Update

from .story import Plan, plan, token

WRONG = 20
"""How much of what is wrong is told; one is too much."""

Way = Literal["watch", "run", "send", "reload", "leave", "cancel", "after_request", "timeout"]

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

STOPPED: frozenset[Way] = frozenset({"leave", "cancel", "after_request", "timeout"})


@dataclass(slots=True)
class Soak:
    """What all talkers share: what they count, what is wrong, and which tools ran.

    `at_once` bounds how many turns are under way, so that a slow machine is not asked for more than
    it can do; `rest` is that of the load. `leak` is how many bytes are kept of each turn, to see
    what a leak looks like.
    """

    seed: str
    at_once: asyncio.Semaphore
    rest: float
    counts: Counter[str] = field(default_factory=Counter[str])
    waits: Counter[int] = field(default_factory=Counter[int])
    wrong: list[str] = field(default_factory=list[str])
    ran: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    leak: int = 0
    leaked: list[bytes] = field(default_factory=list[bytes])

    def check(self, holds: bool, what: str) -> None:
        """Take down what does not hold."""
        if not holds and len(self.wrong) < WRONG:
            self.wrong.append(what[:600])

    def agent(self) -> turnlog.Agent:
        """Who answers all conversations, with a tool whose runs are counted."""

        @turnlog.tool(on_crash="give_up")
        async def note(ctx: turnlog.ToolContext[None], token: str, n: int) -> str:
            """Note something down."""
            runs = self.ran.get(token)
            own = token.startswith(f"{ctx.conversation}t") and runs is not None
            self.check(own, f"{ctx.conversation} ran the tool of {token}")
            if runs is not None:
                runs[ctx.idempotency_key] += 1
            await asyncio.sleep(0.01)
            return f"{token} noted {n}"

        return turnlog.Agent("soaked", model="gpt-5", tools=[note])


@dataclass(slots=True)
class Talker:
    """One conversation, and who talks in it; `turns` are the inputs that were accepted."""

    number: int
    chat: Conversation
    soak: Soak
    draw: Random
    turns: list[int] = field(default_factory=list[int])

    async def talk(self, until: float) -> None:
        """Take one turn behind the other; whatever is raised is wrong."""
        loop = asyncio.get_running_loop()
        turn, burst = 0, self.draw.randint(1, 3)
        await self._rest(self.draw.uniform(0, self.soak.rest), until)
        while loop.time() < until:
            turn, burst = turn + 1, burst - 1
            try:
                async with self.soak.at_once:
                    if loop.time() < until:
                        await self._take(turn)
            except Exception:
                self.soak.check(False, f"{self._word(turn)}: {traceback.format_exc(limit=-6)}")
                return
            if burst > 0:
                await self._rest(self.draw.choice((0.0, 0.5)), until)
            else:
                burst = self.draw.randint(1, 3)
                await self._rest(self.draw.uniform(0, 2 * self.soak.rest), until)

    async def _rest(self, seconds: float, until: float) -> None:
        left = until - asyncio.get_running_loop().time()
        await asyncio.sleep(min(seconds, max(0.0, left)))

    async def _take(self, turn: int) -> None:
        ways = list(WAYS)
        way = self.draw.choices(ways, [WAYS[each] for each in ways])[0]
        word, planned = self._word(turn), plan(self.soak.seed, self.number, turn)
        runs = self.soak.ran[word] = Counter[str]()
        held = await self._by(way, turn)
        if held is None:
            self.soak.counts["never accepted"] += 1
        else:
            self.turns.append(turn)
            result = await held.peek()
            self.soak.counts[f"{way} {result.status}"] += 1
            self._judge(word, way, planned, result, runs)
        del self.soak.ran[word]
        self.soak.leaked.append(b"." * self.soak.leak)

    def _judge(
        self, word: str, way: Way, planned: Plan, result: TurnResult[str], runs: Counter[str]
    ) -> None:
        check, said = self.soak.check, f"{word} by {way}: {result}, ran {runs}"
        check(all(times == 1 for times in runs.values()) and len(runs) <= planned.calls, said)
        match result.status:
            case "completed":
                check(planned.ending == "completed" and result.output_text == planned.text, said)
                check(len(runs) == planned.calls, said)
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

    async def _by(self, way: Way, turn: int) -> Turn[str] | None:
        match way:
            case "watch" | "leave":
                return await self._watch(turn, leave=way == "leave")
            case "run" | "timeout":
                return await self._run(turn, limited=way == "timeout")
            case "send" | "reload" | "cancel" | "after_request":
                return await self._send(turn, way)

    async def _watch(self, turn: int, *, leave: bool) -> Turn[str]:
        most = self.draw.randint(0, 25) if leave else None
        said = Said(self.soak, self._word(turn))
        async with self.chat.stream(self._input(turn), idempotency_key=str(turn)) as held:
            whole = await said.hear(held.updates(), most=most)
        if whole:
            said.compare(await held.peek(), plan(self.soak.seed, self.number, turn))
        return held

    async def _run(self, turn: int, *, limited: bool) -> Turn[str] | None:
        with suppress(turnlog.TurnFailed, TimeoutError):
            async with asyncio.timeout(self.draw.uniform(0, 4) if limited else None):
                await self.chat.run(self._input(turn), idempotency_key=str(turn))
        # Whoever was stopped while it began cannot know whether it did: the record does.
        rows = await self.chat.turns(last=1)
        accepted = bool(rows) and rows[0].key == str(turn)
        self.soak.check(accepted or limited, f"{self._word(turn)} was run and not recorded")
        return await self.chat.turn(rows[0].turn) if accepted else None

    async def _send(self, turn: int, way: Way) -> Turn[str]:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        held = await self.chat.send(self._input(turn), idempotency_key=str(turn))
        self.soak.waits[round((loop.time() - begun) * 1000)] += 1
        said = Said(self.soak, self._word(turn))
        if way == "send":
            await held.peek()
            return held
        whole = await said.hear(held.updates(), most=self.draw.randint(0, 25))
        if way == "reload":
            if not whole:
                await said.hear(self.chat.attach(after=said.cursor))
            said.compare(await held.peek(), plan(self.soak.seed, self.number, turn))
        else:
            await held.cancel(mode="now" if way == "cancel" else "after_request")
        return held

    def _input(self, turn: int) -> str:
        return f"{self._word(turn)}, please."

    # -- what is left of it ----------------------------------------------------------------

    async def look_back(self) -> None:
        """The record holds every turn with its outcome, and the context everything in order."""
        rows = await self.chat.turns(last=len(self.turns) + 1)
        keys = [(row.key, row.outcome is not None) for row in rows]
        self.soak.check(
            keys == [(str(turn), True) for turn in self.turns], f"{self.chat.id} has turns {keys}"
        )
        expected: list[str] = []
        found: list[str] = []
        for row in rows:
            expected.append(self._input(int(row.key)))
            if row.outcome == "completed":
                expected.append(plan(self.soak.seed, self.number, int(row.key)).text)
        for item in await self.chat.items():
            if item.raw.get("type") == "message":
                found.append(output_text(item.raw))
        self.soak.check(found == expected, f"{self.chat.id} holds {found}, not {expected}")


@dataclass(slots=True)
class Said:
    """What a watcher was shown of a turn, without what was retracted."""

    soak: Soak
    word: str
    cursor: str | None = None
    shown: dict[str, str] = field(default_factory=dict[str, str])

    async def hear(self, updates: AsyncIterator[Update], *, most: int | None = None) -> bool:
        """Take updates, at most so many; whether these were all. What is left is dropped."""
        taken = 0
        async for update in updates:
            taken += 1
            self.cursor = str(update.cursor)
            if isinstance(update, Retracted):
                self.soak.counts["retracted"] += 1
                self.shown.pop(update.attempt, None)
            elif isinstance(update, Delta):
                self.soak.counts["deltas"] += 1
                attempt = update.cursor.attempt
                self.shown[attempt] = self.shown.get(attempt, "") + update.delta
            if taken == most:
                return False
        return True

    def compare(self, result: TurnResult[str], planned: Plan) -> None:
        """All of what was shown is all of what was said, if it was said to its end."""
        shown = "".join(self.shown.values())
        whole = result.status in ("completed", "incomplete")
        holds = shown == planned.text if whole else planned.text.startswith(shown)
        self.soak.check(holds, f"{self.word} was shown {self.shown}, not {planned.text}")
