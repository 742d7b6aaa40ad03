"""What the engine needs of the world: a store, a transport, and a profile of the provider.

The one rule: every method lists the errors it raises, and raises no others. A new store or
transport starts by joining the contract suite (`turnlog.testing`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Literal, Protocol, TypeAlias

from .canonical import JsonObject
from .fold_requests import PARENT_GONE as PARENT_GONE
from .index import Change
from .item import Item
from .item import Placed as Placed
from .making import maker
from .record import Recorded
from .state import Parent, State, Status

# -- the store -----------------------------------------------------------------------------

Lease = Literal["acquire", "keep", "release"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Everything that one append writes, in one transaction or not at all (design section 5).

    `expected` is the version that the events follow (0 for a new conversation). `head` is the
    state after them, `changes` what follows beside the log. `lease` says what becomes of the
    right to run the turn: `acquire` takes it (the events carry `epoch`, one more than the last),
    `keep` and `release` need it to be held by this store's owner at `epoch`; None needs none.
    `absent` are a provider's ids that may not stand in the context of a conversation that is there.
    """

    conversation: str
    expected: int
    events: Sequence[Recorded]
    head: State
    changes: Sequence[Change]
    epoch: int | None = None
    lease: Lease | None = None
    absent: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Appended:
    """The append is in the log: by this call, or `already` by an earlier one with the same ids."""

    version: int
    already: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The cached state of a conversation, and who may run its turn.

    `epoch` is the last one given out (0 before the first); `owner` is None where no lease is
    held; `alive` says whether that owner lives, `mine` whether it is the asking store. `certain`
    is off where an owner is taken for dead only because its beat stopped: it may wake again.
    """

    state: State
    epoch: int
    owner: str | None
    alive: bool
    mine: bool
    certain: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRow:
    """A turn as the store knows it: where it began, and the head where it ended."""

    conversation: str
    turn: str
    key: str
    digest: str
    started: int
    ended: int | None
    outcome: str | None
    time: int
    state: State | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationRow:
    """A conversation in a list. Times are microseconds since 1970.

    `orphaned` says that nobody runs its open turn: the owner is dead, or has let go of it.
    """

    id: str
    version: int
    status: Status
    agent: str | None
    model: str | None
    turns: int
    items: int
    metadata: JsonObject
    created: int
    updated: int
    fork_of: str | None
    turn: str | None
    orphaned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRow:
    """An open call, in an inbox."""

    conversation: str
    call: str
    turn: str | None
    name: str | None
    kind: str
    status: str
    item_version: int
    time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that `verify` found to be wrong; `version` is None where no event is to blame.

    `conversation` is empty where it is the database as a whole.
    """

    conversation: str
    version: int | None
    problem: str


class Store(Protocol):
    """Where events live. One object is one owner: a process with the right to hold leases.

    Every method may raise StoreUnavailable (locked, full, unreadable just now), StoreCorrupt
    (what is stored cannot be read back), StoreMoved (the file is not where it was) and Closed
    (after `close`), and only what is listed else.
    Callers may await from any event loop, and be cancelled at any time: an append that was handed
    over is finished all the same.
    """

    async def append(self, append: Append) -> Appended:
        """Write all of it, or nothing; the same event ids again are `already` there.

        Raises VersionConflict, IdConflict, StaleEpoch (the lease is another's), ItemPresent,
        StoreReadOnly, and OutcomeUnknown (a commit that may have happened: append the same events
        again).
        """
        ...

    async def head(self, conversation: str) -> Head | None:
        """The head of a conversation, or None where there is none."""
        ...

    async def events(
        self, conversation: str, *, after: int = 0, until: int | None = None, limit: int = 500
    ) -> list[Recorded]:
        """Events of versions above `after`, up to and with `until`, at most `limit`, in order.

        A fork's own events only; its ancestors are other conversations.
        """
        ...

    async def pick(self, conversation: str, versions: Sequence[int]) -> list[Recorded]:
        """The events at these versions, in the order of the versions; missing ones left out."""
        ...

    async def context(
        self,
        conversation: str,
        *,
        start: int = 0,
        stop: int | None = None,
        version: int | None = None,
        last: int | None = None,
    ) -> list[Placed]:
        """What stands at the ordinals from `start` to before `stop`, in order, at a version.

        The tail is part of it. `last` keeps only that many, from the end. A fork's places include
        those of its ancestors.
        """
        ...

    async def items(
        self,
        conversation: str,
        *,
        start: int = 0,
        stop: int | None = None,
        version: int | None = None,
        last: int | None = None,
    ) -> list[Item]:
        """The items at the places that `context` gives, in order.

        Raises StoreCorrupt where the log lacks one of them.
        """
        ...

    async def find(
        self,
        conversation: str,
        *,
        key: str | None = None,
        item_id: str | None = None,
        call_id: str | None = None,
    ) -> list[Placed]:
        """Where an item stands now, by exactly one of its ids."""
        ...

    async def turn(
        self, conversation: str, *, id: str | None = None, key: str | None = None
    ) -> TurnRow | None:
        """A turn by its id, or by its idempotency key."""
        ...

    async def turns(
        self, conversation: str, *, before: int | None = None, limit: int = 50
    ) -> list[TurnRow]:
        """Turns that began before a version (all, where None), the latest first."""
        ...

    async def conversations(
        self,
        *,
        after: str | None = None,
        limit: int = 50,
        status: Status | None = None,
        metadata: Mapping[str, str] | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> list[ConversationRow]:
        """Conversations in the order of their ids, above `after`.

        `metadata` selects those that have these entries; `since` and `until` bound the time of
        the last event (microseconds).
        """
        ...

    async def orphans(self) -> list[str]:
        """The conversations whose lease is held by an owner that is dead.

        Where an owner is known by its beat alone, this takes until it beats or is too late.
        """
        ...

    async def pending(
        self, *, after: tuple[str, str] | None = None, limit: int = 50
    ) -> list[CallRow]:
        """Open calls of all conversations, ordered by (conversation, call), above `after`."""
        ...

    async def follow(
        self, positions: Mapping[int, int], *, limit: int = 500
    ) -> list[tuple[int, int, Recorded]]:
        """Events as (partition, position, event), above a position for each partition.

        Positions count from 1 without gaps within a partition; a partition that is not named is
        read from its start.
        """
        ...

    async def moved(self, positions: Mapping[int, int]) -> tuple[dict[int, int], frozenset[str]]:
        """Which conversations have events above these positions, and where each partition ends.

        Of a partition that is not named only the end is told: with `{}` one begins at the end.
        """
        ...

    async def changed(self, seconds: float, *, others: bool = False) -> None:
        """Return when something was perhaps appended, at the latest after so many seconds.

        With `others`, only what another owner appended counts.
        """
        ...

    async def check(self, conversation: str) -> list[Finding]:
        """Compare what is cached beside a conversation's log with what the log says.

        With an empty name, what belongs to no conversation: positions, owners, the file itself.
        """
        ...

    async def backup(self, target: str) -> None:
        """Write a copy of everything, as it is at one moment, to a new file.

        Raises InvalidInput where there is something at `target` or it cannot be written, and
        NotSupported where there is no file to copy.
        """
        ...

    async def close(self) -> None:
        """Finish what was handed over, release the owner, and close. Idempotent."""
        ...


# -- the transport -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Ask for a response. `body` is what `POST /v1/responses` takes, without `stream`.

    Nobody changes a body: its digest is in the log, and its parts are the agent's and the
    conversation's. Whoever sends something else sends a copy (`copy.deepcopy` makes lists of it).

    `parent` is where the parent of a continuation lives, for transports that remember;
    `conversation` and `attempt` say whose request it is: a lane belongs to one conversation, and
    another one that continues from its response is a fork. `via` is the way that `choose` gave;
    without it the transport takes the one that it would choose now.
    """

    body: JsonObject
    parent: Parent | None = None
    conversation: str = ""
    attempt: str = ""
    via: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieve:
    """Ask what became of a response; from behind a sequence number where it still streams."""

    response: str
    starting_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Ask the provider to stop a background response."""

    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Ask the provider to forget a stored response."""

    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compact:
    """Ask for a compacted window (`POST /v1/responses/compact`)."""

    body: JsonObject


Request: TypeAlias = Create | Retrieve | Cancel | Delete | Compact


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a provider reports as wrong, whatever shape it came in (protocol 1.3).

    `retry_after` is in seconds. `status` is None where the provider gave none.
    """

    status: int | None = None
    code: str | None = None
    type: str | None = None
    message: str
    param: str | None = None
    retry_after: float | None = None


Terminal = Literal["completed", "incomplete", "failed", "cancelled", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One thing that a provider sent.

    `type` is its tag, empty where it has none; `data` the JSON that arrived. A frame that cannot
    be read as a JSON object has its raw `text` instead, and empty `data`. `terminal` says that
    the response is over and how; `problem` is there for `error` and `failed`. `connection` and
    `lane` say where it came from, where the transport knows.
    """

    type: str
    data: JsonObject
    text: str | None = None
    terminal: Terminal | None = None
    problem: Problem | None = None
    connection: str | None = None
    lane: str | None = None


frame_of: Callable[[str, JsonObject, str | None, str | None], Frame] = maker(
    Frame, text=None, terminal=None, problem=None
)
"""`frame_of(type, data, connection, lane)`: a `Frame` without text, terminal and problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """How a response ended that nobody waited for any more: its terminal frame.

    `conversation` and `attempt` are those of its `Create`. What it used is paid for all the same.
    """

    conversation: str
    attempt: str
    frame: Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a provider can do: a value, so that a quirk is never an `if` (design section 6).

    `hosts` are the hosts at which it is found; one that begins with a dot stands for every host
    that ends so. `key_header` carries the key: as `Bearer` in `Authorization`, bare in any other.
    `lanes`: several responses at once over one WebSocket, up to `max_in_flight`, on at most
    `max_lanes` names; `connection_seconds` is how long the provider lets a WebSocket live.
    `stored_ids`: a stored response can be continued by its id, for `stored_for` seconds.
    `background`: a response may be made without anybody listening, and its stream resumed.
    `compact`: there is `POST /responses/compact`. `warm_by` names the ways that take
    `generate: false`, by which the provider reads a context without answering.
    `reasoning_replay`: encrypted reasoning may be asked for and sent back, by models whose name
    begins with what the pattern `reasoning_models` matches. What a provider leaves out of its
    frames needs no flag: the engine copes with all alike. `sources` says of a field where its
    value comes from, and `claim:` in front that nobody could check it.
    """

    name: str
    base_url: str | None = None
    hosts: tuple[str, ...] = ()
    websocket: bool = False
    lanes: bool = False
    max_in_flight: int = 16
    max_lanes: int = 32
    connection_seconds: float = 3600.0
    stored_ids: bool = True
    store_default: bool = True
    retrieve: bool = False
    background: bool = False
    compact: bool = False
    warm_by: frozenset[str] = frozenset()
    reasoning_replay: bool = False
    reasoning_models: str = ""
    stored_for: float = 30 * 24 * 3600.0
    key_env: str | None = "OPENAI_API_KEY"
    key_header: str = "Authorization"
    unsupported: frozenset[str] = field(default_factory=frozenset[str])
    """Fields of a request body that the provider refuses."""
    sources: Mapping[str, str] = field(default_factory=dict[str, str])


class Transport(Protocol):
    """A way to a provider. It sends what it is given once, and never again by itself (law 10)."""

    @property
    def profile(self) -> Profile:
        """What the provider behind it can do."""
        ...

    def choose(
        self, *, before: str | None = None, failed: bool = False, background: bool = False
    ) -> str:
        """The name of the way that the next request should take: `websocket`, `http`, `replay` …

        `before` is the way of the last request of the same turn, and `failed` says that it never
        reached the provider by it. `background` says that the request asks for a background
        response, which not every way can carry. A transport with one way gives its name.
        """
        ...

    def check(self) -> None:
        """Raise ConfigurationError where a request cannot go out: no key, no usable address."""
        ...

    def remembers(self, parent: Parent, *, via: str, conversation: str) -> bool:
        """Whether a conversation can still continue from an unstored parent, by this way (law 8).

        Where that changes between the answer and the request, `send` raises NotSent with the code
        `parent_gone`, and the request is planned anew.
        """
        ...

    def on_late(self, tell: Callable[[Late], None]) -> None:
        """Have a function told how responses ended that were abandoned before their end."""
        ...

    async def warm(self) -> None:
        """Connect ahead of the first request, where there is something to connect.

        Raises NotSent, Closed and ConfigurationError; a later `warm` or `send` tries again.
        """
        ...

    def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Send a request and yield its frames; ends behind the terminal frame.

        What the provider answers, refusals included, is a frame. Closing the iterator early
        abandons the response. For `Retrieve` a plain answer becomes one frame whose type and
        terminal follow from the response's status.

        Raises NotSent (nothing reached the provider), Unheard (possibly sent, nothing heard),
        Lost (heard from, then lost), NotSupported (this transport cannot do that), Closed,
        InvalidInput (a body that is not JSON) and ConfigurationError (no key).
        """
        ...

    async def close(self) -> None:
        """Close every connection; streams under way raise Closed. Idempotent."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait for a provider, in seconds; None waits for ever.

    `connect` bounds a handshake, `queue` the wait for a free connection, `first_frame` the wait
    between the request and the first frame, `idle` that between two frames (whatever else trickles
    in), and `total` a whole response. `ping` is how often an open WebSocket is pinged, and how
    long it has to answer.
    """

    connect: float = 10.0
    queue: float | None = 30.0
    first_frame: float | None = 120.0
    idle: float | None = 300.0
    total: float | None = 3600.0
    ping: float | None = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """How to reach a provider; what `turnlog.open` hands to a transport's factory.

    `profile` is a value, a name, or None for the one that the address suggests. `key` is
    text, or a callable that returns it (asked anew for each connection and request). `query` goes
    behind every address. `proxy` is the URL of one, which may hold its password; without it, the
    environment's is used, except for this machine itself. `tls` is a context, or the path of a
    file with the certificates to trust. The key never appears in a repr (law 15).
    """

    base_url: str | None = None
    key: object = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    profile: Profile | str | None = None
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    timeouts: Timeouts = field(default_factory=Timeouts)
    proxy: str | None = field(default=None, repr=False)
    tls: SSLContext | str | None = None
    allow_insecure: bool = False
    options: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)
