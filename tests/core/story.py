"""Given, when, then: a conversation that a test writes command by command.

Ids, salts and time are counted, so that the same story is the same bytes each time. Nothing here
decides anything: `do` is decide, record and fold, as the shell does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from turnlog import events as ev
from turnlog.canonical import JsonObject
from turnlog.decide import (
    AddItems,
    BeginTurn,
    Command,
    EndTurn,
    Finish,
    Keyed,
    Prepare,
    Resolve,
    Start,
    decide,
)
from turnlog.index import Change, advance
from turnlog.items import is_client_call, refused_output
from turnlog.plan import Delta, Fork, Full, Plan, Reach, plan
from turnlog.record import NewEvent, Recorded, Stamp, record
from turnlog.state import State, start

SECOND = 1_000_000


def user(text: str = "Hello") -> JsonObject:
    return {"role": "user", "content": text}


def said(id: str, text: str = "Hi") -> JsonObject:
    """A message as the provider makes it."""
    part: JsonObject = {"type": "output_text", "text": text, "annotations": []}
    return {
        "type": "message",
        "id": id,
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }


def thought(id: str) -> JsonObject:
    return {"type": "reasoning", "id": id, "summary": [], "encrypted_content": f"e-{id}"}


def called(call_id: str, name: str = "look") -> JsonObject:
    """A function call as the provider makes it; its item id follows from the call id."""
    return {
        "type": "function_call",
        "id": f"fc_{call_id}",
        "call_id": call_id,
        "name": name,
        "arguments": "{}",
    }


def output(call_id: str, text: str = "42") -> JsonObject:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def message(text: str, n: int = 0) -> Keyed:
    return Keyed(key=f"k{n}-{text}", item=user(text))


@dataclass(slots=True)
class Story:
    """A conversation in memory: its events, its head, and what its store would be told."""

    state: State = field(default_factory=lambda: start("conv"))
    events: list[Recorded] = field(default_factory=list[Recorded])
    changes: list[Change] = field(default_factory=list[Change])
    now: int = SECOND
    made: int = 0

    def name(self, prefix: str) -> str:
        """A new id."""
        self.made += 1
        return f"{prefix}_{self.state.id}_{self.made}"

    def do(self, command: Command) -> list[ev.Event]:
        """Decide a command and record what follows; raises what `decide` raises."""
        return self.take(decide(self.state, command))

    def take(self, new: Sequence[NewEvent]) -> list[ev.Event]:
        self.now += 1000
        stamp = Stamp(
            time=self.now,
            actor="test",
            epoch=1,
            ids=[self.name("evt") for _ in new],
            salts=[(self.made + place).to_bytes(16, "big") for place in range(len(new))],
        )
        previous = bytes.fromhex(self.state.hash)
        recorded = record(self.state.id, self.state.version, previous, new, stamp)
        for one in recorded:
            self.state, changes = advance(self.state, one)
            self.changes += changes
        self.events += recorded
        return [one.event for one in recorded]

    def tell(self, *events: ev.Event, turn: str | None = None) -> State:
        """Record events that no command decides."""
        self.take([NewEvent(event=event, turn=turn) for event in events])
        return self.state

    # -- the usual steps, in one word each ---------------------------------------------

    def begin(self, *texts: str, turn: str = "turn", abandon: bool = False) -> Story:
        """Start the conversation where it has not begun, and a turn with these messages."""
        if not self.state.version:
            self.do(Start())
        items = tuple(message(text, self.state.version) for text in texts)
        refused = tuple(self.refusal(call.id) for call in self.state.pending) if abandon else None
        key = f"key-{turn}"
        self.do(BeginTurn(turn=turn, key=key, digest="d", items=items, abandon=refused))
        return self

    def plan(
        self, model: str | None = "m", *, remembers: bool = False, stored_ids: bool = True
    ) -> Plan:
        parent = self.state.parent
        held = {parent.response} if remembers and parent is not None else ()
        reach = Reach(now=self.now, model=model, remembers=held, stored_ids=stored_ids)
        return plan(self.state, reach)

    def prepare(
        self,
        attempt: str = "a1",
        cause: ev.Cause = "first",
        *,
        try_number: int = 1,
        store: bool = True,
        model: str | None = "m",
        connection: str | None = None,
        lane: str | None = None,
        planned: Delta | Fork | Full | None = None,
    ) -> Story:
        """Send a request: what `plan` says, unless that is given."""
        found = planned if planned is not None else self.plan(model, remembers=True)
        assert isinstance(found, (Delta, Fork, Full))
        request = ev.RequestPrepared(
            attempt=attempt,
            cause=cause,
            try_number=try_number,
            kind="full" if isinstance(found, Full) else "delta",
            parent=None if isinstance(found, Full) else found.parent.response,
            ranges=found.ranges,
            format=1,
            digest="b" * 64,
            transport="websocket" if connection else "http",
            connection=connection,
            lane=lane,
            store=store,
            model=model,
        )
        self.do(Prepare(request=request))
        return self

    def complete(self, *items: JsonObject, response: str | None = "r1") -> Story:
        """The open attempt completes with these items; calls are named after their call ids."""
        attempt = self.state.attempt
        assert attempt is not None
        outputs = tuple(
            ev.OutputRecorded(
                attempt=attempt.id,
                response=response,
                index=place,
                key=f"{attempt.id}.{place}",
                item=item,
            )
            for place, item in enumerate(items)
        )
        calls = tuple(
            (one.key, f"call-{one.item['call_id']}") for one in outputs if is_client_call(one.item)
        )
        outcome = ev.ResponseCompleted(attempt=attempt.id, response=response)
        self.do(Finish(outcome=outcome, outputs=outputs, calls=calls))
        return self

    def fail(self, outcome: ev.OutcomeEvent | None = None, *, chain_lost: bool = False) -> Story:
        """The open attempt ends in another way than completed; refused unless said."""
        attempt = self.state.attempt
        assert attempt is not None
        refused = ev.ResponseRejected(attempt=attempt.id, status=429, retryable=True)
        if chain_lost:
            gone: JsonObject = {"code": "previous_response_not_found"}
            refused = ev.ResponseRejected(attempt=attempt.id, status=400, error=gone)
        self.do(Finish(outcome=outcome or refused, chain_lost=chain_lost))
        return self

    def answer(self, call_id: str, text: str = "42") -> Story:
        """The call is answered, from outside."""
        command = Resolve(
            call=f"call-{call_id}", how="answered", key=self.name("key"), item=output(call_id, text)
        )
        self.do(command)
        return self

    def add(self, *items: JsonObject, at: int | None = None) -> Story:
        """The caller adds items."""
        if not self.state.version:
            self.do(Start())
        keyed = tuple(Keyed(key=self.name("key"), item=item) for item in items)
        self.do(AddItems(items=keyed, ordinal=at))
        return self

    def end(self, outcome: ev.TurnOutcome = "completed", reason: str | None = None) -> Story:
        """The turn ends; what is pending is abandoned."""
        abandon = tuple(self.refusal(call.id) for call in self.state.pending)
        self.do(EndTurn(outcome=outcome, abandon=abandon, reason=reason))
        return self

    def refusal(self, call: str, message: str = "nobody answered") -> Keyed:
        """An output that says why there is none."""
        found = self.state.call(call)
        assert found is not None
        asked: JsonObject = {"type": found.kind, "call_id": found.call_id, "id": found.call_id}
        return Keyed(key=self.name("key"), item=refused_output(asked, message))


def exchange() -> Story:
    """A conversation with one finished turn: a message, and the answer `r1` to it."""
    return Story().begin("Hello").prepare().complete(said("m1")).end()


def asked(*call_ids: str) -> Story:
    """A conversation whose model has asked for these calls, and nothing is answered."""
    return Story().begin("Hello").prepare().complete(*(called(one) for one in call_ids))


def versions(ranges: Sequence[ev.Range]) -> list[tuple[str, int, int]]:
    return [(one.of, one.start, one.stop) for one in ranges]
