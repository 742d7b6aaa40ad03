"""Random histories: a caller, a provider and a network that do anything that is legal.

`histories` drives `decide` with legal random commands and returns the `World` in which they
happened. The world keeps three models of its own, none of which uses the engine's: the context as a
plain list (`Places`), the provider's chains, and which unstored response a connection remembers.
Every request is checked against them when it is planned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hypothesis import strategies as st

from turnlog import events as ev
from turnlog.canonical import Json, JsonObject
from turnlog.decide import (
    AddItems,
    Approve,
    BeginTurn,
    Command,
    Configure,
    Defer,
    DoubtCalls,
    EditItem,
    EndTurn,
    Finish,
    Keyed,
    Note,
    PauseTurn,
    Prepare,
    Progress,
    RemoveItem,
    RequestCancel,
    Resolve,
    Start,
    StartCall,
)
from turnlog.items import is_client_call, legal, refused_output, to_input, without_identity
from turnlog.plan import Delta, Fork, Full, Nothing, Plan, Reach, Wait, plan
from turnlog.record import Recorded
from turnlog.state import Call, Parent, State, branch, start

from .rules import PAIRS, pair_id, refusals
from .story import Story, called, output, said, thought, user

How = Literal["answered", "rejected", "abandoned"]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**63, max_value=2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(categories=None), max_size=8)
)
json_values: st.SearchStrategy[Json] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)
json_objects: st.SearchStrategy[JsonObject] = st.dictionaries(
    st.text(max_size=5), json_values, max_size=4
)


# -- the context, as a list ----------------------------------------------------------------


@dataclass(slots=True)
class Slot:
    """A place of the context: its item, None where it was removed, and the call it answers."""

    item: JsonObject | None
    version: int
    holder: str
    call: str | None = None


@dataclass(slots=True)
class Places:
    """The context of a conversation, folded by another hand than the engine's."""

    slots: list[Slot] = field(default_factory=list[Slot])
    committed: int = 0
    sent: int = 0
    window: int = 0
    outputs: list[Slot] = field(default_factory=list[Slot])

    def items(self, start: int = 0, stop: int | None = None) -> list[JsonObject]:
        return [slot.item for slot in self.slots[start:stop] if slot.item is not None]

    def fold(self, recorded: Recorded) -> None:
        event, version = recorded.event, recorded.version
        match event:
            case ev.ItemAdded():
                at = len(self.slots) if event.ordinal is None else event.ordinal
                self.window += event.ordinal is not None and at < self.window
                self.committed += event.ordinal is not None and at < self.committed
                self.slots.insert(at, Slot(event.item, version, recorded.conversation))
            case ev.ItemEdited():
                slot = self.slots[event.ordinal]
                slot.item, slot.version, slot.holder = event.item, version, recorded.conversation
            case ev.ItemRemoved():
                self.slots[event.ordinal].item = None
            case ev.CallAnswered() | ev.CallRejected() | ev.CallAbandoned():
                self.settle(event, recorded)
            case ev.RequestPrepared():
                self.sent, self.outputs = len(self.slots), []
            case ev.OutputRecorded():
                self.outputs.append(Slot(event.item, version, recorded.conversation))
            case ev.ResponseCompleted():
                self.slots[self.sent : self.sent] = self.outputs
                self.committed = self.sent + len(self.outputs)
            case ev.ContextCompacted():
                self.window = event.ordinal
            case _:
                pass

    def settle(
        self, event: ev.CallAnswered | ev.CallRejected | ev.CallAbandoned, recorded: Recorded
    ) -> None:
        new = Slot(event.item, recorded.version, recorded.conversation, event.call)
        for place, slot in enumerate(self.slots):
            if slot.call == event.call:
                self.slots[place] = new
                return
        self.slots.append(new)

    def copy(self) -> Places:
        """The committed context, which is what a fork takes."""
        slots = [
            Slot(slot.item, slot.version, slot.holder) for slot in self.slots[: self.committed]
        ]
        return Places(slots=slots, committed=self.committed, window=self.window)


@dataclass(slots=True)
class Chain:
    """What the provider holds under a response: as it stands in the context, and as it was sent."""

    raw: list[JsonObject]
    real: list[JsonObject]
    store: bool


# -- the world -----------------------------------------------------------------------------


@dataclass(slots=True)
class World:
    """A conversation, and all that is outside it."""

    story: Story = field(default_factory=Story)
    places: Places = field(default_factory=Places)
    chains: dict[str, Chain] = field(default_factory=dict[str, Chain])
    parents: list[Parent] = field(default_factory=list[Parent])
    flight: Chain | None = None
    memory: str | None = None
    model: str = "m1"
    count: int = 0
    seen: int = 0
    base: list[Slot] = field(default_factory=list[Slot])
    origin: State = field(default_factory=lambda: start("conv"))
    plans: list[Plan] = field(default_factory=list[Plan])

    @property
    def state(self) -> State:
        return self.story.state

    def new(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def do(self, command: Command) -> None:
        self.story.do(command)
        for one in self.story.events[self.seen :]:
            self.places.fold(one)
        self.seen = len(self.story.events)

    def key(self, item: JsonObject) -> Keyed:
        return Keyed(key=self.new("key"), item=item)

    # -- requests ----------------------------------------------------------------------

    def reach(self) -> Reach:
        held = {self.memory} if self.memory is not None else set[str]()
        return Reach(now=self.story.now, model=self.model, remembers=held)

    def planned(self, older: Parent | None) -> Plan:
        found = plan(self.state, self.reach(), older)
        self.plans.append(found)
        return found

    def load(self, ranges: Sequence[ev.Range]) -> list[JsonObject]:
        """The items of a request's ranges, as a store would find them."""
        items: list[JsonObject] = []
        by_version = {slot.version: slot for slot in self.places.slots[self.places.committed :]}
        for one in ranges:
            if one.of == "context":
                items += self.places.items(one.start, one.stop)
                continue
            for version in range(one.start, one.stop):
                slot = by_version[version]
                assert slot.item is not None and slot.holder == self.state.id
                items.append(slot.item)
        return items

    def flown(self, found: Delta | Fork | Full) -> Chain | None:
        """What the provider would hold, if it took this request; every law of a request is here."""
        raw = self.load(found.ranges)
        sent = [to_input(item) for item in raw]
        if isinstance(found, Full):
            assert raw == self.places.items(self.places.window)
            base, input_ = Chain([], [], True), legal(sent)
        else:
            base = self.chains[found.parent.response]
            assert base.store or found.parent.response == self.memory, "nobody remembers it"
            assert base.raw + raw == self.places.items(self.places.window), (
                "the chain is not the context"
            )
            assert raw, "a delta is never empty"
            input_ = legal(sent, _unanswered(base.real))
        if isinstance(found, Delta):
            known = [(call.kind, call.call_id) for call in self.state.calls]
            assert input_ == legal(sent, known), "the head knows the calls of its chain"
        if not input_:
            return None
        assert refusals(base.real, input_) == [], (base.real, input_)
        return Chain([*base.raw, *raw], [*base.real, *input_], True)

    def send(self, found: Delta | Fork | Full, cause: ev.Cause, store: bool) -> bool:
        """Prepare a request; False where all that there is to send is not legal."""
        flight = self.flown(found)
        if flight is None:
            return False
        flight.store = store
        request = ev.RequestPrepared(
            attempt=self.new("att"),
            cause=cause,
            try_number=1,
            kind="full" if isinstance(found, Full) else "delta",
            parent=None if isinstance(found, Full) else found.parent.response,
            ranges=found.ranges,
            format=1,
            digest="d" * 64,
            transport="websocket",
            connection="c1",
            store=store,
            model=self.model,
        )
        self.do(Prepare(request=request))
        self.flight = flight
        return True

    def finish(self, outcome: ev.OutcomeEvent, items: Sequence[JsonObject], lost: bool) -> None:
        attempt, flight = self.state.attempt, self.flight
        assert attempt is not None and flight is not None
        outputs = tuple(
            ev.OutputRecorded(
                attempt=attempt.id,
                response=outcome.response,
                index=place,
                key=self.new("out"),
                item=item,
            )
            for place, item in enumerate(items)
        )
        calls = [(one.key, self.new("call")) for one in outputs if is_client_call(one.item)]
        completed = isinstance(outcome, ev.ResponseCompleted)
        self.do(
            Finish(
                outcome=outcome,
                outputs=outputs,
                calls=tuple(calls) if completed else (),
                chain_lost=lost,
            )
        )
        self.flight = None
        self._remember(attempt.parent, flight, items, outcome)

    def _remember(
        self,
        parent: str | None,
        flight: Chain,
        items: Sequence[JsonObject],
        outcome: ev.OutcomeEvent,
    ) -> None:
        if isinstance(outcome, ev.ResponseCompleted):
            assert outcome.response is not None and self.state.parent is not None
            made = [to_input(item) for item in items]
            flight.raw, flight.real = [*flight.raw, *items], [*flight.real, *made]
            self.chains[outcome.response] = flight
            self.parents.append(self.state.parent)
            self.memory = None if flight.store else outcome.response
        elif parent == self.memory:
            self.memory = None

    def fork(self) -> World:
        """Another future of the committed context; unanswered calls enter as abandoned."""
        made = branch(self.state, self.new("fork"))
        places = self.places.copy()
        child = World(
            story=Story(state=made, now=self.story.now),
            places=places,
            chains={name: chain for name, chain in self.chains.items() if chain.store},
            model=self.model,
            count=self.count,
            base=[Slot(slot.item, slot.version, slot.holder) for slot in places.slots],
            origin=made,
        )
        source = ev.Fork(
            conversation=self.state.id, version=self.state.version, hash=self.state.hash
        )
        child.do(Start(fork=source))
        for call in made.calls:
            child.resolve(call, "abandoned")
        return child

    def resolve(self, call: Call, how: How, *, by_runner: bool = False) -> None:
        item = answer_to(call, how, self.new("said "))
        key = self.new("key")
        self.do(Resolve(call=call.id, how=how, key=key, item=item, by_runner=by_runner))


def _unanswered(chain: Sequence[JsonObject]) -> list[tuple[str, str | None]]:
    """The calls of a chain that still want an output."""
    found: list[tuple[str, str | None]] = []
    for item in chain:
        kind = str(item.get("type", "message"))
        if is_client_call(item):
            found.append((kind, str(pair_id(item))))
        for call, answer in PAIRS.items():
            if answer == kind and (call, str(pair_id(item))) in found:
                found.remove((call, str(pair_id(item))))
    return found


def answer_to(call: Call, how: How, words: str) -> JsonObject:
    """An output item for a call of any kind."""
    asked: JsonObject = {"type": call.kind, "call_id": call.call_id, "id": call.call_id}
    if how == "answered" and call.kind == "function_call":
        return output(str(call.call_id), words)
    return refused_output(asked, words)


# -- what the provider makes ---------------------------------------------------------------


def client_call(world: World, kind: str) -> JsonObject:
    """A call of this kind that the caller has to answer."""
    id, call_id = world.new("item_"), world.new("c")
    match kind:
        case "function_call":
            return called(call_id)
        case "mcp_approval_request":
            return {"type": kind, "id": id, "name": "pay", "server_label": "bank"}
        case "tool_search_call":
            return {"type": kind, "id": id, "call_id": call_id, "execution": "client"}
        case "shell_call":
            return {"type": kind, "id": id, "call_id": call_id, "environment": {"type": "local"}}
        case _:
            return {"type": kind, "id": id, "call_id": call_id, "action": {"type": "x"}}


def hosted(world: World, kind: str) -> list[JsonObject]:
    """What the provider runs itself, with its output."""
    id = world.new("item_")
    if kind == "search":
        there: JsonObject = {"call_id": None, "execution": "server"}
        return [
            {"type": "tool_search_call", "id": f"ts_{id}", **there},
            {"type": "tool_search_output", "id": f"tso_{id}", **there},
        ]
    if kind == "shell":
        box: JsonObject = {"type": "container_reference", "container_id": "x"}
        return [
            {"type": "shell_call", "id": f"sh_{id}", "call_id": id, "environment": box},
            {"type": "shell_call_output", "id": f"sho_{id}", "call_id": id, "created_by": "x"},
        ]
    return [{"type": "web_search_call", "id": f"ws_{id}", "status": "completed", "action": None}]


@st.composite
def outputs(draw: st.DrawFn, world: World) -> list[JsonObject]:
    """The output of a response: text, reasoning, calls of every kind, hosted tools."""
    made: list[JsonObject] = []
    for what in draw(st.lists(st.sampled_from(["text", "call", "hosted"]), max_size=4)):
        if draw(st.booleans()):
            made.append(thought(world.new("rs_")))
        match what:
            case "text":
                made.append(said(world.new("msg_"), world.new("text ")))
            case "call":
                made.append(client_call(world, draw(st.sampled_from(sorted(PAIRS)))))
            case _:
                made += hosted(world, draw(st.sampled_from(["search", "shell", "web"])))
    return made


@st.composite
def additions(draw: st.DrawFn, world: World) -> tuple[Keyed, ...]:
    """What a caller adds by hand: messages, and now and then a call with its output."""
    made: list[JsonObject] = []
    for what in draw(st.lists(st.sampled_from(["user", "user", "pair"]), min_size=1, max_size=3)):
        if what == "user":
            made.append(user(world.new("says ")))
        else:
            call_id = world.new("own")
            made += [called(call_id), output(call_id)]
    return tuple(world.key(item) for item in made)


# -- what happens next ---------------------------------------------------------------------

Action = Callable[[st.DrawFn, World], None]


def add(draw: st.DrawFn, world: World) -> None:
    world.do(AddItems(items=draw(additions(world))))


def insert(draw: st.DrawFn, world: World) -> None:
    ordinal = draw(st.integers(0, world.state.next))
    world.do(AddItems(items=draw(additions(world)), ordinal=ordinal))


def _place(draw: st.DrawFn, world: World) -> int:
    places = [place for place, slot in enumerate(world.places.slots) if slot.item is not None]
    return draw(st.sampled_from(places[::-1]))


def edit(draw: st.DrawFn, world: World) -> None:
    ordinal = _place(draw, world)
    before = world.places.slots[ordinal].item
    assert before is not None
    item = user(world.new("edited "))
    if before.get("type") == "function_call_output" and draw(st.booleans()):
        item = without_identity({**before, "output": world.new("redacted ")})
    one = world.key(item)
    world.do(EditItem(ordinal=ordinal, key=one.key, item=one.item))


def remove(draw: st.DrawFn, world: World) -> None:
    world.do(RemoveItem(ordinal=_place(draw, world), key=world.new("key")))


def configure(draw: st.DrawFn, world: World) -> None:
    world.model = draw(st.sampled_from(["m1", "m2"]))
    config = ev.ConversationConfigured(model=world.model, fingerprint=world.model)
    world.do(Configure(config=config))


def drop(_: st.DrawFn, world: World) -> None:
    world.memory = None


def compact(draw: st.DrawFn, world: World) -> None:
    ordinal = draw(st.integers(0, world.state.committed))
    world.do(Note(events=(ev.ContextCompacted(ordinal=ordinal),)))


def begin(draw: st.DrawFn, world: World) -> None:
    abandon = tuple(refusal(world, call) for call in world.state.pending)
    world.do(
        BeginTurn(
            turn=world.new("turn"),
            key=world.new("idem"),
            digest="d",
            items=draw(additions(world)),
            abandon=abandon,
        )
    )


def refusal(world: World, call: Call) -> Keyed:
    return world.key(answer_to(call, "abandoned", world.new("no ")))


def send(draw: st.DrawFn, world: World) -> None:
    older = draw(st.sampled_from(world.parents)) if world.parents else None
    found = world.planned(older)
    match found:
        case Wait(calls=calls):
            assert calls == tuple(call.id for call in world.state.pending) != ()
        case Nothing():
            assert not world.places.items(world.places.committed)
        case _:
            causes: list[ev.Cause] = ["first", "retry", "chain_lost"]
            world.send(found, draw(st.sampled_from(causes)), draw(st.integers(0, 3)) > 0)


def hear(_: st.DrawFn, world: World) -> None:
    attempt = world.state.attempt
    assert attempt is not None
    heard = ev.ResponseStarted(attempt=attempt.id, response=world.new("resp"), connection="c1")
    shown = ev.OutputCheckpointed(attempt=attempt.id, part="text:0:0", offset=0, text="Hel")
    world.do(Note(events=(heard, shown)))


def finish(draw: st.DrawFn, world: World) -> None:
    attempt = world.state.attempt
    assert attempt is not None
    items = draw(outputs(world))
    kind = draw(st.sampled_from(["completed"] * 9 + ["incomplete", "failed", "cut", "silence"]))
    outcomes: dict[str, ev.OutcomeEvent] = {
        "completed": ev.ResponseCompleted(attempt=attempt.id, response=world.new("resp")),
        "incomplete": ev.ResponseIncomplete(attempt=attempt.id, response=world.new("resp")),
        "failed": ev.ResponseFailed(attempt=attempt.id, error={"code": "server_error"}),
        "cut": ev.ResponseInterrupted(attempt=attempt.id, reason="lost"),
        "silence": ev.ResponseUnknown(attempt=attempt.id, reason="lost"),
    }
    world.finish(outcomes[kind], items, lost=False)


def refuse(draw: st.DrawFn, world: World) -> None:
    attempt = world.state.attempt
    assert attempt is not None
    lost = draw(st.booleans()) and attempt.parent is not None
    code = "previous_response_not_found" if lost else "websocket_connection_limit_reached"
    refused = ev.ResponseRejected(attempt=attempt.id, status=400, error={"code": code})
    world.finish(refused, (), lost)


def pause(_: st.DrawFn, world: World) -> None:
    calls = tuple(call.id for call in world.state.pending)
    world.do(PauseTurn(reason="approval", calls=calls))


def cancel(draw: st.DrawFn, world: World) -> None:
    modes: list[ev.CancelMode] = ["now", "after_request"]
    world.do(RequestCancel(mode=draw(st.sampled_from(modes))))


def end(draw: st.DrawFn, world: World) -> None:
    outcomes: list[ev.TurnOutcome] = ["completed", "failed", "cancelled", "limited"]
    abandon = tuple(refusal(world, call) for call in world.state.pending)
    world.do(EndTurn(outcome=draw(st.sampled_from(outcomes)), abandon=abandon))


def settle(draw: st.DrawFn, world: World) -> None:
    call = draw(st.sampled_from(world.state.pending))
    always: list[How] = ["answered", "abandoned"]
    at_first: list[How] = [*always, "rejected"]
    how = at_first if call.status in ("requested", "approved") else always
    world.resolve(call, draw(st.sampled_from(how)), by_runner=True)


def progress(draw: st.DrawFn, world: World) -> None:
    call = draw(st.sampled_from(world.state.pending))
    steps: dict[str, list[Command]] = {
        "requested": [Approve(call=call.id), StartCall(call=call.id)],
        "approved": [StartCall(call=call.id)],
        "started": [
            Progress(call=call.id, data={"done": 1}),
            Defer(call=call.id),
            DoubtCalls(calls=(call.id,), reason="crashed"),
        ],
        "deferred": [Progress(call=call.id, data={})],
        "uncertain": [Approve(call=call.id, rerun=True), StartCall(call=call.id)],
    }
    world.do(draw(st.sampled_from(steps[call.status])))


def answer_late(draw: st.DrawFn, world: World) -> None:
    world.resolve(draw(st.sampled_from(_late(world))), "answered")


def _late(world: World) -> list[Call]:
    attempt = world.state.attempt
    end = attempt.end if attempt is not None else 0
    return [
        call
        for call in world.state.calls
        if call.status == "abandoned" and call.ordinal is not None and call.ordinal >= end
    ]


def legal_actions(world: World) -> list[Action]:
    """Everything that may happen now; what leads on stands more than once."""
    state = world.state
    found: list[Action] = [add]
    if state.attempt is not None:
        found += [hear, *[finish] * 5, refuse]
    elif state.turn is None:
        found += [begin] * 4
    else:
        found += [*[send] * 5, end, end, *([begin] if state.turn.paused else [pause])]
    found += [cancel] if state.turn is not None and not state.turn.cancel else []
    found += [*[settle] * 3, *[progress] * 4] if state.pending else []
    found += [answer_late] if _late(world) else []
    return found + (_rare(world) if world.count % 5 == 0 else [])


def _rare(world: World) -> list[Action]:
    """What spoils a chain: too much of it, and no chain would ever be long."""
    found: list[Action] = [drop]
    if world.state.attempt is None:
        found += [insert, configure, compact]
        found += [edit, remove] * 2 if any(slot.item for slot in world.places.slots) else []
    return found


@st.composite
def histories(draw: st.DrawFn, steps: int = 40) -> World:
    """A world in which something happened, perhaps a fork of another."""
    world = World()
    world.do(Start(metadata=draw(json_objects)))
    for _ in range(draw(st.integers(0, steps))):
        draw(st.sampled_from(legal_actions(world)))(draw, world)
    if draw(st.integers(0, 3)) == 0:
        world = world.fork()
        for _ in range(draw(st.integers(0, steps // 2))):
            draw(st.sampled_from(legal_actions(world)))(draw, world)
    return world
