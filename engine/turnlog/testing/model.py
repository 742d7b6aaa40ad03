"""A store against a model of it: random histories, restarts and deaths, found and made small.

    def test_my_store() -> None:
        run_model(MyDatabase)

The one rule: the machine sees only `ports.Store` and what a `Database` of yours can do to it, and
predicts every answer from lists and dicts (`histories.py`). Needs hypothesis (the extra `testing`).
`TURNLOG_HISTORIES=<examples>` runs it longer, each time with other histories.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import ClassVar, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from .. import events as ev
from ..errors import IdConflict, StaleEpoch, TurnlogError, VersionConflict
from ..exchange import export, import_lines
from ..ports import Append, ConversationRow, Lease, Store
from ..record import Recorded
from ..store import MemoryStore
from .histories import Told, by_caller, by_runner, closing, forked
from .store_contract import Author, begun, keys, raises

T = TypeVar("T")

MANY = int(os.environ.get("TURNLOG_HISTORIES", 0))

OWNERS = 3
"""How many owners are open at once, at most."""

CALLER = ("add", "insert", "edit", "remove", "compact", "configure", "note")
RUNNER = ("exchange", "ask", "move", "settle", "late")
REFUSED = ("again", "epoch", "version", "contents")
READ = ("events", "context", "find", "turns", "lists", "follow", "all")
LIVES = ("restart", "restart", "restart", "crash", "crash", "upgrade")
LEASES: tuple[Lease, ...] = ("acquire", "keep", "release")

some = st.integers(0, 40)
"""Which of what there is."""


def a_few(words: Sequence[str]) -> st.SearchStrategy[list[str]]:
    """One thing behind the other."""
    return st.lists(st.sampled_from(words), min_size=1, max_size=4)


class Database:
    """The data that one example is about: empty at first, and opened by one owner after another.

    Subclass it for a store of your own. Only `open` has to be there.
    """

    async def open(self) -> Store:
        """One more owner of the data."""
        raise NotImplementedError

    async def crash(self, stores: Sequence[Store]) -> None:
        """The death of all owners: what was acknowledged is there when it is opened again.

        By default they are closed, with the leases that they hold.
        """
        for store in stores:
            await store.close()

    async def age(self) -> None:
        """While nobody has it open: make it one of an older schema, to be upgraded by `open`."""

    async def copied(self, store: Store) -> Store | None:
        """A store on a backup of everything; None where there is no such thing."""
        return None

    async def close(self) -> None:
        """The example is over."""


class StoreModel(RuleBasedStateMachine):
    """The machine; `store_machine` makes one for a database."""

    ran: ClassVar[Counter[str]] = Counter()

    def make(self) -> Database:
        """The data of one example."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.names = count()
        self.told: dict[str, Told] = {}
        self.ends: list[dict[int, int]] = [{}]
        self.where: dict[tuple[int, int], tuple[str, int]] = {}
        self.stores: list[Store] = []
        self.database = self.make()
        self.runner = asyncio.Runner()
        self.ran["examples"] += 1

    def do(self, doing: Coroutine[object, object, T]) -> T:
        """Run something on the machine's own loop."""
        self.ran["steps"] += 1
        return self.runner.run(doing)

    def name(self) -> str:
        """A new name."""
        return f"n{next(self.names)}"

    def one(self, pick: int) -> Told:
        """One of the conversations."""
        return list(self.told.values())[pick % len(self.told)]

    def by(self, pick: int) -> Store:
        """One of the owners."""
        return self.stores[pick % len(self.stores)]

    def free(self, told: Told, store: Store) -> bool:
        """Whether this owner may take the lease."""
        return told.owner is None or told.owner is store or told.owner not in self.stores

    def written(self, store: Store, told: Told, draft: tuple[Author, Append]) -> None:
        """An append that must succeed."""
        author, append = draft
        appended = self.do(store.append(append))
        assert (appended.version, appended.already) == (author.state.version, False)
        told.take(author, append)
        self.ran["events"] += len(append.events)

    def refused(self, kind: type[TurnlogError], store: Store, append: Append) -> None:
        """An append that must fail, and change nothing."""
        self.do(raises(kind, store.append(append)))
        self.ran[kind.__name__] += 1

    # -- appending -------------------------------------------------------------------------

    @initialize(by=some, team=st.sampled_from(["red", "blue"]))
    def begin_first(self, by: int, team: str) -> None:
        """The first conversation of the first owner."""
        self.stores.append(self.do(self.database.open()))
        self._begin(by, team)

    @precondition(lambda self: len(self.told) < 6)
    @rule(by=some, team=st.sampled_from(["red", "blue"]))
    def begin(self, by: int, team: str) -> None:
        """A new conversation."""
        self._begin(by, team)

    def _begin(self, by: int, team: str) -> None:
        told = Told.new(Author(self.name()))
        first = ev.ConversationStarted(id=told.id, metadata={"team": team})
        self.written(self.by(by), told, told.draft([first]))
        self.told[told.id] = told

    @rule(which=some, by=some, what=a_few(CALLER), pick=some)
    def write(self, which: int, by: int, what: list[str], pick: int) -> None:
        """What anybody may write."""
        told = self.one(which)
        for number, one in enumerate(what, pick):
            events = by_caller(told, one, number, self.name)
            self.written(self.by(by), told, told.draft(events))

    @rule(which=some, by=some)
    def start_turn(self, which: int, by: int) -> None:
        """A turn begins, where the lease can be had."""
        told, store = self.one(which), self.by(by)
        if told.turn is not None:
            return
        turn = self.name()
        events = [begun(f"key-{turn}"), *by_caller(told, "add", by, self.name)]
        draft = told.draft(events, turn=turn, lease="acquire", epoch=told.epoch + 1)
        self._leased(told, store, draft)

    def _leased(self, told: Told, store: Store, draft: tuple[Author, Append]) -> None:
        """An append that takes the lease, where it can be had."""
        if self.free(told, store):
            self.written(store, told, draft)
            told.owner, told.epoch = store, told.epoch + 1
        else:
            self.refused(StaleEpoch, store, draft[1])

    @precondition(lambda self: any(told.turn for told in self.told.values()))
    @rule(which=some, by=some, what=a_few(RUNNER), pick=some)
    def run_turn(self, which: int, by: int, what: list[str], pick: int) -> None:
        """The owner of an open turn goes on; another one cannot."""
        told, store = self._open(which), self.by(by)
        if told.owner is not store and pick % 2:
            draft = told.draft((), lease="acquire", epoch=told.epoch + 1)
            self._leased(told, store, draft)
        for number, one in enumerate(what, pick):
            events = by_runner(told, one, number, self.name)
            draft = told.draft(events, turn=told.turn, lease="keep", epoch=told.epoch)
            self._kept(told, store, draft)

    @precondition(lambda self: any(told.turn for told in self.told.values()))
    @rule(which=some, by=some, pause=st.booleans())
    def leave_turn(self, which: int, by: int, pause: bool) -> None:
        """The owner of an open turn pauses or ends it; another one cannot."""
        told = self._open(which)
        events = closing(told, self.name)
        if pause and told.context.end is None:
            events = [ev.TurnPaused(reason="asked", calls=tuple(sorted(told.calls)))]
        draft = told.draft(events, turn=told.turn, lease="release", epoch=told.epoch)
        if self._kept(told, self.by(by), draft):
            told.owner = None

    def _open(self, which: int) -> Told:
        found = [told for told in self.told.values() if told.turn is not None]
        return found[which % len(found)]

    def _kept(self, told: Told, store: Store, draft: tuple[Author, Append]) -> bool:
        if told.owner is store:
            self.written(store, told, draft)
            return True
        self.refused(StaleEpoch, store, draft[1])
        return False

    @rule(which=some, by=some, what=st.sampled_from(REFUSED), pick=some)
    def try_in_vain(self, which: int, by: int, what: str, pick: int) -> None:
        """Appends that are there already, or that must be refused."""
        doing: Mapping[str, Callable[[Told, Store, int], None]] = {
            "again": self._again,
            "epoch": self._wrong_epoch,
            "version": self._wrong_version,
            "contents": self._other_contents,
        }
        doing[what](self.one(which), self.by(by), pick)

    def _wrong_epoch(self, told: Told, store: Store, pick: int) -> None:
        """The lease is not given, kept or released with another epoch."""
        lease = LEASES[pick % 3]
        epoch = told.epoch + (lease == "acquire") + (1 if pick % 2 else -1)
        events = [ev.ProviderNoted(kind="stale")]
        _, append = told.draft(events, turn=told.turn, lease=lease, epoch=max(0, epoch))
        if told.epoch or pick % 2:
            self.refused(StaleEpoch, store, append)

    def _again(self, told: Told, store: Store, pick: int) -> None:
        """The same events once more, by whomever: they are there."""
        append = told.appends[-1 - pick % len(told.appends)]
        appended = self.do(store.append(append))
        assert (appended.version, appended.already) == (append.head.version, True)
        self.ran["again"] += 1

    def _wrong_version(self, told: Told, store: Store, pick: int) -> None:
        """New events behind another version than the last."""
        at = pick % (told.version + 3)
        if at == told.version:
            return
        author = Author(told.id, made=200_000)
        state = told.states[at] if at < told.version else replace(told.states[-1], version=at)
        author.state = state if at else told.states[0]
        append = author.write(ev.ProviderNoted(kind="elsewhere"))
        error = self.do(raises(VersionConflict, store.append(append)))
        assert (error.expected, error.actual) == (at, told.version)
        self.ran["VersionConflict"] += 1

    def _other_contents(self, told: Told, store: Store, pick: int) -> None:
        """An event id that is there already, with other contents."""
        stood = told.events[pick % told.version]
        author = Author(told.id, made=300_000)
        author.state = told.states[stood.version - 1]
        append = author.write(ev.ProviderNoted(kind="forged"))
        (new,) = append.events
        forged = replace(new, id=stood.id)
        before = bytes.fromhex(told.states[stood.version - 1].hash)
        forged = replace(forged, hash=forged.expected_hash(before))
        head = replace(append.head, hash=forged.hash.hex())
        self.refused(IdConflict, store, replace(append, events=[forged], head=head))

    @rule(which=some, by=some, pick=some)
    def race(self, which: int, by: int, pick: int) -> None:
        """Two owners append at the same moment: one of them is first."""
        told = self.one(which)
        drafts = [
            told.draft(by_caller(told, "add", pick + number, self.name), rival=number)
            for number in range(2)
        ]
        stores = [self.by(by), self.by(by + 1)]

        async def both() -> list[object]:
            doing = (
                store.append(append) for store, (_, append) in zip(stores, drafts, strict=True)
            )
            return await asyncio.gather(*doing, return_exceptions=True)

        results = self.do(both())
        lost = [isinstance(result, VersionConflict) for result in results]
        assert sorted(lost) == [False, True], results
        author, append = drafts[lost.index(False)]
        told.take(author, append)
        self.ran["races"] += 1

    @precondition(lambda self: 0 < len(self.told) < 8)
    @rule(which=some, by=some, back=st.sampled_from([0, 0, 1, 5]))
    def fork(self, which: int, by: int, back: int) -> None:
        """A fork of a conversation, perhaps of a fork, as it is or as it was."""
        source = self.one(which)
        version = max(1, source.version - back)
        told, events = forked(source, version, self.name(), self.name)
        self.written(self.by(by), told, told.draft(events))
        self.told[told.id] = told
        self.ran["forks"] += 1

    # -- reading ---------------------------------------------------------------------------

    @rule(which=some, by=some, what=st.sampled_from(READ), at=some, size=some)
    def read(self, which: int, by: int, what: str, at: int, size: int) -> None:
        """Whatever can be read is what it must be."""
        doing: Mapping[str, Callable[[Told, Store, int, int], None]] = {
            "events": self._read_events,
            "context": self._read_context,
            "find": self._find,
            "turns": self._read_turns,
            "lists": self._read_lists,
            "follow": self._follow,
            "all": self._verify,
        }
        doing[what](self.one(which), self.by(by), at, size)
        self.ran["reads"] += 1

    def _read_events(self, told: Told, store: Store, after: int, size: int) -> None:
        """Events in a range, and one by one."""
        until = after + size
        found = self.do(store.events(told.id, after=after, until=until, limit=1 + size // 2))
        assert found == told.events[after:until][: 1 + size // 2]
        versions = [1 + (after * step) % (told.version + 2) for step in range(1, 4)]
        picked = [told.events[one - 1] for one in versions if one <= told.version]
        assert self.do(store.pick(told.id, versions)) == picked

    def _read_context(self, told: Told, store: Store, at: int, size: int) -> None:
        """A range of the context, at a version."""
        version, start = told.version - at % told.version, at % 7
        wanted = told.contexts[version].placed()
        assert self.do(store.context(told.id, version=version)) == wanted
        kept = [one for one in wanted if start <= one.ordinal < start + size]
        between = partial(store.context, told.id, start=start, stop=start + size)
        assert self.do(between(version=version)) == kept
        last = self.do(between(version=version, last=1 + size % 4))
        assert last == kept[-1 - size % 4 :]

    def _find(self, told: Told, store: Store, at: int, size: int) -> None:
        """An item that stands in the context, and one that does not."""
        places = told.context.placed()
        assert self.do(store.find(told.id, key="never")) == []
        if places:
            one = places[at % len(places)]
            assert one in self.do(store.find(told.id, key=one.key))
            call_id, item_id = one.call_id or "never", one.item_id or "never"
            same = [placed for placed in places if placed.call_id == call_id]
            assert self.do(store.find(told.id, call_id=call_id)) == same
            same = [placed for placed in places if placed.item_id == item_id]
            assert self.do(store.find(told.id, item_id=item_id)) == same

    def _read_turns(self, told: Told, store: Store, at: int, size: int) -> None:
        """Turns, by id, by key, and the latest first."""
        turns = sorted(told.turns.values(), key=lambda row: row.started, reverse=True)
        assert self.do(store.turns(told.id, limit=1 + size % 3)) == turns[: 1 + size % 3]
        for row in turns[:2]:
            assert self.do(store.turn(told.id, id=row.turn)) == row
            assert self.do(store.turn(told.id, key=row.key)) == row
            older = [one for one in turns if one.started < row.started]
            assert self.do(store.turns(told.id, before=row.started)) == older

    def _read_lists(self, told: Told, store: Store, at: int, size: int) -> None:
        """What lists show: conversations, open calls, what dead owners left."""
        rows = sorted((self._row(told) for told in self.told.values()), key=lambda row: row.id)
        above, limit = rows[at % len(rows)].id, 1 + size % 6
        page = [row for row in rows if row.id > above][:limit]
        assert self.do(store.conversations(after=above, limit=limit)) == page
        red = [row for row in rows if row.metadata == {"team": "red"}]
        assert self.do(store.conversations(metadata={"team": "red"})) == red
        busy = [row for row in rows if row.status == "busy"]
        assert self.do(store.conversations(status="busy")) == busy
        orphans = [row.id for row in rows if row.orphaned]
        assert sorted(self.do(store.orphans())) == orphans
        calls = [call for told in self.told.values() for call in told.calls.values()]
        calls.sort(key=lambda call: (call.conversation, call.call))
        assert self.do(store.pending(limit=100)) == calls

    def _row(self, told: Told) -> ConversationRow:
        state = told.states[-1]
        return ConversationRow(
            id=told.id,
            version=told.version,
            status=state.status,
            agent=state.config.agent if state.config is not None else None,
            model=state.config.model if state.config is not None else None,
            turns=len(told.turns),
            items=len(told.context.slots),
            metadata=state.metadata,
            created=told.events[0].time,
            updated=told.events[-1].time,
            fork_of=state.fork.conversation if state.fork is not None else None,
            turn=told.turn,
            orphaned=told.owner is not None and told.owner not in self.stores,
        )

    def _follow(self, told: Told, store: Store, at: int, size: int) -> None:
        """The log from any checkpoint: no gaps, nothing twice, nothing left out."""
        ends = dict(self.ends[at % len(self.ends)])
        seen = self.do(_followed(store, ends, 1 + size))
        for partition, position, one in seen:
            known = self.where.setdefault((partition, position), (one.conversation, one.version))
            assert known == (one.conversation, one.version), "a position holds another event now"
            assert one == self.told[one.conversation].events[one.version - 1]
        self.ends.append(ends)
        assert len(self.where) == sum(ends.values()), "positions have gaps"
        assert len(self.where) == sum(told.version for told in self.told.values())

    # -- owners ----------------------------------------------------------------------------

    @precondition(lambda self: len(self.stores) < OWNERS)
    @rule()
    def join(self) -> None:
        """One more owner opens the data."""
        self.stores.append(self.do(self.database.open()))

    @rule(by=some, what=st.sampled_from(LIVES))
    def live(self, by: int, what: str) -> None:
        """Owners close, die, or make way for an upgrade; and others open."""
        if what == "upgrade":
            self._upgrade()
        elif what == "crash":
            self._crash()
        else:
            self._restart(by)

    def _restart(self, by: int) -> None:
        """An owner closes, whatever it holds, and another one opens."""
        store = self.stores.pop(by % len(self.stores))
        self.do(store.close())
        self.stores.append(self.do(self.database.open()))
        self.ran["restarts"] += 1

    def _crash(self) -> None:
        """Every owner dies."""
        stores, self.stores = self.stores, []
        self.do(self.database.crash(stores))
        self.stores.append(self.do(self.database.open()))
        self.ran["crashes"] += 1

    def _upgrade(self) -> None:
        """Everybody closes, the data is as an older schema had it, and it is opened again."""
        stores, self.stores = self.stores, []
        for store in stores:
            self.do(store.close())
        self.do(self.database.age())
        self.stores.append(self.do(self.database.open()))
        self.ran["upgrades"] += 1

    # -- all of it -------------------------------------------------------------------------

    def _verify(self, told: Told, store: Store, at: int, size: int) -> None:
        """A conversation, its lease and what stands beside it."""
        self.do(self._verified(told, store))

    async def _verified(self, told: Told, store: Store) -> None:
        head = await store.head(told.id)
        assert head is not None and head.state == told.states[-1]
        assert head.epoch == told.epoch
        assert (head.owner is None, head.mine) == (told.owner is None, told.owner is store)
        assert head.alive == (told.owner in self.stores)
        assert await store.events(told.id, limit=10_000) == told.events
        assert await store.context(told.id) == told.context.placed()
        assert await store.check(told.id) == []

    @rule(which=some, by=some, backup=st.integers(0, 3))
    def copy(self, which: int, by: int, backup: int) -> None:
        """A backup holds all of it, and an export a conversation with its ancestors."""
        store = self.by(by)
        self.do(self._exported(self.one(which), store))
        self.ran["exports"] += 1
        copy = self.do(self.database.copied(store)) if backup == 3 else None
        if copy is not None:
            self.do(self._same(copy))
            self.do(copy.close())
            self.ran["backups"] += 1

    async def _same(self, store: Store) -> None:
        for told in self.told.values():
            assert await store.events(told.id, limit=10_000) == told.events
            assert await store.check(told.id) == []
        assert len(await store.conversations(limit=100)) == len(self.told)

    async def _exported(self, told: Told, store: Store) -> None:
        """It is imported elsewhere as it is, and is there already where it came from."""
        lines = [line async for line in export(store, told.id)]
        elsewhere = MemoryStore()
        done = await import_lines(elsewhere, lines)
        assert done.written == len(lines) - 1
        assert await elsewhere.events(told.id, limit=10_000) == told.events
        assert keys(await elsewhere.context(told.id)) == keys(told.context.placed())
        assert [line async for line in export(elsewhere, told.id)] == lines
        assert (await import_lines(store, lines)).written == 0

    def teardown(self) -> None:
        """Everything is there when all is over, and once more after a restart."""
        try:
            for told in self.told.values() if self.stores else ():
                self._restart(0)
                self.do(self._verified(told, self.stores[-1]))
        finally:
            for store in self.stores:
                self.do(store.close())
            self.do(self.database.close())
            self.runner.close()


async def _followed(
    store: Store, ends: dict[int, int], limit: int
) -> list[tuple[int, int, Recorded]]:
    """Everything above a checkpoint, in pages; the checkpoint moves along."""
    seen: list[tuple[int, int, Recorded]] = []
    while page := await store.follow(ends, limit=limit):
        assert len(page) <= limit
        for partition, position, _ in page:
            assert position == ends.get(partition, 0) + 1, "positions have gaps"
            ends[partition] = position
        seen += page
    return seen


# -- running it ----------------------------------------------------------------------------


def store_machine(make: Callable[[], Database]) -> type[StoreModel]:
    """The machine for a database; `.TestCase` of it is what unittest and pytest collect."""

    class Machine(StoreModel):
        """The machine for one kind of database."""

        ran: ClassVar[Counter[str]] = Counter()

        def make(self) -> Database:
            """The data of one example."""
            return make()

    return Machine


def run_model(
    make: Callable[[], Database], *, examples: int = 30, steps: int = 40, shrink: bool = True
) -> Mapping[str, int]:
    """Run the machine; how often it did what.

    The same histories every time, unless TURNLOG_HISTORIES says how many others there are to be.
    Raises what the store got wrong, with the shortest history that shows it; the first one that
    was found, without `shrink`.
    """
    machine = store_machine(make)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=MANY or examples,
            stateful_step_count=steps,
            derandomize=not MANY,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
    return machine.ran
