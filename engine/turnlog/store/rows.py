"""Values as rows, and rows as values: what the writer writes, and what an audit compares.

The one rule: a row follows from the values alone, so that every table beside the log can be
rebuilt (law 2). All of it is done in the caller's thread, before the writer is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..canonical import JsonObject, dumps, loads_object
from ..errors import InvalidInput, StoreCorrupt
from ..events import Fork
from ..index import CallChanged, Change, Put, TurnClosed, TurnOpened
from ..ports import Append, CallRow, ConversationRow, TurnRow
from ..state import FORMAT, Call, State
from . import heads, schema
from .admission import check, fork_of
from .packing import pack
from .places import ContextChange, Row, of_context, own
from .shapes import Shape
from .statements import ADD_EVENT, CALL_COLUMNS, LIST_COLUMNS, TURN_COLUMNS, Value

Values = dict[str, Value]

POSITION = ADD_EVENT.names.index("position")
"""Where the row of an event has its position."""

TURN = Shape(schema.turns, TURN_COLUMNS)
_CALL = Shape(schema.calls, CALL_COLUMNS)
_LISTED = Shape(schema.conversations, LIST_COLUMNS)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An append as rows; positions, epoch and owner are the writer's to fill in."""

    append: Append
    names: Values
    events: list[list[Value]]
    blobs: list[Values]
    head: Values
    fork: Fork | None
    context: list[ContextChange]
    joining: list[Row] | None
    beside: list[TurnOpened | TurnClosed | CallChanged]


def prepare(append: Append, partition: int) -> Prepared:
    """The rows of an append; raises InvalidInput where it is not whole (`admission.check`)."""
    check(append)
    names: Values = {"partition": partition, "conversation": append.conversation}
    events, blobs = _events(append, partition)
    context = of_context(append.changes)
    return Prepared(
        append=append,
        names=names,
        events=events,
        blobs=blobs,
        head=head_values(append.head) if append.events else {},
        fork=fork_of(append),
        context=context,
        joining=_joining(context, append.conversation),
        beside=beside(append.changes),
    )


def beside(changes: Iterable[Change]) -> list[TurnOpened | TurnClosed | CallChanged]:
    """The changes that concern turns and calls."""
    return [one for one in changes if isinstance(one, (TurnOpened, TurnClosed, CallChanged))]


def _events(append: Append, partition: int) -> tuple[list[list[Value]], list[Values]]:
    """The rows of events, in the order of the table's columns, and those of large parts."""
    name = append.conversation
    events: list[list[Value]] = []
    blobs: dict[bytes, Values] = {}
    for one in append.events:
        body, parts = pack(one.body)
        for digest, data in parts.items():
            blobs[digest] = {
                "partition": partition,
                "conversation": name,
                "digest": digest,
                "data": data,
            }
        events.append(
            [
                partition,
                name,
                one.version,
                None,  # the position, which the writer takes
                one.id,
                one.tag,
                one.schema,
                one.time,
                one.actor,
                one.turn,
                one.epoch,
                one.salt,
                body,
                one.body_digest(),
                one.hash,
            ]
        )
    return events, list(blobs.values())


def _joining(changes: Iterable[ContextChange], conversation: str) -> list[Row] | None:
    """The rows of items that stand one behind the other, if nothing but those is put.

    Where they join the end of what is stored, they are what an `Editor` would make of them: saves
    it 3 us an item.
    """
    rows: list[Row] = []
    last = -1
    for one in changes:
        if not isinstance(one, Put) or one.ordinal <= last:
            return None
        last = one.ordinal
        rows.append(own(one, conversation))
    return rows


def head_values(state: State) -> Values:
    """What the row of a conversation says about its state; the lease is not part of it."""
    config, turn, fork = state.config, state.turn, state.fork
    return {
        "version": state.version,
        "hash": bytes.fromhex(state.hash),
        "head": heads.pack(state),
        "head_format": FORMAT,
        "status": state.status,
        "agent": config.agent if config else None,
        "model": config.model if config else None,
        "turn": turn.id if turn else None,
        "metadata": dumps(state.metadata),
        "items": state.next,
        "turns": state.turns,
        "created": state.created,
        "updated": state.updated,
        "fork_of": fork.conversation if fork else None,
        "fork_version": fork.version if fork else None,
        "base": state.base,
    }


def opened(change: TurnOpened) -> Values:
    """The row of a turn that began."""
    return {
        "turn": change.turn,
        "key": change.key,
        "digest": change.digest,
        "started": change.version,
        "time": change.time,
        "ended": None,
        "outcome": None,
        "state": None,
        "state_format": None,
    }


def ended(change: TurnClosed) -> Values:
    """What the row of a turn says from its end on."""
    return {
        "ended": change.version,
        "outcome": change.outcome,
        "state": heads.pack(change.state),
        "state_format": FORMAT,
    }


def call_values(call: Call) -> Values:
    """The row of an open call."""
    return {
        "call": call.id,
        "turn": call.turn,
        "name": call.name,
        "kind": call.kind,
        "status": call.status,
        "item_version": call.version,
        "time": call.time,
    }


def place_values(row: Row) -> Values:
    """The row of a place in the context."""
    return {
        "ordinal": row.ordinal,
        "from_version": row.since,
        "to_version": row.until,
        "holder": row.holder,
        "item_version": row.item_version,
        "key": row.key,
        "item_id": row.item_id,
        "call_id": row.call_id,
        "response_id": row.response,
    }


def turn_row(row: tuple[Any, ...], state: State | None) -> TurnRow:
    """A turn from its row and the state at its end."""
    conversation, turn, key, digest, started, time, ended_at, outcome, _, _ = TURN.fit(row)
    return TurnRow(
        conversation=conversation,
        turn=turn,
        key=key,
        digest=digest,
        started=started,
        ended=ended_at,
        outcome=outcome,
        time=time,
        state=state,
    )


def call_row(row: tuple[Any, ...]) -> CallRow:
    """An open call from its row."""
    conversation, call, turn, name, kind, status, item_version, time = _CALL.fit(row)
    return CallRow(
        conversation=conversation,
        call=call,
        turn=turn,
        name=name,
        kind=kind,
        status=status,
        item_version=item_version,
        time=time,
    )


def conversation_row(row: tuple[Any, ...], orphaned: bool) -> ConversationRow:
    """A conversation in a list from its row."""
    (
        id,
        version,
        status,
        agent,
        model,
        turns,
        items,
        metadata,
        created,
        updated,
        fork_of,
        turn,
        owner,
    ) = _LISTED.fit(row)
    return ConversationRow(
        id=id,
        version=version,
        status=status,
        agent=agent,
        model=model,
        turns=turns,
        items=items,
        metadata=_metadata(id, metadata),
        created=created,
        updated=updated,
        fork_of=fork_of,
        turn=turn,
        orphaned=orphaned or (status == "busy" and owner is None),
    )


def _metadata(conversation: str, stored: bytes) -> JsonObject:
    try:
        return loads_object(stored)
    except InvalidInput as error:
        raise StoreCorrupt(f"the metadata of {conversation!r} cannot be read: {error}") from error
