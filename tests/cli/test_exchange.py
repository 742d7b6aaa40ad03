"""Export and import: without loss, verified first, and whole or not at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import turnlog
from turnlog import events as ev
from turnlog.canonical import Json
from turnlog.draft import Ambient
from turnlog.errors import ImportFailed, NotFound, StoreCorrupt
from turnlog.exchange import export, import_lines
from turnlog.exchange_lines import event_line, json_line, origin, recorded
from turnlog.index import advance
from turnlog.log import Log
from turnlog.ports import Append, Appended, Head
from turnlog.record import NewEvent, Recorded, Stamp, record
from turnlog.state import start
from turnlog.store import MemoryStore
from turnlog.testing import call, calls, scripted, text

from ..core.strategies import World, histories
from .given import Desk

HEADER = 0


@turnlog.tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


AGENT = turnlog.Agent("support", model="gpt-5.5", tools=[add])


def ambient() -> Ambient:
    """Time and randomness that are the same every time."""
    ticks = count(1_700_000_000_000_000, 1000)
    return Ambient(now=lambda: next(ticks), token=lambda size: next(ticks).to_bytes(size, "big"))


@asynccontextmanager
async def filled(store: MemoryStore) -> AsyncGenerator[Log]:
    """A log with `c1`, its fork `c2`, and `c3`, which was forked from that."""
    replies = [
        calls(call("add", a=1, b=2), call("add", a=3, b=4)),
        text("3 and 7. \u2028\x9b\ud83d\ude00 " + "long " * 500),
        text("Bye."),
        text("Another."),
        text("A third."),
    ]
    async with turnlog.open(
        "", agents=[AGENT], transport=scripted(replies), store=store, ambient=ambient()
    ) as log:
        chat = await log.conversation("c1", agent=AGENT, metadata={"customer": "7"})
        await chat.run("Add. \udc80")
        fork = await chat.fork("c2")
        await chat.run("Bye")
        await fork.run("Otherwise")
        await (await fork.fork("c3")).run("Once more")
        yield log


async def lines_of(store: MemoryStore, *ids: str) -> list[str]:
    return [line async for line in export(store, *ids)]


def whole() -> list[str]:
    """The lines of an export of everything."""

    async def main() -> list[str]:
        store = MemoryStore()
        async with filled(store):
            return await lines_of(store, "c3", "c1")

    return asyncio.run(main())


LINES = whole()


async def failing(lines: Sequence[str | bytes], store: MemoryStore | None = None) -> ImportFailed:
    """How an import fails; nothing may have been written."""
    store = store or MemoryStore()
    before = await store.follow({})
    with pytest.raises(ImportFailed) as failed:
        await import_lines(store, lines)
    assert await store.follow({}) == before
    return failed.value


def changed(line: str, **fields: Json) -> str:
    return json.dumps({**json.loads(line), **fields})


# -- without loss --------------------------------------------------------------------------


async def test_what_is_imported_exports_to_the_same_bytes() -> None:
    there = MemoryStore()
    done = await import_lines(there, LINES)
    assert done.conversations == ("c1", "c2", "c3")
    assert (done.written, done.already) == (len(LINES) - 1, 0)
    assert await lines_of(there, "c3", "c1") == LINES
    for id in done.conversations:
        assert await there.check(id) == []
        head = await there.head(id)
        assert head is not None and head.owner is None
        epochs = [one.epoch or 0 for one in await there.events(id)]
        assert head.epoch == max(epochs)


async def test_an_import_is_the_same_conversation() -> None:
    here, there = MemoryStore(), MemoryStore()
    async with filled(here) as log:
        async with turnlog.open("", store=there, transport=scripted([text("On.")])) as other:
            done = await other.import_(log.export("c3", "c1"))
            assert done.written == len(LINES) - 1
            assert (await other.verify()).ok
            for id in ("c1", "c2", "c3"):
                old, new = await log.get(id), await other.get(id)
                assert [item.raw for item in await old.items()] == [
                    item.raw for item in await new.items()
                ]
                assert (await old.state()).head == (await new.state()).head
            assert (await (await other.get("c3")).run("Go on")).output_text == "On."


async def test_the_export_of_a_fork_carries_its_ancestors_up_to_the_fork() -> None:
    store = MemoryStore()
    async with filled(store):
        lines = await lines_of(store, "c2")
        header = json.loads(lines[HEADER])
        assert [one["id"] for one in header["conversations"]] == ["c1", "c2"]
        state = (await store.events("c2"))[0].event
        assert isinstance(state, ev.ConversationStarted) and state.fork is not None
        assert header["conversations"][0]["version"] == state.fork.version
    there = MemoryStore()
    await import_lines(there, lines)
    # The rest of the source follows later.
    rest = await import_lines(there, LINES)
    assert rest.already == len(lines) - 1
    assert await lines_of(there, "c3", "c1") == LINES
    # What is there in full already stays as it is.
    assert (await import_lines(there, lines)).written == 0


@pytest.mark.parametrize(
    "lines",
    [
        [f"{line}\n" for line in LINES],
        "\n".join(LINES).encode().splitlines(keepends=True),
        "\n".join(LINES).splitlines(),
        [*LINES, "", "  \n"],
        iter(LINES),
    ],
)
async def test_lines_may_be_text_or_bytes(lines: Iterable[str | bytes]) -> None:
    done = await import_lines(MemoryStore(), lines)
    assert done.written == len(LINES) - 1


async def test_many_lines_come_in_chunks() -> None:
    here, there = MemoryStore(), MemoryStore()
    async with turnlog.open("", store=here, transport=scripted([])) as log:
        chat = await log.conversation("c1", model="gpt-5.5")
        await chat.add(*({"role": "user", "content": str(place)} for place in range(1200)))

        async def lines() -> AsyncIterator[str]:
            async for line in log.export("c1"):
                yield line

        assert (await import_lines(there, lines())).written == 1202
        assert (await import_lines(there, lines())).already == 1202
    assert await there.check("c1") == []


async def test_lines_are_safe_to_show_and_to_split() -> None:
    for line in LINES:
        assert line.isprintable(), line
        assert len(line.splitlines()) == 1


# -- what is wrong -------------------------------------------------------------------------


async def test_a_conversation_that_is_not_there() -> None:
    with pytest.raises(NotFound, match="no conversation 'c9'"):
        await lines_of(MemoryStore(), "c9")


@pytest.mark.parametrize(
    ("number", "wrong", "told"),
    [
        (1, "", 'has no "turnlog.events"'),
        (1, "{", "not readable as JSON"),
        (1, "[]", "a JSON object is needed"),
        (1, b"\xff", "not readable as JSON"),
        (1, '"\ud800"', "not readable as JSON"),
        (1, {"format": "csv"}, "is no export of turnlog"),
        (1, {"version": 2}, "format version 2"),
        (1, {"conversations": []}, "at least one conversation"),
        (1, {"conversations": [{"id": "c1", "version": 0, "hash": "00"}]}, "must name id, version"),
        (1, {"conversations": [{"id": "", "version": 1, "hash": "00"}]}, "id is text"),
        (1, {"conversations": [{"id": "a", "version": 1, "hash": "00"}] * 2}, "each of them once"),
        (2, {"tag": "conversation.closed"}, "begins with conversation.started"),
        (2, {"conversation": "c9"}, "version 1 of 'c1' must come here, not version 1 of 'c9'"),
        (2, {"body": '{"id":"c9"}'}, "the body names the conversation 'c9'"),
        (3, "", "version 2 of 'c1' must come here, not version 3"),
        (3, {"version": 3}, "version 2 of 'c1' must come here"),
        (3, {"version": True}, "version is a whole number"),
        (3, {"time": -1}, "time is a whole number"),
        (3, {"time": 2**63}, "time is a whole number"),
        (3, {"time": 7}, "does not follow from it"),
        (3, {"actor": "mallory"}, "does not follow from it"),
        (3, {"actor": ""}, "actor is text that is not empty"),
        (3, {"actor": "\ud800"}, "actor is not valid text"),
        (3, {"id": None}, "id is text"),
        (3, {"hash": "00"}, "hash is 64 hexadecimal digits"),
        (3, {"salt": "0 " * 16}, "salt is 32 hexadecimal digits"),
        (3, {"hash": "00" * 32}, "does not follow from it"),
        (3, {"tag": "turn.dreamt"}, "unknown event tag 'turn.dreamt'"),
        (3, {"schema": 9}, "schema 9 is unknown"),
        (3, {"body": "{"}, "cannot be read"),
        (3, {"body": "{}"}, "lacks fingerprint"),
        (3, {"extra": 1}, "unknown fields: extra"),
        (3, {"conversation": " "}, "id is printable"),
    ],
)
async def test_a_line_that_is_wrong(
    number: int, wrong: str | bytes | dict[str, Json], told: str
) -> None:
    line = LINES[number - 1]
    now = changed(line, **wrong) if isinstance(wrong, dict) else wrong
    error = await failing([*LINES[: number - 1], now, *LINES[number:]])
    assert told in str(error)
    # A blank line is none: what is wrong is the one behind it.
    assert error.line == (number if now else number + 1)


@pytest.mark.parametrize("field", sorted(json.loads(LINES[1])))
async def test_a_field_that_is_missing(field: str) -> None:
    event = {name: value for name, value in json.loads(LINES[2]).items() if name != field}
    error = await failing([*LINES[:2], json.dumps(event), *LINES[3:]])
    assert (error.line, f"lacks {field}" in str(error)) == (3, True)


async def test_a_file_that_ends_early() -> None:
    assert "is empty" in str(await failing([]))
    for end in range(1, len(LINES)):
        error = await failing(LINES[:end])
        assert (error.line, "the file ends" in str(error)) == (end, True)


async def test_a_file_that_goes_on() -> None:
    error = await failing([*LINES, LINES[-1]])
    assert (error.line, "no more events are promised" in str(error)) == (len(LINES) + 1, True)


async def test_another_end_than_the_header_promises() -> None:
    header = json.loads(LINES[0])
    header["conversations"][-1]["hash"] = "00" * 32
    error = await failing([json.dumps(header), *LINES[1:]])
    assert (error.line, "promises another end of 'c3'" in str(error)) == (len(LINES), True)


async def test_a_fork_without_its_source() -> None:
    header = json.loads(LINES[0])
    versions = [one["version"] for one in header["conversations"]]
    first = 1 + versions[0]
    alone = [
        json.dumps({**header, "conversations": header["conversations"][1:]}),
        *LINES[first:],
    ]
    error = await failing(alone)
    assert error.line == 2
    assert "does not hold version" in str(error) and "import that one first" in str(error)
    there = MemoryStore()
    only = {**header, "conversations": header["conversations"][:1]}
    await import_lines(there, [json.dumps(only), *LINES[1:first]])
    assert (await import_lines(there, alone)).written == sum(versions[1:])
    assert await lines_of(there, "c3", "c1") == LINES


# -- lines whose hashes fit ----------------------------------------------------------------


def forged(
    id: str, *events: NewEvent, previous: bytes = bytes(32), seed: int = 0
) -> list[Recorded]:
    """Events that verify, whatever they say."""
    stamp = Stamp(
        time=1,
        actor="user",
        epoch=None,
        ids=[f"evt_{seed + place}" for place in range(len(events))],
        salts=[bytes(16)] * len(events),
    )
    return record(id, 0, previous, events, stamp)


def as_lines(*conversations: list[Recorded]) -> list[str]:
    listed = [
        {"id": one[-1].conversation, "version": one[-1].version, "hash": one[-1].hash.hex()}
        for one in conversations
    ]
    header = {"format": "turnlog.events", "version": 1, "conversations": listed}
    return [json.dumps(header), *(event_line(event) for one in conversations for event in one)]


def begun(id: str, fork: ev.Fork | None = None) -> NewEvent:
    return NewEvent(event=ev.ConversationStarted(id=id, fork=fork))


STARTED = ev.TurnStarted(key="k", digest="d")
ENDED = ev.TurnEnded(outcome="completed")


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([begun("c1")], "can start with its first event only"),
        ([NewEvent(event=STARTED)], "turn None cannot start here"),
        (
            [NewEvent(event=STARTED, turn="t"), NewEvent(event=STARTED, turn="u")],
            "turn 'u' cannot start while 't' is open",
        ),
        (
            [
                NewEvent(event=STARTED, turn="t"),
                NewEvent(event=ENDED, turn="t"),
                NewEvent(event=STARTED, turn="t"),
            ],
            "'t' cannot start",
        ),
        ([NewEvent(event=ENDED, turn="t")], "turn 't' is not open"),
        ([NewEvent(event=STARTED, turn="t"), NewEvent(event=ENDED)], "turn None is not open"),
    ],
)
async def test_a_history_that_cannot_be(events: list[NewEvent], told: str) -> None:
    lines = as_lines(forged("c1", begun("c1"), *events))
    error = await failing(lines)
    assert (error.line, told in str(error)) == (len(lines), True)


PREPARED = ev.RequestPrepared(
    attempt="a",
    cause="first",
    try_number=1,
    kind="full",
    ranges=(),
    format=1,
    digest="d",
    transport="t",
    store=True,
)
ADDED = ev.ItemAdded(key="i", item={"role": "user", "content": "Hi"})
CALLED = ev.OutputRecorded(
    attempt="a",
    index=0,
    key="o",
    item={"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"},
)
COMPLETED = ev.ResponseCompleted(attempt="a", response="r")
REQUESTED = ev.CallRequested(call="call", item="o")
OUTPUT: dict[str, Json] = {"type": "function_call_output", "call_id": "c", "output": "42"}
ANSWERED = ev.CallAnswered(call="call", key="k", item=OUTPUT)
ABANDONED = ev.CallAbandoned(call="call", key="k", item=OUTPUT, reason="r")
REJECTED = ev.CallRejected(call="call", key="k", item=OUTPUT)
QUEUED = ev.TurnQueued(key="q", digest="d")
ASKED = (STARTED, ADDED, PREPARED, CALLED, COMPLETED)


def reaching(of: Literal["context", "tail"], start: int, stop: int) -> ev.RequestPrepared:
    return replace(PREPARED, ranges=(ev.Range(of=of, start=start, stop=stop),))


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ((replace(ADDED, ordinal=1),), "has no place 1"),
        ((replace(ADDED, item={"type": 7}),), "item.added cannot have happened here"),
        ((ev.ItemEdited(key="e", item=ADDED.item, ordinal=0),), "has no place 0"),
        ((ev.ItemRemoved(key="e", ordinal=-1),), "has no place -1"),
        ((ev.ContextCompacted(ordinal=1),), "the context has 0 places"),
        ((ev.ContextCompacted(ordinal=0, items=-1),), "the context has 0 places"),
        ((STARTED, PREPARED, ev.ContextCompacted(ordinal=0)), "a request is out"),
        ((PREPARED,), "has no open turn"),
        ((STARTED, PREPARED, PREPARED), "while a request is out"),
        ((STARTED, reaching("context", 0, 1)), "the context does not reach from 0 to 1"),
        ((STARTED, ADDED, reaching("tail", 3, 9)), "the tail does not reach from 3 to 9"),
        ((STARTED, reaching("tail", 2, 1)), "the tail does not reach from 2 to 1"),
        ((STARTED, COMPLETED), "the attempt 'a' is not open"),
        ((STARTED, PREPARED, COMPLETED, COMPLETED), "the attempt 'a' is not open"),
        ((STARTED, CALLED), "the attempt 'a' is not open"),
        ((REQUESTED,), "no response asked for it with the item 'o'"),
        ((*ASKED, REQUESTED, REQUESTED), "is there already"),
        ((*ASKED, replace(PREPARED, attempt="b")), "nobody requested the call 'o'"),
        ((*ASKED, ENDED), "nobody requested the call 'o'"),
        ((*ASKED, REQUESTED, ENDED), "has no output"),
        ((*ASKED, REQUESTED, replace(PREPARED, attempt="b")), "has no output"),
        ((ANSWERED,), "is not pending"),
        ((*ASKED, REQUESTED, ev.CallProgressed(call="call", data={})), "it is requested"),
        ((*ASKED, REQUESTED, ev.CallDeferred(call="call")), "it is requested"),
        ((*ASKED, REQUESTED, ev.CallUncertain(call="call", reason="r")), "it is requested"),
        ((*ASKED, REQUESTED, ANSWERED, ANSWERED), "is answered already"),
        ((*ASKED, REQUESTED, ANSWERED, ev.CallStarted(call="call")), "it is answered"),
        ((*ASKED, REQUESTED, ANSWERED, ev.CallApproved(call="call")), "it is answered"),
        (
            (
                *ASKED,
                REQUESTED,
                ev.CallStarted(call="call"),
                ev.CallRejected(call="call", key="k", item=OUTPUT),
            ),
            "it is started",
        ),
        ((STARTED, PREPARED, ENDED), "a request is out"),
        ((STARTED, PREPARED, ev.TurnPaused(reason="r")), "a request is out"),
        ((ev.TurnPaused(reason="r"),), "turn 't' is not open"),
        ((ev.TurnResumed(),), "turn 't' is not open"),
        ((ev.TurnCancelRequested(),), "turn 't' is not open"),
        ((STARTED, QUEUED), "turn 't' cannot wait here"),
        ((QUEUED, QUEUED), "turn 't' cannot wait here"),
    ],
)
async def test_an_event_that_nothing_led_to(events: Sequence[ev.Event], told: str) -> None:
    new = [NewEvent(event=event, turn="t") for event in events]
    lines = as_lines(forged("c1", begun("c1"), *new))
    error = await failing(["", lines[0], "", *lines[1:]])
    assert (error.line, told in str(error)) == (len(lines) + 2, True), error


@pytest.mark.parametrize(
    "event",
    [
        ev.ConversationConfigured(model="\ud800", fingerprint="f"),
        replace(ADDED, key="\ud800"),
        replace(ADDED, item={"role": "user", "content": "Hi", "id": "\ud800"}),
        replace(STARTED, digest="\ud800"),
    ],
)
async def test_a_name_that_no_database_can_hold(event: ev.Event) -> None:
    lines = as_lines(forged("c1", begun("c1"), NewEvent(event=event, turn="t")))
    error = await failing(lines)
    assert (error.line, "is not valid text" in str(error)) == (3, True)


async def test_a_call_that_no_database_can_hold() -> None:
    events = (*ASKED, replace(REQUESTED, call="\ud800"))
    lines = as_lines(forged("c1", begun("c1"), *(NewEvent(event=one, turn="t") for one in events)))
    assert "is not valid text" in str(await failing(lines))


@pytest.mark.parametrize(
    "events",
    [
        (QUEUED, ENDED),
        (QUEUED, STARTED, ENDED),
        (*ASKED, REQUESTED, ABANDONED, ANSWERED, ENDED),
        (
            *ASKED,
            REQUESTED,
            ev.CallStarted(call="call"),
            ev.CallUncertain(call="call", reason="crashed"),
            ev.CallApproved(call="call"),
            ev.CallStarted(call="call", run=2),
            ev.CallProgressed(call="call", data={}),
            ev.CallDeferred(call="call"),
            ev.TurnPaused(reason="deferred", calls=("call",)),
            ev.TurnResumed(),
            ANSWERED,
            ev.ContextCompacted(ordinal=1),
            reaching("context", 0, 2),
        ),
    ],
)
async def test_a_history_that_the_engine_could_have_written(events: Sequence[ev.Event]) -> None:
    new = [NewEvent(event=event, turn="t") for event in events]
    there = MemoryStore()
    assert (await import_lines(there, as_lines(forged("c1", begun("c1"), *new)))).written
    assert await there.check("c1") == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(world=histories())
def test_whatever_the_engine_decides_is_imported(world: World) -> None:
    async def main() -> None:
        there = MemoryStore()
        story = world.story
        if story.state.fork is not None:
            return  # what it was forked from is not there
        done = await import_lines(there, as_lines(story.events))
        assert done.written == len(story.events)
        head = await there.head(story.state.id)
        assert head is not None and head.state == story.state

    asyncio.run(main())


async def test_an_event_id_that_stands_twice() -> None:
    twice = forged("c1", begun("c1"), NewEvent(event=ev.ConversationClosed()))
    again = replace(twice[1], id=twice[0].id)
    again = replace(again, hash=again.expected_hash(twice[0].hash))
    assert "stands twice in 'c1'" in str(await failing(as_lines([twice[0], again])))


async def test_a_fork_of_another_history() -> None:
    source = forged("c1", begun("c1"))
    fork = ev.Fork(conversation="c1", version=1, hash="11" * 32)
    child = forged("c2", begun("c2", fork), previous=b"\x11" * 32)
    assert "another history of 'c1'" in str(await failing(as_lines(source, child)))
    there = MemoryStore()
    await import_lines(there, as_lines(source))
    error = await failing(as_lines(child), there)
    assert (error.line, str(error).endswith("in the log")) == (2, True)


async def test_a_fork_of_what_cannot_be_a_hash_or_a_version() -> None:
    for fork in (
        ev.Fork(conversation="c1", version=0, hash="11" * 32),
        ev.Fork(conversation="c1", version=1, hash="no hash"),
    ):
        (first,) = forged("c2", begun("c2", fork), previous=b"\x11" * 32)
        assert (await failing(as_lines([first]))).line == 2
        (first,) = forged("c2", begun("c2", fork), previous=origin(first))
        assert (await failing(as_lines([first]))).line == 2


async def test_an_id_that_the_log_has_for_something_else() -> None:
    there = MemoryStore()
    await import_lines(there, as_lines(forged("c1", begun("c1"), seed=9)))
    error = await failing(LINES, there)
    assert (error.line, "another conversation 'c1'" in str(error)) == (None, True)


async def test_a_conversation_that_runs_is_left_alone() -> None:
    there = MemoryStore()
    first, second = forged("c1", begun("c1"), NewEvent(event=ev.ConversationClosed()))
    state, changes = advance(start("c1"), first)
    await there.append(
        Append(
            conversation="c1",
            expected=0,
            events=[first],
            head=state,
            changes=changes,
            epoch=1,
            lease="acquire",
        )
    )
    assert "runs just now" in str(await failing(as_lines([first, second]), there))
    assert (await import_lines(there, as_lines([first]))).already == 1


async def test_somebody_else_may_write_meanwhile() -> None:
    there = MemoryStore()

    class Racing(MemoryStore):
        """A store in which another writer is always first."""

        async def append(self, append: Append) -> Appended:
            other = forged("c1", begun("c1"), seed=9)
            state, changes = advance(start("c1"), other[0])
            await there.append(
                Append(conversation="c1", expected=0, events=other, head=state, changes=changes)
            )
            return await there.append(append)

    with pytest.raises(ImportFailed, match=r"'c1' cannot be written: .* read it again"):
        await import_lines(Racing(), LINES)


ANY: list[ev.Event] = [
    STARTED,
    ENDED,
    ev.ItemAdded(key="i", item={"type": "message"}),
    ev.ItemAdded(key="i", item={"id": "x"}, ordinal=1),
    ev.ItemAdded(key="i", item={}, ordinal=-3),
    ev.ItemEdited(key="i", item={"type": "function_call_output", "call_id": "c"}, ordinal=0),
    ev.ItemEdited(key="i", item={}, ordinal=2**70),
    ev.ItemRemoved(key="i", ordinal=0),
    ev.ItemRemoved(key="i", ordinal=-1),
    ev.ContextCompacted(ordinal=9),
    ev.RequestPrepared(
        attempt="a",
        cause="first",
        try_number=1,
        kind="full",
        ranges=(),
        format=1,
        digest="d",
        transport="t",
        store=True,
    ),
    ev.OutputRecorded(
        attempt="a", index=0, key="o", item={"type": "function_call", "call_id": "c", "name": "n"}
    ),
    ev.ResponseCompleted(attempt="a", response="r"),
    ev.ResponseRejected(attempt="a"),
    ev.CallRequested(call="c", item="o"),
    ev.CallStarted(call="c"),
    ev.CallAnswered(call="c", key="k", item={"type": "function_call_output", "call_id": "c"}),
    ev.TurnPaused(reason="x"),
    ev.TurnResumed(),
]


@settings(max_examples=150, deadline=None)
@given(events=st.lists(st.tuples(st.sampled_from(ANY), st.sampled_from(["t", "u"])), max_size=9))
def test_whatever_a_forged_history_says_is_told_in_one_way(
    events: list[tuple[ev.Event, str]],
) -> None:
    new = [NewEvent(event=event, turn=turn) for event, turn in events]
    lines = as_lines(forged("c1", begun("c1"), *new))

    async def main() -> None:
        store = MemoryStore()
        try:
            await import_lines(store, lines)
        except ImportFailed:
            assert await store.follow({}) == []
        else:
            assert await lines_of(store, "c1") == [json_line(json.loads(line)) for line in lines]

    asyncio.run(main())


async def test_numbers_that_no_context_has(tmp_path: Path) -> None:
    new = NewEvent(event=ev.ItemRemoved(key="i", ordinal=2**70))
    lines = as_lines(forged("c1", begun("c1"), new))
    async with turnlog.open(str(tmp_path / "a.db"), transport=scripted([])) as log:
        with pytest.raises(ImportFailed, match="has no place 1180591620717411303424"):
            await log.import_(lines)
        assert await log.conversations() == []


def test_a_refused_import_makes_no_database(tmp_path: Path) -> None:
    export, new = tmp_path / "export.jsonl", tmp_path / "new.db"
    desk = Desk(tmp_path)
    export.write_text("\n".join(LINES[:-1]))
    for ran in (
        desk.run("import", str(new), str(export)),
        desk.run("import", str(new), "-", input="\n".join(LINES[:-1])),
    ):
        assert (ran.code, "the file ends" in ran.err) == (1, True)
        assert [path.name for path in tmp_path.iterdir()] == ["export.jsonl"]
    ran = desk.run("import", str(new), "-", input="\n".join(LINES))
    assert ran.code == 0 and f"{len(LINES) - 1} events written" in ran.out
    assert desk.run("export", str(new), "c3", "c1").lines == LINES


# -- damage --------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    place=st.integers(0, len(LINES) - 1),
    at=st.floats(0, 1, exclude_max=True),
    cut=st.integers(0, 40),
    put=st.binary(max_size=6) | st.sampled_from([b"\n", b'"', b"\\u0000", b"{}", b"9" * 5000]),
)
@example(place=3, at=0.0, cut=0, put=b"[" * 100_000)
def test_whatever_is_damaged_is_told_in_one_way(
    place: int, at: float, cut: int, put: bytes
) -> None:
    raw = LINES[place].encode()
    where = int(at * len(raw))
    damaged = raw[:where] + put + raw[where + cut :]
    lines = [line.encode() for line in LINES]
    lines[place : place + 1] = damaged.split(b"\n")

    async def main() -> None:
        store = MemoryStore()
        try:
            await import_lines(store, lines)
        except ImportFailed:
            assert await store.follow({}) == []
        else:
            # It says the same: only how the JSON is written was touched.
            assert await lines_of(store, "c3", "c1") == LINES

    asyncio.run(main())


def test_a_line_is_its_event_again() -> None:
    for line in LINES[1:]:
        assert event_line(recorded(json.loads(line))) == line


# -- a log that does not verify ------------------------------------------------------------


class Tampered(MemoryStore):
    """A store whose log somebody has changed: `c1` holds these events under the head it had."""

    def __init__(self, head: Head | None, events: Sequence[Recorded]) -> None:
        super().__init__()
        self._head = head
        self._events_now = events

    async def head(self, conversation: str) -> Head | None:
        return self._head

    async def events(
        self, conversation: str, *, after: int = 0, until: int | None = None, limit: int = 500
    ) -> list[Recorded]:
        return [] if after else list(self._events_now)


async def test_an_export_verifies_what_it_reads() -> None:
    store = MemoryStore()
    async with filled(store):
        head, events = await store.head("c1"), await store.events("c1")
    for now, told in (
        ([replace(events[0], actor="mallory"), *events[1:]], "version 1 "),
        ([events[0], *events[2:]], "version 2 "),
        (events[:-1], f"version {len(events)} "),
    ):
        with pytest.raises(StoreCorrupt, match=told):
            await lines_of(Tampered(head, now), "c1")
