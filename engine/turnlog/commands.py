"""What may be asked of a conversation, as frozen values that `decide` turns into events.

The one rule: a command carries whatever its decision needs from outside the head (law 14): keys,
ids, whether an item is present, what an earlier output said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from . import events as ev
from .canonical import Json, JsonObject


@dataclass(frozen=True, slots=True)
class Keyed:
    """An item with the key that it gets."""

    key: str
    item: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Begin the conversation, where it has not begun."""

    metadata: JsonObject = field(default_factory=dict[str, Json])
    fork: ev.Fork | None = None
    origin: ev.Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """Put a configuration in force, where it differs from the one that is."""

    config: ev.ConversationConfigured


@dataclass(frozen=True, slots=True, kw_only=True)
class AddItems:
    """Add items to the tail, or before `ordinal`."""

    items: tuple[Keyed, ...]
    ordinal: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EditItem:
    """Put another item in the place of one."""

    ordinal: int
    key: str
    item: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveItem:
    """Take an item out of the context."""

    ordinal: int
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """The window begins with these items from now on; `response` and `usage` are the provider's."""

    items: tuple[Keyed, ...]
    response: str | None = None
    usage: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginTurn:
    """Accept an input, or begin with the one that is first in the queue.

    What is pending is abandoned with `abandon`, where that is given.
    """

    turn: str
    key: str
    digest: str
    items: tuple[Keyed, ...]
    settings: JsonObject = field(default_factory=dict[str, Json])
    max_requests: int | None = None
    max_retries: int | None = None
    manual: bool = False
    abandon: tuple[Keyed, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueTurn:
    """Accept an input behind the turn that runs."""

    turn: str
    queued: ev.TurnQueued


@dataclass(frozen=True, slots=True, kw_only=True)
class DropTurn:
    """End a turn that is queued, which never begins."""

    turn: str
    outcome: ev.TurnOutcome
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeTurn:
    """Take on the open turn again."""

    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Send a request of the open turn."""

    request: ev.RequestPrepared


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Record what the provider said while an attempt is under way, or beside it."""

    events: tuple[ev.Event, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Close the open attempt: its outputs, its outcome, and the ids of the calls it asks for."""

    outcome: ev.OutcomeEvent
    outputs: tuple[ev.OutputRecorded, ...] = ()
    calls: tuple[tuple[str, str], ...] = ()
    chain_lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCall:
    """Hand the call to its tool (law 12)."""

    call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The tool of the call reports."""

    call: str
    data: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Defer:
    """The answer to the call comes later."""

    call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtCalls:
    """Nobody knows whether these calls were carried out; `timed_out` as in `call.uncertain`."""

    calls: tuple[str, ...]
    reason: str
    timed_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """Allow the call to run, or to run again (`rerun`) where it is uncertain."""

    call: str
    reason: str | None = None
    rerun: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolve:
    """Give the call an output: its answer, a refusal, or the word that there will be none.

    `earlier` is the output that the call has already, where it has one, and `was` how it got that:
    the head forgets a call once a completed request holds its output. The same output again is a
    no-op. `by_runner` says that the tool itself answers.
    """

    call: str
    how: Literal["answered", "rejected", "abandoned"]
    key: str
    item: JsonObject
    reason: str | None = None
    failed: bool = False
    by_runner: bool = False
    earlier: JsonObject | None = None
    was: Literal["answered", "rejected", "abandoned"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCancel:
    """Ask the open turn to stop."""

    mode: ev.CancelMode = "now"
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseTurn:
    """Let the turn wait for answers."""

    reason: str
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndTurn:
    """End the open turn; `abandon` holds an output for each call that has none."""

    outcome: ev.TurnOutcome
    abandon: tuple[Keyed, ...] = ()
    reason: str | None = None
    error: JsonObject | None = None


Command: TypeAlias = (
    Start
    | Configure
    | AddItems
    | EditItem
    | RemoveItem
    | Compacted
    | BeginTurn
    | QueueTurn
    | DropTurn
    | ResumeTurn
    | Prepare
    | Note
    | Finish
    | StartCall
    | Progress
    | Defer
    | DoubtCalls
    | Approve
    | Resolve
    | RequestCancel
    | PauseTurn
    | EndTurn
)
