"""Random histories: SQLite, memory and a plain list agree on the context at every version."""

from __future__ import annotations

import asyncio
import copy
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnlog import events as ev
from turnlog.ports import Placed, Store
from turnlog.store import MemoryStore, open_store
from turnlog.testing.store_contract import Author, added, called, keys, message, prepared

Draw = random.Random


@dataclass
class Model:
    """A context as a list of keys; None is a place that was emptied."""

    places: list[str | None] = field(default_factory=list[str | None])
    committed: int = 0
    end: int | None = None
    outputs: list[str] = field(default_factory=list[str])
    unanswered: list[str] = field(default_factory=list[str])

    def step(self, event: ev.Event) -> None:
        match event:
            case ev.RequestPrepared():
                self.end, self.outputs = len(self.places), []
            case ev.OutputRecorded():
                self.outputs.append(event.key)
            case ev.ResponseRejected():
                self.end = None
            case ev.ResponseCompleted():
                assert self.end is not None
                self.places[self.end : self.end] = self.outputs
                self.committed, self.end = self.end + len(self.outputs), None
            case _:
                self._step(event)

    def _step(self, event: ev.Event) -> None:
        match event:
            case ev.ItemAdded(ordinal=None):
                self.places.append(event.key)
            case ev.ItemAdded(ordinal=int() as ordinal):
                self.places.insert(ordinal, event.key)
                self.committed += ordinal < self.committed
            case ev.ItemEdited():
                self.places[event.ordinal] = event.key
            case ev.ItemRemoved():
                self.places[event.ordinal] = None
            case ev.CallRequested():
                self.unanswered.append(event.call)
            case ev.CallAnswered():
                self.unanswered.remove(event.call)
                self.places.append(event.key)
            case _:
                pass

    @property
    def standing(self) -> list[str]:
        return [key for key in self.places if key is not None]

    def branch(self) -> Model:
        return Model(places=self.places[: self.committed], committed=self.committed)


def changes(model: Model, draw: Draw, name: Iterator[str]) -> list[ev.Event]:
    """What a caller does to the context while no request is out."""
    taken = [place for place, key in enumerate(model.places) if key is not None]
    what = draw.choice(["add", "insert", "edit", "remove"])
    key = next(name)
    if what == "add" or (what != "insert" and not taken):
        return [added(key)]
    if what == "insert":
        return [added(key, ordinal=draw.randint(0, max(0, len(model.places) - 1)))]
    ordinal = draw.choice(taken)
    if what == "edit":
        return [ev.ItemEdited(key=key, item=message(key), ordinal=ordinal)]
    return [ev.ItemRemoved(key=key, ordinal=ordinal)]


def request(draw: Draw, name: Iterator[str]) -> list[ev.Event]:
    """A request, what the caller adds meanwhile, and its outcome."""
    attempt = next(name)
    more: list[ev.Event] = [added(next(name)) for _ in range(draw.randint(0, 2))]
    calls = [next(name) for _ in range(draw.randint(0, 3))]
    if draw.random() < 0.5:
        return [prepared(attempt), *more, *called(attempt, *calls)]
    return [prepared(attempt), *more, ev.ResponseRejected(attempt=attempt)]


def next_events(model: Model, draw: Draw, name: Iterator[str]) -> list[ev.Event]:
    choice = draw.randint(0, 3)
    if choice == 0:
        return request(draw, name)
    if choice == 1 and model.unanswered:
        call = draw.choice(model.unanswered)
        item = {"type": "function_call_output", "call_id": call.removeprefix("call-")}
        return [ev.CallAnswered(call=call, key=next(name), item={**item, "output": "42"})]
    return changes(model, draw, name)


@dataclass
class History:
    """A conversation, the model beside it, and what the model said at each version."""

    author: Author
    model: Model
    said: dict[int, list[str]] = field(default_factory=dict[int, list[str]])

    async def write(self, stores: list[Store], events: list[ev.Event]) -> None:
        version = self.author.state.version
        for event in events:
            version += 1
            self.model.step(event)
            self.said[version] = self.model.standing
        append = self.author.write(*events, turn="t")
        for store in stores:
            await store.append(append)

    async def verify(self, stores: list[Store]) -> None:
        sql, memory = stores
        id = self.author.id
        for version, wanted in self.said.items():
            places = await sql.context(id, version=version)
            assert keys(places) == wanted, (id, version)
            assert await memory.context(id, version=version) == places
            for last in (1, 3):
                tail = places[-last:]
                assert await sql.context(id, version=version, last=last) == tail
                assert await memory.context(id, version=version, last=last) == tail
        for store in stores:
            assert await store.check(id) == []
            await self._found(store, await store.context(id))

    async def _found(self, store: Store, places: list[Placed]) -> None:
        for placed in places[:5]:
            assert placed in await store.find(self.author.id, key=placed.key)


async def example(stores: list[Store], number: int, draw: Draw) -> None:
    name = (f"k{count}" for count in itertools.count())
    trunk = History(Author(f"h{number}"), Model())
    await trunk.write(stores, [ev.ConversationStarted(id=trunk.author.id)])
    histories = [trunk]
    for _ in range(draw.randint(1, 12)):
        history = draw.choice(histories)
        if len(histories) < 4 and draw.randint(0, 4) == 0:
            author, first = Author.fork(history.author.state, f"h{number}.{len(histories)}")
            fork = History(author, history.model.branch())
            await fork.write(stores, [first])
            histories.append(fork)
            continue
        events: list[ev.Event] = []
        ahead = copy.deepcopy(history.model)
        for _ in range(draw.randint(1, 3)):
            more = next_events(ahead, draw, name)
            for event in more:
                ahead.step(event)
            events += more
        await history.write(stores, events)
    for history in histories:
        await history.verify(stores)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def test_every_store_agrees_with_a_list(runner: asyncio.Runner, tmp_path: Path) -> None:
    sql = runner.run(open_store(tmp_path / "log.db", durability="process"))
    stores: list[Store] = [sql, MemoryStore()]
    numbers = itertools.count()

    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.randoms(use_true_random=False))
    def agrees(draw: Draw) -> None:
        runner.run(example(stores, next(numbers), draw))

    try:
        agrees()
    finally:
        runner.run(sql.close())
