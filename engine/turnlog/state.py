"""The head of a conversation, and how each event changes it.

The one rule: state is a pure fold over events (law 2). `evolve` copies, never reads a clock, and
ends in `assert_never`. The state holds no item bodies and is bounded by open work, not by length:
the committed context is a number of ordinals, and the tail a few runs of versions.

Ordinals are places in the context, in chain order (law 6). The committed context comes first; the
tail (items not yet in a completed request) follows it. A removed item leaves its ordinal empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from . import events as ev
from .canonical import GENESIS, Json, JsonObject, integer, text
from .items import call_id_of, is_client_call, name_of
from .record import Recorded

FORMAT = 1
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
Status = Literal["idle", "busy", "waiting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The response that the next request may continue from (law 4).

    The provider's chain under it holds the context up to ordinal `end`. `time` is when it
    completed, in microseconds; `connection` and `lane` are where an unstored one lives.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Something at `ordinal` changed at `version`: no older response that reaches beyond holds."""

    ordinal: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Items of the tail that follow each other both by ordinal and by event version."""

    ordinal: int
    version: int
    count: int


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
    """The open turn. Its settings stand in the event at `version`."""

    id: str
    key: str
    digest: str
    version: int
    epoch: int
    manual: bool = False
    max_requests: int | None = None
    requests: int = 0
    chains_lost: int = 0
    limits_hit: int = 0
    paused: str | None = None
    cancel: ev.CancelMode | None = None
    last: Outcome | None = None
    response: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
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
    attempt: Attempt | None = None
    calls: tuple[Call, ...] = ()
    claims: tuple[Output, ...] = ()
    transport: str | None = None
    turns: int = 0

    @property
    def status(self) -> Status:
        """`idle` without an open turn, `waiting` while it is paused, else `busy`."""
        if self.turn is None:
            return "idle"
        return "waiting" if self.turn.paused is not None else "busy"

    @property
    def pending(self) -> tuple[Call, ...]:
        """The calls that have no output yet."""
        return tuple(call for call in self.calls if not call.settled)

    def call(self, id: str) -> Call | None:
        """The call with turnlog's id, or None."""
        return next((call for call in self.calls if call.id == id), None)


def start(id: str) -> State:
    """A conversation before its first event."""
    return State(id=id)


def branch(source: State, id: str) -> State:
    """A fork before its first event: the committed context of the source, and nothing open.

    The calls that the context asks for are there without their outputs, which the fork's first
    append gives: those of the source, or the word that they were abandoned (`forked`).
    Its parent is kept only where the provider stored it: an unstored one belongs to the lane of
    the source (law 8).
    """
    parent = source.parent if source.parent is not None and source.parent.store else None
    return State(
        id=id,
        hash=source.hash,
        base=source.committed,
        committed=source.committed,
        next=source.committed,
        window=source.window,
        parent=parent and replace(parent, version=0),
        metadata=source.metadata,
        calls=tuple(
            replace(call, status="requested", ordinal=None, turn=None) for call in source.calls
        ),
    )


def replay(state: State, events: Iterable[Recorded]) -> State:
    """Fold events into a state."""
    for one in events:
        state = evolve(state, one)
    return state


def evolve(state: State, recorded: Recorded) -> State:
    """The state after one more event."""
    state = replace(
        state, version=recorded.version, hash=recorded.hash.hex(), updated=recorded.time
    )
    match recorded.event:
        case (
            ev.ConversationStarted()
            | ev.ConversationConfigured()
            | ev.ConversationClosed()
            | ev.ContentErased()
        ) as event:
            return _conversation(state, recorded, event)
        case (
            ev.ItemAdded()
            | ev.ItemEdited()
            | ev.ItemRemoved()
            | ev.OutputTruncated()
            | ev.ContextCompacted()
        ) as event:
            return _item(state, recorded.version, event)
        case (
            ev.TurnQueued()
            | ev.TurnStarted()
            | ev.TurnCancelRequested()
            | ev.TurnPaused()
            | ev.TurnEnded()
        ) as event:
            return _turn(state, recorded, event)
        case (
            ev.RequestPrepared()
            | ev.ResponseStarted()
            | ev.OutputCheckpointed()
            | ev.OutputRecorded()
            | ev.ChainLost()
        ) as event:
            return _request(state, recorded, event)
        case (
            ev.ResponseCompleted()
            | ev.ResponseIncomplete()
            | ev.ResponseFailed()
            | ev.ResponseRejected()
            | ev.ResponseInterrupted()
            | ev.ResponseUnknown()
        ) as event:
            return _outcome(state, recorded, event)
        case (
            ev.CallRequested()
            | ev.CallApproved()
            | ev.CallRejected()
            | ev.CallStarted()
            | ev.CallProgressed()
            | ev.CallAnswered()
            | ev.CallDeferred()
            | ev.CallUncertain()
            | ev.CallAbandoned()
        ) as event:
            return _call(state, recorded, event)
        case ev.TransportSwitched() as event:
            return replace(state, transport=event.after)
        case (
            ev.SteerSubmitted()
            | ev.SteerAccepted()
            | ev.SteerPending()
            | ev.SteerFailed()
            | ev.ProviderNoted()
        ):
            return state
        case _:
            assert_never(recorded.event)


# -- the conversation and its context ------------------------------------------------------


def _conversation(state: State, recorded: Recorded, event: ev.ConversationEvent) -> State:
    match event:
        case ev.ConversationStarted():
            return replace(state, created=recorded.time, metadata=event.metadata, fork=event.fork)
        case ev.ConversationConfigured():
            config = Config(
                version=recorded.version,
                fingerprint=event.fingerprint,
                agent=event.agent,
                model=event.model,
            )
            return replace(state, config=config)
        case ev.ConversationClosed() | ev.ContentErased():
            return state
        case _:
            assert_never(event)


def _item(state: State, version: int, event: ev.ItemEvent) -> State:
    match event:
        case ev.ItemAdded(ordinal=ordinal):
            if ordinal is None:
                return _to_tail(state, version)
            return _changed(_inserted(state, ordinal, version), ordinal, version)
        case ev.ItemEdited(ordinal=ordinal):
            tail = _put(_cut(state.tail, ordinal), ordinal, version)
            state = replace(state, tail=tail if ordinal >= state.committed else state.tail)
            return _changed(state, ordinal, version)
        case ev.ItemRemoved(ordinal=ordinal):
            return _changed(replace(state, tail=_cut(state.tail, ordinal)), ordinal, version)
        case ev.ContextCompacted():
            return replace(state, window=event.ordinal, parent=None)
        case ev.OutputTruncated():
            return state
        case _:
            assert_never(event)


def _to_tail(state: State, version: int) -> State:
    """One more item at the end of the tail."""
    return replace(state, tail=_put(state.tail, state.next, version), next=state.next + 1)


def _inserted(state: State, ordinal: int, version: int) -> State:
    """One more item before `ordinal`; everything from there on moves by one."""
    in_chain = ordinal < state.committed
    tail = _shift(state.tail, ordinal, 1)
    return replace(
        state,
        tail=tail if in_chain else _put(tail, ordinal, version),
        committed=state.committed + in_chain,
        next=state.next + 1,
        window=state.window + (ordinal < state.window),
        calls=_moved(state.calls, ordinal, 1),
    )


def _changed(state: State, ordinal: int, version: int) -> State:
    """Something at `ordinal` is not what the provider's chain holds (law 9)."""
    if ordinal >= state.committed:
        return state
    kept = tuple(edit for edit in state.edits if edit.ordinal < ordinal)
    edits = (*kept, Edit(ordinal=ordinal, version=version))
    if len(edits) > MAX_EDITS:
        edits = (Edit(ordinal=edits[0].ordinal, version=edits[1].version), *edits[2:])
    state = replace(state, edits=edits)
    holds = state.parent is not None and still_holds(state, state.parent)
    return replace(state, parent=state.parent if holds else None)


def still_holds(state: State, parent: Parent) -> bool:
    """Whether the chain under a response is a prefix of the context, in spite of all edits."""
    return not any(
        edit.version > parent.version and edit.ordinal < parent.end for edit in state.edits
    )


# -- runs of the tail ----------------------------------------------------------------------


def _put(tail: Sequence[Run], ordinal: int, version: int) -> tuple[Run, ...]:
    """The tail with one more item; it joins the run before it where both numbers follow."""
    before = [run for run in tail if run.ordinal < ordinal]
    after = [run for run in tail if run.ordinal > ordinal]
    if before and (last := before[-1]).ordinal + last.count == ordinal:
        if last.version + last.count == version:
            return (*before[:-1], replace(last, count=last.count + 1), *after)
    return (*before, Run(ordinal=ordinal, version=version, count=1), *after)


def _split(tail: Sequence[Run], ordinal: int) -> list[Run]:
    """The same tail, with a run beginning at `ordinal` wherever one goes through it."""
    runs: list[Run] = []
    for run in tail:
        head = ordinal - run.ordinal
        if 0 < head < run.count:
            runs.append(replace(run, count=head))
            run = Run(ordinal=ordinal, version=run.version + head, count=run.count - head)
        runs.append(run)
    return runs


def _cut(tail: Sequence[Run], ordinal: int) -> tuple[Run, ...]:
    """The tail without the item at `ordinal`."""
    return tuple(
        run for run in _split(_split(tail, ordinal), ordinal + 1) if run.ordinal != ordinal
    )


def _shift(tail: Sequence[Run], ordinal: int, by: int) -> tuple[Run, ...]:
    """The tail with everything from `ordinal` on moved."""
    return tuple(
        replace(run, ordinal=run.ordinal + by) if run.ordinal >= ordinal else run
        for run in _split(tail, ordinal)
    )


def _moved(calls: Sequence[Call], ordinal: int, by: int) -> tuple[Call, ...]:
    return tuple(
        replace(call, ordinal=call.ordinal + by)
        if call.ordinal is not None and call.ordinal >= ordinal
        else call
        for call in calls
    )


# -- turns ---------------------------------------------------------------------------------


def _turn(state: State, recorded: Recorded, event: ev.TurnEvent) -> State:
    match event:
        case ev.TurnStarted():
            turn = Turn(
                id=recorded.turn or "",
                key=event.key,
                digest=event.digest,
                version=recorded.version,
                epoch=recorded.epoch or 0,
                manual=event.manual,
                max_requests=event.max_requests,
            )
            return replace(state, turn=turn, turns=state.turns + 1)
        case ev.TurnCancelRequested():
            return replace(state, turn=state.turn and replace(state.turn, cancel=event.mode))
        case ev.TurnPaused():
            return replace(state, turn=state.turn and replace(state.turn, paused=event.reason))
        case ev.TurnEnded():
            return replace(state, turn=None, claims=())
        case ev.TurnQueued():
            return state
        case _:
            assert_never(event)


def _unpaused(state: State) -> State:
    return replace(state, turn=state.turn and replace(state.turn, paused=None))


# -- requests and their outcomes -----------------------------------------------------------


def _request(state: State, recorded: Recorded, event: ev.RequestEvent) -> State:
    match event:
        case ev.RequestPrepared():
            return _prepared(state, recorded, event)
        case ev.ChainLost():
            turn = state.turn and replace(state.turn, chains_lost=state.turn.chains_lost + 1)
            return replace(state, parent=None, turn=turn)
        case _:
            attempt = state.attempt
            if attempt is None or attempt.id != event.attempt:
                return state
            return replace(state, attempt=_heard(attempt, recorded.version, event))


def _prepared(state: State, recorded: Recorded, event: ev.RequestPrepared) -> State:
    attempt = Attempt(
        id=event.attempt,
        version=recorded.version,
        time=recorded.time,
        cause=event.cause,
        try_number=event.try_number,
        delay_ms=event.delay_ms,
        kind=event.kind,
        parent=event.parent,
        end=state.next,
        transport=event.transport,
        store=event.store,
        model=event.model,
        connection=event.connection,
        lane=event.lane,
    )
    turn = state.turn and replace(
        state.turn,
        paused=None,
        requests=state.turn.requests + (event.try_number == 1 and event.cause != "chain_lost"),
    )
    return replace(state, attempt=attempt, claims=(), turn=turn, transport=event.transport)


def _heard(
    attempt: Attempt,
    version: int,
    event: ev.ResponseStarted | ev.OutputCheckpointed | ev.OutputRecorded,
) -> Attempt:
    match event:
        case ev.ResponseStarted():
            return replace(
                attempt,
                response=event.response,
                connection=event.connection,
                lane=event.lane,
            )
        case ev.OutputRecorded():
            output = Output(
                key=event.key,
                version=version,
                item_id=text(event.item, "id"),
                call_id=call_id_of(event.item),
                kind=text(event.item, "type") or "message",
                name=name_of(event.item),
                client=is_client_call(event.item),
            )
            return replace(attempt, outputs=(*attempt.outputs, output))
        case ev.OutputCheckpointed():
            return attempt
        case _:
            assert_never(event)


def _outcome(state: State, recorded: Recorded, event: ev.OutcomeEvent) -> State:
    attempt = state.attempt
    if attempt is None or attempt.id != event.attempt:
        return state
    outcome = _summary(attempt, recorded.time, event)
    turn = state.turn and replace(
        state.turn,
        last=outcome,
        limits_hit=state.turn.limits_hit + (outcome.code == "websocket_connection_limit_reached"),
    )
    state = replace(state, attempt=None, turn=turn)
    if isinstance(event, ev.ResponseCompleted):
        return _committed(state, recorded, attempt, event.response)
    parent = state.parent
    evicted = (
        parent is not None
        and not parent.store
        and parent.response == attempt.parent
        and outcome.sent
    )
    return replace(state, parent=None if evicted else parent)


def _summary(attempt: Attempt, time: int, event: ev.OutcomeEvent) -> Outcome:
    error = event.error or {}
    outcome = Outcome(
        kind=OUTCOME_KINDS[type(event)],
        attempt=attempt.id,
        cause=attempt.cause,
        try_number=attempt.try_number,
        time=time,
        heard=(event.response or attempt.response) is not None,
        code=text(error, "code"),
        message=text(error, "message"),
        status=integer(error, "status"),
    )
    match event:
        case ev.ResponseRejected():
            return replace(
                outcome,
                sent=event.status is not None or event.reason != "not_sent",
                retryable=event.retryable,
                reason=event.reason,
                status=event.status,
                retry_after_ms=event.retry_after_ms,
            )
        case ev.ResponseFailed():
            return replace(outcome, retryable=event.retryable)
        case ev.ResponseIncomplete() | ev.ResponseInterrupted() | ev.ResponseUnknown():
            return replace(outcome, reason=event.reason)
        case ev.ResponseCompleted():
            return outcome
        case _:
            assert_never(event)


OUTCOME_KINDS: dict[type[ev.OutcomeEvent], OutcomeKind] = {
    ev.ResponseCompleted: "completed",
    ev.ResponseIncomplete: "incomplete",
    ev.ResponseFailed: "failed",
    ev.ResponseRejected: "rejected",
    ev.ResponseInterrupted: "interrupted",
    ev.ResponseUnknown: "unknown",
}


def _committed(state: State, recorded: Recorded, attempt: Attempt, response: str | None) -> State:
    """The inputs of the request take their places, then its outputs (law 6).

    What was added to the tail while the request was out moves behind the outputs.
    """
    outputs, end = attempt.outputs, attempt.end + len(attempt.outputs)
    tail = tuple(run for run in _split(state.tail, attempt.end) if run.ordinal >= attempt.end)
    calls = (call for call in state.calls if call.ordinal is None or call.ordinal >= attempt.end)
    parent = response and Parent(
        response=response,
        end=end,
        version=recorded.version,
        time=recorded.time,
        store=attempt.store,
        model=attempt.model,
        transport=attempt.transport,
        connection=attempt.connection,
        lane=attempt.lane,
    )
    return replace(
        state,
        committed=end,
        next=state.next + len(outputs),
        tail=_shift(tail, attempt.end, len(outputs)),
        calls=_moved(tuple(calls), attempt.end, len(outputs)),
        claims=tuple(output for output in outputs if output.client),
        parent=parent or None,
        turn=state.turn and replace(state.turn, response=response),
    )


# -- calls ---------------------------------------------------------------------------------


def _call(state: State, recorded: Recorded, event: ev.CallEvent) -> State:
    if isinstance(event, ev.CallRequested):
        return _requested(state, recorded, event)
    call = state.call(event.call)
    if call is None:
        return state
    if isinstance(event, (ev.CallRejected, ev.CallAnswered, ev.CallAbandoned)):
        return _settled(state, recorded.version, call, event)
    if isinstance(event, ev.CallStarted):
        state = _unpaused(state)
    return _with_call(state, _progressed(call, event))


def _requested(state: State, recorded: Recorded, event: ev.CallRequested) -> State:
    output = next((one for one in state.claims if one.key == event.item), None)
    if output is None:
        return state
    call = Call(
        id=event.call,
        item=output.key,
        version=output.version,
        call_id=output.call_id,
        kind=output.kind,
        name=output.name,
        turn=recorded.turn,
        time=recorded.time,
    )
    return replace(state, calls=(*state.calls, call))


def _settled(
    state: State,
    version: int,
    call: Call,
    event: ev.CallRejected | ev.CallAnswered | ev.CallAbandoned,
) -> State:
    """The output joins the tail, or takes the place of an earlier one (a late answer)."""
    status: dict[type[ev.Event], CallStatus] = {
        ev.CallRejected: "rejected",
        ev.CallAnswered: "answered",
        ev.CallAbandoned: "abandoned",
    }
    ordinal = state.next if call.ordinal is None else call.ordinal
    if call.ordinal is None:
        state = _to_tail(state, version)
    else:
        state = replace(state, tail=_put(_cut(state.tail, ordinal), ordinal, version))
    return _with_call(state, replace(call, status=status[type(event)], ordinal=ordinal))


def _progressed(
    call: Call,
    event: ev.CallApproved
    | ev.CallStarted
    | ev.CallProgressed
    | ev.CallDeferred
    | ev.CallUncertain,
) -> Call:
    match event:
        case ev.CallApproved():
            return replace(call, status="approved", approved=True)
        case ev.CallStarted():
            return replace(call, status="started", runs=event.run)
        case ev.CallDeferred():
            return replace(call, status="deferred")
        case ev.CallUncertain():
            return replace(call, status="uncertain")
        case ev.CallProgressed():
            return call
        case _:
            assert_never(event)


def _with_call(state: State, changed: Call) -> State:
    return replace(
        state, calls=tuple(changed if call.id == changed.id else call for call in state.calls)
    )
