"""Export and import: a conversation as lines of JSON, without loss.

The one rule: nothing is written before every line has verified, and what was exported is imported
under the same ids, times and hashes, so that a second export is the same bytes.
The lines themselves are in `exchange_lines.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from itertools import groupby, islice
from tempfile import SpooledTemporaryFile
from typing import IO, TypeAlias

from .appending import appended
from .canonical import GENESIS, loads_object
from .context import PAGE, state_at
from .errors import Conflict, ImportFailed, InvalidInput, NotFound, StoreCorrupt
from .events import Fork
from .exchange_lines import (
    OTHER_SOURCE,
    Check,
    Line,
    Listed,
    event_line,
    fork_of,
    header,
    origin,
    recorded,
)
from .index import Change, advance
from .lawful import check_lawful, check_names
from .limits import Limits
from .ports import Append, Store
from .record import Recorded
from .state import State, branch, start

SPOOL = 16 * 1024 * 1024
"""How much of a file is held in memory while it is verified, in bytes; the rest is on disk."""

Lines: TypeAlias = Iterable[Line] | AsyncIterable[Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did: which conversations it held, and how many events were new."""

    conversations: tuple[str, ...]
    written: int
    already: int


# -- export --------------------------------------------------------------------------------


async def export(store: Store, *conversations: str) -> AsyncGenerator[str]:
    """The lines of conversations and of what they were forked from, without line ends.

    Raises NotFound for a conversation that does not exist, and StoreCorrupt where what is stored
    does not verify.
    """
    listed = await _contents(store, conversations)
    yield header(listed)
    for one in listed:
        async for event in _verified(store, one):
            yield event_line(event)


async def _contents(store: Store, conversations: Iterable[str]) -> list[Listed]:
    """What an export holds, every source before its forks."""
    found: dict[str, Listed] = {}
    for conversation in conversations:
        for one in await _line_of(store, conversation):
            known = found.get(one.id, one)
            found[one.id] = max(known, one, key=lambda listed: listed.version)
    return list(found.values())


async def _line_of(store: Store, conversation: str) -> list[Listed]:
    """A conversation behind everything that it was forked from, the oldest first."""
    head = await store.head(conversation)
    if head is None:
        raise NotFound(f"there is no conversation {conversation!r} to export")
    line = [Listed(conversation, head.state.version, head.state.hash)]
    while head is not None and (fork := head.state.fork) is not None:
        line.append(Listed(fork.conversation, fork.version, fork.hash))
        head = await store.head(fork.conversation)
    return line[::-1]


async def _verified(store: Store, listed: Listed) -> AsyncGenerator[Recorded]:
    previous, version = GENESIS, 0
    while page := await store.events(listed.id, after=version, until=listed.version, limit=PAGE):
        for one in page:
            if version == 0:
                previous = origin(one)
            version += 1
            if one.version != version or one.expected_hash(previous) != one.hash:
                raise StoreCorrupt(_BROKEN.format(listed.id, version))
            previous = one.hash
            yield one
    if (version, previous.hex()) != (listed.version, listed.hash):
        raise StoreCorrupt(_BROKEN.format(listed.id, version + 1))


_BROKEN = "version {1} of conversation {0!r} does not verify: run `turnlog verify`"


# -- import --------------------------------------------------------------------------------


async def import_lines(store: Store, lines: Lines, limits: Limits | None = None) -> Imported:
    """Write what `export` gave, with the same ids, times and hashes; no lease is taken.

    Everything is verified first, its hashes and then its history, and nothing is written where a
    line is wrong. What is there already is left as it is. Raises ImportFailed with the number of
    the line, also where the log holds something else under one of the ids, or an item is larger
    than `limits` allow, and what the store raises.
    """
    with SpooledTemporaryFile[bytes](max_size=SPOOL) as spool:
        check, states = await _checked(store, lines, limits, spool)
        written = await _write(store, _again(spool), states)
    total = sum(one.version for one in check.listed)
    ids = tuple(one.id for one in check.listed)
    return Imported(conversations=ids, written=written, already=total - written)


async def check_lines(store: Store, lines: Lines, limits: Limits | None = None) -> None:
    """Raise what `import_lines` would raise before it writes."""
    with SpooledTemporaryFile[bytes](max_size=SPOOL) as spool:
        await _checked(store, lines, limits, spool)


async def _checked(
    store: Store, lines: Lines, limits: Limits | None, spool: IO[bytes]
) -> tuple[Check, dict[str, State]]:
    """Verify lines and keep them; what they said, and the states that the log has of it."""
    check = Check(limits=limits)
    async for chunk in _chunks(lines):
        await asyncio.to_thread(check.take, chunk, spool)
    check.finish()
    found = {one.id: await _known(store, check, one) for one in check.listed}
    for fork, number in check.outside:
        await _check_source(store, fork, number)
    states = {id: state for id, state in found.items() if state is not None}
    begun = await _sources(store, check, states)
    await asyncio.to_thread(_check_history, _numbered(spool), dict(states), begun)
    return check, states


async def _chunks(lines: Lines) -> AsyncIterator[list[Line]]:
    if isinstance(lines, AsyncIterable):
        chunk: list[Line] = []
        async for line in lines:
            chunk.append(line)
            if len(chunk) == PAGE:
                yield chunk
                chunk = []
        yield chunk
        return
    rest = iter(lines)
    while chunk := await asyncio.to_thread(lambda: list(islice(rest, PAGE))):
        yield chunk


# -- writing -------------------------------------------------------------------------------


async def _known(store: Store, check: Check, listed: Listed) -> State | None:
    """What the log has of a conversation; raises where that is something else.

    Comparing one hash compares everything before it.
    """
    head = await store.head(listed.id)
    if head is None:
        return None
    version = min(head.state.version, listed.version)
    there = await store.pick(listed.id, [version])
    if [one.hash.hex() for one in there] != [check.hash_at(listed.id, version)]:
        raise ImportFailed(
            f"the log has another conversation {listed.id!r}, which differs at version {version} or"
            " before: import into another database"
        )
    if head.owner is not None and head.alive and version < listed.version:
        raise ImportFailed(f"a turn of {listed.id!r} runs just now: wait for it, then import")
    return head.state


async def _check_source(store: Store, fork: Fork, number: int) -> None:
    there = await store.pick(fork.conversation, [fork.version])
    if not there:
        raise ImportFailed(
            f"the file does not hold version {fork.version} of {fork.conversation!r}, which the"
            " conversation was forked from, and neither does the log: import that one first",
            line=number,
        )
    if there[0].hash.hex() != fork.hash:
        said = OTHER_SOURCE.format(fork.conversation, fork.version)
        raise ImportFailed(f"{said}, in the log", line=number)


def _numbered(spool: IO[bytes]) -> Iterator[tuple[int, Recorded]]:
    """The events of a file that has verified, with the numbers of their lines."""
    spool.seek(0)
    lines = ((number, line) for number, line in enumerate(spool, 1) if line.strip())
    next(lines)
    return ((number, recorded(loads_object(line))) for number, line in lines)


def _again(spool: IO[bytes]) -> Iterator[Recorded]:
    return (one for _, one in _numbered(spool))


async def _sources(
    store: Store, check: Check, states: Mapping[str, State]
) -> dict[tuple[str, int], State | None]:
    """The states that forks begin with, by source and version; None where the file gives it."""
    found: dict[tuple[str, int], State | None] = {}
    outside = {(fork.conversation, fork.version) for fork, _ in check.outside}
    for fork in check.forks:
        at = (fork.conversation, fork.version)
        known = states.get(fork.conversation)
        there = at in outside or (known is not None and known.version >= fork.version)
        found[at] = await state_at(store, *at) if there else None
    return found


def _check_history(
    events: Iterator[tuple[int, Recorded]],
    states: dict[str, State],
    begun: dict[tuple[str, int], State | None],
) -> None:
    """Raise ImportFailed at the first event that cannot have happened behind those before it."""
    for number, one in events:
        state = states.get(one.conversation)
        if state is None:
            fork = fork_of(one)
            source = begun[fork.conversation, fork.version] if fork is not None else None
            state = branch(source, one.conversation) if source else start(one.conversation)
        if one.version <= state.version:
            continue
        try:
            check_lawful(state, one)
            state, changes = advance(state, one)
            check_names(state, changes)
        except InvalidInput as error:
            raise ImportFailed(str(error), line=number) from error
        states[one.conversation] = state
        if (one.conversation, one.version) in begun:
            begun[one.conversation, one.version] = state


async def _write(store: Store, events: Iterator[Recorded], states: dict[str, State]) -> int:
    """Append what the log lacks, in chunks; how many events that was."""
    written = 0
    while chunk := await asyncio.to_thread(lambda: list(islice(events, PAGE))):
        for conversation, group in groupby(chunk, key=lambda one: one.conversation):
            some = list(group)
            state = states.get(conversation) or await _beginning(store, some[0])
            new = [one for one in some if one.version > state.version]
            states[conversation] = await _append(store, state, new) if new else state
            written += len(new)
    return written


async def _beginning(store: Store, first: Recorded) -> State:
    fork = fork_of(first)
    if fork is None:
        return start(first.conversation)
    source = await state_at(store, fork.conversation, fork.version)
    return branch(source, first.conversation)


async def _append(store: Store, state: State, events: Sequence[Recorded]) -> State:
    """Append events behind a state, with all that follows from them; the state after them."""
    after, changes = state, list[Change]()
    for one in events:
        after, some = advance(after, one)
        changes += some
    append = Append(
        conversation=state.id,
        expected=state.version,
        events=tuple(events),
        head=after,
        changes=tuple(changes),
    )
    try:
        await appended(store, append)
    except (Conflict, InvalidInput) as error:
        raise ImportFailed(f"conversation {state.id!r} cannot be written: {error}") from error
    return after
