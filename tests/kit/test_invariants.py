"""The invariants hold of a real log, and each of them sees what was planted against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

import turnlog
from turnlog import events as ev
from turnlog.canonical import GENESIS, JsonObject
from turnlog.draft import Ambient
from turnlog.errors import IdConflict, VersionConflict
from turnlog.ports import Append, Appended, Finding, Head, Store
from turnlog.record import NewEvent, Recorded, Stamp, record
from turnlog.state import State, replay, start
from turnlog.store import MemoryStore, open_store
from turnlog.testing import call, calls, error, scripted, text
from turnlog.testing.deeds import Effect, Known, Life, acted, legal, lives
from turnlog.testing.invariants import beginning, violations
from turnlog.testing.rules import (
    Place,
    Violation,
    asked_rightly,
    chained,
    folded,
    kept,
    numbered,
    positioned,
    told_once,
)
from turnlog.testing.store_contract import Author, added, answered, called, prepared
from turnlog.testing.witness import Witness


def rules(found: Sequence[Violation]) -> list[str]:
    """Which rules were broken, each once."""
    return sorted({one.rule for one in found})


# -- a real log ----------------------------------------------------------------------------


class Told:
    """What the world saw of a log: effects of its tools, and the requests."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.requests: list[JsonObject] = []

    def agent(self) -> turnlog.Agent:
        """Tools that act, one of which needs somebody's word."""

        def add(ctx: turnlog.ToolContext[None], a: int, b: int) -> int:
            self.effects.append(Effect(key=ctx.idempotency_key, run=ctx.run))
            return a + b

        @turnlog.tool(needs_approval=True)
        def pay(ctx: turnlog.ToolContext[None]) -> str:
            self.effects.append(Effect(key=ctx.idempotency_key, run=ctx.run))
            return "paid"

        return turnlog.Agent("sums", model="gpt-5", tools=[add, pay])


async def converse(store: Store, told: Told) -> None:
    """Turns with tools, a retry, an approval and an edit; then a fork that goes on."""
    script = [
        calls(call("add", a=1, b=2), call("add", a=3, b=4)),
        error(503),
        text("Three and seven."),
        call("pay"),
        text("Paid."),
        text("Fine."),
        text("Another future."),
    ]
    transport, ticks = scripted(script), count(1_700_000_000_000_000, 60_000_000)
    agent, ambient = told.agent(), Ambient(now=lambda: next(ticks))
    async with turnlog.open(
        "unused", store=store, agents=[agent], transport=transport, ambient=ambient
    ) as log:
        chat = await log.conversation("ana", agent=agent)
        await chat.run("Add.")
        turn = await chat.send("Pay.")
        assert (await turn.result()).status == "waiting"
        for one in (await chat.state()).pending:
            await one.approve()
        await (await turn.resume()).result()
        items = await chat.items()
        await chat.edit(items[-1].key, {"role": "assistant", "content": "Paid, all of it."})
        await chat.run("Thanks.")
        branch = await chat.fork("branch")
        assert (await branch.run("And else?")).output_text == "Another future."
        told.requests = list(transport.requests)


@pytest.mark.parametrize("where", ["sqlite", "memory"])
async def test_the_invariants_hold_of_a_real_log(where: str, tmp_path: Path) -> None:
    told = Told()
    first = MemoryStore(partitions=3) if where == "memory" else await open_store(tmp_path / "a.db")
    second = first.beside() if isinstance(first, MemoryStore) else None
    await converse(first, told)
    store = second or await open_store(tmp_path / "a.db")
    places, head = await store.follow({}, limit=1000), await store.head("ana")
    assert head is not None
    assert len(told.effects) == 3 and len(told.requests) == 7
    for samples in (3, 1000):
        found = await violations(
            store,
            acknowledged=[one.id for _, _, one in places],
            requests=told.requests,
            effects=told.effects,
            anchors={"ana": [(head.state.version, head.state.hash)]},
            samples=samples,
        )
        assert found == []
    # The same requests could not have been sent once more, nor could the tools have run.
    assert rules(await violations(store, requests=told.requests * 2)) == ["I7"]
    assert rules(await violations(store, effects=told.effects * 2, repeat=False)) == ["I8"]
    assert rules(await violations(store, anchors={"ana": [(2, "00" * 32)]})) == ["I6"]
    await store.close()


async def test_a_witness_remembers_what_it_saw() -> None:
    told, store = Told(), MemoryStore()
    witness, author = Witness(store.beside()), Author("c")
    first = author.begin()
    await store.append(first)
    assert await witness.look([first.events[0].id]) == []
    assert witness.ids == {first.events[0].id}
    await converse(store.beside(), told)
    assert await witness.look(witness.ids, told.effects, repeat=True) == []
    assert await witness.look() == []
    found = await witness.look(["evt_lost"], told.effects * 2)
    assert rules(found) == ["I1", "I8"]


async def test_a_witness_sees_a_past_that_became_another_one() -> None:
    store = MemoryStore()
    await store.append(Author("c").begin())
    witness = Witness(store.beside())
    assert await witness.look() == []
    other, forged = MemoryStore(), Author("c", now=5)
    await other.append(forged.begin())
    await other.append(forged.write(added("k")))
    witness.store = other
    assert rules(await witness.look()) == ["I3"]


# -- what is planted -----------------------------------------------------------------------


def log_of(*events: ev.Event, conversation: str = "c") -> list[Recorded]:
    """Events in one chain."""
    numbers = range(len(events))
    stamp = Stamp(
        time=1,
        actor="test",
        epoch=None,
        ids=[f"{conversation}-{number}" for number in numbers],
        salts=[number.to_bytes(16, "big") for number in numbers],
    )
    return record(conversation, 0, GENESIS, [NewEvent(event=event) for event in events], stamp)


def placed(log: Sequence[Recorded]) -> list[Place]:
    """The events at positions from 1."""
    return [(0, position, one) for position, one in enumerate(log, 1)]


PLAIN = log_of(ev.ConversationStarted(id="c"), added("a"), added("b"))


def test_i1_sees_what_is_lost_and_what_is_there_twice() -> None:
    assert not list(kept(PLAIN, ["c-0", "c-2", "c-2"]))
    (lost,) = kept(PLAIN, ["c-7", "c-1"])
    assert (lost.rule, lost.what) == ("I1", "event c-7 was acknowledged and is there 0 times")
    twice = list(kept([*PLAIN, PLAIN[1]], ["c-1"]))
    assert [one.conversation for one in twice] == ["c", None]


def test_i2_sees_a_gap() -> None:
    assert not list(numbered("c", PLAIN))
    (gap,) = numbered("c", [PLAIN[0], PLAIN[2]])
    assert (gap.rule, gap.what) == ("I2", "version 3 stands where 2 should")


def test_i3_sees_gaps_and_another_order() -> None:
    places = placed(PLAIN)
    assert not list(positioned(places))
    assert [one.what for one in positioned([places[0], (0, 3, PLAIN[1])])] == [
        "position 3 follows 1 in partition 0"
    ]
    swapped = list(positioned(placed([PLAIN[0], PLAIN[2], PLAIN[1]])))
    assert rules(swapped) == ["I3"] and {one.conversation for one in swapped} == {"c"}


def test_i4_sees_what_a_follower_misses_or_is_told_twice() -> None:
    whole = placed(PLAIN)
    later = (0, 4, PLAIN[0])
    assert not list(told_once(whole, {0: 1}, [*whole[1:], later]))
    for rest in ([], whole[2:], [whole[1], whole[1], whole[2]], [whole[2], whole[1]]):
        (wrong,) = told_once(whole, {0: 1}, rest)
        assert (wrong.rule, wrong.what[-14:]) == ("I4", "something else")


def test_i5_sees_a_head_and_a_snapshot_that_the_log_does_not_make() -> None:
    base, head = start("c"), replay(start("c"), PLAIN)
    assert not list(folded(base, PLAIN, [head, base], range(9)))
    wrong = list(folded(base, PLAIN, [replace(head, next=7), replace(head, version=9)], []))
    assert rules(wrong) == ["I5"] and len(wrong) == 2
    # A tuple is a list once it was read again, so that this state is not what it was.
    odd = replace(base, metadata={"n": (1,)})
    events = log_of(added("a"))
    assert [one.what for one in folded(odd, events, [], [0])] == [
        "a snapshot at version 0 and the rest fold to another state"
    ]


def test_i6_sees_a_changed_event_and_a_past_that_is_another() -> None:
    base = start("c")
    anchors = [(2, PLAIN[1].hash.hex())]
    assert not list(chained(base, PLAIN, anchors))
    forged = replace(PLAIN[1], actor="mallory")
    (broken,) = chained(base, [PLAIN[0], forged, PLAIN[2]], anchors)
    assert (broken.rule, broken.what) == ("I6", "the hash of version 2 does not follow")
    assert rules(list(chained(base, PLAIN[:1], anchors))) == ["I6"]


def test_i7_sees_requests_that_the_log_does_not_allow() -> None:
    asked: list[ev.Event] = called("att", "c1")
    good = log_of(prepared("att"), *asked, answered("c1"), prepared("next"))
    assert not list(asked_rightly(start("c"), good))
    early = log_of(prepared("att"), *asked, prepared("next"))
    assert [one.what for one in asked_rightly(start("c"), early)] == [
        "next goes out while call-c1 waits"
    ]
    doubled = log_of(prepared("att"), prepared("next"))
    assert [one.what for one in asked_rightly(start("c"), doubled)] == [
        "next goes out while att is open"
    ]
    over = ev.ResponseUnknown(attempt="att", reason="crashed")
    twice = log_of(prepared("att"), over, over)
    assert [one.what for one in asked_rightly(start("c"), twice)] == ["att ends, and was not open"]


CALL: JsonObject = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
OUTPUT: JsonObject = {"type": "function_call_output", "call_id": "c1", "output": "42"}
HOSTED: JsonObject = {"type": "tool_search_call", "call_id": "c2", "execution": "server"}
FOUND: JsonObject = {"type": "tool_search_output", "call_id": "c2", "execution": "server"}


@pytest.mark.parametrize(
    ("parent", "input", "wrong"),
    [
        (None, [CALL, OUTPUT], []),
        (None, [HOSTED, FOUND], []),
        (None, [CALL], ["the call c1 has no output"]),
        (None, [OUTPUT], ["an output answers c1, which nobody asked for, or which has one"]),
        (
            None,
            [CALL, OUTPUT, OUTPUT],
            ["an output answers c1, which nobody asked for, or which has one"],
        ),
        ("r-att", [OUTPUT], []),
        ("r-att", [{"role": "user", "content": "Hm?"}], ["the call c1 has no output"]),
        ("r-none", [], ["it continues from r-none, which the log does not know as completed"]),
        ("r-warm", [], []),
    ],
)
def test_i7_sees_bodies_that_are_not_legal(
    parent: str | None, input: list[JsonObject], wrong: list[str]
) -> None:
    warmed = ev.ProviderNoted(kind="warmed", data={"response": "r-warm"})
    known = Known.of(log_of(prepared("att"), *called("att", "c1"), warmed))
    body: JsonObject = {"input": input}
    if parent is not None:
        body = {**body, "previous_response_id": parent}
    found = [one.what.removeprefix("request 0: ") for one in legal([body], known)]
    assert found == [*wrong, "it was prepared 0 times and sent oftener"]
    assert not list(legal([{**body, "generate": False}], known))


UNSURE = ev.CallUncertain(call="call-c1", reason="crashed")
AGREED = ev.CallApproved(call="call-c1")


def runs(*events: ev.Event) -> list[Recorded]:
    """The log of a call that is asked for, and of what becomes of it."""
    return log_of(prepared("att"), *called("att", "c1"), *events)


def started(run: int) -> ev.CallStarted:
    """A start of that call."""
    return ev.CallStarted(call="call-c1", run=run)


def test_i8_sees_a_tool_that_is_started_twice() -> None:
    assert lives("c", runs(started(1), UNSURE, AGREED, started(2)), ())[1] == []
    assert lives("c", runs(started(1), UNSURE, started(2)), {"look"})[1] == []
    for events, again in (
        ([started(1), started(2)], {"look"}),
        ([started(1), AGREED, started(2)], ()),
        ([AGREED, started(1), UNSURE, started(2)], ()),
        ([started(1), UNSURE, AGREED, started(2), started(3)], ()),
    ):
        (wrong,) = lives("c", runs(*events), again)[1]
        assert (wrong.rule, wrong.what[-14:]) == ("I8", "had allowed it")
    (wrong,) = lives("c", runs(started(2)), ())[1]
    assert wrong.what == "look (call-c1) is run 2 after 0"


def test_i8_takes_up_what_it_knows_nothing_of() -> None:
    """A call whose request is not in the log may still not run twice."""
    stray: list[ev.Event] = [started(1), UNSURE, AGREED, started(2)]
    assert lives("c", log_of(UNSURE, AGREED, *stray), ())[1] == []
    assert len(lives("c", log_of(started(1), started(2)), ())[1]) == 1


def test_i8_sees_an_effect_without_a_start_and_one_that_came_twice() -> None:
    starts = {"k": Life("look", runs=2)}
    one, two = Effect(key="k"), Effect(key="k", run=2)
    assert not list(acted([one, two], starts))
    (twice,) = acted([one, two, two], starts)
    assert twice.what == "run 2 of k acted 2 times"
    for stray in (Effect(key="k", run=3), Effect(key="k", run=0), Effect(key="other")):
        (wrong,) = acted([stray], starts)
        assert (wrong.rule, wrong.what[-26:]) == ("I8", "no start of it is recorded")


# -- stores that do not keep what they promise ---------------------------------------------


class Forgetful(MemoryStore):
    """It writes what it has once more, or so it says."""

    async def append(self, append: Append) -> Appended:
        """Say that it is new."""
        appended = await super().append(append)
        return replace(appended, already=False)


class Careless(MemoryStore):
    """It does not look at what stands under an id."""

    async def append(self, append: Append) -> Appended:
        """Take everything for what is there already."""
        try:
            return await super().append(append)
        except IdConflict:
            return Appended(append.head.version, already=True)


class Stubborn(MemoryStore):
    """It looks at versions alone."""

    async def append(self, append: Append) -> Appended:
        """Refuse what is there already, and what is there under its id."""
        if append.expected < len(await self.events(append.conversation)):
            raise VersionConflict(append.conversation, expected=append.expected, actual=9)
        return await super().append(append)


class Headless(MemoryStore):
    """It lost its heads."""

    async def head(self, conversation: str) -> Head | None:
        """None."""


class Stale(MemoryStore):
    """Its heads are those of another log."""

    async def head(self, conversation: str) -> Head | None:
        """A head that is not the log's."""
        head = await super().head(conversation)
        return head and replace(head, state=replace(head.state, turns=9))


class Shifty(MemoryStore):
    """It tells followers another story than readers."""

    async def follow(self, positions: Mapping[int, int], *, limit: int = 500) -> list[Place]:
        """The events with another actor."""
        places = await super().follow(positions, limit=limit)
        return [(part, at, replace(one, actor="mallory")) for part, at, one in places]


class Doubtful(MemoryStore):
    """It finds fault with itself."""

    async def check(self, conversation: str) -> list[Finding]:
        """A fault of an event, and one of what stands beside the log."""
        return [
            Finding(conversation=conversation, version=version, problem="it is wrong")
            for version in (1, None)
        ]


class Rewriting(MemoryStore):
    """What it is asked to write once more replaces what is there."""

    async def append(self, append: Append) -> Appended:
        """Write over it."""
        appended = await super().append(append)
        if appended.already:
            events = self.shelf.kept[append.conversation].events
            events[-1] = replace(events[-1], actor="mallory")
        return appended


@pytest.mark.parametrize(
    ("planted", "broken"),
    [
        (MemoryStore, []),
        (Forgetful, ["I9"]),
        (Careless, ["I9"]),
        (Stubborn, ["I9"]),
        (Headless, ["I5"]),
        (Stale, ["I5"]),
        (Shifty, ["I3"]),
        (Doubtful, ["I5", "I6"]),
        (Rewriting, ["I9"]),
    ],
)
async def test_a_store_that_breaks_its_word_is_found_out(
    planted: Callable[[], MemoryStore], broken: list[str]
) -> None:
    store, author = planted(), Author("c")
    for append in (author.begin(), author.write(added("a")), author.write(added("b"))):
        await store.append(append)
    assert rules(await violations(store)) == broken
    await store.close()


async def test_a_fork_without_its_source_is_found_out() -> None:
    store, author = MemoryStore(), Author("c")
    await store.append(author.begin())
    branch, first = Author.fork(author.state, "branch")
    await store.append(branch.write(first))
    assert await violations(store) == []
    del store.shelf.kept["c"]
    store.shelf.logs[0] = [one for one in store.shelf.logs[0] if one.conversation != "c"]
    (found,) = await violations(store, repeat=False)
    assert (found.rule, found.conversation) == ("I6", "branch")


def test_where_a_conversation_begins() -> None:
    fork = ev.Fork(conversation="c", version=2, hash=PLAIN[1].hash.hex())
    branch = log_of(ev.ConversationStarted(id="d", fork=fork), conversation="d")
    base = beginning("d", {"d": branch, "c": PLAIN})
    assert isinstance(base, State) and base.hash == fork.hash
    assert beginning("d", {"d": branch}) is None
    assert beginning("d", {"d": branch, "c": PLAIN[:1]}) is None
    assert beginning("e", {}) == start("e")
