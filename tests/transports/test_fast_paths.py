"""The short ways of what comes by the thousand give the same as the long ones."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection

from turnlog.canonical import Json, JsonObject, loads_object
from turnlog.errors import Unheard
from turnlog.ports import Frame, Timeouts, frame_of
from turnlog_transports import wire
from turnlog_transports.lanes import Asked
from turnlog_transports.sequence import Sequencer
from turnlog_transports.stream import Stream
from turnlog_transports.websocket import open_transport

from .clock import advance, on_clock
from .servers import ask, completed, created, delta, hear, websocket_server
from .test_websocket import reach

# -- reading -------------------------------------------------------------------------------

ODD = (
    *("1", "-0", "01", "1.", ".5", "+1", "1e", "1.0", "-0.0", "1e400", "-1E400", "1e-400", "0.1"),
    *("9007199254740993", "9007199254740993.0", "5e-324", "1" + "0" * 400, "9" * 4301),
    *("NaN", "Infinity", "-Infinity", "null", "true", "false", "nul", "[]", "{}", "[1e400]"),
    *('[1,"x"]', '{"a":1}', '[{"a":1,"a":2}]', "[" * 300 + "]" * 300),
    *(
        '"\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\u0000"',
        '"\x00"',
        '"\x7f"',
        '"\t"',
        '"\ud800"',
        '"\\x"',
    ),
    *('"a:b"', '"[]"', '"\\""', '"\u2028"', '"é"'),
)
NAMES = ('"type"', '"a"', '"\\u0061"', '""', '"a:"', "'a'", "a")
SPACE = st.sampled_from(["", "", "", " ", "\n", "\t", "\r", "\x0b", "\u00a0"])
WRITTEN = st.text(st.characters(categories=None), max_size=4).map(
    lambda said: json.dumps(said, ensure_ascii=False)
)
NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?\Z")


@st.composite
def documents(draw: st.DrawFn) -> str:
    """JSON objects, and what merely looks like one."""
    entries = [
        "".join(
            (
                draw(st.sampled_from(NAMES) | WRITTEN),
                draw(SPACE),
                draw(st.sampled_from([":", ":", ":", "::", "="])),
                draw(SPACE),
                draw(st.sampled_from(ODD) | WRITTEN | NUMBERS),
            )
        )
        for _ in range(draw(st.integers(0, 3)))
    ]
    before, behind = draw(st.sampled_from(["", "", "\ufeff", "x"])), draw(SPACE)
    end = draw(st.sampled_from(["}", "}", "}", ",}", "", "}}", "} x"]))
    return before + draw(SPACE) + "{" + ",".join(entries) + end + behind


def exact(value: Json) -> object:
    """A value so that two are equal only where nobody can tell them apart."""
    if isinstance(value, dict):
        return [(key, exact(entry)) for key, entry in value.items()]
    if isinstance(value, list):
        return [exact(entry) for entry in value]
    return type(value), value, isinstance(value, float) and math.copysign(1, value)


@given(documents(), st.booleans())
def test_a_small_frame_is_read_as_the_strict_reader_does_or_left_to_it(
    said: str, encoded: bool
) -> None:
    raw = said.encode("utf-8", "surrogatepass") if encoded else said
    found = wire.read_flat(raw)
    if found is not None:
        assert exact(found) == exact(loads_object(raw, deepest=wire.DEEPEST_FRAME))


@pytest.mark.parametrize("value", ODD)
def test_whatever_stands_in_a_delta_it_is_read_as_strictly_as_ever(value: str) -> None:
    raw = f'{{"type":"response.output_text.delta","delta":{value}}}'
    found = wire.read_flat(raw)
    if found is not None:
        assert exact(found) == exact(loads_object(raw, deepest=wire.DEEPEST_FRAME))


def test_a_delta_is_read_the_short_way() -> None:
    raw = json.dumps({**delta("x", logprobs=[], sequence_number=4), "obfuscation": "abc"})
    assert wire.read_flat(raw) == wire.read_flat(raw.encode()) == json.loads(raw)


@pytest.mark.parametrize(
    "raw",
    [
        '{"a":1,"a":1}',
        '{"a":1,"a" :1,"b":":"}',
        '{"a":{"b":1}}',
        '{"a":1.5}',
        '{"a":[1]}',
        '["a:b"]',
        "{" + ",".join(f'"{number}":1' for number in range(17)) + "}",
    ],
)
def test_what_might_be_read_otherwise_is_left_to_the_strict_reader(raw: str) -> None:
    assert wire.read_flat(raw) is None


@pytest.mark.parametrize("type", sorted(wire.DELTAS))
@pytest.mark.parametrize("more", [{}, {"stream_id": "own"}, {"stream_id": None}, {"stream_id": ""}])
def test_a_frame_of_deltas_is_made_like_any_other(type: str, more: JsonObject) -> None:
    data: JsonObject = {"type": type, "delta": "x", **more}
    found = wire.frame(data, connection="ws_1", lane="left")
    assert found == replace(
        wire.frame({**data, "type": "x"}, connection="ws_1", lane="left"), type=type, data=data
    )


def test_a_frame_that_was_made_quickly_is_a_frame() -> None:
    found = frame_of("x", {"a": 1}, "ws_1", "left")
    other = Frame(type="x", data={"a": 1}, connection="ws_1", lane="left")
    assert (found, repr(found), type(found)) == (other, repr(other), Frame)
    assert [getattr(found, each.name) for each in fields(found)] == [
        "x",
        {"a": 1},
        None,
        None,
        None,
        "ws_1",
        "left",
    ]
    with pytest.raises(FrozenInstanceError):
        setattr(found, "type", "y")  # noqa: B010 (a plain assignment is a type error)


# -- whose frame it is ---------------------------------------------------------------------


class Slow(Sequencer):
    """One that asks of every frame all there is to ask."""

    def _goes_on(self, frame: Frame) -> bool:
        return False


@st.composite
def arriving(draw: st.DrawFn) -> JsonObject:
    """A frame of this response or another one, numbered well or badly."""
    id = draw(st.sampled_from(["a", "b"]))
    number: Json = draw(st.sampled_from([0, 1, 2, 3, 4, 5, None, True, "1"]))
    made: list[JsonObject] = [
        delta("x"),
        delta("x"),
        delta("x", response_id=id),
        delta("x", stream_id=id),
        created(id),
        completed(id),
    ]
    return {**draw(st.sampled_from(made)), "sequence_number": number}


@given(st.lists(arriving() | st.none(), max_size=12))
def test_w24_a_frame_that_goes_on_is_judged_like_any_other(frames: list[JsonObject | None]) -> None:
    """None stands for the next request."""
    quick, slow = Sequencer(), Slow()
    for each in frames:
        if each is None:
            quick.begin()
            slow.begin()
        else:
            found = wire.frame(each)
            assert quick.ours(found) == slow.ours(found)
        assert vars(quick) == vars(slow)


# -- messages ------------------------------------------------------------------------------


async def test_messages_in_fragments_arrive_whole_and_in_order() -> None:
    async def talk(connection: ServerConnection) -> None:
        await hear(connection)
        frames = [created("r1"), delta("one"), delta("two"), delta(""), completed("r1")]
        for place, each in enumerate(map(json.dumps, frames)):
            if place % 2:
                await connection.send(["", each[:9], each[9:], ""])
            else:
                await connection.send(each)
            await connection.ping()
        await connection.wait_closed()

    async with websocket_server(talk) as url:
        transport = open_transport(reach(url))
        found = await ask(transport)
        await transport.close()
    assert [each.data.get("delta") for each in found] == [None, "one", "two", "", None]
    assert found[-1].terminal == "completed"


# -- deadlines -----------------------------------------------------------------------------


@on_clock
async def test_w23_what_was_read_and_not_put_anywhere_so_far_counts_as_arrived() -> None:
    unread = iter([True, True, False])
    expired: list[bool] = []
    stream = Stream(
        Asked(),
        Timeouts(first_frame=5.0),
        bound=100,
        expired=lambda stream, listening: expired.append(listening),
        unread=lambda: next(unread),
    )
    late = asyncio.create_task(stream.take())
    await advance(6.0)
    assert next(unread, None) is None  # it was asked as long as there was more
    assert expired == [True]
    with pytest.raises(Unheard):
        await late


@on_clock
async def test_w23_a_response_that_takes_too_long_is_over_however_much_is_unread() -> None:
    expired: list[bool] = []
    stream = Stream(
        Asked(),
        Timeouts(first_frame=5.0, total=8.0),
        bound=100,
        expired=lambda stream, listening: expired.append(listening),
        unread=lambda: not expired,
    )
    late = asyncio.create_task(stream.take())
    await advance(9.0)
    assert expired == [True]
    with pytest.raises(Unheard, match="not over within 8 seconds"):
        await late
