"""Every statement, built with SQLAlchemy Core and compiled once.

The one rule: portable SQL only, partition first in every key, and no statement that reads more
than the rows it is asked for. Parameters are named; `many` lists have a fixed number of places,
so that nothing is compiled again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import (
    Column,
    ColumnElement,
    Integer,
    LargeBinary,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    column,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    table,
    tuple_,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement

from ..events import SCHEMA
from . import schema

Value: TypeAlias = str | int | bytes | None
Parameters: TypeAlias = Mapping[str, Value]

MANY = 32
"""How many places a list of parameters has."""

_dialect = sqlite.dialect(paramstyle="named")
_ordered = sqlite.dialect(paramstyle="qmark")
_NONE = literal_column("0", Integer)
_ONE = literal_column("1", Integer)


def _sql(statement: ClauseElement | Executable) -> str:
    assert isinstance(statement, ClauseElement)
    return str(statement.compile(dialect=_dialect))


class Ordered:
    """A statement of every append, whose values come in an order: binding names costs a third more.

    `names` is that order, and `values` puts named values into it.
    """

    def __init__(self, statement: ClauseElement | Executable) -> None:
        assert isinstance(statement, ClauseElement)
        compiled = statement.compile(dialect=_ordered)
        assert isinstance(compiled, SQLCompiler) and compiled.positiontup is not None
        self.sql = str(compiled)
        self.names = tuple(compiled.positiontup)
        self.values: Callable[[Parameters], tuple[Value, ...]] = itemgetter(*self.names)


def _is(of: Table, *names: str) -> list[ColumnElement[bool]]:
    return [of.c[name] == bindparam(name) for name in names]


def _many(of: Column[Any], name: str) -> ColumnElement[bool]:
    return of.in_([bindparam(f"{name}_{place}", type_=of.type) for place in range(MANY)])


def many(name: str, values: Sequence[Value]) -> dict[str, Value]:
    """Parameters for a list of at most `MANY` values; the last one fills the rest."""
    return {f"{name}_{place}": values[min(place, len(values) - 1)] for place in range(MANY)}


def _columns(of: Table, *names: str) -> Select[Any]:
    return select(*(of.c[name] for name in names))


# -- the log -------------------------------------------------------------------------------

_events, _blobs = schema.events, schema.blobs
_of_events = _is(_events, "partition", "conversation")
EVENT_COLUMNS = (
    "conversation", "version", "id", "tag", "schema", "time", "actor", "turn", "epoch", "salt",
    "body", "hash",
)  # fmt: skip
_event = _columns(_events, *EVENT_COLUMNS)

EVENTS = _sql(
    _event.where(
        *_of_events,
        _events.c.version > bindparam("after"),
        _events.c.version <= bindparam("until"),
    )
    .order_by(_events.c.version)
    .limit(bindparam("limit"))
    .offset(_NONE)
)
PICK = _sql(_event.where(*_of_events, _many(_events.c.version, "version")))
FOLLOW = _sql(
    select(_events.c.position, *_event.selected_columns)
    .where(*_is(_events, "partition"), _events.c.position > bindparam("after"))
    .order_by(_events.c.position)
    .limit(bindparam("limit"))
    .offset(_NONE)
)
MOVED = _sql(
    _columns(_events, "conversation")
    .where(
        *_is(_events, "partition"),
        _events.c.position > bindparam("after"),
        _events.c.position <= bindparam("until"),
    )
    .distinct()
)
FOUND = _sql(
    _columns(_events, "id", "version", "hash").where(
        *_of_events,
        _events.c.version > bindparam("after"),
        _events.c.version <= bindparam("until"),
    )
)
AUDIT = _sql(
    _columns(_events, *EVENT_COLUMNS, "position", "body_digest")
    .where(
        *_of_events,
        _events.c.version > bindparam("after"),
        _events.c.version <= bindparam("until"),
    )
    .order_by(_events.c.version)
    .limit(bindparam("limit"))
    .offset(_NONE)
)
LAST_VERSION = _sql(
    _columns(_events, "version")
    .where(*_of_events)
    .order_by(_events.c.version.desc())
    .limit(_ONE)
    .offset(_NONE)
)
PLACES_OF_EVENTS = _sql(
    _columns(_events, "position")
    .where(*_is(_events, "partition"), _events.c.position > bindparam("after"))
    .order_by(_events.c.position)
    .limit(bindparam("limit"))
    .offset(_NONE)
)
LAST_POSITION = _sql(
    _columns(_events, "position")
    .where(*_is(_events, "partition"))
    .order_by(_events.c.position.desc())
    .limit(_ONE)
    .offset(_NONE)
)
_first = select(_NONE.label("partition")).cte("partitions", recursive=True)
_partitions = _first.union_all(
    select(_first.c.partition + _ONE).where(
        _first.c.partition + _ONE < bindparam("partitions", type_=Integer)
    )
)
LAST_POSITIONS = _sql(
    select(
        _partitions.c.partition,
        select(func.max(_events.c.position))
        .where(_events.c.partition == _partitions.c.partition)
        .scalar_subquery(),
    )
)
"""The same of all partitions, by as many looks into the index."""
SPANS = _sql(
    select(
        _events.c.partition,
        func.count(),
        func.min(_events.c.position),
        func.max(_events.c.position),
    ).group_by(_events.c.partition)
)
HASH_AT = _sql(_columns(_events, "hash").where(*_of_events, *_is(_events, "version")))
ADD_EVENT = Ordered(insert(_events))

BLOBS = _sql(
    _columns(_blobs, "digest", "data").where(
        *_is(_blobs, "partition", "conversation"), _many(_blobs.c.digest, "digest")
    )
)
ALL_BLOBS = _sql(
    _columns(_blobs, "digest", "data")
    .where(*_is(_blobs, "partition", "conversation"), _blobs.c.digest > bindparam("after"))
    .order_by(_blobs.c.digest)
    .limit(bindparam("limit"))
    .offset(_NONE)
)
ADD_BLOB = _sql(
    insert(_blobs).from_select(
        ["partition", "conversation", "digest", "data"],
        select(
            bindparam("partition", type_=Integer),
            bindparam("conversation", type_=_blobs.c.conversation.type),
            bindparam("digest", type_=LargeBinary),
            bindparam("data", type_=LargeBinary),
        ).where(~exists().where(*_is(_blobs, "partition", "conversation", "digest"))),
    )
)

# -- heads ---------------------------------------------------------------------------------

_heads = schema.conversations
_of_head = _is(_heads, "partition", "id")

_beat = (
    select(schema.owners.c.beat).where(schema.owners.c.owner == _heads.c.owner).scalar_subquery()
)
HEAD_STATE = ("version", "head", "head_format", "epoch", "owner")
HEAD = _sql(_columns(_heads, *HEAD_STATE).add_columns(_beat).where(*_of_head))
HEAD_COLUMNS = tuple(one.name for one in _heads.columns if one.name != "partition")
VERSION = _sql(_columns(_heads, "version").where(*_of_head))
HEAD_ROW = _sql(_columns(_heads, *HEAD_COLUMNS).where(*_of_head))
STORED_COLUMNS = ("version", "hash", "epoch", "owner", "items", "base")
STORED = Ordered(_columns(_heads, *STORED_COLUMNS).where(*_of_head))
LINE_COLUMNS = ("version", "items", "base", "fork_of", "fork_version")
LINEAGE = _sql(_columns(_heads, *LINE_COLUMNS).where(*_of_head))
LIST_COLUMNS = (
    "id", "version", "status", "agent", "model", "turns", "items", "metadata", "created",
    "updated", "fork_of", "turn", "owner",
)  # fmt: skip
_status = bindparam("status", type_=_heads.c.status.type)
_IDLE = literal_column("'idle'", Text)
_since = bindparam("since", type_=_heads.c.updated.type)
_until = bindparam("until", type_=_heads.c.updated.type)
_list = (
    _columns(_heads, *LIST_COLUMNS)
    .add_columns(_beat)
    .where(
        *_is(_heads, "partition"),
        _heads.c.id > bindparam("after"),
        or_(_since.is_(None), _heads.c.updated >= _since),
        or_(_until.is_(None), _heads.c.updated <= _until),
    )
    .order_by(_heads.c.id)
    .limit(bindparam("limit"))
    .offset(_NONE)
)
LIST = _sql(_list.where(or_(_status.is_(None), _heads.c.status == _status)))
# Said as the index says it, which has no idle ones.
LIST_ACTIVE = _sql(_list.where(_heads.c.status == _status, _heads.c.status != _IDLE))
LEASED = _sql(
    _columns(_heads, "id", "owner")
    .add_columns(_beat)
    .where(*_is(_heads, "partition"), _heads.c.owner.is_not(None))
    .order_by(_heads.c.id)
)
OWNS = _sql(
    _columns(_heads, "id").where(*_is(_heads, "partition", "owner")).limit(_ONE).offset(_NONE)
)
ADD_HEAD = _sql(insert(_heads))
_changing = (
    "version", "hash", "head", "head_format", "epoch", "owner", "status", "agent", "model",
    "turn", "metadata", "items", "turns", "updated",
)  # fmt: skip
SET_HEAD = Ordered(
    update(_heads)
    .where(_heads.c.partition == bindparam("of_partition"), _heads.c.id == bindparam("of_id"))
    .values({name: bindparam(name) for name in _changing})
)
DROP_HEAD = _sql(
    delete(_heads).where(
        _heads.c.partition == bindparam("partition"), _heads.c.id == bindparam("conversation")
    )
)
SET_LEASE = _sql(
    update(_heads)
    .where(_heads.c.partition == bindparam("of_partition"), _heads.c.id == bindparam("of_id"))
    .values(epoch=bindparam("epoch"), owner=bindparam("owner"))
)

# -- the context ---------------------------------------------------------------------------

_context = schema.context
_of_context = _is(_context, "partition", "conversation")
ROW_COLUMNS = (
    "ordinal", "from_version", "to_version", "holder", "item_version", "key", "item_id",
    "call_id", "response_id",
)  # fmt: skip
_row = _columns(_context, *ROW_COLUMNS)
_at = bindparam("version", type_=_context.c.from_version.type)
_stands = (
    _context.c.from_version <= _at,
    or_(_context.c.to_version.is_(None), _context.c.to_version > _at),
)
_in_range = (
    *_of_context,
    _context.c.ordinal >= bindparam("start"),
    _context.c.ordinal < bindparam("stop"),
    *_stands,
)
_range = _row.where(*_in_range)

PLACES = _sql(_range.order_by(_context.c.ordinal))
PLACES_BACK = _sql(
    _range.order_by(_context.c.ordinal.desc()).limit(bindparam("limit")).offset(_NONE)
)
_held = and_(
    _events.c.partition == _context.c.partition,
    _events.c.conversation == _context.c.conversation,
    _events.c.conversation == _context.c.holder,
    _events.c.version == _context.c.item_version,
    _events.c.schema == literal_column(str(SCHEMA), Integer),
)
_item = _columns(_context, "ordinal", "response_id").add_columns(_events.c.body).where(*_in_range)
ITEMS = _sql(
    _item.select_from(_context.outerjoin(_events, _held))
    .order_by(_context.c.ordinal)
    .limit(bindparam("limit"))
    .offset(_NONE)
)
LAST_ITEMS = _sql(
    _columns(_heads, "version", "base")
    .add_columns(*_item.selected_columns)
    .select_from(_heads.outerjoin(_context, and_(*_in_range)).outerjoin(_events, _held))
    .where(_heads.c.partition == bindparam("partition"), _heads.c.id == bindparam("conversation"))
    .order_by(_context.c.ordinal.desc())
    .limit(bindparam("limit"))
    .offset(_NONE)
)
"""A row without an ordinal says that nothing stands there that is the conversation's own."""
STANDING = _sql(
    _row.where(*_of_context, _context.c.to_version.is_(None), _many(_context.c.ordinal, "ordinal"))
)
APPEARED = _sql(
    _columns(_context, "from_version")
    .where(*_of_context, *_is(_context, "ordinal"))
    .order_by(_context.c.from_version)
    .limit(bindparam("limit"))
    .offset(_NONE)
)
ALL_ROWS = _sql(_row.where(*_of_context))
FIND = {
    name: _sql(
        _row.where(
            *_of_context,
            *_is(_context, name),
            *_stands,
        )
    )
    for name in ("key", "item_id", "call_id")
}
"""In no order: asked for one, SQLite reads the whole context in it, and not the name's index."""
PRESENT = _sql(
    _columns(_context, "item_id").where(
        *_of_context, *_stands, _many(_context.c.item_id, "item_id")
    )
)
ADD_ROW = Ordered(insert(_context))
CLOSE_ROW = _sql(
    update(_context)
    .where(
        *(
            _context.c[name] == bindparam(f"of_{name}")
            for name in ("partition", "conversation", "ordinal", "from_version")
        )
    )
    .values(to_version=bindparam("to"))
)
DROP_ROWS = _sql(delete(_context).where(*_of_context))

# -- turns and calls -----------------------------------------------------------------------

_turns, _calls = schema.turns, schema.calls
_of_turns = _is(_turns, "partition", "conversation")
TURN_COLUMNS = (
    "conversation", "turn", "key", "digest", "started", "time", "ended", "outcome", "state",
    "state_format",
)  # fmt: skip
_turn = _columns(_turns, *TURN_COLUMNS)

# The order is that of a sum, so that SQLite reads the name's index, and not all turns in order.
TURN_BY = {
    name: _sql(
        _turn.where(*_of_turns, *_is(_turns, name))
        .order_by((_turns.c.started + _NONE).desc())
        .limit(bindparam("limit"))
        .offset(_NONE)
    )
    for name in ("turn", "key")
}
TURNS = _sql(
    _turn.where(*_of_turns, _turns.c.started < bindparam("before"))
    .order_by(_turns.c.started.desc())
    .limit(bindparam("limit"))
    .offset(_NONE)
)
ADD_TURN = _sql(insert(_turns))
END_TURN = _sql(
    update(_turns)
    .where(
        *(
            _turns.c[name] == bindparam(f"of_{name}")
            for name in ("partition", "conversation", "turn")
        )
    )
    .values({name: bindparam(name) for name in ("ended", "outcome", "state", "state_format")})
)
DROP_TURNS = _sql(delete(_turns).where(*_of_turns))

CALL_COLUMNS = (
    "conversation", "call", "turn", "name", "kind", "status", "item_version", "time",
)  # fmt: skip
_call = _columns(_calls, *CALL_COLUMNS)
PENDING = _sql(
    _call.where(
        *_is(_calls, "partition"),
        tuple_(_calls.c.conversation, _calls.c.call)
        > tuple_(bindparam("conversation"), bindparam("call")),
    )
    .order_by(_calls.c.conversation, _calls.c.call)
    .limit(bindparam("limit"))
    .offset(_NONE)
)
CALLS_OF = _sql(_call.where(*_is(_calls, "partition", "conversation")).order_by(_calls.c.call))
ADD_CALL = _sql(insert(_calls))
DROP_CALL = _sql(delete(_calls).where(*_is(_calls, "partition", "conversation", "call")))
DROP_CALLS = _sql(delete(_calls).where(*_is(_calls, "partition", "conversation")))

# -- what belongs to no conversation that there is --------------------------------------------

STRAY = {
    of.name: _sql(
        _columns(of, "conversation")
        .where(
            ~exists().where(_heads.c.partition == of.c.partition, _heads.c.id == of.c.conversation)
        )
        .distinct()
    )
    for of in (_events, _blobs, _context, _turns, _calls)
}
UNOWNED = _sql(
    _columns(_heads, "id", "owner").where(
        _heads.c.owner.is_not(None),
        ~exists().where(schema.owners.c.owner == _heads.c.owner),
    )
)
INTEGRITY = "PRAGMA integrity_check(20)"

# -- the database --------------------------------------------------------------------------

REVISION = _sql(select(column("version_num", Text)).select_from(table("alembic_version")))
META = _sql(_columns(schema.meta, "value").where(*_is(schema.meta, "name")))
ADD_META = _sql(
    insert(schema.meta).from_select(
        ["name", "value"],
        select(bindparam("name", type_=Text), bindparam("value", type_=Text)).where(
            ~exists().where(*_is(schema.meta, "name"))
        ),
    )
)
BEAT = _sql(_columns(schema.owners, "beat").where(*_is(schema.owners, "owner")))
OWNERS = _sql(_columns(schema.owners, "owner", "beat"))
ADD_OWNER = _sql(insert(schema.owners))
SET_BEAT = _sql(
    update(schema.owners)
    .where(schema.owners.c.owner == bindparam("of_owner"))
    .values(beat=bindparam("beat"))
)
DROP_OWNER = _sql(delete(schema.owners).where(*_is(schema.owners, "owner")))
