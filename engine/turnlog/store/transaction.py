"""One write transaction: appends that wait together, each whole or not at all.

The one rule: whatever decides is read from SQL inside the transaction, because other processes
write too (design section 5); memory is never asked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, assert_never

from ..errors import InvalidInput, SchemaMismatch, TurnlogError
from ..events import Fork
from ..index import CallChanged, TurnClosed, TurnOpened
from ..items import already_present
from ..ports import Append, Appended
from . import rows, schema, statements
from .admission import Stored, admit, fork_hash, is_stored
from .beats import Pulse
from .context_reads import place_of
from .deriving import rebuild
from .left import Left
from .log_reads import last_position
from .places import Editor, Row, inherited, reach
from .reads import FOREVER, Reads, Steps
from .roll import Dead, Roll
from .rows import Prepared, Values
from .schema import REVISION
from .shapes import Shape
from .statements import MANY, STORED_COLUMNS, Value

T = TypeVar("T")

_STORED = Shape(schema.conversations, STORED_COLUMNS)

_REFUSED = (
    TurnlogError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
    UnicodeEncodeError,
    OverflowError,
)
"""What is wrong with one append alone: its neighbours in the transaction go on."""


class Torn(Exception):
    """A piece of work was refused when it had written something: the transaction is lost."""


def run(connection: sqlite3.Connection, steps: Steps[T]) -> T:
    """Run the queries of a read on a connection, here and now."""
    try:
        sql, parameters = next(steps)
        while True:
            sql, parameters = steps.send(connection.execute(sql, parameters).fetchall())
    except StopIteration as stop:
        result: T = stop.value
        return result


def _of(names: Values, places: Iterable[Row]) -> Iterator[tuple[Value, ...]]:
    """Rows of a conversation's context as they are written: a `Row` has the columns' order."""
    of = (names["partition"], names["conversation"])
    return ((*of, *row) for row in places)


class Transaction:
    """What one transaction knows: begin it, `write` appends, `finish`, and commit."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        reads: Reads,
        me: str,
        dead: Dead,
        pulse: Pulse,
    ) -> None:
        self._connection = connection
        self._reads = reads
        self._me = me
        self.roll = Roll(connection, reads.partitions, me, dead, pulse)
        self._last: dict[int, int] = {}
        self._left = Left()
        self._mine = Left()
        self._changes = 0
        self.wrote = False

    def check_schema(self) -> None:
        """Raise SchemaMismatch where the file was migrated since it was opened."""
        found = self._connection.execute(statements.REVISION).fetchall()
        if found != [(REVISION,)]:
            raise SchemaMismatch(
                f"the database is at schema {found[0][0] if found else 'none'}, not {REVISION}:"
                " another turnlog migrated it; restart with that one"
            )

    def run(self, work: Callable[[Transaction], T], *, apart: bool = False) -> T:
        """Do one piece of work, or leave everything as it was and raise.

        Raises TurnlogError where it was refused, Torn where it was refused half way, and
        sqlite3.Error where the database failed. `apart` is for what was torn: a savepoint keeps
        apart what others wrote before it. It costs a copy of every page that is written, which is
        a fifth of an append, and nearly nothing is refused once it has begun to write.
        """
        last, self._mine = self._last.copy(), Left()
        self._changes = self._connection.total_changes
        if apart:
            self._connection.execute("SAVEPOINT work")
        try:
            done = work(self)
            if apart:
                self._mine.write(self._connection)
            else:
                self._left.add(self._mine)
        except _REFUSED as error:
            self._last = last
            if apart:
                self._connection.execute("ROLLBACK TO work")
            elif self._connection.total_changes != self._changes:
                raise Torn from error
            if isinstance(error, TurnlogError):
                raise
            raise InvalidInput(f"the append does not fit what is stored: {error}") from error
        if apart:
            self._connection.execute("RELEASE work")
        return done

    def _catch_up(self) -> None:
        """Write what others left, before it is read; raises Torn where that is refused."""
        before = self._connection.total_changes
        try:
            self._left.write(self._connection)
        except _REFUSED as error:
            raise Torn from error
        self._changes += self._connection.total_changes - before

    def rebuild(self, conversation: str) -> Appended:
        """Write everything beside a log anew; the lease stays as it is.

        Raises NotFound, and StoreCorrupt where the log itself is broken.
        """
        self._catch_up()
        derived = run(self._connection, rebuild(self._reads, conversation))
        names = self._reads.of(conversation)
        stored = self._connection.execute(
            statements.STORED.sql, statements.STORED.values(self._reads.of_head(conversation))
        ).fetchone()
        _, _, epoch, owner, _, _ = stored or (0, b"", derived.epoch, None, 0, 0)
        for drop in (
            statements.DROP_ROWS,
            statements.DROP_TURNS,
            statements.DROP_CALLS,
            statements.DROP_HEAD,
        ):
            self._execute(drop, names)
        head = {**rows.head_values(derived.state), "epoch": epoch, "owner": owner}
        self._execute(statements.ADD_HEAD, {**self._reads.of_head(conversation), **head})
        for add, values in (
            (statements.ADD_TURN, derived.turns),
            (statements.ADD_CALL, derived.calls),
        ):
            self._many(add, [{**names, **one} for one in values.values()])
        self._add_rows(names, derived.editor.added.values())
        self.wrote = True
        return Appended(derived.state.version)

    def finish(self) -> None:
        """Write what was left; raises Torn."""
        self._catch_up()

    # -- one append ------------------------------------------------------------------------

    def write(self, prepared: Prepared) -> Appended:
        """Write an append.

        Raises VersionConflict, IdConflict, StaleEpoch, NotFound, ItemPresent, InvalidInput.
        """
        append = prepared.append
        version = append.expected + len(append.events)
        if append.conversation in self._left.whose:
            self._catch_up()
        stored = self._stored(prepared)
        if stored is not None and stored.version > append.expected and append.events:
            if self._is_stored(prepared):
                return Appended(version, already=True)
        against = stored
        if stored is None and prepared.fork is not None:
            against = Stored(hash=self._fork_hash(prepared.fork), base=append.head.base)
        lease = admit(append, against, self._me, self.roll.is_dead)
        if lease is None:
            return Appended(version, already=True)
        if append.absent and stored is not None:
            self._check_absent(append, stored.base)
        self._lease(prepared, lease)
        if append.events:
            self._log(prepared)
            self._head(prepared, stored is None, *lease)
            self._context(prepared, against or Stored(base=append.head.base))
            self._beside(prepared)
        if append.lease == "acquire" and stored is not None:
            self.roll.take_over(stored.owner)
        self.wrote = True
        return Appended(version)

    def _check_absent(self, append: Append, base: int) -> None:
        """Raise ItemPresent for an id that is in the context already."""
        ids = sorted(append.absent)
        found = run(self._connection, self._reads.present(append.conversation, ids, base))
        if found is not None:
            raise already_present(found)

    def _stored(self, prepared: Prepared) -> Stored | None:
        names = prepared.names
        found = self._connection.execute(
            statements.STORED.sql, (names["partition"], names["conversation"])
        ).fetchone()
        return found and Stored(*_STORED.fit(found))

    def _is_stored(self, prepared: Prepared) -> bool:
        after = prepared.append.expected
        found = self._connection.execute(
            statements.FOUND,
            {**prepared.names, "after": after, "until": after + len(prepared.events)},
        ).fetchall()
        return is_stored(prepared.append, {id: (version, hash) for id, version, hash in found})

    def _fork_hash(self, fork: Fork) -> bytes:
        self._catch_up()
        found = self._connection.execute(
            statements.HASH_AT, self._reads.of(fork.conversation, version=fork.version)
        ).fetchone()
        return fork_hash(fork, found and found[0])

    def _lease(self, prepared: Prepared, lease: tuple[int, str | None]) -> None:
        append = prepared.append
        if append.lease == "acquire":
            self.roll.live()
        if not append.events and append.lease is not None:
            epoch, owner = lease
            self._execute(
                statements.SET_LEASE,
                {
                    "of_partition": prepared.names["partition"],
                    "of_id": append.conversation,
                    "epoch": epoch,
                    "owner": owner,
                },
            )

    def _log(self, prepared: Prepared) -> None:
        partition = int(prepared.names["partition"] or 0)
        position = self._position(partition)
        for row in prepared.events:
            position += 1
            row[rows.POSITION] = position
        self._last[partition] = position
        self._mine.whose.add(prepared.append.conversation)
        self._mine.events += prepared.events
        self._many(statements.ADD_BLOB, prepared.blobs)

    def _position(self, partition: int) -> int:
        if partition not in self._last:
            self._last[partition] = run(self._connection, last_position(partition))
        return self._last[partition]

    def _head(self, prepared: Prepared, new: bool, epoch: int, owner: str | None) -> None:
        partition, id = prepared.names["partition"], prepared.append.conversation
        lease: Values = {"epoch": epoch, "owner": owner}
        if new:
            head = {"partition": partition, "id": id, **prepared.head, **lease}
            self._execute(statements.ADD_HEAD, head)
        else:
            values = {**prepared.head, **lease, "of_partition": partition, "of_id": id}
            self._connection.execute(statements.SET_HEAD.sql, statements.SET_HEAD.values(values))

    def _context(self, prepared: Prepared, stored: Stored) -> None:
        if not prepared.context:
            return
        end = max(stored.next, stored.base)
        if prepared.joining is not None and prepared.context[0].ordinal >= end:
            self._mine.places += _of(prepared.names, prepared.joining)
            return
        standing = self._standing(prepared, end, stored.base)
        editor = Editor(prepared.append.conversation, stored.base, end, standing)
        editor.apply(prepared.context)
        names = prepared.names
        self._many(
            statements.CLOSE_ROW,
            [
                {
                    "of_partition": names["partition"],
                    "of_conversation": names["conversation"],
                    "of_ordinal": ordinal,
                    "of_from_version": since,
                    "to": until,
                }
                for (ordinal, since), until in editor.closed.items()
            ],
        )
        self._add_rows(names, editor.added.values())

    def _add_rows(self, names: Values, added: Iterable[Row]) -> None:
        """Write new rows of the context."""
        self._connection.executemany(statements.ADD_ROW.sql, _of(names, added))

    def _standing(self, prepared: Prepared, end: int, base: int) -> list[Row]:
        """The rows that the changes touch, of a context whose next ordinal is `end`."""
        low, points = reach(prepared.context, end)
        if low is None and not points:
            return []
        self._catch_up()
        own = self._own(prepared, low, sorted(points))
        below = range(low, base) if low is not None else [o for o in points if o < base]
        taken = {row.ordinal for row in own}
        if missing := [ordinal for ordinal in below if ordinal not in taken]:
            own += self._inherited(prepared, min(missing), max(missing) + 1, taken)
        return own

    def _own(self, prepared: Prepared, low: int | None, points: list[int]) -> list[Row]:
        if low is not None:
            where = {**prepared.names, "start": low, "stop": FOREVER, "version": FOREVER}
            return [place_of(row) for row in self._connection.execute(statements.PLACES, where)]
        found: list[Row] = []
        for place in range(0, len(points), MANY):
            some = statements.many("ordinal", points[place : place + MANY])
            where = {**prepared.names, **some}
            found += map(place_of, self._connection.execute(statements.STANDING, where))
        return found

    def _inherited(self, prepared: Prepared, start: int, stop: int, taken: set[int]) -> list[Row]:
        line = run(self._connection, self._reads.lineage(prepared.append.conversation, None))
        found = run(self._connection, self._reads.standing(line[1:], start, stop))
        places = (row.placed() for row in found if row.ordinal not in taken)
        return [inherited(placed) for placed in places if placed is not None]

    def _beside(self, prepared: Prepared) -> None:
        names = prepared.names
        for change in prepared.beside:
            match change:
                case TurnOpened():
                    self._execute(statements.ADD_TURN, {**names, **rows.opened(change)})
                case TurnClosed():
                    where = {f"of_{name}": value for name, value in names.items()}
                    turn = {**where, "of_turn": change.turn, **rows.ended(change)}
                    self._execute(statements.END_TURN, turn)
                case CallChanged(call=call):
                    self._execute(statements.DROP_CALL, {**names, "call": call.id})
                    if not call.settled:
                        self._execute(statements.ADD_CALL, {**names, **rows.call_values(call)})
                case _:
                    assert_never(change)

    def _execute(self, sql: str, parameters: statements.Parameters) -> None:
        self._connection.execute(sql, parameters)

    def _many(self, sql: str, parameters: list[Values]) -> None:
        if parameters:
            self._connection.executemany(sql, parameters)
