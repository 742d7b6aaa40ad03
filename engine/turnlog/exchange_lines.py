"""The lines of an export: what stands in them, and whether one can follow the other.

The one rule: a line is believed only where its hash follows from it and from the line before. Pure;
`exchange.py` reads and writes.

The first line is the header: the name and version of the format, and each conversation with its
last version and the hash there, so that a file that ends early is noticed. Every other line is one
event with its whole envelope (design section 3); `body` is text that holds the canonical body to
the byte, `salt` and `hash` are hexadecimal. The conversations stand one behind the other in the
order of the header, the source of a fork before the fork.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, TypeAlias

from .canonical import GENESIS, Json, JsonObject, dumps, integer, loads_object, objects, text
from .configuring import check_id
from .errors import ImportFailed, InvalidInput, StoreCorrupt
from .events import ConversationStarted, Fork, TurnStarted
from .limits import Limits
from .record import Recorded, decode

FORMAT = "turnlog.events"
VERSION = 1

Line: TypeAlias = str | bytes

_LARGEST = 2**63


@dataclass(frozen=True, slots=True)
class Listed:
    """A conversation in a header: how far it goes, and the hash there (hexadecimal)."""

    id: str
    version: int
    hash: str


# -- writing a line -----------------------------------------------------------------------


def header(listed: Sequence[Listed]) -> str:
    """The first line of an export."""
    entries: list[Json] = [
        {"id": one.id, "version": one.version, "hash": one.hash} for one in listed
    ]
    return json_line({"format": FORMAT, "version": VERSION, "conversations": entries})


def event_line(one: Recorded) -> str:
    """The line of an event."""
    return json_line(
        {
            "conversation": one.conversation,
            "version": one.version,
            "id": one.id,
            "tag": one.tag,
            "schema": one.schema,
            "time": one.time,
            "actor": one.actor,
            "turn": one.turn,
            "epoch": one.epoch,
            "salt": one.salt.hex(),
            "body": one.body.decode(),
            "hash": one.hash.hex(),
        }
    )


_UNQUIET = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


def json_line(value: Json) -> str:
    """A JSON value as one line that is safe to show.

    Whatever would end a line or command a terminal is escaped; it is the same value.
    """
    return _UNQUIET.sub(lambda found: f"\\u{ord(found[0]):04x}", dumps(value).decode())


# -- reading a line ------------------------------------------------------------------------


def _header(value: JsonObject) -> list[Listed]:
    if value.get("format") != FORMAT:
        raise InvalidInput(f'this is no export of turnlog: its first line has no "{FORMAT}"')
    if value.get("version") != VERSION:
        raise InvalidInput(
            f"the export has format version {value.get('version')!r}, and this turnlog knows"
            f" {VERSION}: update turnlog"
        )
    listed = [_listed(entry) for entry in objects(value, "conversations")]
    if not listed or len({one.id for one in listed}) < len(listed):
        raise InvalidInput("the header must name at least one conversation, and each of them once")
    return listed


def _listed(entry: JsonObject) -> Listed:
    version, hash = integer(entry, "version"), text(entry, "hash")
    if version is None or version < 1 or hash is None:
        raise InvalidInput("the header must name id, version and hash of each conversation")
    return Listed(check_id(entry.get("id")), version, hash)


_TEXT = ("id", "tag", "actor", "salt", "body", "hash")
_FIELDS = frozenset((*_TEXT, "conversation", "version", "schema", "time", "turn", "epoch"))


def recorded(value: JsonObject) -> Recorded:
    """The event of a line; raises InvalidInput and StoreCorrupt where it is none."""
    if missing := _FIELDS - value.keys():
        raise InvalidInput(f"the event lacks {', '.join(sorted(missing))}")
    if unknown := value.keys() - _FIELDS:
        raise InvalidInput(f"the event has unknown fields: {', '.join(sorted(unknown))}")
    tag, schema = _text(value, "tag"), _count(value, "schema")
    body = _text(value, "body").encode()
    return Recorded(
        conversation=check_id(value["conversation"]),
        version=_count(value, "version"),
        id=_text(value, "id"),
        tag=tag,
        schema=schema,
        time=_count(value, "time"),
        actor=_text(value, "actor"),
        turn=_text(value, "turn") if value["turn"] is not None else None,
        epoch=_count(value, "epoch") if value["epoch"] is not None else None,
        salt=_hex(_text(value, "salt"), "salt", 16),
        body=body,
        hash=_hex(_text(value, "hash"), "hash", 32),
        event=decode(tag, schema, body),
    )


def _text(value: JsonObject, name: str) -> str:
    found = value[name]
    if not isinstance(found, str) or not found:
        raise InvalidInput(f"{name} is text that is not empty, not {found!r:.40}")
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{name} is not valid text: {error}") from error
    return found


def _count(value: JsonObject, name: str) -> int:
    found = value[name]
    if type(found) is not int or not 0 <= found < _LARGEST:
        raise InvalidInput(f"{name} is a whole number from 0, not {found!r:.40}")
    return found


def _hex(found: str, name: str, length: int) -> bytes:
    if not _is_hex(found, length):
        raise InvalidInput(f"{name} is {2 * length} hexadecimal digits, not {found!r:.40}")
    return bytes.fromhex(found)


def _is_hex(found: str, length: int) -> bool:
    return re.fullmatch(f"[0-9a-f]{{{2 * length}}}", found) is not None


# -- one line behind the other -------------------------------------------------------------


def fork_of(first: Recorded) -> Fork | None:
    """Where a conversation branched off, by its first event."""
    return first.event.fork if isinstance(first.event, ConversationStarted) else None


def origin(first: Recorded) -> bytes:
    """The hash that the first event of a conversation follows: that of its source, in a fork.

    What is no hash becomes one that nothing follows.
    """
    fork = fork_of(first)
    if fork is None:
        return GENESIS
    return bytes.fromhex(fork.hash) if _is_hex(fork.hash, 32) else b""


OTHER_SOURCE = "the fork continues another history of {0!r} than version {1} here"


@dataclass(slots=True)
class Check:
    """What the lines so far said, one behind the other.

    `forks` are where conversations of the file branch off, and `outside` those of them that the
    file does not hold, with the number of their line.
    """

    limits: Limits | None = None
    number: int = 0
    listed: list[Listed] = field(default_factory=list[Listed])
    hashes: dict[str, bytearray] = field(default_factory=dict[str, bytearray])
    forks: list[Fork] = field(default_factory=list[Fork])
    outside: list[tuple[Fork, int]] = field(default_factory=list[tuple[Fork, int]])
    _headed: bool = False
    _place: int = 0
    _version: int = 0
    _previous: bytes = GENESIS
    _ids: set[str] = field(default_factory=set[str])
    _turns: set[str] = field(default_factory=set[str])

    def take(self, chunk: list[Line], spool: IO[bytes]) -> None:
        """Verify some lines, and keep them; raises ImportFailed at the first that cannot follow.

        A blank line is kept too, so that lines can be counted again.
        """
        for line in chunk:
            self.number += 1
            if isinstance(line, str):
                line = line.encode("utf-8", "surrogatepass")
            raw = line.strip()
            try:
                if raw:
                    self._read(loads_object(raw))
            except (InvalidInput, StoreCorrupt) as error:
                raise ImportFailed(str(error), line=self.number) from error
            spool.write(raw + b"\n")

    def finish(self) -> None:
        """Raise ImportFailed where lines are missing."""
        if not self._headed:
            raise ImportFailed("the file is empty: it has not even the header of an export")
        if self._place < len(self.listed):
            missing = self.listed[self._place]
            raise ImportFailed(
                f"the file ends behind version {self._version} of {missing.id!r},"
                f" and its header promises {missing.version}: export it again",
                line=self.number,
            )

    def hash_at(self, conversation: str, version: int) -> str | None:
        """The hash of an event of the file, or None where the file does not hold it."""
        hashes = self.hashes.get(conversation, b"")
        return hashes[(version - 1) * 32 : version * 32].hex() or None if version > 0 else None

    def _read(self, value: JsonObject) -> None:
        if not self._headed:
            self.listed = _header(value)
            self._headed = True
            return
        if self._place == len(self.listed):
            raise InvalidInput("no more events are promised by the header: export the log again")
        listed = self.listed[self._place]
        one = recorded(value)
        self._follow(listed, one)
        if self._version == listed.version:
            self._end(listed, one)

    def _follow(self, listed: Listed, one: Recorded) -> None:
        if (one.conversation, one.version) != (listed.id, self._version + 1):
            raise InvalidInput(
                f"version {self._version + 1} of {listed.id!r} must come here,"
                f" not version {one.version} of {one.conversation!r}"
            )
        if one.version == 1:
            self._begin(one)
        elif isinstance(one.event, ConversationStarted):
            raise InvalidInput("a conversation can start with its first event only")
        if one.expected_hash(self._previous) != one.hash:
            raise InvalidInput(
                f"the hash of event {one.id!r} does not follow from it and the event before:"
                " one of the two was changed"
            )
        if one.id in self._ids:
            raise InvalidInput(f"the event id {one.id!r} stands twice in {listed.id!r}")
        if self.limits is not None:
            self.limits.check_items(listed.id, [one])
        self._follow_turn(one)
        self._ids.add(one.id)
        self._version, self._previous = one.version, one.hash
        self.hashes.setdefault(listed.id, bytearray()).extend(one.hash)

    def _begin(self, first: Recorded) -> None:
        if not isinstance(first.event, ConversationStarted):
            raise InvalidInput(f"a conversation begins with conversation.started, not {first.tag}")
        if first.event.id != first.conversation:
            raise InvalidInput(f"the body names the conversation {first.event.id!r}")
        self._previous = origin(first)
        if first.event.fork is not None:
            self._check_fork(first.event.fork)

    def _check_fork(self, fork: Fork) -> None:
        self.forks.append(fork)
        there = self.hash_at(fork.conversation, fork.version)
        if there is None:
            self.outside.append((fork, self.number))
        elif there != fork.hash:
            raise InvalidInput(OTHER_SOURCE.format(fork.conversation, fork.version))

    def _follow_turn(self, one: Recorded) -> None:
        """A turn starts once; the rest of what is lawful follows from the fold (`lawful.py`)."""
        if isinstance(one.event, TurnStarted):
            if one.turn is None or one.turn in self._turns:
                raise InvalidInput(f"turn {one.turn!r} cannot start here")
            self._turns.add(one.turn)

    def _end(self, listed: Listed, last: Recorded) -> None:
        if last.hash.hex() != listed.hash:
            raise InvalidInput(f"the header promises another end of {listed.id!r}")
        self._place += 1
        self._version = 0
        self._ids, self._turns = set(), set()
