"""The recorded envelope, and the codec between events and bytes.

The one rule: what was hashed is what is stored. A recorded event keeps its canonical body as
bytes; nothing is encoded again to verify it. Old bodies are lifted by small steps here, before
they are decoded, never in `evolve`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache, lru_cache
from typing import (
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from .canonical import (
    GENESIS,
    Json,
    JsonObject,
    chain,
    chained,
    digest,
    dumps,
    framed,
    loads_object,
)
from .errors import InvalidInput, StoreCorrupt
from .events import SCHEMA, TAGS, Event, tag_of
from .making import maker

T = TypeVar("T")
Upcast = Callable[[JsonObject], JsonObject]

UPCASTS: Mapping[tuple[str, int], Upcast] = {}
"""How a body of a tag and schema becomes one of the next schema; empty while there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event that is to be recorded, and the turn that it belongs to."""

    event: Event
    turn: str | None = None


class _Hashed(NamedTuple):
    """What was worked out when an event got its hash, and is asked for again as it is written.

    That saves a store 9 us an event. It is lost where an event is copied with other contents.
    """

    previous: bytes
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One event as the log holds it.

    `version` counts from 1 within the conversation, `time` is in microseconds since 1970 (UTC),
    `hash` chains it to the event before. `body` holds the canonical bytes that were hashed.
    """

    conversation: str
    version: int
    id: str
    tag: str
    schema: int
    time: int
    actor: str
    turn: str | None
    epoch: int | None
    salt: bytes
    body: bytes
    hash: bytes
    event: Event
    _known: _Hashed | None = field(default=None, init=False, repr=False, compare=False)

    def body_digest(self) -> bytes:
        """SHA-256 over salt and body, which is what the chain binds."""
        return digest(self.salt, self.body) if self._known is None else self._known.digest

    def expected_hash(self, previous: bytes) -> bytes:
        """The hash that this event must have behind `previous`."""
        if self._known is not None and self._known.previous == previous:
            return self.hash
        return chain(
            previous,
            (
                self.conversation,
                self.version,
                self.id,
                self.tag,
                self.schema,
                self.time,
                self.actor,
                self.turn,
                self.epoch,
                self.body_digest(),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What the shell adds to events: time, ids and randomness are arguments (law 14)."""

    time: int
    actor: str
    epoch: int | None
    ids: Sequence[str]
    salts: Sequence[bytes]


def record(
    conversation: str, version: int, previous: bytes, events: Sequence[NewEvent], stamp: Stamp
) -> list[Recorded]:
    """Put events into their envelopes behind `version` and its hash `previous`.

    Raises InvalidInput where a body is not JSON.
    """
    recorded: list[Recorded] = []
    for new, id, salt in zip(events, stamp.ids, stamp.salts, strict=True):
        version += 1
        one = envelope(
            conversation=conversation,
            version=version,
            id=id,
            tag=tag_of(new.event),
            schema=SCHEMA,
            time=stamp.time,
            actor=stamp.actor,
            turn=new.turn,
            epoch=stamp.epoch if new.turn is not None else None,
            salt=salt,
            body=encode(new.event),
            previous=previous,
            event=new.event,
        )
        previous = one.hash
        recorded.append(one)
    return recorded


def envelope(
    *,
    conversation: str,
    version: int,
    id: str,
    tag: str,
    schema: int,
    time: int,
    actor: str,
    turn: str | None,
    epoch: int | None,
    salt: bytes,
    body: bytes,
    previous: bytes,
    event: Event,
) -> Recorded:
    """A recorded event, with the hash that it has behind `previous`."""
    known = _Hashed(previous, digest(salt, body))
    hash = chained(
        previous,
        _often(conversation),
        framed(version),
        framed(id),
        _often(tag),
        _often(schema),
        _often(time),
        _often(actor),
        _often(turn),
        _often(epoch),
        framed(known.digest),
    )
    return _recorded(
        conversation,
        version,
        id,
        tag,
        schema,
        time,
        actor,
        turn,
        epoch,
        salt,
        body,
        hash,
        event,
        known,
    )


_often = lru_cache(maxsize=1024)(framed)
"""What events of one append have in common is framed once: a hash takes 1.5 us, and not 3."""


_recorded: Callable[..., Recorded] = maker(Recorded)


def first_broken(events: Iterable[Recorded], previous: bytes = GENESIS) -> Recorded | None:
    """The first event that does not verify behind `previous`, or None where all do."""
    for one in events:
        if one.expected_hash(previous) != one.hash:
            return one
        previous = one.hash
    return None


DEEPEST_BODY = 384
"""How deep the body of an event may be nested; lines of an export have levels of their own."""

# -- the codec -----------------------------------------------------------------------------


def encode(event: Event) -> bytes:
    """The canonical body of an event: absent fields left out, unknown fields last.

    Raises InvalidInput where what it holds is nested too deep to be exported inside something else.
    """
    return dumps(to_json(event), deepest=DEEPEST_BODY)


def decode(
    tag: str, schema: int, body: bytes, upcasts: Mapping[tuple[str, int], Upcast] = UPCASTS
) -> Event:
    """An event from its body; unknown fields are kept in `extra`.

    Raises StoreCorrupt where the tag or schema is unknown or the body does not fit it.
    """
    kind = TAGS.get(tag)
    if kind is None:
        raise StoreCorrupt(f"unknown event tag {tag!r}: a newer turnlog may have written it")
    try:
        value = loads_object(body)
        while (tag, schema) in upcasts:
            value = upcasts[tag, schema](value)
            schema += 1
        if schema != SCHEMA:
            raise InvalidInput(f"schema {schema} is unknown: a newer turnlog may have written it")
        return cast(Event, from_json(cast(Any, kind), value))
    except InvalidInput as error:
        raise StoreCorrupt(f"the body of a {tag} event cannot be read: {error}") from error


def to_json(value: object) -> Json:
    """The JSON of a frozen dataclass of plain fields; absent fields are left out."""
    kind = type(value)
    if kind in _PLAIN:
        return cast(Json, value)
    if isinstance(value, tuple):
        return [to_json(part) for part in cast("tuple[object, ...]", value)]
    if not is_dataclass(kind):
        return cast(Json, value)
    body: dict[str, Json] = {}
    for name in _names(cast(Any, kind)):
        part = getattr(value, name)
        if part is not None:
            body[name] = part if type(part) in _PLAIN else to_json(part)
    body.update(getattr(value, "extra", _NOTHING))
    return body


_PLAIN = frozenset({str, int, bool, dict, type(None)})
_NOTHING: JsonObject = {}


def from_json(kind: type[T], value: Json) -> T:
    """A frozen dataclass from its JSON; raises InvalidInput where a field does not fit."""
    return cast(T, _reader(cast(Any, kind))(value))


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(one.name for one in fields(kind) if one.name != "extra")


Reader = Callable[[Any], Any]


@cache
def _reader(kind: Any) -> Reader:
    """A function that makes a `kind` of a JSON object, checking each field's type."""
    hints = get_type_hints(kind, localns={"Sequence": Sequence, "Mapping": Mapping})
    readers = {name: _field_reader(hints[name]) for name in _names(kind)}
    required = {
        one.name
        for one in fields(kind)
        if one.default is MISSING and one.default_factory is MISSING
    }
    # What is None was left out, whether or not its field has a default.
    absent: dict[str, Any] = {name: None for name in required if _is_optional(hints[name])}
    needed = required - absent.keys()
    open_ended = "extra" in hints

    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise InvalidInput(f"{kind.__name__} is not an object")
        found = cast("Mapping[str, Any]", value)
        if missing := needed - found.keys():
            raise InvalidInput(f"{kind.__name__} lacks {', '.join(sorted(missing))}")
        known = absent | {name: readers[name](found[name]) for name in readers if name in found}
        extra = {name: part for name, part in found.items() if name not in readers}
        return kind(**known, extra=extra) if open_ended and extra else kind(**known)

    return read


def _is_optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and types.NoneType in get_args(hint)


def _field_reader(hint: Any) -> Reader:
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return _reader(cast(Any, hint))
    if origin is Literal:
        return _one_of(arguments)
    if origin is tuple:
        return _tuple_of(_field_reader(arguments[0]))
    if _is_optional(hint):
        (inner,) = (one for one in arguments if one is not types.NoneType)
        return _field_reader(inner)
    return _exactly({str: str, int: int, bool: bool}.get(hint, dict))


def _exactly(kind: type) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise InvalidInput(f"{value!r:.40} is not {kind.__name__}")
        return value

    return read


def _one_of(allowed: tuple[Any, ...]) -> Reader:
    def read(value: Any) -> Any:
        if value not in allowed:
            raise InvalidInput(f"{value!r:.40} is not one of {', '.join(map(str, allowed))}")
        return value

    return read


def _tuple_of(inner: Reader) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, list):
            raise InvalidInput(f"{value!r:.40} is not a list")
        return tuple(map(inner, cast("Sequence[object]", value)))

    return read
