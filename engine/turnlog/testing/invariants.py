"""Whether a store keeps what it promised: I1 to I9 over any `ports.Store`, to run after a fault.

The one rule: it sees only what the engine sees, reads in short pages, and may be run while others
write; what it finds is returned, never raised. The rules are those of `rules` and `deeds`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeGuard

from .. import events as ev
from ..canonical import JsonObject
from ..context import every
from ..errors import IdConflict, TurnlogError
from ..index import Change, advance
from ..ports import Append, Store
from ..record import Recorded
from ..state import State, branch, replay, start
from .deeds import Effect, Known, Life, acted, legal, lives
from .rules import (
    Place,
    Rule,
    Violation,
    asked_rightly,
    chained,
    folded,
    kept,
    numbered,
    positioned,
    told_once,
)

__all__ = ["Effect", "Violation", "violations"]

PAGE = 500
NOBODY: Mapping[str, Sequence[tuple[int, str]]] = MappingProxyType({})


async def violations(
    store: Store,
    *,
    acknowledged: Iterable[str] = (),
    requests: Iterable[JsonObject] = (),
    effects: Iterable[Effect] = (),
    again: Collection[str] = (),
    anchors: Mapping[str, Sequence[tuple[int, str]]] = NOBODY,
    samples: int = 8,
    repeat: bool = True,
) -> list[Violation]:
    """Everything that is wrong, by the nine rules; an empty list where nothing is.

    `acknowledged` are ids of events that somebody was told of as done; `requests` the bodies of
    the creates that a provider got; `effects` what tools did outside the database (read them
    before this is called: a start is recorded before its effect); `again` the tools that may run
    again unasked; `anchors` the heads that were seen earlier, as (version, hash in hex) by
    conversation. `samples` bounds at how many places I4, I5 and I9 look. With `repeat`, I9 asks the
    store to write what it has, and something under an id that is taken: leave it out for a store
    that is read-only.
    """
    places = await following(store, {})
    log = [one for _, _, one in places]
    found = [*kept(log, acknowledged), *positioned(places)]
    for place in _spread(len(places), samples):
        checkpoint = _checkpoint(places[:place])
        found += told_once(places, checkpoint, await following(store, checkpoint, until=places))
    found += legal(requests, Known.of(log))
    by_name: defaultdict[str, list[Recorded]] = defaultdict(list)
    for one in log:
        by_name[one.conversation].append(one)
    starts: dict[str, Life] = {}
    for name in by_name:
        checked = Checked(store, name, by_name, again=again, samples=samples, repeat=repeat)
        found += await checked.violations(anchors.get(name, ()))
        starts |= checked.starts
    return [*found, *acted(effects, starts)]


@dataclass(slots=True)
class Checked:
    """One conversation under the rules; `log` holds what is known of it and of its sources."""

    store: Store
    name: str
    log: Mapping[str, Sequence[Recorded]]
    again: Collection[str]
    samples: int
    repeat: bool
    starts: dict[str, Life] = field(default_factory=dict[str, Life])

    async def violations(self, anchors: Sequence[tuple[int, str]] = ()) -> list[Violation]:
        """What is wrong with the conversation: I2, I5, I6, I7 and I8 of its log, and I9."""
        head = await self.store.head(self.name)
        if head is None:
            return [self._wrong("I5", "there are events, and no head")]
        # The head may have moved on since the log was read.
        events = await every(self.store, self.name, until=head.state.version)
        found = [*numbered(self.name, events), *self._same(events)]
        if found:
            return found
        base = beginning(self.name, {**self.log, self.name: events})
        if base is None:
            return [self._wrong("I6", "what it was forked from is not there")]
        found += chained(base, events, [*anchors, (head.state.version, head.state.hash)])
        found += folded(base, events, await self._snapshots(head.state), self._splits(events))
        found += asked_rightly(base, events)
        self.starts, wrong = lives(self.name, events, self.again)
        found += wrong
        for finding in await self.store.check(self.name):
            found.append(self._wrong("I6" if finding.version else "I5", finding.problem))
        if self.repeat:
            found += await repeated(self.store, base, events, self._splits(events))
        return found

    def _same(self, events: Sequence[Recorded]) -> Iterator[Violation]:
        """I3: who follows the log and who reads the conversation see the same."""
        followed = self.log[self.name]
        if [*events[: len(followed)]] != [*followed]:
            yield self._wrong("I3", "its events are not those that a follower is told of")

    async def _snapshots(self, head: State) -> list[State]:
        rows = await self.store.turns(self.name, before=head.version + 1, limit=self.samples)
        return [head, *(row.state for row in rows if _ended_by(row.state, head.version))]

    def _splits(self, events: Sequence[Recorded]) -> list[int]:
        return _spread(len(events), self.samples)

    def _wrong(self, rule: Rule, what: str) -> Violation:
        return Violation(rule=rule, conversation=self.name, what=what)


def _ended_by(state: State | None, version: int) -> TypeGuard[State]:
    return state is not None and state.version <= version


# -- reading -------------------------------------------------------------------------------


async def following(
    store: Store, checkpoint: Mapping[int, int], *, until: Sequence[Place] | None = None
) -> list[Place]:
    """The log behind a checkpoint, as a follower reads it: to its end, or to that of `until`."""
    positions, found = dict(checkpoint), list[Place]()
    left = None if until is None else _checkpoint(until)
    while page := await store.follow(positions, limit=PAGE):
        positions |= _checkpoint(page)
        found += page
        if left is not None and all(positions.get(one, 0) >= left[one] for one in left):
            break
    return found


def _checkpoint(places: Iterable[Place]) -> dict[int, int]:
    """Where a follower stands that was told of these."""
    return {partition: position for partition, position, _ in places}


def _spread(length: int, samples: int) -> list[int]:
    """Places from 0 to before `length`, evenly; the last one is among them."""
    if length <= samples:
        return list(range(length))
    return sorted({(number + 1) * length // samples - 1 for number in range(samples)})


def beginning(name: str, log: Mapping[str, Sequence[Recorded]]) -> State | None:
    """The state of a conversation before its first event; None where its source is not there."""
    first = log[name][0].event if log.get(name) else None
    fork = first.fork if isinstance(first, ev.ConversationStarted) else None
    if fork is None:
        return start(name)
    events = log.get(fork.conversation, ())
    source = beginning(fork.conversation, log)
    if source is None or not 0 < fork.version <= len(events):
        return None
    return branch(replay(source, events[: fork.version]), name)


# -- writing once more ---------------------------------------------------------------------


async def repeated(
    store: Store, base: State, events: Sequence[Recorded], versions: Iterable[int]
) -> list[Violation]:
    """I9: these events are there already; with other contents under their ids, a conflict."""
    found: list[Violation] = []
    for version in versions:
        state = replay(base, events[:version])
        append = _append(state, events[version : version + 2])
        try:
            appended = await store.append(append)
            what = None if appended.already else "was written once more"
        except TurnlogError as error:
            what = f"is refused, though it is there: {error!r}"
        found += _doubtful(base.id, version, what)
        try:
            await store.append(_append(state, [_forged(state, events[version])]))
            what = "was accepted with other contents"
        except IdConflict:
            what = None
        except TurnlogError as error:
            what = f"has other contents, which is no conflict but {error!r}"
        found += _doubtful(base.id, version, what)
    if await every(store, base.id, until=len(events)) != [*events]:
        what = "the log is another one after its events were appended again"
        found.append(Violation(rule="I9", conversation=base.id, what=what))
    return found


def _append(state: State, events: Sequence[Recorded]) -> Append:
    """The append that wrote these events behind a state, or one that looks like it."""
    expected, changes = state.version, list[Change]()
    for one in events:
        state, more = advance(state, one)
        changes += more
    return Append(
        conversation=state.id, expected=expected, events=events, head=state, changes=changes
    )


def _forged(state: State, one: Recorded) -> Recorded:
    """An event as if it had been written at another time, behind the same one."""
    forged = replace(one, time=one.time + 1)
    return replace(forged, hash=forged.expected_hash(bytes.fromhex(state.hash)))


def _doubtful(conversation: str, version: int, what: str | None) -> list[Violation]:
    if what is None:
        return []
    said = f"the append behind version {version} {what}"
    return [Violation(rule="I9", conversation=conversation, what=said)]
