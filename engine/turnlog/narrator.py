"""What one watcher has seen so far, and what it sees next: the log told as updates.

The one rule: a watcher that replays the log and one that watches live are told by the same
function, so that a page that reloads ends with the same text. Pure: facts and deltas in, updates
out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from . import events as ev
from .canonical import Json, JsonObject, text
from .items import is_client_call, name_of, type_of
from .reception import ANSWER, final_parts
from .record import Recorded
from .updates import (
    DELTA_TYPES,
    CallType,
    CallUpdate,
    Cursor,
    Delta,
    HostedUpdate,
    ItemUpdate,
    Retracted,
    TurnDone,
    UnknownUpdate,
    Update,
    cursor_of,
    delta_of,
)


@dataclass(slots=True)
class _Part:
    """A text of the attempt under way: what is known of it, and how much of it was seen."""

    seen: int = 0
    length: int = 0
    chunks: list[str] = field(default_factory=list[str])

    def grow(self, said: str, offset: int) -> str:
        """Take in text that begins at `offset`; what of it is new. Behind a gap nothing is."""
        fresh = said[self.length - offset :] if offset <= self.length else ""
        self.chunks.append(fresh)
        self.length += len(fresh)
        return fresh


@dataclass(slots=True)
class Narrator:
    """Tells one watcher what it has not seen yet, behind the cursor that it starts from.

    It is given the events from the start of the cursor's turn on, in order, and between them the
    deltas as they stream; what it was given before it leaves out. A cursor without an attempt
    stands between attempts.
    """

    after: Cursor = field(default_factory=Cursor)
    _told: int = 0
    _attempt: str = ""
    _turn: str | None = None
    _failed: bool = False
    _parts: dict[str, _Part] = field(default_factory=dict[str, _Part])
    _outputs: list[tuple[int, ev.OutputRecorded]] = field(
        default_factory=list[tuple[int, ev.OutputRecorded]]
    )
    _calls: dict[str, JsonObject] = field(default_factory=dict[str, JsonObject])
    _beside: tuple[str, tuple[tuple[str, int], ...]] | None = None
    """The part that was told last, and how far the others had been told by then."""

    def delta(self, delta: Delta | HostedUpdate) -> list[Update]:
        """What streams, as it streams; what the watcher has seen of it is left out."""
        if delta.cursor.attempt != self._attempt:
            return []
        if isinstance(delta, HostedUpdate):
            return [replace(delta, cursor=self._here())]
        return self._next(delta) or self._more(delta, delta.cursor.offset - len(delta.delta))

    def event(self, recorded: Recorded) -> list[Update]:
        """A fact as it is recorded."""
        event = recorded.event
        if isinstance(event, ev.OutputRecorded):
            self._outputs.append((recorded.version, event))
            return []
        told = self._fact(recorded)
        self._told = recorded.version
        return told

    def _fact(self, recorded: Recorded) -> list[Update]:
        match recorded.event:
            case ev.RequestPrepared() as event:
                return self._prepared(recorded, event)
            case ev.OutputCheckpointed() as event:
                return self._checkpoint(recorded.version, event)
            case ev.ResponseCompleted() | ev.ResponseIncomplete():
                return self._final(recorded)
            case (
                ev.ResponseFailed()
                | ev.ResponseRejected()
                | ev.ResponseInterrupted()
                | ev.ResponseUnknown()
            ):
                self._failed, self._outputs = True, []
                return []
            case ev.TurnEnded() | ev.TurnPaused() as event:
                if isinstance(event, ev.TurnEnded) and recorded.turn == self._turn:
                    self._failed = False  # and not where another one has left the queue
                return self._new(_done(recorded, event, self._at(recorded)))
            case ev.ProviderNoted(kind="unreadable" | "unknown_frame") as event:
                return self._new(_noted(event, self._at(recorded)))
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
                return self._new(self._call(event, self._at(recorded)))
            case _:
                return []

    def _new(self, update: Update) -> list[Update]:
        return [update] if update.cursor.version > self.after.version else []

    def _at(self, recorded: Recorded) -> Cursor:
        return replace(self._here(), version=recorded.version)

    def _here(self, part: str = "") -> Cursor:
        """The place behind all that was told so far; `part` is what was told last."""
        seen = [(name, one.seen) for name, one in self._parts.items() if one.seen and name != part]
        if part:
            seen.append((part, self._parts[part].seen))
        if not seen:
            return Cursor(self._told, self._attempt)
        *others, (name, offset) = seen
        return Cursor(self._told, self._attempt, name, offset, tuple(others))

    # -- text ------------------------------------------------------------------------------

    def _prepared(self, recorded: Recorded, event: ev.RequestPrepared) -> list[Update]:
        """Another attempt: what the one before showed is retracted first (law 10)."""
        shown = self._failed and any(part.seen for part in self._parts.values())
        before, after = self._attempt, self.after
        # The cursor's own attempt goes on from there; an older one is over for this watcher.
        resumed = event.attempt == after.attempt
        self._attempt = event.attempt if resumed or recorded.version > after.version else ""
        self._failed, self._parts, self._outputs, self._beside = False, {}, [], None
        self._turn = recorded.turn
        if resumed:
            seen = (*after.others, (after.part, after.offset))
            self._parts = {part: _Part(offset) for part, offset in seen if offset}
        if not shown:
            return []
        reason = "another attempt follows"
        return self._new(Retracted(cursor=self._at(recorded), attempt=before, reason=reason))

    def _checkpoint(self, version: int, event: ev.OutputCheckpointed) -> list[Update]:
        if event.attempt != self._attempt:
            return []
        if version <= self.after.version:
            # Whoever stands behind a checkpoint has seen what it says, or has had it retracted.
            if event.part in self._parts:
                self._parts[event.part].grow(event.text, event.offset)
            return []
        return self._more(_delta(event.part, event.text, event.item), event.offset)

    def _next(self, delta: Delta) -> list[Update]:
        """More of the part that was told last, right behind it; nothing where it is not that.

        What it saves, measured: 1.2 µs where `_more` takes 5.1.
        """
        beside, said = self._beside, delta.delta
        if beside is None or beside[0] != delta.part or not said:
            return []
        part, end = self._parts[delta.part], delta.cursor.offset
        if part.seen != part.length or end - len(said) != part.length:
            return []
        part.chunks.append(said)
        part.length = part.seen = end
        cursor = cursor_of(self._told, self._attempt, delta.part, end, beside[1])
        return [delta_of(cursor, delta.raw, delta.type, said, delta.part, delta.item)]

    def _more(self, delta: Delta, offset: int) -> list[Update]:
        """Tell what of the delta, which begins at `offset`, is new to this watcher.

        Behind a gap nothing is told: a checkpoint or the final text closes it.
        """
        part = self._parts.setdefault(delta.part, _Part())
        before = part.length
        unseen = part.grow(delta.delta, offset)[part.seen - before :]
        if not unseen:
            return []
        part.seen = part.length
        cursor = self._here(delta.part)
        self._beside = delta.part, cursor.others
        if unseen == delta.delta:
            return [replace(delta, cursor=cursor)]
        return [replace(delta, cursor=cursor, delta=unseen, raw=_no_json)]

    def _final(self, recorded: Recorded) -> list[Update]:
        """The terminal frame decides: the rest of each part, or a retraction (law 3)."""
        for _, output in self._outputs:
            if is_client_call(output.item):
                self._calls[output.key] = output.item
        told: list[Update] = []
        if recorded.version > self.after.version:
            # All of the text comes before the first item.
            if not self._outputs or self._outputs[0][0] > self.after.version:
                told += self._texts()
            told += self._items(recorded)
        self._attempt, self._parts, self._outputs, self._beside = "", {}, [], None
        return told

    def _texts(self) -> list[Update]:
        """The rest of each text, behind a retraction where what was shown is not how it begins."""
        final = final_parts([output.item for _, output in self._outputs])
        told = self._contradicted(final)
        for part, (item, said) in final.items():
            told += self._more(_delta(part, said, item or None), 0)
        return told

    def _contradicted(self, final: Mapping[str, tuple[str, str]]) -> list[Update]:
        """Where the final answer is not what was shown, the watcher must discard that."""
        answers = {name: one for name, one in self._parts.items() if name.startswith(ANSWER)}
        said = {name: final.get(name, ("", ""))[1] for name in answers}
        if all(
            part.seen <= len(said[name]) and said[name].startswith("".join(part.chunks))
            for name, part in answers.items()
        ):
            return []
        shown = any(part.seen for part in self._parts.values())
        self._parts, self._beside = {}, None
        reason = "the final answer differs from what streamed"
        retracted = Retracted(cursor=self._here(), attempt=self._attempt, reason=reason)
        return [retracted] if shown else []

    def _items(self, recorded: Recorded) -> list[Update]:
        told: list[Update] = []
        for version, output in self._outputs:
            last = output is self._outputs[-1][1]
            cursor = replace(self._here(), version=recorded.version if last else version)
            if version > self.after.version:
                told.append(
                    ItemUpdate(cursor=cursor, raw=output.item, key=output.key, item=output.item)
                )
        return told

    # -- calls -----------------------------------------------------------------------------

    def _call(self, event: ev.CallEvent, cursor: Cursor) -> CallUpdate:
        if isinstance(event, ev.CallRequested):
            self._calls[event.call] = self._calls.pop(event.item, {})
        item = self._calls.get(event.call, {})
        output, data, reason = _particulars(event)
        return CallUpdate(
            cursor=cursor,
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


def _delta(part: str, said: str, item: str | None) -> Delta:
    kind = DELTA_TYPES.get(part.partition(":")[0], "text.delta")
    return Delta(cursor=Cursor(), type=kind, delta=said, part=part, item=item)


def _noted(event: ev.ProviderNoted, cursor: Cursor) -> UnknownUpdate:
    data: JsonObject = event.data or {}
    kind = text(data, "type") or event.kind
    return UnknownUpdate(cursor=cursor, raw=data, event=kind, text=event.text)


def _done(recorded: Recorded, event: ev.TurnEnded | ev.TurnPaused, cursor: Cursor) -> TurnDone:
    turn = recorded.turn or ""
    if isinstance(event, ev.TurnPaused):
        return TurnDone(cursor=cursor, turn=turn, status="waiting", reason=event.reason)
    reason = text(event.error or {}, "message")
    return TurnDone(cursor=cursor, turn=turn, status=event.outcome, reason=reason)


_no_json: dict[str, Json] = {}
