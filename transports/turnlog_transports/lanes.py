"""Which connection and which lane a request takes: values and decisions, and nothing that waits.

The one rule: pure. Time is an argument, a decision changes nothing, and whoever asked for it
carries it out before anything else happens. What the provider keeps in the memory of each lane
(protocol 1.5) is written down here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from turnlog.canonical import text
from turnlog.ports import Create, Profile, Terminal
from turnlog.state import Parent

NOT_BEGUN = frozenset({"response.created", "response.queued"})
"""Frames behind which a fork may still need its source: anything later says that it has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a provider allows on a connection, and how many of them a transport opens.

    `named`: several responses at once, each on a named lane; otherwise one, without a name.
    A connection takes nothing new once it is `rotate` seconds old.
    """

    named: bool = True
    in_flight: int = 16
    names: int = 32
    connections: int = 64
    rotate: float = 3000.0


def limits(profile: Profile, *, connections: int, rotate: float) -> Limits:
    """The limits of a provider; without lanes there is one response at a time."""
    return Limits(
        named=profile.lanes,
        in_flight=max(1, profile.max_in_flight) if profile.lanes else 1,
        names=max(1, profile.max_lanes) if profile.lanes else 1,
        connections=connections,
        rotate=rotate,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request says that matters when its response is over."""

    conversation: str = ""
    attempt: str = ""
    previous: str | None = None
    stored: bool = True


def asked(request: Create, *, store_default: bool) -> Asked:
    """What a request says; a response is stored by default where its provider says so."""
    store = request.body.get("store")
    return Asked(
        conversation=request.conversation,
        attempt=request.attempt,
        previous=text(request.body, "previous_response_id"),
        stored=store_default if store is None else store is True,
    )


# -- what is known -------------------------------------------------------------------------


@dataclass(slots=True)
class Lane:
    """One lane, and what the provider remembers on it.

    `newest` is the response that can be continued from here, `stored` whether it could be from
    anywhere else, and `owner` the conversation whose it is. `busy` lasts from the request to the
    terminal frame, whoever listens. `forks` counts responses on other lanes that begin from
    `newest` and have not done so yet: until then nothing may be asked for here (protocol 1.5).
    """

    name: str | None
    newest: str | None = None
    stored: bool = False
    owner: str = ""
    busy: bool = False
    forks: int = 0
    used: float = 0.0

    @property
    def free(self) -> bool:
        """Whether a request may be written here."""
        return not self.busy and not self.forks

    @property
    def spare(self) -> bool:
        """Whether nothing is lost when a stranger uses it."""
        return self.newest is None or self.stored

    def note(
        self, asked: Asked, terminal: Terminal | None, response: str | None, *, wanted: bool
    ) -> None:
        """Take note of what the provider remembers when the response of a request is over.

        Only a completed response that somebody waited for is a parent. Where something else was
        begun here, or the continuation of what stood here failed, the provider has let go of the
        parent (law 8); a refusal that concerned neither leaves it.
        """
        if terminal == "completed" and wanted:
            self.newest, self.stored, self.owner = response, asked.stored, asked.conversation
        elif terminal == "completed" or response is not None or asked.previous == self.newest:
            self.newest = None

    def forget(self, response: str | None) -> None:
        """Nobody will continue from a response: the lane is free for others."""
        if self.newest == response:
            self.newest = None


@dataclass(slots=True)
class Line:
    """One connection: when it was opened, its lanes by name, and whether it takes anything new.

    `busy` is how many responses are in flight, those included that nobody waits for; `used` is
    when the last one was over.
    """

    id: str
    opened: float
    limits: Limits
    lanes: dict[str | None, Lane] = field(default_factory=dict[str | None, Lane])
    retiring: bool = False
    busy: int = 0
    used: float = 0.0

    def begin(self, place: Place, now: float) -> None:
        """A request was written to a lane."""
        lane = self.lanes[place.lane.name] = place.lane
        lane.busy, lane.used = True, now
        self.busy += 1
        if place.source is not None:
            place.source.forks += 1

    def end(self, lane: Lane, now: float) -> None:
        """The response on a lane is over, or was lost."""
        lane.busy = False
        self.busy -= 1
        self.used = now

    @property
    def holding(self) -> bool:
        """Whether something is lost when the connection goes."""
        return any(not lane.spare for lane in self.lanes.values())

    def usable(self, now: float) -> bool:
        """Whether a new response may be asked for at all (W-42)."""
        return not self.retiring and now < self.opened + self.limits.rotate

    def room(self, now: float) -> bool:
        """Whether one more response fits."""
        return self.usable(now) and self.busy < self.limits.in_flight

    def spare(self, conversation: str, but: Lane | None = None) -> Lane | None:
        """A lane for a stranger: one's own or an empty one first, then a new name, then the
        stored response that was used longest ago, since the next turn from it would be faster.
        """
        free = [
            lane for lane in self.lanes.values() if lane.free and lane.spare and lane is not but
        ]
        best = min(free, key=lambda lane: _reluctance(lane, conversation), default=None)
        if best is not None and _reluctance(best, conversation)[0] == 0:
            return best
        return self._minted() or best

    def _minted(self) -> Lane | None:
        if len(self.lanes) >= self.limits.names:
            return None
        return Lane(f"lane-{len(self.lanes) + 1:02d}" if self.limits.named else None)


def _reluctance(lane: Lane, conversation: str) -> tuple[int, float]:
    mine = lane.newest is None or lane.owner == conversation
    return (0 if mine else 1, lane.used)


# -- where a request goes ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request goes. `source` is the lane that a fork begins from, on the same line."""

    line: Line
    lane: Lane
    source: Lane | None = None


def continuation(
    parent: Parent, conversation: str, lines: dict[str, Line], now: float
) -> Place | None:
    """Where a parent can be continued from the provider's memory, or None.

    On its own lane, where that is this conversation's. An unstored parent of another one is
    forked: on another lane, so that the source keeps it, and so is one that is being forked.
    """
    line = lines.get(parent.connection or "")
    lane = None if line is None else line.lanes.get(parent.lane)
    if line is None or lane is None or lane.newest != parent.response:
        return None
    if lane.busy or not line.room(now):
        return None
    if lane.free and lane.owner == conversation:
        return Place(line, lane)
    other = None if parent.store else line.spare(conversation, but=lane)
    return None if other is None else Place(line, other, source=lane)


def place(
    request: Create, lines: dict[str, Line], limits: Limits, now: float, *, connecting: int = 0
) -> Place | None:
    """Where a request goes that may go anywhere, or None: it has to wait.

    Where its parent is remembered, then where its connection is (W-49), then where there is room.
    Only where no connection is being opened, nor could be, does it take the lane of an unstored
    response: the one that was used longest ago.
    """
    parent = request.parent
    if parent is not None:
        found = continuation(parent, request.conversation, lines, now)
        if found is not None:
            return found
    for line in _preferred(parent, lines):
        lane = line.spare(request.conversation) if line.room(now) else None
        if lane is not None:
            return Place(line, lane)
    if connecting or may_open(lines, limits, connecting=0):
        return None
    return _stolen(lines, now)


def _preferred(parent: Parent | None, lines: dict[str, Line]) -> Iterator[Line]:
    home = None if parent is None else lines.get(parent.connection or "")
    if home is not None:
        yield home
    # The youngest first: what is begun there can be continued there for longest.
    yield from (line for line in reversed(lines.values()) if line is not home)


def _stolen(lines: dict[str, Line], now: float) -> Place | None:
    held = [
        Place(line, lane)
        for line in lines.values()
        if line.room(now)
        for lane in line.lanes.values()
        if lane.free
    ]
    return min(held, key=lambda place: place.lane.used, default=None)


def may_open(lines: Collection[str], limits: Limits, *, connecting: int) -> int:
    """How many more connections may be opened; those that take nothing new count until they go."""
    return max(0, limits.connections - len(lines) - connecting)


def wanted(waiting: int, connecting: int, limits: Limits) -> int:
    """How many more connections those who wait need: none for whom one is opened already."""
    return max(0, math.ceil(waiting / limits.in_flight) - connecting)


# -- what goes -----------------------------------------------------------------------------


def stops_by_closing(line: Line, lane: Lane, conversation: str) -> bool:
    """Whether closing the connection stops a response on a lane and costs nobody else anything.

    Closing is the documented way to stop one (protocol 1.2). It costs whoever else has a response
    in flight there, and conversations whose unstored response is remembered there.
    """
    others = [each for each in line.lanes.values() if each is not lane]
    if any(each.busy for each in others):
        return False
    held = any(not each.spare and each.owner != conversation for each in others)
    return line.retiring or not held


def surplus(lines: Collection[Line], keep: float) -> list[Line]:
    """The idle connections beyond `keep`, unless something is remembered there (W-44)."""
    idle = [line for line in lines if not line.busy and not line.holding]
    idle.sort(key=lambda line: line.used, reverse=True)
    return idle[int(keep) :]
