"""What the conversations say, drawn from a seed: the provider tells it, the client expects it.

The one rule: pure. Every text carries the number of its conversation and of its turn, so that a
text in the wrong place is seen wherever it turns up.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
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

_TOKEN = re.compile(r"c(\d+)t(\d+)")


def name_of(conversation: int) -> str:
    """The id of a conversation."""
    return f"c{conversation:04}"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much goes on at once.

    `pace` is how many seconds lie between the frames of the slowest responses, `at_once` how many
    turns are under way, `rest` how long a conversation rests between two bursts of turns, on the
    average; `cuts_every` is how long a connection goes well, on the average, and
    `connection_seconds` when the provider ends it, unless the client is sooner.
    """

    pace: float
    at_once: int
    rest: float
    cuts_every: float
    connection_seconds: float


LOADS = {
    "short": Load(pace=0.3, at_once=400, rest=30.0, cuts_every=5.0, connection_seconds=9.0),
    "long": Load(pace=2.0, at_once=1000, rest=10.0, cuts_every=4.0, connection_seconds=36.0),
}
"""The short one leaves time to finish within a minute, the long one has all talk at once."""


def pace(seed: str, load: Load, conversation: int, turn: int) -> float:
    """Seconds between two frames of a turn: some stream fast, most as a model does."""
    draw = Random(f"{seed} {conversation} {turn} pace")
    return load.pace * draw.choice((0.02, 0.2, 0.4, 0.6, 1.0))


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
        found = tokens(_spoken(last))
        if not found:
            self.wrong.append(f"a request that ends with {last}")
            return error(400, "invalid", "There is no token.")
        conversation, turn = found[0]
        self._check(conversation, items)
        self.counts["full" if "previous_response_id" not in body else "delta"] += 1
        stage = "told" if type_of(last) == "function_call_output" else "asked"
        before = self._tries.get(conversation)
        again = before is not None and before[:2] == (turn, stage)
        tried = before[2] + 1 if before is not None and again else 1
        self._tries[conversation] = (turn, stage, tried)
        return self._reply(conversation, turn, stage, tried)

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

    def _reply(self, conversation: int, turn: int, stage: str, tried: int) -> Reply:
        planned = plan(self.seed, conversation, turn)
        delay = pace(self.seed, self.load, conversation, turn)
        draw = Random(f"{self.seed} {conversation} {turn} {stage} {tried}")
        fault = _fault(draw) if tried < 3 else None
        if fault is not None:
            self.counts[fault] += 1
        match fault:
            case "429":
                return error(429, "rate_limit_exceeded", retry_after=0.2)
            case "500":
                return error(500, "server_error")
            case "failed":
                return failed().but(delay=delay)
            case _:
                reply = _answer(planned, conversation, turn, stage).but(delay=delay)
        if fault == "cut":
            return reply.but(cut_after=draw.randint(0, 20))
        if fault == "no terminal":
            return reply.but(no_terminal=True)
        return reply


def _fault(draw: Random) -> str | None:
    odd = draw.random()
    shares = {"cut": 0.003, "no terminal": 0.002, "failed": 0.02, "429": 0.02, "500": 0.01}
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
