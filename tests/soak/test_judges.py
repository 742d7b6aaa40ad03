"""Those who judge a soak see what they are there to see; each is shown it once, on purpose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.record import Recorded
from turnlog.result import TurnResult
from turnlog.store import MemoryStore
from turnlog.testing import call, scripted, text
from turnlog.updates import Cursor, Delta, Update

from .ledger import Ledger
from .memory import growth, heap
from .meter import Meter
from .said import Said
from .soak import Soak
from .story import LOADS, Model, fork_of, name_of, plan, token

Change = Callable[[list[Recorded]], list[Recorded]]


def test_a_slow_leak_is_seen_behind_noise() -> None:
    """Two per cent a minute are more than one, however memory jumps about; noise alone is not."""
    noise = [(float(second), 100 + (second % 7) / 7) for second in range(600)]
    leak = [(second, size + second / 30) for second, size in noise]
    assert abs(growth(noise, after=200).share) < 0.001
    assert 0.01 < growth(leak, after=200).share < 0.02


def test_what_was_held_before_everything_was_warm_does_not_count() -> None:
    """A line through the beginning too would rise."""
    samples = [(float(second), float(min(second, 200))) for second in range(600)]
    assert growth(samples, after=0).share > 0.01
    assert growth(samples, after=200).share == pytest.approx(0)


def asked(*words: str) -> JsonObject:
    """A request with these inputs of the user."""
    parts = [[{"type": "input_text", "text": f"{word}, please."}] for word in words]
    return {"input": [{"type": "message", "role": "user", "content": part} for part in parts]}


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ([token(1, 1), token(1, 2)], False),
        ([token(2, 1), token(1, 2)], True),
        ([token(1, 2), token(1, 1)], True),
        ([token(1, 1), token(1, 1)], True),
        (["nothing"], True),
    ],
)
def test_the_provider_sees_who_asks_for_what(words: list[str], wrong: bool) -> None:
    """Texts of another conversation, in another order, twice, and of nobody."""
    model = Model("1", LOADS["short"])
    model(asked(*words))
    assert bool(model.wrong) == wrong


def test_the_provider_knows_who_asks_when_a_tool_was_given_up() -> None:
    """What says that nothing is known names no turn; a stranger's output is wrong all the same."""
    model = Model("1", LOADS["hour"])
    output = {"type": "function_call_output", "call_id": "call_1", "output": "Unknown."}
    model({**asked(token(1, 7)), "instructions": name_of(1)})
    model({"input": [output], "instructions": name_of(1)})
    assert model.wrong == []
    model({"input": [output], "instructions": name_of(2)})
    assert model.wrong


async def test_the_ledger_sees_where_a_fork_goes_on() -> None:
    """A fork continues from the response that its source stood at, and from no other.

    What no request has taken so far goes along; here that is the output of an abandoned call.
    """

    async def note(token: str, n: int) -> str:
        await asyncio.Event().wait()
        return token

    script = [call("note", token=token(1, 1), n=0), text(f"{token(1, 2)}w0")]
    agent = turnlog.Agent("judged", model="gpt-5", tools=[note])
    opening = turnlog.open(":memory:", transport=scripted(script), store=MemoryStore())
    async with opening as log:
        chat = await log.conversation(name_of(1), agent=agent)
        turn = await chat.send(f"{token(1, 1)}, please.")
        async for update in turn:
            if update.type == "call.started":
                await turn.cancel()
        branch = await chat.fork(fork_of(1, 2))
        await branch.run(f"{token(1, 2)}, please.")
        told = [followed.event async for followed in log.follow(wait=False)]
    for log_, wrong in ((told, False), (other_parent(told), True)):
        ledger = Ledger()
        for one in log_:
            ledger.take(one)
        ledger.close()
        assert bool(ledger.wrong) == wrong, ledger.wrong
    assert ledger.counts["requests delta"] == 1


def test_what_a_thread_allocates_counts_as_in_use_until_it_is_freed() -> None:
    """A thread has a heap of its own; what SQLite keeps in one must not be overlooked."""
    before = heap()
    if before is None:
        pytest.skip("this system's library does not say what it has in use")
    kept: list[bytearray] = []
    thread = Thread(target=lambda: kept.extend(bytearray(1 << 16) for _ in range(64)))
    thread.start()
    thread.join()
    during = heap()
    kept.clear()
    after = heap()
    assert during is not None and after is not None
    assert during.in_use - before.in_use == pytest.approx(4, abs=0.5)
    assert during.held >= during.in_use
    assert after.in_use - before.in_use < 0.5


async def test_a_sample_says_how_many_turns_were_under_way_since_the_last_one() -> None:
    """At most, and not only at that moment: that is what memory was needed for."""
    meter = Meter(Path("soak.db"), 60.0)
    with meter.taking():
        with meter.taking():
            pass
        between = meter.sample(1.0)
    after = [meter.sample(2.0), meter.sample(3.0)]
    assert (between["under_way"], between["under_way_most"]) == (1, 2)
    assert [one["under_way_most"] for one in after] == [1, 0]


def test_a_window_says_what_happened_in_it_and_forgets() -> None:
    """How long things took, by name; the next window begins with nothing."""
    meter = Meter(Path("soak.db"), 60.0)
    meter.turns = 30
    for number in range(100):
        meter.note("append", (number + 1) / 1000)
    meter.close_window(60.0)
    meter.close_window(120.0)
    first, second = (json.loads(row) for row in meter.windows)
    assert (first["turns_per_s"], first["append_p50_ms"], first["append_p99_ms"]) == (0.5, 51, 100)
    assert second["turns_per_s"] == 0 and "append_p50_ms" not in second


async def recorded() -> list[Recorded]:
    """The log of a turn with a call, and of one without."""

    def note(token: str, n: int) -> str:
        return f"{token} noted {n}"

    first, second = token(1, 1), token(1, 2)
    script = [call("note", token=first, n=0), text(f"{first}w0"), text(f"{second}w0")]
    agent = turnlog.Agent("judged", model="gpt-5", tools=[note])
    opening = turnlog.open(
        ":memory:", agents=[agent], transport=scripted(script), store=MemoryStore()
    )
    async with opening as log:
        chat = await log.conversation(name_of(1), agent=agent)
        for word in (first, second):
            await chat.run(f"{word}, please.")
        return [followed.event async for followed in log.follow(wait=False)]


def without(kind: type[ev.Event]) -> Change:
    """The log without the first event of a kind, and numbered as if nothing was missing."""

    def change(told: list[Recorded]) -> list[Recorded]:
        place = next(n for n, one in enumerate(told) if isinstance(one.event, kind))
        return renumbered([*told[:place], *told[place + 1 :]])

    return change


def twice(kind: type[ev.Event]) -> Change:
    """The log with the first event of a kind twice."""

    def change(told: list[Recorded]) -> list[Recorded]:
        place = next(n for n, one in enumerate(told) if isinstance(one.event, kind))
        return renumbered([*told[: place + 1], *told[place:]])

    return change


def renumbered(told: Sequence[Recorded]) -> list[Recorded]:
    """The same, with versions that count up."""
    return [replace(one, version=number) for number, one in enumerate(told, start=1)]


def foreign(told: list[Recorded]) -> list[Recorded]:
    """The log of a conversation as if it were another's."""
    return [replace(one, conversation=name_of(2)) for one in told]


def beheaded(told: list[Recorded]) -> list[Recorded]:
    """The log without its first event."""
    return told[1:]


def other_parent(told: list[Recorded]) -> list[Recorded]:
    """The log in which a request continues from somewhere else."""
    return [
        replace(one, event=replace(one.event, parent="resp_of_another"))
        if isinstance(one.event, ev.RequestPrepared)
        else one
        for one in told
    ]


@pytest.mark.parametrize(
    "change",
    [
        without(ev.TurnStarted),
        without(ev.TurnEnded),
        without(ev.RequestPrepared),
        without(ev.ResponseCompleted),
        without(ev.CallStarted),
        without(ev.CallAnswered),
        twice(ev.TurnStarted),
        twice(ev.TurnEnded),
        twice(ev.RequestPrepared),
        twice(ev.ResponseCompleted),
        twice(ev.CallRequested),
        twice(ev.CallStarted),
        twice(ev.CallAnswered),
        foreign,
        other_parent,
        beheaded,
    ],
)
async def test_the_ledger_sees_what_is_missing_or_too_much(change: Change) -> None:
    """The log as it is is in order, and no other is."""
    told = await recorded()
    for log, wrong in ((told, False), (change(told), True)):
        ledger = Ledger()
        for one in log:
            ledger.take(one)
        ledger.close()
        assert bool(ledger.wrong) == wrong, ledger.wrong


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ([plan("1", 1, 1).text], False),
        ([plan("1", 1, 1).text[:-1]], True),
        ([plan("1", 1, 1).text] * 2, True),
        ([plan("1", 2, 1).text], True),
        ([], True),
    ],
)
async def test_a_watcher_sees_what_is_not_what_was_said(words: list[str], wrong: bool) -> None:
    """All of it, too little, twice the same, the text of another, and nothing."""
    soak = Soak("1", LOADS["short"], asyncio.Semaphore(), Meter(Path("soak.db"), 60.0))
    planned = plan("1", 1, 1)
    said = Said(soak, token(1, 1))

    async def updates() -> AsyncGenerator[Update]:
        for n, word in enumerate(words):
            cursor = Cursor(1, f"attempt {n}", "text")
            yield Delta(cursor=cursor, type="text.delta", delta=word, part="text")

    assert await said.hear(updates())
    result = TurnResult(
        conversation=name_of(1),
        turn="turn",
        status="completed",
        output=planned.text,
        output_text=planned.text,
    )
    said.compare(result, planned)
    assert bool(soak.wrong) == wrong
