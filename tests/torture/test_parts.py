"""The parts of the torture, each in this process: traps, workers, what is said in the end."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

import turnlog
from turnlog import events as ev
from turnlog.canonical import GENESIS, JsonObject
from turnlog.conversation import Conversation
from turnlog.errors import Busy, InvalidInput
from turnlog.ports import TurnRow
from turnlog.record import NewEvent, Recorded, Stamp, record
from turnlog.testing import call, scripted, text
from turnlog.testing.invariants import violations
from turnlog.testing.torture import Torture, Torturer, stolen, traps
from turnlog.testing.torture_processes import gone, is_gone, is_stopped, killed, launched
from turnlog.testing.torture_report import Report, answered, ended, judge, told
from turnlog.testing.torture_worker import Job, Worker, shown, work, working
from turnlog.testing.traps import PLACES, Trap
from turnlog.testing.victims import UNASKED, Effects, agent_of, done, model, said
from turnlog.testing.witness import Witness
from turnlog.tools import ToolContext, run_tool
from turnlog.updates import Cursor, Delta, Retracted, Update
from turnlog_transports.simulator import Simulator


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find a key in their environment, as anybody's would."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-torture")


@pytest.fixture
async def job(tmp_path: Path) -> AsyncGenerator[Job]:
    """One conversation of each kind of turn, and a provider for it."""
    async with Simulator([model()] * 10_000) as simulator:
        yield Job(
            path=str(tmp_path / "log.db"), base_url=simulator.base_url, conversations=2, turns=7
        )


async def checked(job: Job, acknowledged: set[str]) -> Report:
    """The report of what was left, which has nothing to complain about."""
    report, store = Report(acknowledged=acknowledged), await job.open("judge")
    report.violations = await violations(
        store,
        acknowledged=acknowledged,
        effects=[effect for _, effect in job.effects.all()],
        again=UNASKED,
    )
    await judge(store, job, report)
    await store.close()
    assert (report.violations, report.problems) == ([], [])
    return report


async def test_workers_side_by_side_finish_everything(job: Job) -> None:
    """Two owners in one process, which get into each other's way."""
    job = replace(job, conversations=1)
    heard: list[tuple[str, ...]] = []
    await asyncio.gather(
        *(
            work(job, line, lambda *words: heard.append(words))
            for line in ("one 1 websocket", "two 2 http")
        )
    )
    assert {words for words in heard if words[0] != "ACK"} == {("DONE", "one"), ("DONE", "two")}
    acknowledged = {id for word, *ids in heard if word == "ACK" for id in ids}
    report = await checked(job, acknowledged)
    assert report.turns.total() == 7
    assert f"{len(acknowledged)} acknowledged; 1 conversations" in str(report)


async def test_what_a_worker_did_not_expect_is_told(job: Job) -> None:
    heard: list[tuple[str, ...]] = []
    await work(job, "one 1 pigeon", lambda *words: heard.append(words))
    ((word, trace),) = heard
    assert word == "BAD" and "there is no transport 'pigeon'" in trace


class Always(random.Random):
    """Whatever may happen happens, or never does."""

    def __init__(self, value: float) -> None:
        self.value = value
        super().__init__(1)

    def random(self) -> float:
        """The same each time."""
        return self.value


@pytest.mark.parametrize(("draw", "outcomes"), [(0.0, {"cancelled"}), (0.99, {"completed"})])
async def test_what_others_may_do_to_a_turn(job: Job, draw: float, outcomes: set[str]) -> None:
    """Queue behind it, watch it, cancel it, and refuse its call; or nothing of it."""
    async with working(job, "one") as worker:
        worker.draw = Always(draw)
        chat = await worker.log.conversation("c0", agent=worker.agent)
        while not await worker.go_on(chat):
            pass
        rows = await chat.turns(last=100)
        assert {row.outcome for row in rows} >= outcomes
        assert len(rows) == 7
        rejected = [one for one in await chat.events() if isinstance(one.event, ev.CallRejected)]
        assert bool(rejected) == (draw > 0.5)


async def test_nothing_is_decided_about_a_call_that_runs(job: Job) -> None:
    begun, may = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        begun.set()
        await may.wait()
        return "done"

    script = scripted([call("slow"), text("Ok.")])
    async with turnlog.open(":memory:", transport=script) as log:
        agent = turnlog.Agent("test", model="gpt-5", tools=[slow])
        chat = await log.conversation("c0", agent=agent)
        turn = await chat.send("Go.")
        await begun.wait()
        await Worker(job, log, agent, Always(0.0)).decide(chat)
        (running,) = (await chat.state()).pending
        assert running.status == "started"
        may.set()
        assert (await turn.result()).output_text == "Ok."


@dataclass(slots=True)
class Hesitant(Worker):
    """A worker that finds its conversation taken."""

    refused: int = 0

    async def go_on(self, chat: Conversation) -> bool:
        """Another process has it, the first time."""
        self.refused += 1
        if self.refused == 1:
            raise Busy("another process runs it")
        return True


async def test_a_worker_leaves_to_others_what_they_have(job: Job) -> None:
    async with working(job, "one") as worker:
        hesitant = Hesitant(job, worker.log, worker.agent, Always(0.0))
        left = {"c0"}
        await hesitant.take(left)
        assert (left, hesitant.refused) == (set(), 2)


# -- processes -----------------------------------------------------------------------------


async def test_what_dies_around_an_effect_is_finished_by_another(job: Job) -> None:
    """Somebody looks whether it happened: what did not is run again, what did is not."""
    report, job = Report(), replace(job, at_once=1, turns=2)
    async with launched(job, report) as workers:
        for place, effects in (("before-effect", 0), ("after-effect", 1)):
            await gone(await workers.start(place, "1", "http", f"{place}:1"))
            before = job.effects.times()
            async with working(job, f"mends-{place}") as worker:
                await worker.log.recover()
                (row,) = await worker.log.pending()
                assert (row.name, row.status, before[row.call]) == ("twofold", "uncertain", effects)
                worker.draw = Always(0.99)
                chat = await worker.log.get(row.conversation)
                assert not await worker.go_on(chat)
                while not await worker.go_on(chat):
                    pass
            assert job.effects.times()[row.call] == 1
        await gone(await workers.start("last", "1", "auto"))
    assert report.traps == {"before-effect": 1, "after-effect": 1}
    assert workers.finished.is_set()
    await checked(job, report.acknowledged)


async def test_a_process_that_is_stopped_and_one_that_is_gone() -> None:
    sleeper = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import signal; signal.pause()"
    )
    os.kill(sleeper.pid, signal.SIGSTOP)
    while Path("/proc/self").exists() and not is_stopped(sleeper.pid):
        await asyncio.sleep(0.005)
    assert not is_gone(sleeper.pid)
    await killed(sleeper.pid)
    assert await sleeper.wait() == -signal.SIGKILL
    assert is_gone(sleeper.pid) and not is_stopped(sleeper.pid)
    await killed(sleeper.pid)


@asynccontextmanager
async def tortured(job: Job) -> AsyncGenerator[Torturer]:
    """A torture that begins; what was started is killed in the end."""
    report, store = Report(), await job.open("witness")
    async with launched(job, report) as workers:
        plan = Torture(job=job, kills=0, pause=(0, 0.001), transports=("http",))
        torturer = Torturer(plan, workers, Witness(store, UNASKED), report)
        try:
            yield torturer
        finally:
            for pid in torturer.running.values():
                await killed(pid)
            await store.close()


async def test_the_loop_starts_others_for_the_dead_and_leaves_the_frozen_alone(job: Job) -> None:
    async with tortured(replace(job, turns=10_000)) as torturer:
        await torturer.start()
        await torturer.start_again()
        ((owner, pid),) = torturer.running.items()
        torturer.stopped = lambda pid: True
        await torturer.freeze(owner, pid)
        torturer.stopped = lambda pid: False
        await torturer.freeze(owner, pid)
        torturer.plan = replace(torturer.plan, kills=1, freezes=1.0)
        await torturer.strike()
        assert list(torturer.running) == [owner]
        torturer.plan = replace(torturer.plan, freezes=0.0)
        await torturer.strike()
        assert owner not in torturer.running
        await torturer.strike()  # was that not enough?
        await torturer.freeze(owner, pid)
        ((second, next_pid),) = torturer.running.items()
        await killed(next_pid)
        await torturer.start_again()
        assert len(torturer.running) == 1 and second not in torturer.running
        assert (torturer.report.kills, torturer.report.looks) == (1, 1)
        assert torturer.report.freezes == 1
        assert (torturer.report.violations, torturer.report.problems) == ([], [])
        # One that fails ends it all, and what it said stands in the report.
        torturer.workers.finished.clear()
        pid = await torturer.workers.start("lost", "1", "pigeon")
        await torturer.workers.finished.wait()
        await torturer.workers.ended(pid)
        assert "there is no transport 'pigeon'" in torturer.report.problems[0]


async def test_a_probe_looks_for_the_effect(tmp_path: Path) -> None:
    effects = Effects(tmp_path / "effects")
    tool = agent_of(effects, Trap()).toolset.get("probed")
    assert tool is not None
    context = ToolContext(deps=None, conversation="c", turn="t", tool="probed", idempotency_key="k")
    assert (await tool.probed(context, '{"n": 1}')).result is None
    await run_tool(tool, context, '{"n": 1}')
    probed = await tool.probed(context, '{"n": 1}')
    assert probed.result is not None and probed.result.output == done("k")


def test_what_was_taken_from_somebody_who_lives() -> None:
    before = {"a": 1, "b": 2, "c": 3}
    assert stolen("x", before, before) == []
    assert stolen("x", before, {"a": 1, "b": 3}) == [
        "b was taken from x, which lives",
        "c was taken from x, which lives",
    ]


# -- traps ---------------------------------------------------------------------------------


def test_a_trap_is_sprung_once_where_it_stands() -> None:
    told_of: list[str] = []
    kills: list[tuple[int, int]] = []
    trap = Trap("after-frame", 2, told_of.append, partial(noted, kills))
    for place in (*PLACES, "after-frame", "after-frame"):
        trap.step(place)
    assert told_of == [str(trap)] == ["after-frame:2"]
    assert kills == [(os.getpid(), signal.SIGKILL)]


@pytest.mark.parametrize("words", ["nowhere:1", "after-frame", "after-frame:x"])
def test_a_trap_that_is_none(words: str) -> None:
    with pytest.raises(InvalidInput, match="is no trap"):
        Trap.parse(words)


def test_traps_stand_everywhere_the_first_time_and_then_the_second() -> None:
    cycle = traps(2)
    first = [next(cycle) for _ in range(2 * len(PLACES))]
    assert first == [f"{place}:{at}" for at in (1, 2) for place in PLACES]
    assert next(cycle) == first[0]
    assert [str(Trap.parse(words)) for words in ("", *first)] == ["", *first]


def noted(kills: list[tuple[int, int]], pid: int, number: int) -> None:
    """Take a kill down."""
    kills.append((pid, number))


async def test_each_place_is_passed(job: Job) -> None:
    """What a trap does is told to somebody who only takes it down."""
    for place in PLACES:
        springs: list[tuple[int, int]] = []
        trap = Trap(place, 1, kill=partial(noted, springs))
        async with working(job, f"passes-{place}", trap=trap, transport="http") as worker:
            chat = await worker.log.conversation(place, agent=worker.agent)
            assert not await worker.go_on(chat)
        assert springs == [(os.getpid(), signal.SIGKILL)], place


# -- what is said in the end ---------------------------------------------------------------


def row(key: str) -> TurnRow:
    """A turn that is over."""
    return TurnRow(
        conversation="c0",
        turn=f"turn-{key}",
        key=key,
        digest="",
        started=1,
        ended=2,
        outcome="completed",
        time=1,
        state=None,
    )


def test_turns_that_are_missing_and_inputs_that_came_twice() -> None:
    rows, users = [row("1"), row("2")], [said("c0", 1), said("c0", 2)]
    assert not list(told("c0", 2, rows, users))
    assert list(told("c0", 2, rows[:1], [*users, users[1]])) == [
        "its turns are 1",
        "it was told turn 1 of c0, turn 2 of c0, turn 2 of c0",
    ]
    assert list(told("c0", 1, [], [])) == ["its turns are none", "it was told nothing"]


def log_of(*events: ev.Event) -> list[Recorded]:
    """Events in one chain."""
    stamp = Stamp(
        time=1,
        actor="test",
        epoch=None,
        ids=[str(number) for number in range(len(events))],
        salts=[bytes(16)] * len(events),
    )
    return record("c0", 0, GENESIS, [NewEvent(event=event, turn="t") for event in events], stamp)


def test_turns_that_ended_as_they_may_not() -> None:
    fine = [
        ev.TurnEnded(outcome="completed"),
        ev.TurnEnded(outcome="cancelled"),
        ev.TurnEnded(outcome="failed", error={"message": "given up after 4 tries: crashed"}),
    ]
    assert not list(ended(log_of(*fine)))
    bad = [
        ev.TurnEnded(outcome="failed", error={"message": "refused"}),
        ev.TurnEnded(outcome="limited"),
    ]
    assert list(ended(log_of(*bad))) == ["t ended as failed: refused", "t ended as limited: "]


def call_of(tool: str, output: str) -> Iterator[ev.Event]:
    """A call of a tool that was answered so; its id is `k`."""
    item: JsonObject = {"type": "function_call", "name": tool, "call_id": "1"}
    yield ev.OutputRecorded(attempt="a", index=0, key="o", item=item)
    yield ev.CallRequested(call="k", item="o")
    answer: JsonObject = {"type": "function_call_output", "call_id": "1", "output": output}
    yield ev.CallAnswered(call="k", key="p", item=answer)


@pytest.mark.parametrize(
    ("tool", "output", "times", "wrong"),
    [
        ("plain", done("k"), 1, []),
        ("plain", done("k"), 0, ["k was answered, and had no effect"]),
        ("plain", done("k"), 2, ["k (plain) had its effect 2 times"]),
        ("probed", done("k"), 2, ["k (probed) had its effect 2 times"]),
        ("again", done("k"), 2, []),
        ("plain", done("other"), 1, ["the answer of k is another call's"]),
        ("once", "The outcome is unknown.", 1, []),
    ],
)
def test_answers_without_their_effect(tool: str, output: str, times: int, wrong: list[str]) -> None:
    assert list(answered("c0", log_of(*call_of(tool, output)), Counter(k=times))) == wrong


def test_what_a_watcher_was_shown() -> None:
    first, second = Cursor(1, "a"), Cursor(2, "b")
    updates: list[Update] = [
        Delta(type="text.delta", cursor=first, part="text.0.0", delta="All of"),
        Retracted(cursor=second, attempt="a", reason="lost"),
        Delta(type="text.delta", cursor=second, part="text.0.0", delta="All "),
        Delta(type="text.delta", cursor=second, part="text.0.0", delta="is done."),
        Delta(type="reasoning.delta", cursor=second, part="r", delta="Hm."),
    ]
    assert shown(updates) == "All is done."
