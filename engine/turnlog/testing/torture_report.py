"""What a torture did, and what is said of the end: every turn was taken, every effect happened.

The one rule: the nine rules are not repeated here. This is the story that the workers were to
tell: each input once and in order, and each answer of a tool with the effect behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .. import events as ev
from ..canonical import text
from ..context import every
from ..items import output_text
from ..ports import Store, TurnRow
from ..record import Recorded
from .deeds import lives
from .rules import Violation
from .torture_worker import Job
from .victims import TWICE, UNASKED, done, said


@dataclass(slots=True, kw_only=True)
class Report:
    """What a torture did, and what was wrong; `problems` are beside the nine rules."""

    kills: int = 0
    freezes: int = 0
    looks: int = 0
    traps: Counter[str] = field(default_factory=Counter[str])
    acknowledged: set[str] = field(default_factory=set[str])
    conversations: int = 0
    turns: Counter[str] = field(default_factory=Counter[str])
    effects: Counter[str] = field(default_factory=Counter[str])
    events: int = 0
    requests: int = 0
    violations: list[Violation] = field(default_factory=list[Violation])
    problems: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        sprung = sum(self.traps.values())
        turns = ", ".join(f"{many} {outcome}" for outcome, many in sorted(self.turns.items()))
        return (
            f"{self.kills + sprung} kills ({sprung} at {len(self.traps)} places),"
            f" {self.freezes} freezes, {self.looks} looks; {self.events} events,"
            f" {len(self.acknowledged)} acknowledged; {self.conversations} conversations,"
            f" turns: {turns}; {sum(self.effects.values())} effects, {self.requests} requests"
        )


async def judge(store: Store, job: Job, report: Report) -> None:
    """Hold what is there in the end against what was to be done."""
    times = job.effects.times()
    report.effects = Counter(tool for tool, _ in job.effects.all())
    for name in job.names:
        events = await every(store, name)
        rows = (await store.turns(name, limit=job.turns + 1))[::-1]
        users = [output_text(one.raw) for one in await store.items(name) if one.role == "user"]
        report.conversations += bool(events)
        report.events += len(events)
        report.turns.update(row.outcome or "open" for row in rows)
        report.problems += [
            f"{name}: {problem}"
            for problem in (*told(name, job.turns, rows, users), *ended(events))
        ]
        report.problems += [f"{name}: {problem}" for problem in answered(name, events, times)]
    report.problems += [f"{one.call} still waits" for one in await store.pending()]


MAY_END = ("completed", "cancelled")


def told(name: str, turns: int, rows: Sequence[TurnRow], users: Sequence[str]) -> Iterator[str]:
    """What is wrong with the turns: each is there once, in order, and so is its input."""
    keys = [row.key for row in rows]
    if keys != [str(number + 1) for number in range(turns)]:
        yield f"its turns are {', '.join(keys) or 'none'}"
    if users != [said(name, number + 1) for number in range(turns)]:
        yield f"it was told {', '.join(users) or 'nothing'}"


def ended(events: Sequence[Recorded]) -> Iterator[str]:
    """Turns that ended otherwise than they may: one request may be killed until it is given up."""
    for one in events:
        if isinstance(one.event, ev.TurnEnded) and one.event.outcome not in MAY_END:
            why = text(one.event.error or {}, "message") or ""
            if one.event.outcome != "failed" or not why.startswith("given up after"):
                yield f"{one.turn} ended as {one.event.outcome}: {why}"


def answered(name: str, events: Sequence[Recorded], times: Counter[str]) -> Iterator[str]:
    """Answers of tools that acted without an effect behind them, or with more than one."""
    calls, _ = lives(name, events, UNASKED)
    for one in events:
        if isinstance(one.event, ev.CallAnswered):
            id, words = one.event.call, text(one.event.item, "output") or ""
            acted = times[id]
            if words.startswith(done("")) and not words.startswith(done(id)):
                yield f"the answer of {id} is another call's"
            if words.startswith(done(id)) and not acted:
                yield f"{id} was answered, and had no effect"
            if acted > 1 and calls[id].name not in TWICE:
                yield f"{id} ({calls[id].name}) had its effect {acted} times"
