"""What a watcher is told, live or from the log: in the end, from any cursor, the final text.

A *tape* is what happened in order: facts as they were recorded, and between them what streamed. A
*screen* is what a page shows of it. Tapes are made by the real `Reception`, with everything that
may come between: checkpoints at any cut, texts that take turns, retries, and finals that differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlog import events as ev
from turnlog.canonical import GENESIS, Json, JsonObject
from turnlog.errors import InvalidInput
from turnlog.items import is_client_call
from turnlog.narrator import Narrator
from turnlog.ports import Frame
from turnlog.reception import Reception, final_parts
from turnlog.record import NewEvent, Recorded, Stamp, record
from turnlog.updates import (
    CallUpdate,
    Cursor,
    Delta,
    HostedUpdate,
    ItemUpdate,
    Retracted,
    TurnDone,
    UnknownUpdate,
    Update,
)

Seen: TypeAlias = Recorded | Delta | HostedUpdate
Ending = Literal["completed", "contradicted", "incomplete", "fetched", "cut", "crashed", "failed"]

# -- what happened -------------------------------------------------------------------------


@dataclass(slots=True)
class Tape:
    """What happened in one conversation; `final` is the text that stands in the end."""

    seen: list[Seen] = field(default_factory=list[Seen])
    version: int = 0
    hash: bytes = GENESIS
    final: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    reception: Reception = field(default_factory=lambda: Reception(attempt="", version=0))

    def tell(self, *events: ev.Event) -> None:
        ids = [f"e{self.version + place}" for place in range(len(events))]
        stamp = Stamp(time=0, actor="test", epoch=1, ids=ids, salts=[b""] * len(events))
        new = [NewEvent(event=event, turn="turn") for event in events]
        facts = record("conv", self.version, self.hash, new, stamp)
        self.version, self.hash = facts[-1].version, facts[-1].hash
        self.seen += facts

    @property
    def log(self) -> list[Recorded]:
        return [one for one in self.seen if isinstance(one, Recorded)]

    def attempt(self, id: str) -> Tape:
        request = ev.RequestPrepared(
            attempt=id,
            cause="first",
            try_number=1,
            kind="full",
            ranges=(),
            format=1,
            digest="",
            transport="http",
            store=True,
        )
        self.tell(request)
        self.reception = Reception(attempt=id, version=self.version)
        return self

    def stream(self, type: str, **data: Json) -> Tape:
        """A frame arrives; its notes are recorded at once, its text is not."""
        update = self.reception.feed(Frame(type=type, data={"type": type, **data}))
        if update is not None:
            self.seen.append(update)
        return self.record(self.reception.take_notes())

    def text(self, said: str, place: int = 0, kind: str = "output_text") -> Tape:
        return self.stream(f"response.{kind}.delta", output_index=place, delta=said)

    def checkpoint(self) -> Tape:
        return self.record(self.reception.take_checkpoints())

    def record(self, events: Sequence[ev.Event]) -> Tape:
        if events:
            self.tell(*events)
        return self

    def end(
        self, *output: JsonObject, how: Literal["completed", "incomplete"] = "completed"
    ) -> Tape:
        """The terminal frame comes, with these items."""
        data: JsonObject = {"response": {"id": "r", "output": [*output]}}
        self.reception.feed(Frame(type=f"response.{how}", data=data, terminal=how))
        self.record(self.reception.take_notes())
        attempt = self.reception.attempt
        outputs = [
            ev.OutputRecorded(attempt=attempt, index=place, key=f"{attempt}.{place}", item=item)
            for place, item in enumerate(output)
        ]
        outcome = self.reception.outcome()
        assert outcome is not None
        self.tell(*outputs, outcome)
        for part, (_, said) in final_parts(output).items():
            if said:
                self.final[attempt, part] = said
        return self

    def cut(self) -> Tape:
        """The connection is lost; what streamed is saved."""
        self.checkpoint()
        self.tell(self.reception.interrupted("cut"))
        return self

    def turn_end(self, outcome: ev.TurnOutcome = "completed") -> Tape:
        self.tell(ev.TurnEnded(outcome=outcome))
        return self


def message(*said: str) -> JsonObject:
    content = [{"type": "output_text", "text": one} for one in said]
    return {"type": "message", "id": "m1", "role": "assistant", "content": content}


def thought(*said: str) -> JsonObject:
    return {"type": "reasoning", "summary": [{"type": "summary_text", "text": s} for s in said]}


CALL: JsonObject = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "c1",
    "name": "look",
    "arguments": '{"x":1}',
}

# -- what is seen of it --------------------------------------------------------------------


@dataclass(slots=True)
class Screen:
    """What a page shows: texts by attempt and part, and each fact that it was told."""

    texts: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    facts: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])

    def show(self, update: Update) -> None:
        match update:
            case Delta():
                place = update.cursor.attempt, update.part
                self.texts[place] = self.texts.get(place, "") + update.delta
                assert update.cursor.part == update.part
                assert update.cursor.offset == len(self.texts[place])
            case Retracted():
                self.texts = {at: s for at, s in self.texts.items() if at[0] != update.attempt}
            case ItemUpdate():
                self.facts.append((update.type, update.key))
            case CallUpdate():
                self.facts.append((update.type, update.call))
            case TurnDone():
                self.facts.append((update.type, update.status))
            case UnknownUpdate():
                self.facts.append((update.type, update.event))
            case HostedUpdate():
                pass

    def copy(self) -> Screen:
        return Screen(dict(self.texts), list(self.facts))


def told(narrator: Narrator, seen: Iterable[Seen]) -> list[Update]:
    return [
        update
        for one in seen
        for update in (narrator.event(one) if isinstance(one, Recorded) else narrator.delta(one))
    ]


def watch(tape: Tape) -> list[Update]:
    """What somebody is told who watches from the start."""
    return told(Narrator(), tape.seen)


def shown(updates: Iterable[Update]) -> Screen:
    screen = Screen()
    for update in updates:
        screen.show(update)
    return screen


def kinds(updates: Iterable[Update]) -> list[str]:
    return [update.type for update in updates]


# -- the laws ------------------------------------------------------------------------------

words = st.text(st.sampled_from("ab/=:é😀 "), max_size=4)
ENDINGS: list[Ending] = ["completed", "contradicted", "incomplete", "fetched"]
ANY: list[Ending] = ["cut", "crashed", "failed", *ENDINGS]


@st.composite
def tapes(draw: st.DrawFn) -> Tape:
    """A turn of some attempts: some are lost, the others come to an end, the last in any case."""
    tape = Tape()
    tape.tell(ev.TurnStarted(key="k", digest="d"))
    endings: list[Ending] = [*draw(st.lists(st.sampled_from(ANY), max_size=3))]
    endings.append(draw(st.sampled_from(ENDINGS)))
    for number, ending in enumerate(endings):
        draw_attempt(draw, tape.attempt(f"a{number}"), ending)
    return tape.turn_end()


def draw_attempt(draw: st.DrawFn, tape: Tape, ending: Ending) -> None:
    tape.stream("response.created", response={"id": "r"})
    for place in draw(st.lists(st.integers(0, 5), max_size=8)):
        if place < 3:
            kind = "reasoning_summary_text" if place == 0 else "output_text"
            tape.text(draw(words), place, kind)
        elif place == 3:
            tape.stream("response.web_search_call.searching")
        elif place == 4:
            tape.stream("response.odd")
        else:
            tape.checkpoint()
    if ending == "cut":
        tape.cut()
    elif ending in ("crashed", "failed"):
        tape.tell(lost(tape.reception.attempt, ending))
    else:
        draw_end(draw, tape, ending)


def lost(attempt: str, ending: Ending) -> ev.Event:
    if ending == "failed":
        return ev.ResponseFailed(attempt=attempt, retryable=True)
    return ev.ResponseInterrupted(attempt=attempt, reason="crashed")


def draw_end(draw: st.DrawFn, tape: Tape, ending: Ending) -> None:
    """The final text goes on from what streamed, or is quite another one."""
    so_far = {one.part: one.delta for one in tape.reception.so_far()}
    final = [so_far.get(f"{kind}:{place}:0", "") + draw(words) for place, kind in enumerate(PARTS)]
    if ending == "contradicted":
        final[draw(st.integers(1, 2))] = "Another: " + draw(words)
    if ending == "fetched":  # by another process, which has heard nothing of it
        tape.reception = Reception(
            attempt=tape.reception.attempt, version=tape.reception.version, response="r"
        )
    items = [thought(final[0]), message(final[1]), message(final[2]), CALL]
    if ending == "incomplete":
        tape.end(*items, how="incomplete")
        return
    tape.end(*items)
    attempt = tape.reception.attempt
    output: JsonObject = {"type": "function_call_output", "call_id": "c1", "output": "42"}
    tape.tell(ev.CallRequested(call=f"call-{attempt}", item=f"{attempt}.3"))
    tape.tell(ev.CallStarted(call=f"call-{attempt}"))
    tape.tell(ev.CallAnswered(call=f"call-{attempt}", key=f"out-{attempt}", item=output))


PARTS = ("summary", "text", "text")


@given(tapes())
def test_who_watches_live_ends_with_the_final_text(tape: Tape) -> None:
    assert shown(watch(tape)).texts == tape.final


@given(tapes())
def test_who_reads_the_log_ends_with_the_same_and_is_told_the_same_facts(tape: Tape) -> None:
    replayed = shown(told(Narrator(), tape.log))
    assert replayed.texts == tape.final
    assert replayed.facts == shown(watch(tape)).facts


@given(tapes(), st.data())
def test_from_any_cursor_exactly_the_rest_is_told_from_the_log(
    tape: Tape, data: st.DataObject
) -> None:
    updates = watch(tape)
    had = data.draw(st.integers(1, len(updates)))
    screen, cursor = shown(updates[:had]), str(updates[had - 1].cursor)
    for update in told(Narrator(Cursor.parse(cursor)), tape.log):
        screen.show(update)
    assert screen.texts == tape.final
    assert screen.facts == shown(updates).facts


@given(tapes(), st.data())
def test_from_any_cursor_exactly_the_rest_is_told_to_who_joins_live(
    tape: Tape, data: st.DataObject
) -> None:
    updates = watch(tape)
    had = data.draw(st.integers(1, len(updates)))
    screen, cursor = shown(updates[:had]), str(updates[had - 1].cursor)
    # Reading the log ends at some place of the tape: what streamed before it was not kept. The
    # log has at least what the cursor has seen.
    version = Cursor.parse(cursor).version
    known = [place for place, one in enumerate(tape.seen) if is_known(one, version)]
    joined = data.draw(st.integers(known[-1] + 1 if known else 0, len(tape.seen)))
    facts = [one for one in tape.seen[:joined] if isinstance(one, Recorded)]
    for update in told(Narrator(Cursor.parse(cursor)), [*facts, *tape.seen[joined:]]):
        screen.show(update)
    assert screen.texts == tape.final
    assert screen.facts == shown(updates).facts


def is_known(seen: Seen, version: int) -> bool:
    """Whether it is a fact that stands in the log at a version."""
    return isinstance(seen, Recorded) and seen.version <= version


@given(tapes(), st.lists(st.integers(1, 3), max_size=6))
def test_a_page_that_reloads_again_and_again_ends_with_the_same(
    tape: Tape, steps: list[int]
) -> None:
    screen, cursor = Screen(), Cursor()
    for step in steps:
        for update in told(Narrator(cursor), tape.log)[:step]:
            screen.show(update)
            cursor = Cursor.parse(str(update.cursor))
    for update in told(Narrator(cursor), tape.log):
        screen.show(update)
    assert screen.texts == tape.final
    assert screen.facts == shown(watch(tape)).facts


# -- texts, one by one ---------------------------------------------------------------------


def test_deltas_pass_through_as_they_stream() -> None:
    tape = Tape().attempt("a1").text("Hel").text("lo").end(message("Hello"))
    deltas = [update for update in watch(tape) if isinstance(update, Delta)]
    assert [one.delta for one in deltas] == ["Hel", "lo"]
    assert deltas[0].raw["type"] == "response.output_text.delta"
    assert [str(one.cursor) for one in deltas] == ["1/a1/text:0:0/3", "1/a1/text:0:0/5"]


def test_a_watcher_that_had_part_of_a_delta_is_told_the_other_part() -> None:
    tape = Tape().attempt("a1").text("Hello")
    (rest,) = told(Narrator(Cursor(1, "a1", "text:0:0", 3)), tape.seen)
    assert isinstance(rest, Delta)
    assert (rest.delta, rest.raw) == ("lo", {})


def test_reasoning_that_was_seen_is_not_told_again_with_the_answer() -> None:
    tape = Tape().attempt("a1").text("Hm.", 0, "reasoning_summary_text").text("Hello", 1)
    cursor = watch(tape)[-1].cursor
    assert str(cursor) == "1/a1/text:1:0/5/summary:0:0=3"
    tape.text(", you", 1).end(thought("Hm."), message("Hello, you"))
    rest = told(Narrator(cursor), tape.log)
    assert kinds(rest) == ["text.delta", "item", "item"]
    assert isinstance(rest[0], Delta)
    assert rest[0].delta == ", you"


def test_behind_a_gap_nothing_is_told_until_it_is_closed() -> None:
    tape = Tape().attempt("a1").text("Hel").text("lo")
    late = Narrator()
    assert told(late, [tape.seen[0], tape.seen[2]]) == []
    tape.checkpoint()
    (told_at_once,) = told(late, tape.seen[3:])
    assert isinstance(told_at_once, Delta)
    assert told_at_once.delta == "Hello"


def test_who_joins_late_is_caught_up_and_told_nothing_twice() -> None:
    tape = Tape().attempt("a1").text("Hel").text("lo")
    streamed = [one for one in tape.seen if isinstance(one, Delta)]
    (caught_up,) = told(Narrator(), [*tape.log, *tape.reception.so_far(), *streamed])
    assert isinstance(caught_up, Delta)
    assert caught_up.delta == "Hello"


def test_what_streams_of_an_attempt_that_is_not_known_yet_waits() -> None:
    tape = Tape().attempt("a1").text("Hello").checkpoint()
    assert told(Narrator(), tape.seen[1:]) == []


def test_the_final_text_of_an_incomplete_response_is_told_too() -> None:
    tape = Tape().attempt("a1").text("Hel").end(message("Hello"), how="incomplete")
    assert kinds(told(Narrator(), tape.log)) == ["text.delta", "item"]


def test_a_text_of_a_kind_that_is_not_known_is_told_as_text() -> None:
    tape = Tape().attempt("a1")
    tape.tell(ev.OutputCheckpointed(attempt="a1", part="song:0:0", offset=0, text="La"))
    assert kinds(watch(tape)) == ["text.delta"]


def test_reasoning_that_the_provider_keeps_to_itself_is_not_retracted() -> None:
    tape = Tape().attempt("a1").text("Hm.", 0, "reasoning_text").text("Hello", 1)
    tape.end({"type": "reasoning", "summary": []}, message("Hello"))
    assert kinds(watch(tape)) == ["reasoning.delta", "text.delta", "item", "item"]


# -- retractions ---------------------------------------------------------------------------


def test_w30_what_was_visible_is_retracted_before_another_attempt_shows_any() -> None:
    tape = Tape().attempt("a1").text("Hello wor").cut().attempt("a2").text("Hello")
    updates = watch(tape)
    assert kinds(updates) == ["text.delta", "retracted", "text.delta"]
    retracted = updates[1]
    assert isinstance(retracted, Retracted)
    assert (retracted.attempt, retracted.reason) == ("a1", "another attempt follows")
    assert retracted.cursor.attempt == "a2"


def test_w30_a_page_that_reloads_meanwhile_hears_of_the_retraction() -> None:
    tape = Tape().attempt("a1").text("Hello wor")
    cursor = watch(tape)[-1].cursor
    tape.tell(ev.ResponseInterrupted(attempt="a1", reason="crashed"))  # nothing was saved
    tape.attempt("a2").text("Hello").checkpoint()
    assert kinds(told(Narrator(cursor), tape.log)) == ["retracted", "text.delta"]


def test_where_nothing_was_visible_nothing_is_retracted() -> None:
    tape = Tape().attempt("a1")
    tape.tell(ev.ResponseRejected(attempt="a1", retryable=True))
    assert kinds(watch(tape.attempt("a2").text("Hello"))) == ["text.delta"]


def test_the_partial_text_of_a_turn_that_failed_stays_when_the_next_begins() -> None:
    tape = Tape().attempt("a1").text("Hello wor").cut().turn_end("failed")
    assert kinds(watch(tape.attempt("a2").text("Hi"))) == ["text.delta", "turn.done", "text.delta"]


def test_a_turn_that_paused_between_two_attempts_still_retracts() -> None:
    tape = Tape().attempt("a1").text("Hello wor").cut()
    tape.tell(ev.TurnPaused(reason="crashed"))
    updates = watch(tape.attempt("a2"))
    assert kinds(updates) == ["text.delta", "turn.done", "retracted"]
    waiting = updates[1]
    assert isinstance(waiting, TurnDone)
    assert (waiting.status, waiting.reason) == ("waiting", "crashed")


def test_a_final_answer_that_contradicts_is_retracted_and_told_anew() -> None:
    tape = Tape().attempt("a1").text("Hello wor").end(message("Goodbye"))
    updates = watch(tape)
    assert kinds(updates) == ["text.delta", "retracted", "text.delta", "item"]
    retracted, anew = updates[1], updates[2]
    assert isinstance(retracted, Retracted)
    assert isinstance(anew, Delta)
    assert retracted.reason == "the final answer differs from what streamed"
    assert (anew.delta, anew.item) == ("Goodbye", "m1")


def test_who_saw_nothing_of_what_is_contradicted_hears_only_the_final_answer() -> None:
    tape = Tape().attempt("a1").text("Hm.", 0, "reasoning_text").end(message("Hello"))
    log = [one for one in tape.log if not isinstance(one.event, ev.OutputCheckpointed)]
    assert kinds(told(Narrator(), log)) == ["text.delta", "item"]


def test_a_cursor_beyond_the_final_text_is_a_contradiction() -> None:
    tape = Tape().attempt("a1").end(message("Hi"))
    beyond = Cursor(1, "a1", "text:0:0", 9)
    assert kinds(told(Narrator(beyond), tape.log)) == ["retracted", "text.delta", "item"]


# -- facts ---------------------------------------------------------------------------------


def test_calls_carry_what_they_ask_and_what_became_of_them() -> None:
    output: JsonObject = {"type": "function_call_output", "call_id": "c1", "output": "42"}
    assert is_client_call(CALL)
    tape = Tape().attempt("a1").end(CALL)
    tape.tell(
        ev.CallRequested(call="c", item="a1.0"),
        ev.CallApproved(call="c", reason="fine"),
        ev.CallStarted(call="c"),
        ev.CallProgressed(call="c", data={"done": 1}),
        ev.CallDeferred(call="c"),
        ev.CallUncertain(call="c", reason="crashed"),
        ev.CallAnswered(call="c", key="o", item=output),
        ev.CallRejected(call="c", key="o", item=output, reason="no"),
        ev.CallAbandoned(call="c", key="o", item=output, reason="late"),
    )
    calls = [update for update in watch(tape) if isinstance(update, CallUpdate)]
    assert {(one.call, one.name, one.kind, one.arguments) for one in calls} == {
        ("c", "look", "function_call", '{"x":1}')
    }
    assert [(one.type, one.output, one.data, one.reason) for one in calls] == [
        ("call.requested", None, None, None),
        ("call.approved", None, None, "fine"),
        ("call.started", None, None, None),
        ("call.progressed", None, {"done": 1}, None),
        ("call.deferred", None, None, None),
        ("call.uncertain", None, None, "crashed"),
        ("call.answered", output, None, None),
        ("call.rejected", output, None, "no"),
        ("call.abandoned", output, None, "late"),
    ]
    # A page that comes back later still learns what the call was.
    (last,) = told(Narrator(calls[-2].cursor), tape.log)
    assert isinstance(last, CallUpdate)
    assert (last.name, last.raw) == ("look", CALL)


def test_a_call_whose_item_was_not_read_has_no_name() -> None:
    tape = Tape()
    tape.tell(ev.CallStarted(call="c"))
    (update,) = watch(tape)
    assert isinstance(update, CallUpdate)
    assert (update.name, update.kind, update.arguments) == (None, None, None)


def test_between_two_items_of_one_response_a_cursor_tells_them_apart() -> None:
    tape = Tape().attempt("a1").end(thought("Hm."), message("Hi"), CALL)
    items = [update for update in watch(tape) if isinstance(update, ItemUpdate)]
    assert [one.key for one in items] == ["a1.0", "a1.1", "a1.2"]
    assert items[1].item == items[1].raw == message("Hi")
    rest = told(Narrator(items[0].cursor), tape.log)
    assert rest == items[1:]


def test_w22_unknown_and_unreadable_frames_are_told_with_what_they_said() -> None:
    tape = Tape().attempt("a1").stream("response.odd", x=1)
    tape.reception.feed(Frame(type="", data={}, text="{broken"))
    tape.record(tape.reception.take_notes())
    tape.tell(ev.ProviderNoted(kind="diagnostics"))
    odd, broken = watch(tape)
    assert isinstance(odd, UnknownUpdate)
    assert isinstance(broken, UnknownUpdate)
    assert (odd.event, odd.text, odd.raw["x"]) == ("response.odd", None, 1)
    assert (broken.event, broken.text) == ("unreadable", "{broken")


def test_the_end_of_a_turn_says_how_and_why() -> None:
    tape = Tape()
    tape.tell(ev.TurnEnded(outcome="failed", error={"message": "no"}))
    (done,) = watch(tape)
    assert isinstance(done, TurnDone)
    assert (done.turn, done.status, done.reason) == ("turn", "failed", "no")


def test_progress_of_a_hosted_tool_has_a_cursor_that_knows_the_text() -> None:
    tape = Tape().attempt("a1").text("Hel").stream("response.mcp_call.in_progress").text("lo")
    hosted = watch(tape)[1]
    assert isinstance(hosted, HostedUpdate)
    (rest,) = told(Narrator(hosted.cursor), tape.checkpoint().log)
    assert isinstance(rest, Delta)
    assert rest.delta == "lo"


# -- cursors -------------------------------------------------------------------------------

names = st.text(st.characters(exclude_characters="/="), max_size=8)
numbers = st.integers(0, 10**18 - 1)


@given(
    st.builds(
        Cursor,
        version=numbers,
        attempt=names,
        part=names,
        offset=numbers,
        others=st.lists(st.tuples(names.filter(bool), numbers), max_size=3).map(tuple),
    )
)
def test_a_cursor_survives_the_way_to_a_page_and_back(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "wrong",
    ["", "7", "7/a/b", "x/a/b/1", "-1/a/b/1", "1/a/b/-1", "1/a/b/1/", "1/a/b/1/c", "1/a/b/\uff11"],
)
def test_what_is_no_cursor_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(InvalidInput, match="is not a cursor"):
        Cursor.parse(wrong)


def test_a_page_that_reloads_behind_a_retraction_is_not_told_the_text_again() -> None:
    tape = Tape()
    tape.tell(ev.TurnStarted(key="k", digest="d"))
    tape.attempt("a0").stream("response.created", response={"id": "r"})
    tape.text("So", 0).checkpoint().end(message("Not so."))
    updates = told(Narrator(), tape.turn_end().log)
    assert kinds(updates)[:3] == ["text.delta", "retracted", "text.delta"]
    behind = Cursor.parse(str(updates[1].cursor))
    assert told(Narrator(behind), tape.log) == updates[2:]


@pytest.mark.parametrize("steps", [[1], [2], [3], [1, 1, 2, 1], [2, 2, 1], [1, 1, 1, 1, 1]])
def test_a_page_that_reloads_inside_an_answer_that_contradicts_is_told_each_item_once(
    steps: list[int],
) -> None:
    tape = Tape()
    tape.tell(ev.TurnStarted(key="k", digest="d"))
    tape.attempt("a0").stream("response.created", response={"id": "r"})
    tape.text("What is long and wrong", 0).checkpoint().end(message("Right."), CALL)
    tape.turn_end()
    screen, cursor = Screen(), Cursor()
    for step in [*steps, 100]:
        for update in told(Narrator(cursor), tape.log)[:step]:
            screen.show(update)
            cursor = Cursor.parse(str(update.cursor))
    assert screen.texts == tape.final
    assert screen.facts == shown(watch(tape)).facts
