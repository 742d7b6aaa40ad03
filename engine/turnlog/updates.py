"""What a watcher of a turn sees: the facts as they are recorded, and the deltas between them.

The one rule: the deltas of a part, joined, are the final text, or a `retracted` said otherwise.
The set of update types is closed; a frame of a new kind is an `unknown`. Each update has a cursor,
from which `attach` continues, and the raw JSON that it came from.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .canonical import Json, JsonObject
from .errors import InvalidInput
from .making import maker

DeltaType = Literal["text.delta", "reasoning.delta", "refusal.delta"]
CallType = Literal[
    "call.requested",
    "call.approved",
    "call.rejected",
    "call.started",
    "call.progressed",
    "call.answered",
    "call.deferred",
    "call.uncertain",
    "call.abandoned",
]


DELTA_TYPES: dict[str, DeltaType] = {
    "text": "text.delta",
    "refusal": "refusal.delta",
    "reasoning": "reasoning.delta",
    "summary": "reasoning.delta",
}
"""The type of a delta, by the kind that the name of its part begins with."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in what a watcher sees: behind the event `version`, and `offset` into a `part`.

    `attempt` is the one that streams there, `others` holds how far its other parts have come, as
    (part, offset). Offsets count code points. Opaque to callers: `str(update.cursor)` goes to a
    page, and comes back to `attach`.
    """

    version: int = 0
    attempt: str = ""
    part: str = ""
    offset: int = 0
    others: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        others = (f"{part}={offset}" for part, offset in self.others)
        return "/".join(
            (str(self.version), self.attempt, self.part, str(self.offset), *others),
        )

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor that `text` stands for; raises InvalidInput where it is none."""
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise InvalidInput(f"{text!r} is not a cursor: pass one that an update had")
        version, attempt, part, offset, rest = found.groups()
        pairs = (other.split("=") for other in rest.split("/")[1:])
        others = tuple((name, int(length)) for name, length in pairs)
        return cls(int(version), attempt, part, int(offset), others)


_CURSOR = re.compile(r"([0-9]{1,18})/([^/=]*)/([^/=]*)/([0-9]{1,18})((?:/[^/=]+=[0-9]{1,18})*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Update:
    cursor: Cursor
    raw: JsonObject = field(default_factory=dict[str, Json], repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """More text: of the answer, of its reasoning, or of a refusal. `item` is the provider's id."""

    cursor: Cursor
    raw: JsonObject = field(default_factory=dict[str, Json], repr=False)
    type: DeltaType
    delta: str
    part: str
    item: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemUpdate(_Update):
    """An output item, as recorded."""

    type: Literal["item"] = "item"
    key: str
    item: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class CallUpdate(_Update):
    """A client-owned call went one step through its life. `call` is turnlog's id."""

    type: CallType
    call: str
    name: str | None = None
    kind: str | None = None
    arguments: str | None = None
    output: JsonObject | None = None
    data: JsonObject | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedUpdate(_Update):
    """A tool that the provider runs reports progress; `event` is the provider's word for it."""

    type: Literal["hosted"] = "hosted"
    event: str
    item: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retracted(_Update):
    """Discard what this attempt showed; what follows takes its place."""

    type: Literal["retracted"] = "retracted"
    attempt: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnDone(_Update):
    """The turn ended, or waits for an answer; `status` says which."""

    type: Literal["turn.done"] = "turn.done"
    turn: str
    status: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownUpdate(_Update):
    """A frame that this turnlog does not know, or could not read (then `text` holds it)."""

    type: Literal["unknown"] = "unknown"
    event: str
    text: str | None = None


Update: TypeAlias = (
    Delta | ItemUpdate | CallUpdate | HostedUpdate | Retracted | TurnDone | UnknownUpdate
)

cursor_of: Callable[[int, str, str, int, tuple[tuple[str, int], ...]], Cursor] = maker(Cursor)
"""`cursor_of(version, attempt, part, offset, others)`: a `Cursor`."""

delta_of: Callable[[Cursor, JsonObject, DeltaType, str, str, str | None], Delta] = maker(Delta)
"""`delta_of(cursor, raw, type, delta, part, item)`: a `Delta`."""
