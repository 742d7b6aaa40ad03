"""Events in human words.

The one rule: one line each, and nothing in it that the log does not say. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from .. import events as ev
from ..canonical import JsonObject, text
from ..items import name_of, type_of
from .words import counted, item_words, output_words, usage_words


@dataclass(slots=True)
class Timeline:
    """Tells events in their order; of calls it remembers what was called."""

    _items: dict[str, JsonObject] = field(default_factory=dict[str, JsonObject])
    _calls: dict[str, JsonObject] = field(default_factory=dict[str, JsonObject])

    def words(self, event: ev.Event) -> str:
        """What an event says."""
        match event:
            case ev.OutputRecorded() if "call_id" in event.item or "arguments" in event.item:
                self._items[event.key] = event.item
            case ev.CallRequested() if event.item in self._items:
                item = self._calls[event.call] = self._items.pop(event.item)
                return f"{item_words(item)}, {event.call}"
            case _:
                pass
        call = str(getattr(event, "call", ""))
        known = self._calls.get(call)
        name = call if known is None else name_of(known) or type_of(known)
        return event_words(event).replace(call, name, 1)


def event_words(event: ev.Event) -> str:
    """What an event says by itself."""
    if isinstance(event, ev.ConversationEvent):
        return _conversation(event)
    if isinstance(event, ev.ItemEvent):
        return _item(event)
    if isinstance(event, ev.TurnEvent):
        return _turn(event)
    if isinstance(event, ev.RequestEvent):
        return _request(event)
    if isinstance(event, ev.OutcomeEvent):
        return _outcome(event)
    if isinstance(event, ev.CallEvent):
        return _call(event)
    return _note(event)


def _conversation(event: ev.ConversationEvent) -> str:
    match event:
        case ev.ConversationStarted(fork=ev.Fork() as fork):
            return f"forked from {fork.conversation} at version {fork.version}"
        case ev.ConversationStarted(origin=ev.Origin() as origin):
            return f"made by call {origin.call} of {origin.conversation}"
        case ev.ConversationStarted():
            return "the conversation begins"
        case ev.ConversationConfigured():
            tools = counted(len(event.tools), "tool") if event.tools else "no tools"
            agent = f"agent {event.agent}, " if event.agent else ""
            return f"{agent}model {event.model or 'not set'}, {tools}"
        case ev.ConversationClosed():
            return _because("closed", event.reason)
        case ev.ContentErased():
            return _because(
                f"the bodies of {counted(len(event.versions), 'event')} erased", event.reason
            )
        case _:
            assert_never(event)


def _item(event: ev.ItemEvent) -> str:
    match event:
        case ev.ItemAdded():
            before = f"before ordinal {event.ordinal}: " if event.ordinal is not None else ""
            return f"{before}{item_words(event.item)}"
        case ev.ItemEdited():
            return f"ordinal {event.ordinal} is now {item_words(event.item)}"
        case ev.ItemRemoved():
            return f"ordinal {event.ordinal} taken out"
        case ev.OutputTruncated():
            return f"only heard: {event.heard}"
        case ev.ContextCompacted():
            return f"the window now starts at ordinal {event.ordinal}"
        case _:
            assert_never(event)


def _turn(event: ev.TurnEvent) -> str:
    match event:
        case ev.TurnQueued():
            return f"queued: {'; '.join(item_words(item) for item in event.items)}"
        case ev.TurnStarted():
            limit = (
                f", at most {counted(event.max_requests, 'request')}" if event.max_requests else ""
            )
            return f"{'run by the caller' if event.manual else 'started'}{limit}"
        case ev.TurnCancelRequested():
            return _because(f"cancel {event.mode.replace('_', ' ')}", event.reason)
        case ev.TurnPaused():
            calls = f" ({counted(len(event.calls), 'call')})" if event.calls else ""
            return f"waits: {event.reason}{calls}"
        case ev.TurnResumed():
            return _because("resumed", event.reason)
        case ev.TurnEnded():
            return _because(event.outcome, text(event.error or {}, "message"))
        case _:
            assert_never(event)


def _request(event: ev.RequestEvent) -> str:
    match event:
        case ev.RequestPrepared():
            return _prepared(event)
        case ev.ResponseStarted():
            on = f" on {event.connection}" if event.connection else ""
            on += f" by {event.lane}" if event.lane else ""
            return f"{event.response}{on}"
        case ev.OutputCheckpointed():
            return f"{event.part} from {event.offset}: {event.text}"
        case ev.OutputRecorded():
            return item_words(event.item)
        case ev.ChainLost():
            return _because(f"the provider no longer knows {event.parent}", event.reason)
        case _:
            assert_never(event)


def _prepared(event: ev.RequestPrepared) -> str:
    """Delta or full, from where, which way, why, and which try."""
    count = sum(part.stop - part.start for part in event.ranges)
    behind = f" behind {event.parent}" if event.parent else ""
    tries = f", try {event.try_number}" if event.try_number > 1 else ""
    delay = f" after {event.delay_ms} ms" if event.delay_ms else ""
    cause = event.cause.replace("_", " ")
    return (
        f"{event.kind}: {counted(count, 'item')}{behind}, by {event.transport}"
        f" ({cause}{tries}{delay}{'' if event.store else ', not stored'})"
    )


def _outcome(event: ev.OutcomeEvent) -> str:
    match event:
        case ev.ResponseCompleted():
            return " ".join(filter(None, (event.response, usage_words(event.usage))))
        case ev.ResponseIncomplete() | ev.ResponseInterrupted() | ev.ResponseUnknown():
            return _because(event.response or "no response", event.reason)
        case ev.ResponseFailed():
            return _because(event.response or "no response", _error(event, event.retryable))
        case ev.ResponseRejected():
            status = f"HTTP {event.status}" if event.status else event.reason or "refused"
            return _because(status, _error(event, event.retryable))
        case _:
            assert_never(event)


def _error(event: ev.ResponseFailed | ev.ResponseRejected, retryable: bool) -> str:
    said = text(event.error or {}, "message") or text(event.error or {}, "code") or ""
    return f"{said} ({'may be retried' if retryable else 'final'})".strip()


def _call(event: ev.CallEvent) -> str:
    match event:
        case ev.CallRequested() | ev.CallDeferred():
            return event.call
        case ev.CallApproved() | ev.CallUncertain():
            return _because(event.call, event.reason)
        case ev.CallRejected() | ev.CallAbandoned():
            return _because(event.call, event.reason)
        case ev.CallStarted():
            return f"{event.call}, run {event.run}" if event.run > 1 else event.call
        case ev.CallProgressed():
            said = ", ".join(f"{key}={value}" for key, value in event.data.items())
            return f"{event.call}: {said}"
        case ev.CallAnswered():
            failed = " failed" if event.failed else ""
            return f"{event.call}{failed}: {output_words(event.item)}"
        case _:
            assert_never(event)


def _note(event: ev.NoteEvent) -> str:
    match event:
        case ev.TransportSwitched():
            return _because(f"from {event.before} to {event.after}", event.reason)
        case ev.ProviderNoted():
            said = " ".join(filter(None, (event.kind, event.text)))
            return _because(said, text(event.data or {}, "reason"))
        case ev.SteerSubmitted():
            return f"{counted(len(event.items), 'item')} offered to {event.response}"
        case ev.SteerAccepted():
            return f"taken by {event.response}"
        case ev.SteerPending():
            return f"{event.response} waits for {counted(len(event.required), 'item')}"
        case ev.SteerFailed():
            return _because(event.response, text(event.error or {}, "message"))
        case _:
            assert_never(event)


def _because(what: str, reason: str | None) -> str:
    return f"{what}: {reason}" if reason else what
