"""Loading what stands in a context: from places in the index to the items in the events.

The one rule: the log has the items; the index only says where. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from . import events as ev
from .canonical import JsonObject
from .errors import NotFound, StoreCorrupt
from .item import Item as Item
from .item import body_of as body_of
from .item import by_holder, gathered
from .ports import Placed, Store, TurnRow
from .record import Recorded
from .state import State, branch, replay, start

PAGE = 500
"""How many events one read brings at the most: a long read holds no transaction open."""


async def load(store: Store, places: Sequence[Placed]) -> list[Item]:
    """The items at a few places that were found; `store.items` reads a range of them."""
    found: dict[tuple[str, int], ev.Event] = {}
    for holder, versions in by_holder(places).items():
        for one in await store.pick(holder, versions):
            found[holder, one.version] = one.event
    return gathered(places, found)


async def requested(
    store: Store, state: State, ranges: Iterable[ev.Range], fresh: Sequence[Recorded] = ()
) -> list[JsonObject]:
    """The items of a request's ranges; `fresh` are events that are not in the store so far."""
    items: list[JsonObject] = []
    for range_ in ranges:
        if range_.of == "context":
            found = await store.items(state.id, start=range_.start, stop=range_.stop)
            items += [item.raw for item in found]
        else:
            items += await _of_tail(store, state, range_, fresh)
    return items


async def _of_tail(
    store: Store, state: State, range_: ev.Range, fresh: Sequence[Recorded]
) -> list[JsonObject]:
    """The items of events of the tail, of which the last ones may not be in the store so far."""
    first = fresh[0].version if fresh else range_.stop
    stored = max(range_.start, min(range_.stop, first))
    items = await _stored(store, state, range_.start, stored, fresh)
    drafted = {one.version: one for one in fresh}
    return items + [body_of(drafted[version].event) for version in range(stored, range_.stop)]


async def _stored(
    store: Store, state: State, start: int, stop: int, fresh: Sequence[Recorded]
) -> list[JsonObject]:
    """The items of a run of the tail, by where they stand: a fifth of reading their events.

    Where an insertion has moved them since they were stored, or one is missing, the events tell.
    """
    run = next((one for one in state.tail if one.version <= start < one.version + one.count), None)
    if run is not None and start < stop and not any(map(_moves, fresh)):
        first, at = run.ordinal + start - run.version, state.version - len(fresh)
        found = await store.items(state.id, start=first, stop=first + stop - start, version=at)
        if len(found) == stop - start:
            return [item.raw for item in found]
    versions = range(start, stop)
    known = {one.version: one for one in await store.pick(state.id, versions)} if versions else {}
    if missing := [version for version in versions if version not in known]:
        raise StoreCorrupt(
            f"conversation {state.id!r} lacks version {missing[0]}: run `turnlog verify`"
        )
    return [body_of(known[version].event) for version in versions]


def _moves(recorded: Recorded) -> bool:
    event = recorded.event
    return isinstance(event, ev.ContextCompacted) or (
        isinstance(event, ev.ItemAdded) and event.ordinal is not None
    )


async def every(
    store: Store, conversation: str, after: int = 0, until: int | None = None
) -> list[Recorded]:
    """All events of a stretch of the log, read in short pages."""
    found: list[Recorded] = []
    while after != until and (
        page := await store.events(conversation, after=after, until=until, limit=PAGE)
    ):
        found += page
        after = page[-1].version
    return found


async def state_at(store: Store, conversation: str, version: int) -> State:
    """The state at a version, from the last turn that ended before it (never the whole log).

    Raises NotFound where the conversation has no such version.
    """
    head = await store.head(conversation)
    if head is None or not 0 < version <= head.state.version:
        known = head.state.version if head is not None else 0
        raise NotFound(f"conversation {conversation!r} has no version {version}: it has {known}")
    if version == head.state.version:
        return head.state
    base = await _base(store, head.state, version)
    return replay(base, await every(store, conversation, base.version, version))


async def _base(store: Store, state: State, version: int) -> State:
    """The nearest state that is stored at or before a version."""
    before = version + 1
    while rows := await store.turns(state.id, before=before, limit=8):
        for row in rows:
            if row.state is not None and row.ended is not None and row.ended <= version:
                return row.state
        before = rows[-1].started
    if state.fork is None:
        return start(state.id)
    source = await state_at(store, state.fork.conversation, state.fork.version)
    return branch(source, state.id)


async def turn_row(store: Store, conversation: str, turn: str) -> TurnRow:
    """A turn by its id; raises NotFound where there is none."""
    row = await store.turn(conversation, id=turn)
    if row is None:
        raise NotFound(f"conversation {conversation!r} has no turn {turn!r}")
    return row


async def version_before(store: Store, conversation: str, time: int) -> int:
    """The last version at or before a time (microseconds); 0 where there is none.

    The turns say from where to read, so that it costs one turn and not the whole log.
    """
    version, before = 0, None
    while rows := await store.turns(conversation, before=before, limit=100):
        began = [row.started for row in rows if row.time <= time]
        if began:
            version = began[0]
            break
        before = rows[-1].started
    while page := await store.events(conversation, after=version, limit=PAGE):
        earlier = [one.version for one in page if one.time <= time]
        version = earlier[-1] if earlier else version
        if len(earlier) < len(page):
            break
    return version
