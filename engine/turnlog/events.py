"""The events: everything that can be a fact of a conversation, as frozen values.

The one rule: an event is past tense, knows nothing of storage, and its tag and fields are for
ever. The envelope (`record.py`) adds id, version, time, actor, turn and hash. Fields hold plain
JSON, or one of the small values below; an absent optional field is None and is left out of the
canonical body. `extra` keeps what a newer turnlog wrote and this one does not know.

Where an event names a *version*, it is a version of the same conversation; an *ordinal* is a
place in its context; an *attempt*, *call* or *key* is turnlog's own id, and `call_id`, `response`
and `item_id` are the provider's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from .canonical import Json, JsonObject

Cause = Literal["first", "retry", "tools_answered", "recovery", "chain_lost", "server"]
TurnOutcome = Literal["completed", "incomplete", "failed", "cancelled", "limited"]
CancelMode = Literal["now", "after_request"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fact:
    """What every event and every value in one has: the fields of a newer version, kept as is."""

    extra: JsonObject = field(default_factory=dict[str, Json])


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork(_Fact):
    """Where a conversation branched off: the source, its version, and its hash there (hex)."""

    conversation: str
    version: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin(_Fact):
    """The call that made a conversation: a child of `conversation`, by `call`."""

    conversation: str
    call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Range(_Fact):
    """Part of what a request holds: `start` to before `stop`.

    `of` says what is counted: ordinals of the committed `context`, or event versions of the
    `tail`.
    """

    of: Literal["context", "tail"]
    start: int
    stop: int


# -- the conversation and its context ------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationStarted(_Fact):
    """A conversation exists, perhaps as a fork of another or as the child of a call."""

    id: str
    metadata: JsonObject = field(default_factory=dict[str, Json])
    fork: Fork | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationConfigured(_Fact):
    """What goes with every request from here on, whole; written when it differs."""

    agent: str | None = None
    model: str | None = None
    instructions: str | None = None
    tools: tuple[JsonObject, ...] = ()
    settings: JsonObject = field(default_factory=dict[str, Json])
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemAdded(_Fact):
    """The caller added an item: to the end of the tail, or before `ordinal`."""

    key: str
    item: JsonObject
    ordinal: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemEdited(_Fact):
    """The caller put another item in the place of the one at `ordinal`."""

    key: str
    item: JsonObject
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRemoved(_Fact):
    """The caller removed the item at `ordinal`; the place stays empty."""

    key: str
    ordinal: int


# -- turns ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnQueued(_Fact):
    """An input was accepted behind a busy turn; its items join the tail when it runs.

    The rest is what the turn begins with; `config` is put in force then, where it was given.
    `first` says that it goes before what was queued already.
    """

    key: str
    digest: str
    settings: JsonObject = field(default_factory=dict[str, Json])
    items: tuple[JsonObject, ...] = ()
    config: ConversationConfigured | None = None
    max_requests: int | None = None
    max_retries: int | None = None
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStarted(_Fact):
    """An input was accepted: `key` is its idempotency key, `digest` that of the input.

    `settings` are the turn's own and win over those of the conversation; `manual` says that the
    caller runs the tools (`chat.request`). `max_retries` bounds how often the turn sends a request
    again, over all its requests (law 10).
    """

    key: str
    digest: str
    settings: JsonObject = field(default_factory=dict[str, Json])
    max_requests: int | None = None
    max_retries: int | None = None
    manual: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnCancelRequested(_Fact):
    """Somebody asked for the turn to stop."""

    mode: CancelMode = "now"
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPaused(_Fact):
    """The turn waits for these calls, and its lease is released."""

    reason: str
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnResumed(_Fact):
    """An owner took the turn on again; `reason` says why, where nobody asked for it by name."""

    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnEnded(_Fact):
    """The turn is over; `response` is the last completed one, `error` says why it failed."""

    outcome: TurnOutcome
    response: str | None = None
    error: JsonObject | None = None


# -- requests and responses ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPrepared(_Fact):
    """A request is about to be sent: this is the intent (law 1).

    `delay_ms` is how long the attempt waits before it goes out; `digest` is that of the body
    (hex), `format` the version of the serialiser that made it (law 9). `store` says whether the
    provider was asked to keep the response, `model` which model was asked, `background` that the
    response goes on without anybody listening.
    """

    attempt: str
    cause: Cause
    try_number: int
    delay_ms: int = 0
    kind: Literal["delta", "full"]
    parent: str | None = None
    ranges: tuple[Range, ...]
    format: int
    digest: str
    transport: str
    connection: str | None = None
    lane: str | None = None
    store: bool
    model: str | None = None
    background: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseStarted(_Fact):
    """The provider named its response."""

    attempt: str
    response: str
    connection: str | None = None
    lane: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCheckpointed(_Fact):
    """Text that a watcher saw, so far provisional: `text` starts at code point `offset` of `part`.

    `part` names the stream of text within the attempt: its kind, output index and content index.
    """

    attempt: str
    item: str | None = None
    part: str
    offset: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRecorded(_Fact):
    """An output item as the terminal frame carried it, raw (law 3)."""

    attempt: str
    response: str | None = None
    index: int
    key: str
    item: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome(_Fact):
    """What an outcome says: the attempt, the raw response without what repeats elsewhere, usage."""

    attempt: str
    response: str | None = None
    usage: JsonObject | None = None
    body: JsonObject | None = None
    error: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCompleted(_Outcome):
    """The provider finished: the only outcome that makes a parent (law 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseIncomplete(_Outcome):
    """The provider stopped early; `reason` is its word."""

    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseFailed(_Outcome):
    """The provider reported a failure after it had begun."""

    retryable: bool = False
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseRejected(_Outcome):
    """Never sent, or refused before any output; `status` is the provider's, where it gave one."""

    reason: str | None = None
    status: int | None = None
    retryable: bool = False
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseInterrupted(_Outcome):
    """Cancelled; or heard from and then disconnected, past a deadline, or crashed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseUnknown(_Outcome):
    """Possibly sent, and nothing was heard."""

    reason: str


# -- calls ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequested(_Fact):
    """A client-owned call is pending; `item` is the key of the output item that holds it."""

    call: str
    item: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallApproved(_Fact):
    """Somebody allowed the call to run."""

    call: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRejected(_Fact):
    """Somebody refused the call; the output tells the model so."""

    call: str
    key: str
    item: JsonObject
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted(_Fact):
    """The tool is about to run for the `run`-th time (law 12)."""

    call: str
    run: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CallProgressed(_Fact):
    """The tool reported progress."""

    call: str
    data: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAnswered(_Fact):
    """The call has an output; `failed` where the tool raised or its arguments did not fit."""

    call: str
    key: str
    item: JsonObject
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDeferred(_Fact):
    """The tool said that the answer comes later."""

    call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallUncertain(_Fact):
    """The tool started, and nobody knows whether it finished.

    `timed_out` says that its owner is only taken for dead, because its beat stopped: it may wake
    and finish, so that nobody can ask now whether it did (law 12).
    """

    call: str
    reason: str
    timed_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAbandoned(_Fact):
    """The call will not be answered; the output tells the model so (law 7)."""

    call: str
    key: str
    item: JsonObject
    reason: str


# -- the rest ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputTruncated(_Fact):
    """The user heard only `heard` of the item `key`."""

    key: str
    heard: str
    mode: Literal["edit", "note"] = "edit"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainLost(_Fact):
    """The provider does not know `parent` any more (law 8)."""

    parent: str
    attempt: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSwitched(_Fact):
    """Requests go another way from here on."""

    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextCompacted(_Fact):
    """The window now starts at `ordinal`; what lies before it is kept, and not sent.

    It begins with `items` items that the provider made of what it compacted: they were added just
    before, and are committed from here on.
    """

    ordinal: int
    items: int = 0
    response: str | None = None
    usage: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerSubmitted(_Fact):
    """Reserved: input was offered to a running response."""

    response: str
    items: tuple[JsonObject, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerAccepted(_Fact):
    """Reserved: the provider owns the steering input, not yet committed."""

    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerPending(_Fact):
    """Reserved: steering waits for required input."""

    response: str
    required: tuple[JsonObject, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerFailed(_Fact):
    """Reserved: the steering input came back."""

    response: str
    error: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderNoted(_Fact):
    """Anything else worth keeping; `text` holds a frame that could not be parsed."""

    kind: str
    attempt: str | None = None
    data: JsonObject | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentErased(_Fact):
    """Reserved: the bodies of these versions were erased."""

    versions: tuple[int, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationClosed(_Fact):
    """Reserved: the conversation accepts nothing more."""

    reason: str | None = None


ConversationEvent: TypeAlias = (
    ConversationStarted | ConversationConfigured | ConversationClosed | ContentErased
)
ItemEvent: TypeAlias = ItemAdded | ItemEdited | ItemRemoved | OutputTruncated | ContextCompacted
TurnEvent: TypeAlias = (
    TurnQueued | TurnStarted | TurnCancelRequested | TurnPaused | TurnResumed | TurnEnded
)
RequestEvent: TypeAlias = (
    RequestPrepared | ResponseStarted | OutputCheckpointed | OutputRecorded | ChainLost
)
OutcomeEvent: TypeAlias = (
    ResponseCompleted
    | ResponseIncomplete
    | ResponseFailed
    | ResponseRejected
    | ResponseInterrupted
    | ResponseUnknown
)
CallEvent: TypeAlias = (
    CallRequested
    | CallApproved
    | CallRejected
    | CallStarted
    | CallProgressed
    | CallAnswered
    | CallDeferred
    | CallUncertain
    | CallAbandoned
)
NoteEvent: TypeAlias = (
    TransportSwitched | SteerSubmitted | SteerAccepted | SteerPending | SteerFailed | ProviderNoted
)
Event: TypeAlias = (
    ConversationEvent | ItemEvent | TurnEvent | RequestEvent | OutcomeEvent | CallEvent | NoteEvent
)

TAGS: Mapping[str, type[Event]] = MappingProxyType(
    {
        "conversation.started": ConversationStarted,
        "conversation.configured": ConversationConfigured,
        "item.added": ItemAdded,
        "item.edited": ItemEdited,
        "item.removed": ItemRemoved,
        "turn.queued": TurnQueued,
        "turn.started": TurnStarted,
        "turn.cancel_requested": TurnCancelRequested,
        "turn.paused": TurnPaused,
        "turn.resumed": TurnResumed,
        "turn.ended": TurnEnded,
        "request.prepared": RequestPrepared,
        "response.started": ResponseStarted,
        "output.checkpointed": OutputCheckpointed,
        "output.recorded": OutputRecorded,
        "call.requested": CallRequested,
        "call.approved": CallApproved,
        "call.rejected": CallRejected,
        "call.started": CallStarted,
        "call.progressed": CallProgressed,
        "call.answered": CallAnswered,
        "call.deferred": CallDeferred,
        "call.uncertain": CallUncertain,
        "call.abandoned": CallAbandoned,
        "response.completed": ResponseCompleted,
        "response.incomplete": ResponseIncomplete,
        "response.failed": ResponseFailed,
        "response.rejected": ResponseRejected,
        "response.interrupted": ResponseInterrupted,
        "response.unknown": ResponseUnknown,
        "output.truncated": OutputTruncated,
        "chain.lost": ChainLost,
        "transport.switched": TransportSwitched,
        "context.compacted": ContextCompacted,
        "steer.submitted": SteerSubmitted,
        "steer.accepted": SteerAccepted,
        "steer.pending": SteerPending,
        "steer.failed": SteerFailed,
        "provider.noted": ProviderNoted,
        "content.erased": ContentErased,
        "conversation.closed": ConversationClosed,
    }
)

SCHEMA = 1
"""The schema version that this turnlog writes for every tag."""

_BY_TYPE: Mapping[type[Event], str] = {kind: tag for tag, kind in TAGS.items()}


def tag_of(event: Event) -> str:
    """The stable tag of an event."""
    return _BY_TYPE[type(event)]


OUTCOMES: tuple[type[OutcomeEvent], ...] = get_args(OutcomeEvent)
