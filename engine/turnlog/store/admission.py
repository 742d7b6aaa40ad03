"""Whether an append may be written: the same decision for every store.

The one rule: nothing here reads or writes. A store gathers the facts inside its transaction, and
these functions decide: idempotency first, then the version, then the lease (design section 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from ..canonical import GENESIS
from ..errors import IdConflict, InvalidInput, NotFound, StaleEpoch, VersionConflict
from ..events import ConversationStarted, Fork
from ..index import Put
from ..ports import Append


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of a conversation before an append; `next` is its next ordinal."""

    version: int = 0
    hash: bytes = GENESIS
    epoch: int = 0
    owner: str | None = None
    next: int = 0
    base: int = 0


def check(append: Append) -> None:
    """Raise InvalidInput where an append is not whole and consistent.

    That is where versions have gaps, an event does not follow the one before it, or
    the head is not the state after the events.
    """
    name = append.conversation
    version, previous = append.expected, None
    for one in append.events:
        version += 1
        if one.version != version or one.conversation != name:
            raise InvalidInput(f"event {one.id!r} is not version {version} of {name!r}")
        if previous is not None and one.expected_hash(previous) != one.hash:
            raise InvalidInput(f"event {one.id!r} does not follow the event before it")
        previous = one.hash
    head = append.head
    if previous is not None and (head.id, head.version, head.hash) != (
        name,
        version,
        previous.hex(),
    ):
        raise InvalidInput(f"the head is not the state of {name!r} at version {version}")
    if append.lease is not None and append.epoch is None:
        raise InvalidInput(f"the lease of {name!r} cannot be decided without an epoch")
    _encodable(append)


def _encodable(append: Append) -> None:
    """Names must be text that a database can hold: lone surrogates are not."""
    names = {append.conversation, *append.absent}
    names.update(name for one in append.events for name in (one.id, one.actor, one.turn or ""))
    for one in append.changes:
        if isinstance(one, Put):
            names.update((one.item_id or "", one.call_id or "", one.response or ""))
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:
        wrong = next(name for name in sorted(names) if not _is_text(name))
        raise InvalidInput(f"the id or actor {wrong!a} is not valid text: {error}") from error


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def is_stored(append: Append, found: Mapping[str, tuple[int, bytes]]) -> bool:
    """Whether the very events of the append stand where it would put them.

    `found` holds version and hash of what stands there, by event id. Raises IdConflict where an
    id of the append is there with other contents.
    """
    for one in append.events:
        there = found.get(one.id)
        if there is not None and there != (one.version, one.hash):
            raise IdConflict(
                f"event {one.id!r} of {append.conversation!r} is stored with other contents:"
                " use new ids for new events"
            )
    return bool(append.events) and all(one.id in found for one in append.events)


def fork_of(append: Append) -> Fork | None:
    """Where the conversation branches off, where the append begins a fork."""
    if append.expected or not append.events:
        return None
    event = append.events[0].event
    return event.fork if isinstance(event, ConversationStarted) else None


def fork_hash(fork: Fork, stored: bytes | None) -> bytes:
    """The hash that a fork's first event follows; `stored` is the source's at that version.

    Raises NotFound where the source or its version is missing, InvalidInput where it differs.
    """
    if stored is None:
        raise NotFound(f"conversation {fork.conversation!r} has no version {fork.version}")
    if stored.hex() != fork.hash:
        raise InvalidInput(f"the fork names another hash of {fork.conversation!r} than is stored")
    return stored


def admit(
    append: Append,
    stored: Stored | None,
    me: str,
    dead: Callable[[str], bool],
) -> tuple[int, str | None] | None:
    """The epoch and owner after an append that may be written; None where it is done already.

    Raises VersionConflict, StaleEpoch, NotFound (nothing to lease) and InvalidInput (the first
    event does not follow the last one stored).
    """
    found = stored or Stored()
    if found.version != append.expected:
        raise VersionConflict(append.conversation, expected=append.expected, actual=found.version)
    if not append.events and _leased_already(append, found, me):
        return None
    lease = _lease(append, found, me, dead)
    if append.events:
        first = append.events[0]
        if first.expected_hash(found.hash) != first.hash:
            raise InvalidInput(f"event {first.id!r} does not follow the last one stored")
    elif stored is None or not stored.version:
        raise NotFound(f"there is no conversation {append.conversation!r}")
    return lease


def _leased_already(append: Append, stored: Stored, me: str) -> bool:
    """Whether an append without events was written by an earlier try whose outcome was unknown."""
    wanted = {"acquire": me, "release": None}
    return (
        append.lease in wanted
        and 0 < stored.epoch == append.epoch
        and stored.owner == wanted[append.lease]
    )


def _lease(
    append: Append, stored: Stored, me: str, dead: Callable[[str], bool]
) -> tuple[int, str | None]:
    match append.lease:
        case None:
            # What is imported brings its epochs along, and none is given out twice.
            brought = max((one.epoch or 0 for one in append.events), default=0)
            return max(stored.epoch, brought), stored.owner
        case "acquire":
            free = stored.owner is None or stored.owner == me or dead(stored.owner)
            if free and append.epoch == stored.epoch + 1:
                return stored.epoch + 1, me
        case "keep" | "release":
            if stored.owner == me and append.epoch == stored.epoch:
                return stored.epoch, me if append.lease == "keep" else None
        case _:
            assert_never(append.lease)
    raise StaleEpoch(
        f"the lease of {append.conversation!r} is at epoch {stored.epoch},"
        f" held by {stored.owner or 'nobody'}: read the head again"
    )
