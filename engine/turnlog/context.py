"""Loading what stands in a context: from places in the index to the items in the events.

The one rule: the log has the items; the index only says where. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from . import events as ev
from .canonical import JsonObject, text
from .errors import NotFound, StoreCorrupt
from .items import output_text, type_of
from .ports import Placed, Store, TurnRow
from .record import Recorded
from .state import State, branch, replay, start

PAGE = 500
"""How many events one read brings at the most: a long read holds no transaction open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One entry of a context: the provider's JSON, and turnlog's own key for it."""

    key: str
    ordinal: int
    raw: JsonObject
    response: str | None = None

    @property
    def type(self) -> str:
        """The provider's type of the item."""
        return type_of(self.raw)

    @property
    def id(self) -> str | None:
        """The provider's id, where it has one."""
        return text(self.raw, "id")

    @property
    def role(self) -> str | None:
        """Who said it, for a message."""
        return text(self.raw, "role")

    @property
    def text(self) -> str:
        """What a message says; empty for any other item."""
        return output_text(self.raw)


def body_of(event: ev.Event) -> JsonObject:
    """The item that an event holds; raises StoreCorrupt where it holds none."""
    match event:
        case (
            ev.ItemAdded()
            | ev.ItemEdited()
            | ev.OutputRecorded()
            | ev.CallAnswered()
            | ev.CallRejected()
            | ev.CallAbandoned()
        ):
            return event.item
        case _:
            raise StoreCorrupt(f"a {type(event).__name__} holds no item: run `turnlog verify`")


async def load(store: Store, places: Sequence[Placed]) -> list[Item]:
    """The items at these places, in order; one read for each conversation that holds some."""
    wanted: dict[str, list[int]] = {}
    for place in places:
        wanted.setdefault(place.holder, []).append(place.item_version)
    found: dict[tuple[str, int], JsonObject] = {}
    for holder, versions in wanted.items():
        for start_ in range(0, len(versions), PAGE):
            for one in await store.pick(holder, versions[start_ : start_ + PAGE]):
                found[holder, one.version] = body_of(one.event)
    return [_item(place, found) for place in places]


def _item(place: Placed, found: dict[tuple[str, int], JsonObject]) -> Item:
    raw = found.get((place.holder, place.item_version))
    if raw is None:
        raise StoreCorrupt(
            f"conversation {place.holder!r} lacks version {place.item_version}:"
            " run `turnlog verify`"
        )
    return Item(key=place.key, ordinal=place.ordinal, raw=raw, response=place.response)


async def requested(
    store: Store, state: State, ranges: Iterable[ev.Range], fresh: Sequence[Recorded] = ()
) -> list[JsonObject]:
    """The items of a request's ranges; `fresh` are events that are not in the store so far."""
    items: list[JsonObject] = []
    drafted = {one.version: one for one in fresh}
    for range_ in ranges:
        if range_.of == "context":
            places = await store.context(state.id, start=range_.start, stop=range_.stop)
            items += [item.raw for item in await load(store, places)]
            continue
        versions = range(range_.start, range_.stop)
        stored = [version for version in versions if version not in drafted]
        known = {one.version: one for one in await store.pick(state.id, stored)} if stored else {}
        known |= drafted
        if missing := [version for version in versions if version not in known]:
            raise StoreCorrupt(
                f"conversation {state.id!r} lacks version {missing[0]}: run `turnlog verify`"
            )
        items += [body_of(known[version].event) for version in versions]
    return items


async def every(
    store: Store, conversation: str, after: int = 0, until: int | None = None
) -> list[Recorded]:
    """All events of a stretch of the log, read in short pages."""
    found: list[Recorded] = []
    while page := await store.events(conversation, after=after, until=until, limit=PAGE):
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
