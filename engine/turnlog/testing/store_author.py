"""Who writes conversations in a store's tests: an author, and the events that it tells of.

The one rule: everything is counted, nothing is drawn: the same calls give the same bytes.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .. import events as ev
from ..canonical import JsonObject
from ..index import Change, advance
from ..ports import Append, Lease, Placed
from ..record import NewEvent, Stamp, record
from ..state import State, branch, start

E = TypeVar("E", bound=Exception)


@dataclass(slots=True)
class Author:
    """Writes a conversation as an engine would: counted ids, salts and time, and its own fold."""

    id: str
    state: State = field(init=False)
    now: int = 1_000_000
    made: int = 0

    def __post_init__(self) -> None:
        self.state = start(self.id)

    @classmethod
    def fork(cls, source: State, id: str) -> tuple[Author, ev.ConversationStarted]:
        """The author of a fork of a conversation at a state, and the event that begins it."""
        author = cls(id)
        author.state = branch(source, id)
        fork = ev.Fork(conversation=source.id, version=source.version, hash=source.hash)
        return author, ev.ConversationStarted(id=id, metadata=source.metadata, fork=fork)

    def write(
        self,
        *events: ev.Event,
        turn: str | None = None,
        lease: Lease | None = None,
        epoch: int | None = None,
    ) -> Append:
        """The append of these events behind what was written so far."""
        self.now += 1000
        expected, previous = self.state.version, bytes.fromhex(self.state.hash)
        ids = [f"{self.id}-{self.made + place}" for place in range(len(events))]
        salts = [(self.made + place).to_bytes(16, "big") for place in range(len(events))]
        self.made += len(events)
        stamp = Stamp(time=self.now, actor="test", epoch=epoch, ids=ids, salts=salts)
        new = [NewEvent(event=event, turn=turn) for event in events]
        recorded = record(self.id, expected, previous, new, stamp)
        changes: list[Change] = []
        for one in recorded:
            self.state, more = advance(self.state, one)
            changes += more
        return Append(
            conversation=self.id,
            expected=expected,
            events=recorded,
            head=self.state,
            changes=changes,
            epoch=epoch,
            lease=lease,
        )

    def begin(self, **metadata: str) -> Append:
        """The first event."""
        return self.write(ev.ConversationStarted(id=self.id, metadata=metadata))


def message(text: str) -> JsonObject:
    """What a user says."""
    return {"role": "user", "content": text}


def added(key: str, ordinal: int | None = None, item: JsonObject | None = None) -> ev.ItemAdded:
    """An item of the caller's."""
    return ev.ItemAdded(key=key, item=item or message(key), ordinal=ordinal)


def prepared(attempt: str) -> ev.RequestPrepared:
    """A full request."""
    return ev.RequestPrepared(
        attempt=attempt,
        cause="first",
        try_number=1,
        kind="full",
        ranges=(),
        format=1,
        digest="d",
        transport="replay",
        store=True,
    )


def called(attempt: str, *call_ids: str) -> list[ev.Event]:
    """A completed response that asks for these calls."""
    response = f"r-{attempt}"
    outputs: list[ev.Event] = [
        ev.OutputRecorded(
            attempt=attempt,
            response=response,
            index=place,
            key=f"{attempt}.{place}",
            item={
                "type": "function_call",
                "id": f"fc-{one}",
                "call_id": one,
                "name": "look",
                "arguments": "{}",
            },
        )
        for place, one in enumerate(call_ids)
    ]
    calls: list[ev.Event] = [
        ev.CallRequested(call=f"call-{one}", item=f"{attempt}.{place}")
        for place, one in enumerate(call_ids)
    ]
    return [*outputs, ev.ResponseCompleted(attempt=attempt, response=response), *calls]


def answered(call_id: str) -> ev.CallAnswered:
    """The output of such a call."""
    output: JsonObject = {"type": "function_call_output", "call_id": call_id, "output": "42"}
    return ev.CallAnswered(call=f"call-{call_id}", key=f"out-{call_id}", item=output)


def begun(key: str = "once") -> ev.TurnStarted:
    """A turn that an idempotency key names."""
    return ev.TurnStarted(key=key, digest="digest")


def keys(places: Sequence[Placed]) -> list[str]:
    """What stands where, by key."""
    return [placed.key for placed in places]


async def raises(kind: type[E], doing: Coroutine[Any, Any, object]) -> E:
    """The error that is raised; fails where there is none of that kind."""
    try:
        await doing
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")
