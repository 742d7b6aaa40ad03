"""Every crash, every pair of crashes and a sample of triples; and the mistakes that they catch.

The invariants are those of storage.md section 2 that the core alone can break: I5, I7, I8; each
user input stands exactly once in the surviving chain; every turn ends; and every final answer is
delivered. Each known mistake of others (`MUTANTS`) breaks one of them at some single crash.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from turnlog import events as ev
from turnlog.commands import Approve, Command, Prepare
from turnlog.events import Range
from turnlog.plan import Delta, Nothing, Plan
from turnlog.reception import Reception
from turnlog.record import Recorded
from turnlog.recovery import GiveUp, OnCrash, Pause, RunCalls, Send, Step
from turnlog.state import Parent, State, evolve, start

from .crash_model import DENIED, INPUTS, TOOLS, Mode, Process, Violated, World, check

MODES = {
    "stored": Mode(),
    "stored, found finished": Mode(get="finished"),
    "stored, found gone, refused once": Mode(get="gone", refuses=True),
    "stored, chain forgotten": Mode(forgets=True),
    "not stored": Mode(store=False),
}


# -- what must hold when the user has got every answer -------------------------------------


def check_end(world: World, fold: Callable[[tuple[Recorded, ...]], State]) -> None:
    state, log = world.head, world.log
    check(state.turn is None and state.attempt is None, "every turn ends", state.turn)
    check([key for key, _ in world.delivered] == list(INPUTS), "each final is delivered")
    ended = [one.event.response for one in log if isinstance(one.event, ev.TurnEnded)]
    check([got for _, got in world.delivered] == ended, "what was delivered is in the log")
    # The state that lived was folded on from the head that each crash left: those are the parts.
    check(fold(log) == state, "I5: the fold of the whole is that of its parts")
    check_chain(world)
    check_calls(world)


def check_chain(world: World) -> None:
    """The surviving chain at the provider holds each input once, and is our context (law 6)."""
    ended = world.delivered[-1][1]
    chain = next(one for one in world.responses if one.id == ended).whole
    said = [item["content"] for item in chain if item.get("role") == "user"]
    check(said == list(INPUTS.values()), "each input once in the surviving chain", said)
    ours = [world.item(world.context[place]) for place in range(world.head.committed)]
    check(ours == [*chain], "law 6: the context is what the chain holds")


def check_calls(world: World) -> None:
    """I8: what happens at most once was not started twice unasked; a rerun has the same key."""
    for name, on_crash in TOOLS.items():
        keys = [key for done, key in world.effects if done == name]
        check(len(set(keys)) <= 1, "I8: a rerun has the same key", name, keys)
        check(len(keys) <= 1 or on_crash == "rerun", "I8: at most once", name)
        check(bool(keys) or on_crash == "give_up", "each tool ran", name)
    may_run_again: set[str] = set()
    for one in world.log:
        match one.event:
            case ev.CallRequested(call=call) if world.called(call) == "look":
                may_run_again.add(call)
            case ev.CallApproved(call=call, reason=reason) if reason in ("rerun", DENIED):
                may_run_again.add(call)
            case ev.CallStarted(call=call, run=run):
                check(run == 1 or call in may_run_again, "I8: not started twice unasked", call)
            case _:
                pass


# -- every schedule ------------------------------------------------------------------------


@dataclass(slots=True)
class Explorer:
    """Lives every schedule of crashes. Worlds that are equal live on alike, and do so once."""

    process: type[Process] = Process
    lives: dict[object, list[World]] = field(default_factory=dict[object, list[World]])
    folds: dict[bytes, State] = field(default_factory=dict[bytes, State])

    def left_by(self, world: World) -> list[World]:
        """Let a process live in a world; the worlds that a crash of it may leave."""
        key = world.key
        if key not in self.lives:
            process = self.process(world)
            process.live()
            check_end(process.world, self.fold)
            self.lives[key] = process.kept
        return self.lives[key]

    def explore(self, world: World, crashes: int) -> int:
        """How many schedules with at most so many crashes there are; every one is lived."""
        left = self.left_by(world)
        return 1 + (sum(self.explore(one, crashes - 1) for one in left) if crashes else 0)

    def sample(self, world: World, crashes: int, random: random.Random) -> None:
        """Live one schedule with so many crashes, or fewer where nothing is left to do."""
        for _ in range(crashes):
            if left := self.left_by(world):
                world = random.choice(left)
        self.left_by(world)

    def fold(self, log: tuple[Recorded, ...]) -> State:
        """The fold of a whole log from its start, done once for each beginning that logs share."""
        known = len(log)
        while known and log[known - 1].hash not in self.folds:
            known -= 1
        state = self.folds[log[known - 1].hash] if known else start("conv")
        for one in log[known:]:
            state = self.folds[one.hash] = evolve(state, one)
        return state


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_no_crash_and_no_pair_of_crashes_breaks_an_invariant(
    mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    explorer = Explorer()
    schedules = explorer.explore(World(mode), crashes=2)
    with capsys.disabled():
        print(f" {schedules} schedules of up to two crashes, {len(explorer.lives)} unlike lives ")
    assert schedules > 3000


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_no_sampled_triple_of_crashes_breaks_an_invariant(mode: Mode) -> None:
    # A refusal and three crashes are one try more than a request has: the turn would fail.
    world = World(replace(mode, refuses=False))
    explorer, dice = Explorer(), random.Random(3)
    for _ in range(60):
        explorer.sample(world, 3, dice)


# -- the mistakes of others ----------------------------------------------------------------


class HidesOrphans(Process):
    """Leaves out of the request the calls that a crash orphaned, and goes on."""

    def next_step(self) -> Step:
        step = super().next_step()
        hides = self.after_crash and isinstance(step, (RunCalls, GiveUp, Pause))
        return Send(cause="recovery") if hides else step

    def recorded(self, state: State, command: Command) -> list[Recorded]:
        hidden = replace(state, calls=()) if isinstance(command, Prepare) else state
        return super().recorded(hidden, command)

    def plan(self, state: State, now: int) -> Plan:
        planned = super().plan(replace(state, calls=()), now)
        if isinstance(planned, Nothing) and state.parent is not None:
            return Delta(parent=state.parent, ranges=())
        return planned


class NeverRecovers(Process):
    """Goes on without establishing what a dead process left open."""

    def recover(self) -> None:
        pass


class RerunsEveryTool(Process):
    """Runs whatever has no answer, as if every tool were idempotent."""

    def tools(self) -> dict[str, OnCrash]:
        return dict.fromkeys(TOOLS, "rerun")


class DisbelievesTheProbe(Process):
    """Runs a call again whatever the probe says."""

    def probe(self, id: str) -> None:
        self.do(Approve(call=id, rerun=True, reason=DENIED))


class ProbesWithoutARecord(Process):
    """Runs a call again that the probe denied, and does not record that it may."""

    def probe(self, id: str) -> None:
        call = self.state.call(id)
        if call is not None and (call.name or "", id) not in self.world.effects:
            self.run_call(id)
        else:
            super().probe(id)


class RecordsBehindTheTool(Process):
    """Records that a call started only when its tool has run."""

    def run_call(self, id: str) -> None:
        self.act(id)
        self.resolve(id, "done")


class ParentAtCreated(Process):
    """Takes a response for the parent as soon as the provider has named it (W-01)."""

    def plan(self, state: State, now: int) -> Plan:
        planned = super().plan(state, now)
        for one in reversed(self.world.log):
            if isinstance(one.event, ev.ResponseStarted) and state.parent is None:
                parent = parent_of(one.event.response, one)
                return Delta(parent=parent, ranges=tail_of(state))
        return planned


class AnswersBeforeTheCommit(Process):
    """Gives the answer to the user before it is in the log."""

    def finish(self, reception: Reception) -> None:
        items = reception.outputs()
        if items and items[-1]["type"] == "message":
            done = (self.serving, reception.response)
            self.reach(replace(self.world, delivered=(*self.world.delivered, done)))
        super().finish(reception)

    def deliver(self, key: str, turn: str) -> None:
        pass


def parent_of(response: str, at: Recorded) -> Parent:
    return Parent(
        response=response,
        end=0,
        version=at.version,
        time=at.time,
        store=True,
        model="m",
        transport="model",
    )


def tail_of(state: State) -> tuple[Range, ...]:
    return tuple(
        Range(of="tail", start=run.version, stop=run.version + run.count) for run in state.tail
    )


MUTANTS: dict[type[Process], str] = {
    HidesOrphans: "I7: every request is legal",
    NeverRecovers: "every turn ends",
    RerunsEveryTool: "I8",
    DisbelievesTheProbe: "I8: at most once",
    ProbesWithoutARecord: "I8: not started twice unasked",
    RecordsBehindTheTool: "I8: at most once",
    ParentAtCreated: "each input once in the surviving chain",
    AnswersBeforeTheCommit: "every turn ends|every command is legal",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_known_mistake_breaks_an_invariant_at_a_single_crash(mutant: type[Process]) -> None:
    explorer = Explorer(mutant)
    explorer.explore(World(Mode()), crashes=0)
    with pytest.raises(Violated, match=MUTANTS[mutant]):
        explorer.explore(World(Mode()), crashes=1)
