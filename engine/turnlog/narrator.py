"""What one watcher has seen so far, and what it sees next: the log told as updates.

The one rule: a watcher that replays the log and one that watches live are told by the same
function, so that a page that reloads ends with the same text. Pure: facts and deltas in, updates
out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from . import events as ev
from .canonical import Json, JsonObject, text
from .items import is_client_call, name_of, type_of
from .reception import final_parts
from .record import Recorded
from .updates import (
    CallType,
    CallUpdate,
    Cursor,
    Delta,
    DeltaType,
    ItemUpdate,
    Retracted,
    TurnDone,
    UnknownUpdate,
    Update,
)

_TYPES: dict[str, DeltaType] = {
    "text": "text.delta",
    "refusal": "refusal.delta",
    "reasoning": "reasoning.delta",
    "summary": "reasoning.delta",
}


@dataclass(slots=True)
class Narrator:
    """Tells one watcher what it has not seen yet, behind the cursor that it starts from."""

    after: Cursor = field(default_factory=Cursor)
    _attempt: str = ""
    _version: int = 0
    _shown: dict[str, str] = field(default_factory=dict[str, str])
    _skip: dict[str, int] = field(default_factory=dict[str, int])
    _outputs: list[ev.OutputRecorded] = field(default_factory=list[ev.OutputRecorded])
    _calls: dict[str, JsonObject] = field(default_factory=dict[str, JsonObject])
    _failed: bool = False

    def __post_init__(self) -> None:
        if self.after.part:
            self._skip[self.after.part] = self.after.offset

    def delta(self, delta: Delta) -> list[Update]:
        """A delta as it streams; what the watcher has seen of it is left out."""
        end = delta.cursor.offset
        return self._more(delta.part, end - len(delta.delta), delta.delta, delta)

    def event(self, recorded: Recorded) -> list[Update]:
        """A fact as it is recorded."""
        match recorded.event:
            case ev.RequestPrepared() as event:
                return self._prepared(recorded, event)
            case ev.OutputCheckpointed() as event:
                return self._checkpoint(event)
            case ev.OutputRecorded() as event:
                self._outputs.append(event)
                return []
            case ev.ResponseCompleted():
                return self._completed(recorded)
            case (
                ev.ResponseIncomplete()
                | ev.ResponseFailed()
                | ev.ResponseRejected()
                | ev.ResponseInterrupted()
                | ev.ResponseUnknown()
            ):
                self._failed = True
                return []
            case ev.ProviderNoted(kind="unreadable" | "unknown_frame") as event:
                return self._new(recorded, _noted(recorded, event))
            case ev.TurnPaused() as event:
                return self._new(recorded, _done(recorded, "waiting", event.reason))
            case ev.TurnEnded() as event:
                reason = text(event.error or {}, "message")
                return self._new(recorded, _done(recorded, event.outcome, reason))
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
                return self._new(recorded, self._call(recorded, event))
            case _:
                return []

    def _new(self, recorded: Recorded, update: Update) -> list[Update]:
        return [update] if recorded.version > self.after.version else []

    # -- text ------------------------------------------------------------------------------

    def _prepared(self, recorded: Recorded, event: ev.RequestPrepared) -> list[Update]:
        """Another attempt: what the one before showed is retracted first (law 10)."""
        told: list[Update] = []
        seen_before = self.after.attempt == self._attempt and bool(self.after.part)
        if self._failed and (any(self._shown.values()) or seen_before):
            cursor = Cursor(recorded.version, event.attempt)
            reason = "another attempt follows"
            told = [Retracted(cursor=cursor, attempt=self._attempt, reason=reason)]
        if self.after.attempt != event.attempt:
            self._skip = {} if recorded.version > self.after.version else self._skip
        self._attempt, self._version = event.attempt, recorded.version
        self._shown, self._outputs, self._failed = {}, [], False
        return self._new(recorded, told[0]) if told else []

    def _checkpoint(self, event: ev.OutputCheckpointed) -> list[Update]:
        return self._more(event.part, event.offset, event.text, None, event.item)

    def _more(
        self, part: str, offset: int, said: str, delta: Delta | None, item: str | None = None
    ) -> list[Update]:
        """Tell what of `said`, which begins at `offset`, is new to this watcher."""
        shown = self._shown.get(part, "")
        fresh = said[max(0, len(shown) - offset) :]
        if not fresh:
            return []
        self._shown[part] = shown + fresh
        skip = max(0, self._skip.get(part, 0) - len(shown)) if self._resumes() else 0
        fresh = fresh[skip:]
        if not fresh or self._is_old():
            return []
        if delta is not None and fresh == delta.delta:
            return [delta]
        return [self._delta(part, fresh, delta.item if delta is not None else item)]

    def _resumes(self) -> bool:
        return self.after.attempt == self._attempt

    def _is_old(self) -> bool:
        """Whether the watcher's cursor lies behind the whole of this attempt."""
        return self.after.version > self._version and not self._resumes()

    def _delta(self, part: str, fresh: str, item: str | None) -> Delta:
        offset = len(self._shown[part])
        cursor = Cursor(self._version, self._attempt, part, offset)
        kind = _TYPES[part.partition(":")[0]]
        return Delta(cursor=cursor, type=kind, delta=fresh, part=part, item=item or None)

    def _completed(self, recorded: Recorded) -> list[Update]:
        """The terminal frame decides: the rest of each part, or a retraction (law 3)."""
        told: list[Update] = []
        outputs = [output.item for output in self._outputs]
        final = final_parts(outputs)
        if recorded.version > self.after.version:
            told += self._contradicted(recorded, final)
            for part, (item, said) in final.items():
                told += self._more(part, 0, said, None, item)
            told += [_item(recorded, output) for output in self._outputs]
        for output in self._outputs:
            if is_client_call(output.item):
                self._calls[output.key] = output.item
        return told

    def _contradicted(self, recorded: Recorded, final: dict[str, tuple[str, str]]) -> list[Update]:
        """Where the final text is not what was shown, the watcher must discard that.

        A provider that leaves out the output index names a part by the item's id.
        """
        for index, output in enumerate(self._outputs):
            self._rename(text(output.item, "id"), index)
        answers = {p: s for p, s in self._shown.items() if p.startswith(("text:", "refusal:"))}
        if all(final.get(part, ("", ""))[1].startswith(said) for part, said in answers.items()):
            return []
        self._shown, self._skip = {}, {}
        cursor = Cursor(recorded.version - 1, self._attempt)
        reason = "the final answer differs from what streamed"
        return [Retracted(cursor=cursor, attempt=self._attempt, reason=reason)]

    def _rename(self, item: str | None, index: int) -> None:
        for part in [part for part in self._shown if part.split(":")[1] == item]:
            kind, _, inner = part.split(":")
            self._shown[f"{kind}:{index}:{inner}"] = self._shown.pop(part)

    # -- calls -----------------------------------------------------------------------------

    def _call(self, recorded: Recorded, event: ev.CallEvent) -> CallUpdate:
        if isinstance(event, ev.CallRequested):
            self._calls[event.call] = self._calls.pop(event.item, {})
        item = self._calls.get(event.call, {})
        output, data, reason = _particulars(event)
        return CallUpdate(
            cursor=Cursor(recorded.version),
            raw=item,
            type=_CALLS[type(event)],
            call=event.call,
            name=name_of(item),
            kind=type_of(item) if item else None,
            arguments=text(item, "arguments") or text(item, "input"),
            output=output,
            data=data,
            reason=reason,
        )


_CALLS: dict[type[ev.CallEvent], CallType] = {
    ev.CallRequested: "call.requested",
    ev.CallApproved: "call.approved",
    ev.CallRejected: "call.rejected",
    ev.CallStarted: "call.started",
    ev.CallProgressed: "call.progressed",
    ev.CallAnswered: "call.answered",
    ev.CallDeferred: "call.deferred",
    ev.CallUncertain: "call.uncertain",
    ev.CallAbandoned: "call.abandoned",
}


def _particulars(
    event: ev.CallEvent,
) -> tuple[JsonObject | None, JsonObject | None, str | None]:
    """The output, the progress and the reason that an event of a call carries."""
    match event:
        case ev.CallAnswered():
            return event.item, None, None
        case ev.CallRejected() | ev.CallAbandoned():
            return event.item, None, event.reason
        case ev.CallProgressed():
            return None, event.data, None
        case ev.CallApproved() | ev.CallUncertain():
            return None, None, event.reason
        case ev.CallRequested() | ev.CallStarted() | ev.CallDeferred():
            return None, None, None
        case _:
            assert_never(event)


def _item(recorded: Recorded, output: ev.OutputRecorded) -> ItemUpdate:
    return ItemUpdate(
        cursor=Cursor(recorded.version), raw=output.item, key=output.key, item=output.item
    )


def _noted(recorded: Recorded, event: ev.ProviderNoted) -> UnknownUpdate:
    data: JsonObject = event.data or {}
    kind = text(data, "type") or event.kind
    return UnknownUpdate(cursor=Cursor(recorded.version), raw=data, event=kind, text=event.text)


def _done(recorded: Recorded, status: str, reason: str | None) -> TurnDone:
    return TurnDone(
        cursor=Cursor(recorded.version),
        raw=_no_json,
        turn=recorded.turn or "",
        status=status,
        reason=reason,
    )


_no_json: dict[str, Json] = {}
