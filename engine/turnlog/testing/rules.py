"""What must hold of a log after every fault, as functions of values: I1 to I7 of the kit.

The one rule: pure; a rule takes what was read and yields what is wrong with it, and a rule that
finds nothing wrong yields nothing. `invariants.violations` reads a store and asks all of them.
What the world saw of requests and tools is held against the log in `deeds`.

- I1 what was acknowledged is there, once
- I2 the versions of a conversation are 1, 2, 3 …
- I3 the positions of a partition are 1, 2, 3 …, in the order of the commits
- I4 a follower that goes on behind any checkpoint sees each event once, in order
- I5 a state is the same, whether it is folded from all events or from a snapshot and the rest
- I6 the chain of hashes verifies, and extends every head that was seen before
- I7 every request is legal: in the log before it was sent, each call of its parent answered once
- I8 no tool is started twice unasked, and none acts without a recorded start
- I9 the same events again are there already; other contents under the same id are a conflict
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .. import events as ev
from ..canonical import dumps, loads
from ..record import Recorded, first_broken, from_json, to_json
from ..state import State, evolve, replay

Rule = Literal["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9"]
Place: TypeAlias = tuple[int, int, Recorded]
"""An event with its partition and position, as `Store.follow` tells it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule that does not hold, of which conversation, and how so."""

    rule: Rule
    conversation: str | None
    what: str


# -- the log as a whole --------------------------------------------------------------------


def kept(log: Iterable[Recorded], acknowledged: Iterable[str]) -> Iterator[Violation]:
    """I1: every acknowledged event id is there exactly once, and none twice in a conversation."""
    times, homes = Counter[str](), Counter[tuple[str, str]]()
    for one in log:
        times[one.id] += 1
        homes[one.conversation, one.id] += 1
    for conversation, id in (home for home, seen in homes.items() if seen > 1):
        yield Violation(rule="I1", conversation=conversation, what=f"event {id} is there twice")
    for id in sorted({id for id in acknowledged if times[id] != 1}):
        what = f"event {id} was acknowledged and is there {times[id]} times"
        yield Violation(rule="I1", conversation=None, what=what)


def numbered(conversation: str, events: Sequence[Recorded]) -> Iterator[Violation]:
    """I2: the versions of a conversation count from 1 without a gap."""
    for version, one in enumerate(events, 1):
        if one.version != version:
            what = f"version {one.version} stands where {version} should"
            yield Violation(rule="I2", conversation=conversation, what=what)
            return


@dataclass(slots=True)
class Read:
    """How far a log was read: the last position of each partition, and version of each name."""

    positions: Counter[int] = field(default_factory=Counter[int])
    versions: Counter[str] = field(default_factory=Counter[str])


def positioned(places: Iterable[Place], read: Read | None = None) -> Iterator[Violation]:
    """I3: positions have no gap, and no event of a conversation comes before an earlier one.

    `read` says behind what these come, and moves on with them.
    """
    read = Read() if read is None else read
    for partition, position, one in places:
        last, version = read.positions[partition], read.versions[one.conversation]
        if position != last + 1:
            what = f"position {position} follows {last} in partition {partition}"
            yield Violation(rule="I3", conversation=None, what=what)
        if one.version != version + 1:
            what = f"version {one.version} was committed behind {version}"
            yield Violation(rule="I3", conversation=one.conversation, what=what)
        read.positions[partition], read.versions[one.conversation] = position, one.version


def told_once(
    whole: Iterable[Place], checkpoint: Mapping[int, int], rest: Iterable[Place]
) -> Iterator[Violation]:
    """I4: a follower behind a checkpoint is told what the whole log holds there, once, in order.

    What was appended since the whole was read may follow.
    """
    wanted, told = _behind(whole, checkpoint), _behind(rest, {})
    for partition, events in wanted.items():
        if told[partition][: len(events)] != events:
            at = checkpoint.get(partition, 0)
            what = f"whoever follows partition {partition} from {at} is told something else"
            yield Violation(rule="I4", conversation=None, what=what)


def _behind(
    places: Iterable[Place], checkpoint: Mapping[int, int]
) -> dict[int, list[tuple[int, str, bytes]]]:
    found: defaultdict[int, list[tuple[int, str, bytes]]] = defaultdict(list)
    for partition, position, one in places:
        if position > checkpoint.get(partition, 0):
            found[partition].append((position, one.id, one.hash))
    return found


# -- one conversation ----------------------------------------------------------------------


def folded(
    base: State,
    events: Sequence[Recorded],
    snapshots: Iterable[State],
    splits: Collection[int],
) -> Iterator[Violation]:
    """I5: from each of these versions on, the rest of the log leads to the same state.

    `base` is the state before the first event, `snapshots` the states that the store keeps (the
    head, and where turns ended); at the `splits` a state is written as JSON and read again.
    """
    states = {0: base}
    for one in events:
        states[one.version] = evolve(states[one.version - 1], one)
    for kept_ in snapshots:
        if states.get(kept_.version) != kept_:
            what = f"the state kept at version {kept_.version} is not what the log folds to"
            yield Violation(rule="I5", conversation=base.id, what=what)
    for version in sorted(set(splits) & states.keys()):
        state = states[version]
        again = from_json(State, loads(dumps(to_json(state))))
        if replay(again, events[version:]) != states[len(events)]:
            what = f"a snapshot at version {version} and the rest fold to another state"
            yield Violation(rule="I5", conversation=base.id, what=what)


def chained(
    base: State, events: Sequence[Recorded], anchors: Iterable[tuple[int, str]]
) -> Iterator[Violation]:
    """I6: every hash follows, and at the version of each anchor stands its hash (hex)."""
    broken = first_broken(events, bytes.fromhex(base.hash))
    if broken is not None:
        what = f"the hash of version {broken.version} does not follow"
        yield Violation(rule="I6", conversation=base.id, what=what)
    hashes = {one.version: one.hash.hex() for one in events}
    for version, hash in anchors:
        if hashes.get(version) != hash:
            what = f"version {version} had the hash {hash[:12]}…, and has it no longer"
            yield Violation(rule="I6", conversation=base.id, what=what)


def asked_rightly(base: State, events: Sequence[Recorded]) -> Iterator[Violation]:
    """I7, of the log: no request while a call has no output, and one outcome for each."""
    state, open_ = base, set[str]()
    for one in events:
        what: list[str] = []
        match one.event:
            case ev.RequestPrepared(attempt=attempt):
                what += [f"{attempt} goes out while {call.id} waits" for call in state.pending]
                what += [f"{attempt} goes out while {other} is open" for other in sorted(open_)]
                open_.add(attempt)
            case (
                ev.ResponseCompleted(attempt=attempt)
                | ev.ResponseIncomplete(attempt=attempt)
                | ev.ResponseFailed(attempt=attempt)
                | ev.ResponseRejected(attempt=attempt)
                | ev.ResponseInterrupted(attempt=attempt)
                | ev.ResponseUnknown(attempt=attempt)
            ):
                what += [f"{attempt} ends, and was not open"] if attempt not in open_ else []
                open_.discard(attempt)
            case _:
                pass
        for words in what:
            yield Violation(rule="I7", conversation=base.id, what=words)
        state = evolve(state, one)
