"""The head of a conversation, as values: everything about it that the next step depends on.

The one rule: the head holds no item bodies and is bounded by open work, not by length. The
committed context is a number of ordinals, and the tail a few runs of versions.

Ordinals are places in the context, in chain order (law 6). The committed context comes first; the
tail (items not yet in a completed request) follows it. A removed item leaves its ordinal empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from . import events as ev
from .canonical import GENESIS, Json, JsonObject
from .tail import Run

FORMAT = 3
"""The format of the head as stored; a head of another format is folded again from the log."""

MAX_EDITS = 32
"""How many edits the head remembers one by one; older ones are merged, to the safe side."""

CallStatus = Literal[
    "requested",  # nobody has decided anything yet
    "approved",  # allowed to run
    "started",  # the tool runs, or ran when its process died
    "deferred",  # the answer comes later
    "uncertain",  # started, and nobody knows
    "answered",
    "rejected",
    "abandoned",
]
SETTLED: frozenset[CallStatus] = frozenset({"answered", "rejected", "abandoned"})
OutcomeKind = Literal["completed", "incomplete", "failed", "rejected", "interrupted", "unknown"]
Status = Literal["idle", "busy", "waiting", "queued"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The response that the next request may continue from (law 4).

    The provider's chain under it holds the context up to ordinal `end`. `time` is when it
    completed, in microseconds; `connection` and `lane` are where an unstored one lives; `calls`
    is how many client-owned calls it asked for.
    """

    response: str
    end: int
    version: int
    time: int
    store: bool
    model: str | None = None
    transport: str
    connection: str | None = None
    lane: str | None = None
    calls: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Something at `ordinal` changed at `version`: no older response that reaches beyond holds."""

    ordinal: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Which configuration is in force; its body stands in the event at `version`."""

    version: int
    fingerprint: str
    agent: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A client-owned call whose output is not yet in a completed request.

    `id` is turnlog's idempotency key, `call_id` the provider's. `item` is the key of the output
    item that holds the call, recorded at `version`; `ordinal` is where its output stands.
    `timed_out` says of an uncertain one that its owner may still wake and finish it.
    """

    id: str
    item: str
    version: int
    call_id: str | None
    kind: str
    name: str | None
    turn: str | None
    status: CallStatus = "requested"
    runs: int = 0
    approved: bool = False
    timed_out: bool = False
    time: int = 0
    ordinal: int | None = None

    @property
    def settled(self) -> bool:
        """Whether the call has an output."""
        return self.status in SETTLED


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """An output item of the open attempt, or one that a `call.requested` may name."""

    key: str
    version: int
    item_id: str | None
    call_id: str | None
    kind: str
    name: str | None
    client: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One sending of a request, without an outcome so far. `end` is the ordinal after its input."""

    id: str
    version: int
    time: int
    cause: ev.Cause
    try_number: int
    delay_ms: int
    kind: Literal["delta", "full"]
    parent: str | None
    end: int
    transport: str
    store: bool
    model: str | None
    background: bool = False
    connection: str | None = None
    lane: str | None = None
    response: str | None = None
    outputs: tuple[Output, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the last attempt of a turn ended, as far as the next step depends on it."""

    kind: OutcomeKind
    attempt: str
    cause: ev.Cause
    try_number: int
    time: int
    sent: bool = True
    heard: bool = False
    retryable: bool = False
    reason: str | None = None
    status: int | None = None
    code: str | None = None
    message: str | None = None
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The open turn. Its settings stand in the event at `version`.

    `requests` counts what was asked without retries, and `retries` what was asked again, over the
    whole turn; `chains_lost` and `limits_hit` count what the request under way met, and begin anew
    with the next.
    """

    id: str
    key: str
    digest: str
    version: int
    epoch: int
    manual: bool = False
    max_requests: int | None = None
    max_retries: int | None = None
    requests: int = 0
    retries: int = 0
    chains_lost: int = 0
    limits_hit: int = 0
    paused: str | None = None
    cancel: ev.CancelMode | None = None
    last: Outcome | None = None
    response: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A turn that waits for the open one; its input stands in the event at `version`."""

    id: str
    key: str
    digest: str
    version: int


@dataclass(frozen=True, kw_only=True)
class State:
    """A conversation at a version. `hash` is that of the last event, in hex.

    Ordinals below `committed` are in the chain; `next` is the ordinal that the next item gets;
    `window` is where what is still sent begins (after a compaction).
    """

    id: str
    version: int = 0
    hash: str = GENESIS.hex()
    created: int = 0
    updated: int = 0
    metadata: JsonObject = field(default_factory=dict[str, Json])
    fork: ev.Fork | None = None
    base: int = 0
    config: Config | None = None
    committed: int = 0
    next: int = 0
    window: int = 0
    tail: tuple[Run, ...] = ()
    parent: Parent | None = None
    edits: tuple[Edit, ...] = ()
    turn: Turn | None = None
    queued: tuple[Queued, ...] = ()
    attempt: Attempt | None = None
    calls: tuple[Call, ...] = ()
    claims: tuple[Output, ...] = ()
    transport: str | None = None
    turns: int = 0

    @property
    def status(self) -> Status:
        """`waiting` while the open turn is paused, else `busy`; without one `queued` or `idle`."""
        if self.turn is None:
            return "queued" if self.queued else "idle"
        return "waiting" if self.turn.paused is not None else "busy"

    @property
    def pending(self) -> tuple[Call, ...]:
        """The calls that have no output yet."""
        return tuple(call for call in self.calls if not call.settled)

    def call(self, id: str) -> Call | None:
        """The call with turnlog's id, or None."""
        return next((call for call in self.calls if call.id == id), None)

    def in_queue(self, id: str | None = None, *, key: str | None = None) -> Queued | None:
        """The queued turn with this id or idempotency key, or None."""
        return next((one for one in self.queued if id == one.id or key == one.key), None)


def changed(state: State, **changes: object) -> State:
    """The state with other values in some fields.

    The same as `dataclasses.replace`, without setting each of 24 fields anew: 2 us and not 11, once
    or twice for each event. This is why a `State` alone has no slots.
    """
    after = object.__new__(State)
    after.__dict__.update(state.__dict__)
    after.__dict__.update(changes)
    return after


def start(id: str) -> State:
    """A conversation before its first event."""
    return State(id=id)


def branch(source: State, id: str) -> State:
    """A fork before its first event: the committed context of the source, and nothing open.

    The calls that the context asks for are there without their outputs, which the fork's first
    append gives: those of the source, or the word that they were abandoned (`forked`).
    Its parent is that of the source. An unstored one can be continued from for as long as the
    source's lane holds it, by a lane of the fork's own (law 8).
    """
    return State(
        id=id,
        hash=source.hash,
        base=source.committed,
        committed=source.committed,
        next=source.committed,
        window=source.window,
        parent=source.parent and replace(source.parent, version=0),
        metadata=source.metadata,
        calls=tuple(
            replace(call, status="requested", ordinal=None, turn=None) for call in source.calls
        ),
    )


def still_holds(state: State, parent: Parent) -> bool:
    """Whether the chain under a response is a prefix of the context, in spite of all edits."""
    return not any(
        edit.version > parent.version and edit.ordinal < parent.end for edit in state.edits
    )
