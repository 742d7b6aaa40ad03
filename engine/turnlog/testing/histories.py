"""What a conversation must be by plain reckoning: lists and dicts, folded by another hand.

The one rule: nothing of the engine's own fold, index or places is used, so that a store that agrees
with this and with the engine has been compared with two accounts. Only the head, which a store is
given and gives back, is the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

from .. import events as ev
from ..canonical import JsonObject, text
from ..ports import Append, CallRow, Lease, Placed, TurnRow
from ..record import Recorded
from ..state import State, evolve
from .store_contract import Author, added, called, message, prepared

Name = Callable[[], str]
Settled = ev.CallAnswered | ev.CallRejected | ev.CallAbandoned


@dataclass(frozen=True, slots=True)
class Slot:
    """A place of the context: its item, None where it was removed, and the call it answers."""

    item: Placed | None
    call: str | None = None


def slot(one: Recorded, key: str, item: JsonObject, call: str | None = None) -> Slot:
    """The place of an item that stands in this event."""
    placed = Placed(
        ordinal=0,
        holder=one.conversation,
        item_version=one.version,
        key=key,
        item_id=text(item, "id"),
        call_id=text(item, "call_id"),
        response=None,
    )
    return Slot(placed, call)


@dataclass(frozen=True, slots=True)
class Context:
    """The context at a version. `end` is where the input of an open request ends."""

    slots: tuple[Slot, ...] = ()
    committed: int = 0
    end: int | None = None
    outputs: tuple[Slot, ...] = ()

    def placed(self) -> list[Placed]:
        """What stands there, in order."""
        return [
            replace(one.item, ordinal=ordinal)
            for ordinal, one in enumerate(self.slots)
            if one.item is not None
        ]

    def taken(self) -> list[int]:
        """The ordinals at which something stands."""
        return [ordinal for ordinal, one in enumerate(self.slots) if one.item is not None]

    def branch(self) -> Context:
        """What a fork takes."""
        kept = (Slot(one.item) for one in self.slots[: self.committed])
        return Context(tuple(kept), self.committed)

    def after(self, one: Recorded) -> Context:
        """The context after one more event."""
        match one.event:
            case ev.ItemAdded() as event:
                return self._inserted(slot(one, event.key, event.item), event.ordinal)
            case ev.ItemEdited() as event:
                return self._put(event.ordinal, slot(one, event.key, event.item))
            case ev.ItemRemoved() as event:
                return self._put(event.ordinal, Slot(None))
            case ev.CallAnswered() | ev.CallRejected() | ev.CallAbandoned() as event:
                return self._settled(slot(one, event.key, event.item, event.call), event.call)
            case ev.ContextCompacted() as event:
                return replace(self, committed=max(self.committed, event.ordinal + event.items))
            case _:
                return self._asked(one)

    def _asked(self, one: Recorded) -> Context:
        match one.event:
            case ev.RequestPrepared():
                return replace(self, end=len(self.slots), outputs=())
            case ev.OutputRecorded() as event:
                return replace(self, outputs=(*self.outputs, slot(one, event.key, event.item)))
            case ev.ResponseRejected() | ev.ResponseInterrupted():
                return replace(self, end=None, outputs=())
            case ev.ResponseCompleted() as event:
                return self._completed(self.end or 0, event.response)
            case _:
                return self

    def _completed(self, end: int, response: str | None) -> Context:
        made = tuple(Slot(replace(one.item, response=response)) for one in self.outputs if one.item)
        slots = (*self.slots[:end], *made, *self.slots[end:])
        return Context(slots, end + len(made))

    def _inserted(self, new: Slot, ordinal: int | None) -> Context:
        at = len(self.slots) if ordinal is None else ordinal
        committed = self.committed + (ordinal is not None and ordinal < self.committed)
        return replace(self, slots=(*self.slots[:at], new, *self.slots[at:]), committed=committed)

    def _put(self, ordinal: int, new: Slot) -> Context:
        new = replace(new, call=new.call or self.slots[ordinal].call)
        return replace(self, slots=(*self.slots[:ordinal], new, *self.slots[ordinal + 1 :]))

    def _settled(self, new: Slot, call: str) -> Context:
        for ordinal, one in enumerate(self.slots):
            if one.call == call:
                return self._put(ordinal, new)
        return self._inserted(new, None)


_MOVED: Mapping[type[ev.Event], str] = {
    ev.CallApproved: "approved",
    ev.CallStarted: "started",
    ev.CallDeferred: "deferred",
    ev.CallUncertain: "uncertain",
}


@dataclass(slots=True)
class Told:
    """A conversation as it must be: its events, and all that follows from them.

    `contexts` and `states` are by version; `owner` is whoever holds the lease, at `epoch`.
    """

    author: Author
    contexts: list[Context]
    states: list[State]
    events: list[Recorded] = field(default_factory=list[Recorded])
    appends: list[Append] = field(default_factory=list[Append])
    turns: dict[str, TurnRow] = field(default_factory=dict[str, TurnRow])
    calls: dict[str, CallRow] = field(default_factory=dict[str, CallRow])
    late: list[str] = field(default_factory=list[str])
    turn: str | None = None
    epoch: int = 0
    owner: object = None

    @classmethod
    def new(cls, author: Author, context: Context | None = None) -> Told:
        """One that has no events so far."""
        return cls(author, [context or Context()], [author.state])

    @property
    def id(self) -> str:
        """Its id."""
        return self.author.id

    @property
    def version(self) -> int:
        """Its last version."""
        return len(self.events)

    @property
    def context(self) -> Context:
        """Its context as it is now."""
        return self.contexts[-1]

    def draft(
        self,
        events: Sequence[ev.Event],
        *,
        turn: str | None = None,
        lease: Lease | None = None,
        epoch: int | None = None,
        rival: int = 0,
    ) -> tuple[Author, Append]:
        """An append behind what is here, and its author afterwards; a rival has other ids."""
        author = copy(self.author)
        author.made += rival * 100_000
        return author, author.write(*events, turn=turn, lease=lease, epoch=epoch)

    def take(self, author: Author, append: Append) -> None:
        """The append was acknowledged."""
        self.author = author
        self.appends += [append] if append.events else []
        for one in append.events:
            self.events.append(one)
            self.contexts.append(self.context.after(one))
            self.states.append(evolve(self.states[-1], one))
            self._fold(one)

    def _fold(self, one: Recorded) -> None:
        match one.event:
            case ev.TurnStarted() as event:
                self._turn_started(one, event)
            case ev.TurnEnded() as event:
                self._turn_ended(one, event)
            case ev.ResponseCompleted():
                self.late = []
            case ev.CallRequested() as event:
                self.calls[event.call] = self._requested(one, event)
            case ev.CallAnswered() | ev.CallRejected() | ev.CallAbandoned() as event:
                self.calls.pop(event.call, None)
                self.late = [call for call in self.late if call != event.call]
                self.late += [event.call] if isinstance(event, ev.CallAbandoned) else []
            case (
                ev.CallApproved() | ev.CallStarted() | ev.CallDeferred() | ev.CallUncertain()
            ) as event:
                status = _MOVED[type(event)]
                self.calls[event.call] = replace(self.calls[event.call], status=status)
            case _:
                pass

    def _turn_started(self, one: Recorded, event: ev.TurnStarted) -> None:
        assert one.turn is not None
        self.turn = one.turn
        self.turns[one.turn] = TurnRow(
            conversation=self.id,
            turn=one.turn,
            key=event.key,
            digest=event.digest,
            started=one.version,
            ended=None,
            outcome=None,
            time=one.time,
            state=None,
        )

    def _turn_ended(self, one: Recorded, event: ev.TurnEnded) -> None:
        assert self.turn is not None
        row, state = self.turns[self.turn], self.states[-1]
        over = replace(row, ended=one.version, outcome=event.outcome, state=state)
        self.turns[self.turn] = over
        self.turn = None

    def _requested(self, one: Recorded, event: ev.CallRequested) -> CallRow:
        held = next(
            output
            for output in reversed(self.events)
            if isinstance(output.event, ev.OutputRecorded) and output.event.key == event.item
        )
        return CallRow(
            conversation=self.id,
            call=event.call,
            turn=one.turn,
            name="look",
            kind="function_call",
            status="requested",
            item_version=held.version,
            time=one.time,
        )


# -- what happens next ---------------------------------------------------------------------


def by_caller(told: Told, what: str, pick: int, name: Name) -> list[ev.Event]:
    """What anybody may write without a lease; where that is not possible now, an item."""
    context = told.context
    taken = context.taken()
    if context.end is None and taken:
        ordinal = taken[pick % len(taken)]
        if what == "insert":
            return [added(name(), ordinal=ordinal), added(name(), ordinal=ordinal + 1)]
        if what == "edit":
            key = name()
            return [ev.ItemEdited(key=key, item=message(key), ordinal=ordinal)]
        if what == "remove":
            return [ev.ItemRemoved(key=name(), ordinal=ordinal)]
        if what == "compact":
            return [ev.ContextCompacted(ordinal=pick % (context.committed + 1))]
    if what == "configure":
        return [ev.ConversationConfigured(agent=name(), model="m", fingerprint=name())]
    if what == "note":
        return [ev.ProviderNoted(kind="test", data={"pick": pick})]
    return [_item(name(), pick) for _ in range(1 + pick % 3)]


def _item(key: str, pick: int) -> ev.ItemAdded:
    """A message; some are large, and some have an id of the provider's."""
    words = f"{key} " * (4000 if pick % 7 == 0 else 1)
    item = message(words)
    return added(key, item={**item, "id": f"msg-{key}"} if pick % 2 else item)


def by_runner(told: Told, what: str, pick: int, name: Name) -> list[ev.Event]:
    """What the owner of an open turn may write; where that is not possible now, a note."""
    calls = sorted(told.calls)
    if told.context.end is not None:
        return _outcome(told, what, pick, name)
    if what == "late" and told.late:
        return [_output(told.late[pick % len(told.late)], 0, name)]
    if calls:
        return [_call(told, calls[pick % len(calls)], what, pick, name)]
    if what == "exchange":
        attempt = name()
        more = [added(name()) for _ in range(pick % 2)]
        return [prepared(attempt), *more, *called(attempt, *_names(name, pick))]
    return [prepared(name())]


def _names(name: Name, pick: int) -> list[str]:
    return [name() for _ in range(pick % 4)]


def _outcome(told: Told, what: str, pick: int, name: Name) -> list[ev.Event]:
    attempt = told.author.state.attempt
    assert attempt is not None
    if what == "settle":
        return [ev.ResponseRejected(attempt=attempt.id)]
    if what == "late":
        return [ev.ResponseStarted(attempt=attempt.id, response=name())]
    return called(attempt.id, *_names(name, pick))


def _call(told: Told, call: str, what: str, pick: int, name: Name) -> ev.Event:
    """The next step in the life of a call."""
    status = told.calls[call].status
    if what == "move" and status in ("requested", "approved", "uncertain"):
        approve = status == "requested" and pick % 2
        return ev.CallApproved(call=call) if approve else ev.CallStarted(call=call)
    if what == "move" and status == "started":
        doubt = ev.CallUncertain(call=call, reason="crashed")
        return doubt if pick % 2 else ev.CallDeferred(call=call)
    return _output(call, pick if status in ("requested", "approved") else pick % 2, name)


def _output(call: str, pick: int, name: Name) -> Settled:
    key, call_id = name(), call.removeprefix("call-")
    item: JsonObject = {"type": "function_call_output", "call_id": call_id, "output": key}
    match pick % 3:
        case 0:
            return ev.CallAnswered(call=call, key=key, item=item)
        case 1:
            return ev.CallAbandoned(call=call, key=key, item=item, reason="test")
        case _:
            return ev.CallRejected(call=call, key=key, item=item)


def closing(told: Told, name: Name) -> list[ev.Event]:
    """How a turn ends: nothing stays open."""
    attempt = told.author.state.attempt
    over: list[ev.Event] = []
    if attempt is not None:
        over.append(ev.ResponseInterrupted(attempt=attempt.id, reason="cancelled"))
    over += [_output(call, 1, name) for call in sorted(told.calls)]
    return [*over, ev.TurnEnded(outcome="cancelled" if over else "completed")]


def forked(told: Told, version: int, id: str, name: Name) -> tuple[Told, list[ev.Event]]:
    """A fork of a conversation at a version, before its first append, and what that holds."""
    author, first = Author.fork(told.states[version], id)
    calls: list[ev.Event] = [_output(call.id, 1, name) for call in author.state.calls]
    return Told.new(author, told.contexts[version].branch()), [first, *calls]
