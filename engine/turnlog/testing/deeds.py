"""What providers and tools saw, held against what the log says: I7 and I8 of the kit.

The one rule: pure, as in `rules`. The log is read whole, and nothing happened that is not in it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from .. import events as ev
from ..canonical import JsonObject, dumps, objects, text
from ..items import (
    CALL_OF,
    OUTPUT_OF,
    Pair,
    answered_id,
    call_id_of,
    is_client_call,
    is_hosted_output,
    name_of,
    type_of,
)
from ..record import Recorded
from .rules import Violation

# -- requests, as the provider got them ----------------------------------------------------


@dataclass(slots=True)
class Known:
    """What the log knows of requests and responses.

    `prepared` counts the digests of bodies; `calls` are those that a response, if it may be
    continued from, asked the client for.
    """

    prepared: Counter[str] = field(default_factory=Counter[str])
    calls: dict[str, list[Pair]] = field(default_factory=dict[str, list[Pair]])

    @classmethod
    def of(cls, log: Iterable[Recorded]) -> Known:
        """What the events of a whole log say."""
        known, asked = cls(), defaultdict[str | None, list[Pair]](list)
        for one in log:
            match one.event:
                case ev.RequestPrepared(digest=digest):
                    known.prepared[digest] += 1
                case ev.OutputRecorded(item=item, response=response) if is_client_call(item):
                    asked[response].append((type_of(item), call_id_of(item)))
                case ev.ResponseCompleted(response=str(response)):
                    known.calls[response] = asked[response]
                case ev.ProviderNoted(kind="warmed", data=data):
                    known.calls[text(data or {}, "response") or ""] = []
                case _:
                    pass
        return known


def legal(requests: Iterable[JsonObject], known: Known) -> Iterator[Violation]:
    """I7, of what a provider got: each body was prepared, and answers its parent's calls once.

    Bodies with secrets cannot be checked: the log holds their names only.
    """
    sent = Counter[str]()
    for place, body in enumerate(requests):
        if body.get("generate") is False:
            continue
        own = {name: value for name, value in body.items() if name not in _CARRIERS}
        digest = sha256(dumps(own)).hexdigest()
        sent[digest] += 1
        wrong = [*_unpaired(own, known)]
        if sent[digest] > known.prepared[digest]:
            wrong.append(f"it was prepared {known.prepared[digest]} times and sent oftener")
        for what in wrong:
            yield Violation(rule="I7", conversation=None, what=f"request {place}: {what}")


_CARRIERS = frozenset({"type", "stream", "stream_id"})
"""What a transport adds to a body."""


def _unpaired(body: JsonObject, known: Known) -> Iterator[str]:
    parent = text(body, "previous_response_id")
    if parent is not None and parent not in known.calls:
        yield f"it continues from {parent}, which the log does not know as completed"
    asked = set(known.calls.get(parent, ()) if parent is not None else ())
    wanted = set(asked)
    for item in objects(body, "input"):
        kind = type_of(item)
        if kind in OUTPUT_OF:
            asked.add((kind, call_id_of(item)))
            wanted |= {(kind, call_id_of(item))} if is_client_call(item) else set()
        elif kind in CALL_OF and not is_hosted_output(item):
            pair = CALL_OF[kind], answered_id(item)
            if pair not in asked:
                yield f"an output answers {pair[1]}, which nobody asked for, or which has one"
            asked.discard(pair)
            wanted.discard(pair)
    for _, call_id in sorted(wanted, key=str):
        yield f"the call {call_id} has no output"


# -- tools ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a tool did to the world in one run of a call: `key` is the call's idempotency key."""

    key: str
    run: int = 1


@dataclass(slots=True)
class Life:
    """What a call went through: how often it was started, and whether it may be once more."""

    name: str | None
    runs: int = 0
    uncertain: bool = False
    approved: bool = False


def lives(
    conversation: str, events: Iterable[Recorded], again: Collection[str]
) -> tuple[dict[str, Life], list[Violation]]:
    """I8, of the log: the calls and their starts, and those that nobody allowed.

    `again` names the tools that may run again unasked: `on_crash="rerun"`, and a `probe` that
    found that nothing had happened.
    """
    calls: dict[str, Life] = {}
    names: dict[str, str | None] = {}
    wrong: list[Violation] = []
    for one in events:
        match one.event:
            case ev.OutputRecorded(key=key, item=item):
                names[key] = name_of(item)
            case ev.CallRequested(call=call, item=key):
                calls[call] = Life(names.get(key))
            case ev.CallStarted(call=call, run=run):
                life = calls.setdefault(call, Life(None))
                if what := _start(life, run, again):
                    what = f"{life.name} ({call}) {what}"
                    wrong.append(Violation(rule="I8", conversation=conversation, what=what))
            case ev.CallUncertain(call=call) if call in calls:
                calls[call].uncertain, calls[call].approved = True, False
            case ev.CallApproved(call=call) if call in calls:
                calls[call].approved = True
            case _:
                pass
    return calls, wrong


def _start(life: Life, run: int, again: Collection[str]) -> str | None:
    """Note a start; what is wrong with it, if anything."""
    allowed = life.uncertain and (life.approved or life.name in again)
    first = not life.runs
    life.runs += 1
    life.uncertain = False
    if run != life.runs:
        return f"is run {run} after {life.runs - 1}"
    return None if first or allowed else "was started twice, and nobody had allowed it"


def acted(effects: Iterable[Effect], starts: Mapping[str, Life]) -> Iterator[Violation]:
    """I8, of the world: each effect belongs to a recorded start, and no start has two."""
    for effect, times in Counter(effects).items():
        life = starts.get(effect.key)
        if life is None or not 0 < effect.run <= life.runs:
            what = f"run {effect.run} of {effect.key} acted, and no start of it is recorded"
            yield Violation(rule="I8", conversation=None, what=what)
        if times > 1:
            what = f"run {effect.run} of {effect.key} acted {times} times"
            yield Violation(rule="I8", conversation=None, what=what)
