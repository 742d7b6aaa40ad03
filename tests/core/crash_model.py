"""The exhaustive crash model of the pure core: a tiny shell, a provider, tools, a human, a client.

The one rule: `World` is all that survives a crash, and it is an immutable value. A process acts
only through `Process.reach`, which keeps the world as it is before and after every commit, send,
stream event, tool effect and delivery. A crash is then nothing but a new process in a world that
was kept: whatever the dead process knew beside it is gone.

The story: a user asks for two turns. In the first the model calls five tools at once, one for
each way that a crash can be met (`rerun`, `probe`, `ask`, `give_up`), and one that needs an
approval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from turnlog import events as ev
from turnlog.canonical import Json, JsonObject
from turnlog.commands import (
    Approve,
    BeginTurn,
    Command,
    DoubtCalls,
    EndTurn,
    Finish,
    Keyed,
    Note,
    PauseTurn,
    Prepare,
    Resolve,
    Start,
    StartCall,
)
from turnlog.decide import decide
from turnlog.errors import TurnlogError
from turnlog.index import Close, Put, Shift, advance
from turnlog.items import function_output, is_client_call, refused_output
from turnlog.plan import Delta, Fork, Full, Plan, Reach, plan
from turnlog.ports import Frame, Problem
from turnlog.reception import Reception, is_chain_lost
from turnlog.record import Recorded, Stamp, record
from turnlog.recovery import (
    Ask,
    Doubt,
    End,
    GiveUp,
    Halt,
    Interrupt,
    Leave,
    OnCrash,
    Pause,
    Policy,
    Probe,
    RunCalls,
    Send,
    Settled,
    Step,
    Unknown,
    proceed,
    settle,
)
from turnlog.state import State, replay, start

from .rules import refusals

INPUTS = {"key-1": "Pay the bill.", "key-2": "Thanks."}
TOOLS: dict[str, OnCrash] = {
    "look": "rerun",
    "ship": "probe",
    "pay": "ask",
    "mail": "give_up",
    "book": "ask",
}
NEEDS_APPROVAL = "book"
DENIED = "the probe said that it did not happen"
RETRY_AFTER = 3
PAUSES = 6
LONGEST = 400


class Violated(AssertionError):
    """An invariant does not hold; the message names it."""


def check(holds: bool, invariant: str, *detail: object) -> None:
    if not holds:
        raise Violated(": ".join((invariant, *map(str, detail))))


# -- the world -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mode:
    """What the provider keeps, and what it says when it is asked afterwards.

    `get`: a response whose stream was cut is found finished, or is gone; None where the provider
    cannot be asked. `forgets`: it loses its chains when our process dies. `refuses`: the second
    request gets a 429.
    """

    store: bool = True
    get: str | None = None
    forgets: bool = False
    refuses: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """A node of the provider's tree: it continues `chain`, the items of its ancestors."""

    id: str
    chain: tuple[JsonObject, ...]
    output: tuple[JsonObject, ...]
    done: bool = False

    @property
    def whole(self) -> tuple[JsonObject, ...]:
        """What a continuation of it begins with; one that did not finish has no output."""
        return (*self.chain, *self.output) if self.done else self.chain


@dataclass(frozen=True, slots=True)
class World:
    """Everything that survives a crash. `context` is the index beside the log: ordinal, version."""

    mode: Mode
    log: tuple[Recorded, ...] = ()
    head: State = field(default_factory=lambda: start("conv"))
    context: Mapping[int, int] = field(default_factory=dict[int, int])
    clock: int = 0
    responses: tuple[Response, ...] = ()
    refused_at: int | None = None
    effects: tuple[tuple[str, str], ...] = ()
    delivered: tuple[tuple[str, str | None], ...] = ()

    @property
    def key(self) -> object:
        """Equal for equal worlds: the last hash binds the log, and the log all that was sent."""
        done = tuple(one.done for one in self.responses)
        return self.head.hash, self.clock, done, self.refused_at, self.effects, self.delivered

    def item(self, version: int) -> JsonObject:
        """The item that the event at a version holds."""
        event = self.log[version - 1].event
        items = (ev.ItemAdded, ev.OutputRecorded, ev.CallAnswered, ev.CallRejected)
        assert isinstance(event, (*items, ev.CallAbandoned))
        return event.item

    def called(self, call: str) -> object:
        """The name of the tool that a call asks for."""
        events = [one.event for one in self.log]
        keys = [
            one.item for one in events if isinstance(one, ev.CallRequested) and one.call == call
        ]
        outputs = [one for one in events if isinstance(one, ev.OutputRecorded)]
        return next(one.item["name"] for one in outputs if one.key in keys)

    def turn(self, key: str) -> str | None:
        """The turn that began with an idempotency key."""
        found = [
            one.turn
            for one in self.log
            if isinstance(one.event, ev.TurnStarted) and one.event.key == key
        ]
        check(len(found) <= 1, "one key, one turn", key, found)
        return found[0] if found else None


# -- the provider --------------------------------------------------------------------------


def answer_to(chain: tuple[JsonObject, ...], id: str) -> tuple[JsonObject, ...]:
    """What the model says: it calls every tool once, and for anything else it has words."""
    said = chain[-1].get("content")
    if said == INPUTS["key-1"]:
        return tuple(
            {
                "type": "function_call",
                "id": f"fc_{id}_{name}",
                "call_id": f"{id}-{name}",
                "name": name,
                "arguments": "{}",
            }
            for name in TOOLS
        )
    content: JsonObject = {"type": "output_text", "text": f"So be it ({id}).", "annotations": []}
    return ({"type": "message", "id": f"msg_{id}", "role": "assistant", "content": [content]},)


def frames_of(response: Response) -> Iterator[Frame]:
    yield frame("response.created", response={"id": response.id})
    for place, item in enumerate(response.output):
        if item["type"] == "message":
            yield frame("response.output_text.delta", output_index=place, delta="So be ")
        yield frame("response.output_item.done", output_index=place, item=item)
    yield completed(response)


def completed(response: Response) -> Frame:
    whole: JsonObject = {"id": response.id, "status": "completed", "output": response.output}
    return replace(frame("response.completed", response=whole), terminal="completed")


def frame(type: str, **data: Json) -> Frame:
    return Frame(type=type, data=data)


def refusal(status: int, code: str | None, after: float | None = None) -> Frame:
    problem = Problem(status=status, code=code, message="no", retry_after=after)
    return Frame(type="error", data={"type": "error"}, terminal="error", problem=problem)


# -- a process -----------------------------------------------------------------------------


class Process:
    """One process, from its start to its natural end; `kept` are the worlds a crash may leave.

    What it knows beside the world is its state, which it folds on from the stored head, and
    `cached`: the one response that its connection remembers where none is stored (law 8).
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.kept: list[World] = []
        self.state = world.head
        self.cached: str | None = None
        self.serving = ""
        self.after_crash = bool(world.log)

    def reach(self, world: World) -> None:
        """Do something that lasts; the process may die before it and behind it."""
        self.kept += [self.world, world]
        self.world = world

    def live(self) -> None:
        """The whole life: settle what was left, then serve the user until every turn has ended."""
        self.recover()
        delivered = {key for key, _ in self.world.delivered}
        for key, text in INPUTS.items():
            if key not in delivered:
                self.serve(key, text)

    def serve(self, key: str, text: str) -> None:
        """Send an input, see its turn to the end, and deliver the answer."""
        self.serving = key
        turn = self.send(key, text)
        for _ in range(PAUSES):
            self.run()
            self.decide_waiting()
        check(self.state.turn is None, "every turn ends", key)
        self.deliver(key, turn)

    def send(self, key: str, text: str) -> str:
        """The turn of an input: the same key is the same turn, whatever happened in between."""
        known = self.world.turn(key)
        if known is not None:
            return known
        turn, item = f"turn-{key}", Keyed(key=key, item={"role": "user", "content": text})
        begin = BeginTurn(turn=turn, key=key, digest=key, items=(item,))
        self.request(Send(cause="first"), Start(), begin)
        return turn

    def deliver(self, key: str, turn: str) -> None:
        ends = [
            one.event
            for one in self.world.log
            if isinstance(one.event, ev.TurnEnded) and one.turn == turn
        ]
        check([end.outcome for end in ends] == ["completed"], "every turn ends", key, ends)
        self.reach(replace(self.world, delivered=(*self.world.delivered, (key, ends[0].response))))

    # -- the log ---------------------------------------------------------------------------

    def do(self, *commands: Command) -> None:
        """Decide, record and fold, as one append (law 1)."""
        state, context, log = self.state, dict(self.world.context), self.world.log
        for command in commands:
            events = self.recorded(state, command)
            for one in events:
                state, changes = advance(state, one)
                for change in changes:
                    apply(context, change)
            log += tuple(events)
        check(len(log) < LONGEST, "every turn ends", state.turn)
        clock = self.world.clock + 1
        self.reach(replace(self.world, log=log, head=state, context=context, clock=clock))
        self.state = state

    def recorded(self, state: State, command: Command) -> list[Recorded]:
        try:
            new = decide(state, command)
        except TurnlogError as error:
            raise Violated(f"every command is legal: {error}") from error
        stamp = Stamp(
            time=self.world.clock * 1_000_000,
            actor="model",
            epoch=1,
            ids=[f"event-{state.version + place}" for place in range(len(new))],
            salts=[b""] * len(new),
        )
        return record("conv", state.version, bytes.fromhex(state.hash), new, stamp)

    def new_key(self) -> str:
        return f"item-{self.state.version}"

    # -- recovery --------------------------------------------------------------------------

    def recover(self) -> None:
        """Establish the facts that a dead process left open; ask the provider at most once."""
        can_ask = self.world.mode.get is not None
        while True:
            step = settle(self.state, retrieve=can_ask)
            match step:
                case Ask():
                    can_ask = False
                    self.ask(step.response)
                case Interrupt(reason=why):
                    outcome = ev.ResponseInterrupted(attempt=self.attempt, reason=why)
                    self.do(Finish(outcome=outcome))
                case Unknown(reason=why):
                    self.do(Finish(outcome=ev.ResponseUnknown(attempt=self.attempt, reason=why)))
                case Doubt():
                    self.do(DoubtCalls(calls=step.calls, reason="crashed"))
                case Halt():
                    self.do(PauseTurn(reason=step.reason, calls=step.calls))
                case End():
                    self.end(step)
                case Settled() | Leave():
                    return

    @property
    def attempt(self) -> str:
        assert self.state.attempt is not None
        return self.state.attempt.id

    def ask(self, response: str) -> None:
        """`GET` the response: the provider may have finished it without us."""
        if self.world.mode.get != "finished":
            return
        found = next(one for one in self.world.responses if one.id == response)
        self.finished(found)
        assert self.state.attempt is not None
        reception = Reception(attempt=self.attempt, version=self.state.attempt.version)
        reception.feed(completed(found))
        self.finish(reception)

    def finished(self, response: Response) -> None:
        responses = tuple(
            replace(one, done=True) if one.id == response.id else one
            for one in self.world.responses
        )
        self.world = replace(self.world, responses=responses)

    # -- going on --------------------------------------------------------------------------

    def run(self) -> None:
        """Take step after step, until the turn ends or waits."""
        while self.state.turn is not None:
            step = self.next_step()
            match step:
                case Send():
                    self.world = replace(
                        self.world, clock=max(self.world.clock, step.not_before // 1_000_000)
                    )
                    self.request(step)
                case RunCalls() | GiveUp() | Probe():
                    for call in step.calls:
                        self.step_on(step, call)
                case Pause():
                    if self.state.turn.paused != step.reason:
                        self.do(PauseTurn(reason=step.reason, calls=step.calls))
                    return
                case End():
                    self.end(step)

    def step_on(self, step: RunCalls | GiveUp | Probe, call: str) -> None:
        match step:
            case RunCalls():
                self.run_call(call)
            case GiveUp():
                self.resolve(call, "the outcome is unknown")
            case Probe():
                self.probe(call)

    def next_step(self) -> Step:
        check(self.state.attempt is None, "every turn ends", "an attempt was never settled")
        waiting = (call for call in self.state.pending if call.name == NEEDS_APPROVAL)
        approval = frozenset(call.id for call in waiting if not call.approved)
        return proceed(self.state, Policy(tools=self.tools(), approval=approval))

    def tools(self) -> Mapping[str, OnCrash]:
        return TOOLS

    def end(self, step: End) -> None:
        abandon = tuple(
            Keyed(key=f"left-{call.id}", item=refused_output(self.called(call.id), "no"))
            for call in self.state.pending
        )
        self.do(EndTurn(outcome=step.outcome, reason=step.reason, abandon=abandon))

    # -- requests --------------------------------------------------------------------------

    def request(self, step: Send, *before: Command) -> None:
        """Prepare a request in one append with what led to it, and send it."""
        state, clock = self.state, self.world.clock
        for command in before:
            state = replay(state, self.recorded(state, command))
        planned = self.plan(state, clock * 1_000_000)
        assert isinstance(planned, (Delta, Fork, Full)), planned
        prepared = ev.RequestPrepared(
            attempt=f"attempt-{state.version}",
            cause=step.cause,
            try_number=step.try_number,
            delay_ms=step.delay_ms,
            kind="full" if isinstance(planned, Full) else "delta",
            parent=None if isinstance(planned, Full) else planned.parent.response,
            ranges=planned.ranges,
            format=1,
            digest="",
            transport="model",
            store=self.world.mode.store,
            model="m",
        )
        self.do(*before, Prepare(request=prepared))
        self.exchange(prepared)

    def plan(self, state: State, now: int) -> Plan:
        held = {self.cached} if self.cached is not None else set[str]()
        return plan(state, Reach(now=now, model="m", remembers=held))

    def load(self, ranges: tuple[ev.Range, ...]) -> tuple[JsonObject, ...]:
        versions: list[int] = []
        for one in ranges:
            places = range(one.start, one.stop)
            versions += places if one.of == "tail" else [self.world.context[n] for n in places]
        return tuple(self.world.item(version) for version in versions)

    def exchange(self, request: ev.RequestPrepared) -> None:
        """Send the request and take what comes, frame by frame, up to the outcome (law 5)."""
        reception = Reception(attempt=request.attempt, version=self.state.version)
        for frame in self.create(request.parent, self.load(request.ranges)):
            self.kept.append(self.world)
            reception.feed(frame)
            notes = [*reception.take_notes(), *reception.take_checkpoints()]
            if notes and frame.terminal is None:
                self.do(Note(events=tuple(notes)))
        self.finish(reception)

    def create(self, parent: str | None, sent: tuple[JsonObject, ...]) -> Iterator[Frame]:
        """The provider: it refuses what the real one refuses, and else streams a response."""
        world = self.world
        known = {one.id: one for one in world.responses}
        if world.mode.refuses and len(world.responses) == 1 and world.refused_at is None:
            self.reach(replace(self.world, refused_at=world.clock))
            yield refusal(429, "rate_limit_exceeded", RETRY_AFTER)
            return
        late = world.refused_at is None or world.clock >= world.refused_at + RETRY_AFTER
        check(late, "a retry keeps to Retry-After", world.clock)
        if parent is not None and not self.provider_holds(parent, known):
            self.cached = None
            self.reach(world)
            yield refusal(400, "previous_response_not_found")
            return
        chain = known[parent].whole if parent is not None else ()
        check(not (found := refusals(chain, sent)), "I7: every request is legal", found)
        id = f"resp-{len(world.responses)}"
        response = Response(id, (*chain, *sent), answer_to((*chain, *sent), id))
        self.reach(replace(self.world, responses=(*world.responses, response)))
        yield from frames_of(response)

    def provider_holds(self, parent: str, known: Mapping[str, Response]) -> bool:
        if not self.world.mode.store or self.world.mode.forgets:
            return parent == self.cached
        return parent in known

    def finish(self, reception: Reception) -> None:
        """All outputs and the outcome are one append (law 3)."""
        if reception.terminal is not None and reception.terminal.terminal == "completed":
            self.completed_at_provider(reception)
        outcome = reception.outcome() or reception.interrupted("cut")
        outputs = tuple(
            ev.OutputRecorded(
                attempt=reception.attempt, index=index, key=f"{outcome.attempt}.{index}", item=item
            )
            for index, item in enumerate(reception.outputs())
        )
        calls = tuple((one.key, f"call-{one.key}") for one in outputs if is_client_call(one.item))
        lost = is_chain_lost(outcome)
        self.do(Finish(outcome=outcome, outputs=outputs, calls=calls, chain_lost=lost))

    def completed_at_provider(self, reception: Reception) -> None:
        response = next(one for one in self.world.responses if one.id == reception.response)
        self.finished(response)
        self.cached = response.id

    # -- calls -----------------------------------------------------------------------------

    def called(self, id: str) -> JsonObject:
        call = self.state.call(id)
        assert call is not None
        return self.world.item(call.version)

    def run_call(self, id: str) -> None:
        """The start is recorded before the call, the answer behind it (law 12)."""
        self.do(StartCall(call=id))
        self.act(id)
        self.resolve(id, "done")

    def act(self, id: str) -> None:
        """The effect on the world, under the idempotency key of the call."""
        call = self.state.call(id)
        assert call is not None
        self.reach(replace(self.world, effects=(*self.world.effects, (call.name or "", id))))

    def resolve(self, id: str, text: str) -> None:
        item = function_output(self.called(id), text)
        self.do(Resolve(call=id, how="answered", key=self.new_key(), item=item, by_runner=True))

    def probe(self, id: str) -> None:
        """Ask the world whether it happened; where it did not, the call may run again (law 12)."""
        call = self.state.call(id)
        assert call is not None
        if (call.name or "", id) in self.world.effects:
            self.resolve(id, "done, as the probe says")
        else:
            self.do(Approve(call=id, rerun=True, reason=DENIED))

    def decide_waiting(self) -> None:
        """A human approves, and of an uncertain call finds out whether it happened."""
        for call in self.state.pending:
            happened = (call.name or "", call.id) in self.world.effects
            if call.status == "requested":
                self.do(Approve(call=call.id))
            elif call.status == "uncertain" and happened:
                self.resolve(call.id, "done, as the books say")
            elif call.status == "uncertain":
                self.do(Approve(call=call.id, rerun=True))


def apply(context: dict[int, int], change: object) -> None:
    """Keep the index beside the log: which event holds the item at which ordinal."""
    match change:
        case Put():
            context[change.ordinal] = change.item_version
        case Close():
            context.pop(change.ordinal, None)
        case Shift():
            for ordinal in sorted((n for n in context if n >= change.ordinal), reverse=True):
                context[ordinal + change.by] = context.pop(ordinal)
        case _:
            pass
