"""What the conversations say, drawn from a seed: the provider tells it, the client expects it.

The one rule: pure. Every text carries the number of its conversation and of its turn, so that a
text in the wrong place is seen wherever it turns up.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from turnlog.canonical import JsonObject, objects, text
from turnlog.items import output_text, type_of
from turnlog.testing import Reply, call, calls, error, failed, incomplete
from turnlog.testing import text as says

Ending = Literal["completed", "incomplete", "failed"]

CHUNK = 48
"""How many characters a delta holds."""

_NAME = re.compile(r"c(\d+)")
_TOKEN = re.compile(r"c(\d+)t(\d+)")


def name_of(conversation: int) -> str:
    """The id of a conversation."""
    return f"c{conversation:04}"


def fork_of(conversation: int, turn: int) -> str:
    """The id of the fork in which a turn is taken."""
    return f"{name_of(conversation)}f{turn}"


def origin(name: str) -> str:
    """The conversation that a fork came from; another is its own."""
    return name.partition("f")[0]


def token(conversation: int, turn: int) -> str:
    """What stands in every text of a turn."""
    return f"{name_of(conversation)}t{turn}"


def tokens(said: str) -> list[tuple[int, int]]:
    """The conversation and the turn of every token in a text."""
    return [(int(found[1]), int(found[2])) for found in _TOKEN.finditer(said)]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a turn comes to if nobody cancels it: its last text, its calls, how it ends."""

    text: str
    calls: int
    ending: Ending


def plan(seed: str, conversation: int, turn: int) -> Plan:
    """The turn as it was meant."""
    draw = Random(f"{seed} {conversation} {turn}")
    word = token(conversation, turn)
    said = " ".join(f"{word}w{n}" for n in range(draw.randint(3, 30)))
    called = draw.choice((1, 1, 2)) if draw.random() < 0.2 else 0
    odd = draw.random()
    ending: Ending = "incomplete" if odd < 0.01 else "failed" if odd < 0.02 else "completed"
    return Plan(said, called, ending)


FAULTS = {"cut": 0.003, "no terminal": 0.002, "failed": 0.02, "429": 0.02, "500": 0.01}
"""How often what goes wrong, of the requests that were not tried twice already."""

MORE_FAULTS = {**FAULTS, "lost": 0.004, "malformed": 0.003, "stalled": 0.002, "slow": 0.005}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much goes on at once.

    `pace` is how many seconds lie between the frames of the slowest responses, `paces` what share
    of that the others take; `at_once` is how many turns are under way, `rest` how long a
    conversation rests between two bursts of turns, on the average, unless its `habits` say
    otherwise. `cuts_every` is how long a connection goes well, on the average, and
    `connection_seconds` when the provider ends it, unless the client is sooner; it remembers the
    newest `keep` responses. `adds` and `forks` are the shares of turns with something added before
    them, and of those that are taken in a fork. The log is closed and opened every `reopen`
    seconds, while turns are under way. Who hears nothing for `patience` seconds has lost.
    All of the log is verified in the end, for at most `verify_seconds`.
    """

    pace: float
    at_once: int
    rest: float
    cuts_every: float
    connection_seconds: float
    paces: Sequence[float] = (0.02, 0.2, 0.4, 0.6, 1.0)
    habits: bool = False
    keep: int = 5_000
    adds: float = 0.0
    forks: float = 0.0
    reopen: float | None = None
    patience: float | None = None
    durability: Literal["power", "process"] = "process"
    verify_seconds: float = 0.0
    faults: Mapping[str, float] = field(default_factory=lambda: FAULTS)

    def rests(self, conversation: int) -> float:
        """How long a conversation rests: with habits, some talk all the time and some hardly."""
        if not self.habits:
            return self.rest
        if conversation % 200 == 1:
            return 1.0
        if conversation % 25 == 0:
            return 12.0
        return 900.0 if conversation % 5 == 3 else self.rest

    def loses(self, conversation: int) -> bool:
        """Whether its chain is lost now and then, and all of it sent again.

        Not where a conversation talks all the time: its full request would be larger each time,
        and what it takes for a moment would look like something that grows.
        """
        return self.rests(conversation) >= self.rest

    def stores(self, conversation: int) -> bool:
        """Whether its responses are stored; those that are not are asked for in full, as a rule."""
        return conversation % 10 != 7 if self.habits else conversation % 2 == 0


LOADS = {
    "short": Load(pace=0.3, at_once=400, rest=30.0, cuts_every=5.0, connection_seconds=9.0),
    "long": Load(pace=2.0, at_once=1000, rest=10.0, cuts_every=4.0, connection_seconds=36.0),
    "hour": Load(
        pace=0.3,
        paces=(0.0, 0.0, 0.2, 0.4, 1.0),
        at_once=64,
        rest=140.0,
        habits=True,
        cuts_every=4.0,
        connection_seconds=40.0,
        keep=8_000,
        adds=0.3,
        forks=0.005,
        reopen=120.0,
        patience=8.0,
        durability="power",
        verify_seconds=900.0,
        faults=MORE_FAULTS,
    ),
}
"""The short one leaves time to finish within a minute, the long one has all talk at once, and that
of an hour leaves a processor time to rest: fifteen to twenty turns a second, thirty at once.

That one lets no more than twice as many be under way. What is freed stays resident in part, so that
resident memory follows the most that was ever under way: with 400, each stall of the machine lets
more turns pile up than any before, and the process looks as if it grew, though what is in use stays
the same. With 64 the most is reached while everything is warmed up.
"""


def pace(seed: str, load: Load, conversation: int, turn: int) -> float:
    """Seconds between two frames of a turn: some stream fast, most as a model does."""
    draw = Random(f"{seed} {conversation} {turn} pace")
    return load.pace * draw.choice(load.paces)


# -- the model -----------------------------------------------------------------------------


@dataclass(slots=True)
class Model:
    """The provider's side of the story, with faults that a patient client gets over.

    `counts` says what was done, `wrong` what was asked that nobody should have asked.
    """

    seed: str
    load: Load
    counts: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])
    _tries: dict[int, tuple[int, str, int]] = field(default_factory=dict[int, tuple[int, str, int]])

    def __call__(self, body: JsonObject) -> Reply:
        """Answer a request."""
        items = objects(body, "input")
        last = items[-1]
        found = self._about(body, last)
        if found is None:
            self.wrong.append(f"a request that ends with {last}")
            return error(400, "invalid", "There is no token.")
        conversation, turn = found
        self._check(conversation, items)
        self.counts["full" if "previous_response_id" not in body else "delta"] += 1
        stage = "told" if type_of(last) == "function_call_output" else "asked"
        before = self._tries.get(conversation)
        again = before is not None and before[:2] == (turn, stage)
        tried = before[2] + 1 if before is not None and again else 1
        self._tries[conversation] = (turn, stage, tried)
        chained = "previous_response_id" in body
        return self._reply(conversation, turn, stage, tried, chained)

    def _about(self, body: JsonObject, last: JsonObject) -> tuple[int, int] | None:
        """The conversation and the turn of a request, which its last item names.

        The output of a tool that was given up does not; then it is the turn that was asked before.
        """
        found = tokens(_spoken(last))
        if found:
            return found[0]
        named = _NAME.fullmatch(text(body, "instructions") or "")
        asked = self._tries.get(int(named[1])) if named is not None else None
        if type_of(last) != "function_call_output" or named is None or asked is None:
            return None
        return int(named[1]), asked[0]

    def _check(self, conversation: int, items: Sequence[JsonObject]) -> None:
        """Everything in a request is of one conversation, and what was asked stands in order."""
        asked: list[int] = []
        for item in items:
            found = tokens(_spoken(item))
            if any(of != conversation for of, _ in found):
                self.wrong.append(f"a request of {name_of(conversation)} holds {item}")
            if text(item, "role") == "user":
                asked += [turn for _, turn in found]
        if asked != sorted(set(asked)):
            self.wrong.append(f"{name_of(conversation)} was asked {asked}")

    def _reply(self, conversation: int, turn: int, stage: str, tried: int, chained: bool) -> Reply:
        planned = plan(self.seed, conversation, turn)
        delay = pace(self.seed, self.load, conversation, turn)
        draw = Random(f"{self.seed} {conversation} {turn} {stage} {tried}")
        fault = _fault(draw, self.load.faults) if tried < 3 else None
        if fault == "lost" and not (chained and self.load.loses(conversation)):
            fault = None
        if fault is not None:
            self.counts[fault] += 1
        match fault:
            case "429":
                return error(429, "rate_limit_exceeded", retry_after=0.2)
            case "500":
                return error(500, "server_error")
            case "lost":
                return error(400, "previous_response_not_found", param="previous_response_id")
            case "failed":
                return failed().but(delay=delay)
            case _:
                return _spoilt(_answer(planned, conversation, turn, stage), fault, delay, draw)


def _spoilt(reply: Reply, fault: str | None, delay: float, draw: Random) -> Reply:
    """A reply at its pace, with what goes wrong on the wire."""
    reply = reply.but(delay=delay)
    match fault:
        case "cut":
            return reply.but(cut_after=draw.randint(0, 20))
        case "no terminal":
            return reply.but(no_terminal=True)
        case "malformed":
            return reply.but(malformed_after=draw.randint(0, 3))
        case "stalled":
            return reply.but(stall_after=draw.randint(0, 3))
        case "slow":
            return reply.but(delay=delay + 1.0)
        case _:
            return reply


def _fault(draw: Random, shares: Mapping[str, float]) -> str | None:
    odd = draw.random()
    for fault, share in shares.items():
        odd -= share
        if odd < 0:
            return fault
    return None


def _answer(planned: Plan, conversation: int, turn: int, stage: str) -> Reply:
    word = token(conversation, turn)
    if stage == "asked" and planned.calls:
        return calls(*(call("note", token=word, n=n) for n in range(planned.calls)))
    match planned.ending:
        case "incomplete":
            reply = incomplete(text=planned.text)
        case "failed":
            return error(400, "invalid_prompt", f"{word} is refused.")
        case "completed":
            reply = says(planned.text)
    return Reply(
        items=reply.items,
        outcome=reply.outcome,
        incomplete_details=reply.incomplete_details,
        chunk=CHUNK,
    )


def _spoken(item: JsonObject) -> str:
    return output_text(item) or text(item, "output") or text(item, "arguments") or ""
