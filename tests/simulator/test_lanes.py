"""Lanes on a WebSocket of the simulator: who is next, what is refused, and what a fork finds."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from turnlog.canonical import Json, JsonObject, loads_object, obj
from turnlog.testing import error, scripts
from turnlog.testing.scripts import Reply
from turnlog_transports.admission import Admission, Rules, Waiting
from turnlog_transports.simulator import Simulator

say = scripts.text
TERMINAL = ("response.completed", "response.failed", "error")


# -- who is next ---------------------------------------------------------------------------


def waiting(lane: str | None, number: int = 0) -> Waiting:
    return Waiting(lane=lane, body={"number": number})


def started(admission: Admission) -> list[tuple[str | None, Json]]:
    found: list[tuple[str | None, Json]] = []
    while (create := admission.next()) is not None:
        found.append((create.lane, create.body["number"]))
    return found


def test_a_lane_is_answered_in_order_and_lanes_at_once() -> None:
    admission = Admission(Rules())
    for lane, number in ((None, 1), (None, 2), ("a", 3), ("a", 4), ("b", 5)):
        admission.add(waiting(lane, number))
    assert started(admission) == [(None, 1), ("a", 3), ("b", 5)]
    admission.done("a")
    assert started(admission) == [("a", 4)]
    admission.done(None)
    assert started(admission) == [(None, 2)]


def test_what_is_beyond_the_limit_waits_in_its_order() -> None:
    admission = Admission(Rules(max_in_flight=2))
    for number, lane in enumerate("abcd"):
        admission.add(waiting(lane, number))
    assert started(admission) == [("a", 0), ("b", 1)]
    admission.done("b")
    assert started(admission) == [("c", 2)]


def test_without_lanes_there_is_one_at_a_time_and_no_name() -> None:
    admission = Admission(Rules(lanes=False))
    assert admission.enter(None) is None
    refused = admission.enter("a")
    assert refused is not None
    assert obj(refused, "error")["code"] == "unknown_parameter"
    admission.add(waiting(None, 1))
    admission.add(waiting(None, 2))
    assert started(admission) == [(None, 1)]


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 257, 7, ["a"]])
def test_a_bad_name_is_refused_and_not_repeated(name: Json) -> None:
    refused = Admission(Rules()).enter(name)
    assert refused is not None
    assert obj(refused, "error")["code"] == "invalid_stream_id"
    assert "stream_id" not in refused


def test_names_are_counted_and_never_given_back() -> None:
    admission = Admission(Rules())
    for number in range(32):
        assert admission.enter(f"lane-{number}") is None
    refused = admission.enter("lane-32")
    assert refused is not None
    assert (refused["status"], refused["stream_id"]) == (400, "lane-32")
    assert obj(refused, "error")["code"] == "websocket_stream_limit_reached"
    assert admission.enter("lane-7") is None
    assert admission.enter(None) is None


# -- on a socket ---------------------------------------------------------------------------


def ws(simulator: Simulator) -> connect:
    address = simulator.base_url.replace("http", "ws", 1) + "/responses"
    return connect(address, max_size=None, proxy=None)


async def ask(socket: ClientConnection, lane: str | None = None, **fields: Json) -> None:
    named: JsonObject = {} if lane is None else {"stream_id": lane}
    body: JsonObject = {"type": "response.create", "model": "m", "input": "Hi.", **named, **fields}
    await socket.send(json.dumps(body))


async def ends(socket: ClientConnection, count: int) -> list[JsonObject]:
    """Every frame until so many responses are over."""
    frames: list[JsonObject] = []
    while count:
        frames.append(loads_object(await socket.recv()))
        count -= frames[-1]["type"] in TERMINAL
    return frames


async def last(socket: ClientConnection, lane: str | None = None, **fields: Json) -> JsonObject:
    await ask(socket, lane, **fields)
    return (await ends(socket, 1))[-1]


def of(frames: Sequence[JsonObject], lane: str | None) -> list[JsonObject]:
    return [frame for frame in frames if frame.get("stream_id") == lane]


def code(frame: JsonObject) -> Json:
    return obj(frame, "error")["code"]


def tags(frames: Sequence[JsonObject]) -> list[Json]:
    return [frame["type"] for frame in frames]


async def test_lanes_run_at_once_and_a_lane_in_order() -> None:
    slow = say("Slow.").but(delay=0.01)
    async with Simulator([slow, say("Quick."), say("Later.")]) as simulator:
        async with ws(simulator) as socket:
            for lane in (None, "side", None):
                await ask(socket, lane)
            frames = await ends(socket, 3)
    own = of(frames, None)
    assert all("stream_id" not in frame for frame in own)
    assert frames.index(of(frames, "side")[-1]) < frames.index(own[-1])
    half = len(own) // 2
    assert own[half - 1]["type"] == "response.completed"
    assert own[half]["type"] == "response.created"
    assert len({str(obj(frame, "response")["id"]) for frame in frames if "response" in frame}) == 3


async def test_the_seventeenth_response_waits() -> None:
    held = [say("Hi.").but(stall_after=1)] * 2
    async with Simulator([*held, say("Next.")], max_in_flight=2) as simulator:
        async with ws(simulator) as socket:
            for lane in ("a", "b", "c"):
                await ask(socket, lane)
            for _ in range(2):
                await socket.recv()
            # Whatever is heard now comes from a refusal: both that may run are silent.
            await ask(socket, "")
            assert code(loads_object(await socket.recv())) == "invalid_stream_id"
            assert (simulator.left, simulator.in_flight.now) == (1, 2)
    async with Simulator() as simulator, ws(simulator) as socket:
        for number in range(40):
            await ask(socket, f"lane-{number % 32}")
        await ends(socket, 40)
        assert simulator.in_flight.most == 16
        assert (simulator.in_flight.now, simulator.in_flight.total) == (0, 40)


async def test_the_thirty_third_name_is_refused_and_the_connection_goes_on() -> None:
    async with Simulator(max_lanes=1) as simulator, ws(simulator) as socket:
        assert (await last(socket, "a"))["type"] == "response.completed"
        refused = await last(socket, "b")
        assert (code(refused), refused["stream_id"]) == ("websocket_stream_limit_reached", "b")
        assert (await last(socket, "a"))["type"] == "response.completed"


async def test_a_provider_without_lanes_answers_one_after_the_other() -> None:
    async with Simulator(lanes=False) as simulator, ws(simulator) as socket:
        assert code(await last(socket, "a")) == "unknown_parameter"
        for _ in range(2):
            await ask(socket)
        assert tags(await ends(socket, 2)).count("response.created") == 2
        assert simulator.in_flight.most == 1


async def test_a_background_response_is_refused_on_a_websocket() -> None:
    async with Simulator() as simulator, ws(simulator) as socket:
        refused = await last(socket, "a", background=True)
        assert (refused["status"], refused["stream_id"]) == (400, "a")
        assert obj(refused, "error")["param"] == "background"


async def test_a_warm_up_is_a_parent_on_its_lane() -> None:
    async with Simulator([say("Hi.")]) as simulator, ws(simulator) as socket:
        warm = await last(socket, "a", generate=False, store=False)
        response = obj(warm, "response")
        assert (response["output"], obj(response, "usage")["output_tokens"]) == ([], 0)
        assert simulator.left == 1
        done = await last(socket, "a", store=False, previous_response_id=response["id"])
        assert done["type"] == "response.completed"
        lost = await last(socket, "b", previous_response_id=response["id"])
        assert code(lost) == "previous_response_not_found"


async def test_who_went_where_can_be_asked_afterwards() -> None:
    async with Simulator() as simulator:
        async with ws(simulator) as one, ws(simulator) as two:
            await last(one, "a")
            await last(two)
            await last(one, "")
            assert (simulator.connections.now, simulator.connections.most) == (2, 2)
        async with ws(simulator) as three:
            await last(three)
    assert (simulator.connections.now, simulator.connections.total) == (0, 3)
    heard = [(one.method, one.connection, one.lane) for one in simulator.requests]
    assert heard == [
        ("UPGRADE", 1, None),
        ("UPGRADE", 2, None),
        ("response.create", 1, "a"),
        ("response.create", 2, None),
        ("response.create", 1, ""),
        ("UPGRADE", 3, None),
        ("response.create", 3, None),
    ]


# -- forks ---------------------------------------------------------------------------------


async def test_a_fork_of_another_lane_finds_its_parent_while_it_is_the_newest() -> None:
    async with Simulator() as simulator, ws(simulator) as socket:
        first = obj(await last(socket, "a", store=False), "response")["id"]
        fork = await last(socket, "b", store=False, previous_response_id=first)
        assert fork["type"] == "response.completed"
        on = await last(socket, "a", store=False, previous_response_id=first)
        assert on["type"] == "response.completed"
        late = await last(socket, "c", store=False, previous_response_id=first)
        assert (code(late), late["stream_id"]) == ("previous_response_not_found", "c")


async def test_a_fork_that_fails_keeps_its_parent_and_a_continuation_does_not() -> None:
    script = [say("One."), error(500), say("Two."), error(429)]
    async with Simulator(script) as simulator, ws(simulator) as socket:
        first = obj(await last(socket, "a", store=False), "response")["id"]
        assert (await last(socket, "b", previous_response_id=first))["status"] == 500
        second = await last(socket, "a", store=False, previous_response_id=first)
        parent = obj(second, "response")["id"]
        assert (await last(socket, "a", previous_response_id=parent))["status"] == 429
        gone = await last(socket, "a", previous_response_id=parent)
        assert code(gone) == "previous_response_not_found"


async def test_a_fork_whose_source_moves_on_before_it_is_in_progress_is_refused() -> None:
    script = [say("Source."), say("Fork.").but(delay=0.5), say("Moved on.")]
    async with Simulator(script) as simulator, ws(simulator) as socket:
        first = obj(await last(socket, store=False), "response")["id"]
        await ask(socket, "fork", store=False, previous_response_id=first)
        assert loads_object(await socket.recv())["type"] == "response.created"
        await ask(socket, store=False, previous_response_id=first)
        (lost,) = of(await ends(socket, 2), "fork")
        assert (lost["status"], code(lost)) == (400, "previous_response_not_found")
        assert code(await last(socket)) == "script_exhausted"


async def test_a_fork_that_is_in_progress_may_be_left_behind() -> None:
    script = [say("Source."), say("Fork.").but(delay=0.01), say("Moved on.")]
    async with Simulator(script) as simulator, ws(simulator) as socket:
        first = obj(await last(socket, store=False), "response")["id"]
        await ask(socket, "fork", store=False, previous_response_id=first)
        while loads_object(await socket.recv())["type"] != "response.in_progress":
            pass
        await ask(socket, store=False, previous_response_id=first)
        frames = await ends(socket, 2)
    assert tags(of(frames, "fork"))[-1] == "response.completed"


async def test_a_stored_parent_does_not_move() -> None:
    script = [say("Source."), say("Fork.").but(delay=0.02), say("Moved on.")]
    async with Simulator(script) as simulator, ws(simulator) as socket:
        first = obj(await last(socket), "response")["id"]
        await ask(socket, "fork", previous_response_id=first)
        await ask(socket, previous_response_id=first)
        assert tags(await ends(socket, 2)).count("response.completed") == 2


# -- faults --------------------------------------------------------------------------------


async def test_a_stall_is_of_its_lane_and_a_cut_of_the_connection() -> None:
    script = [say("Silence.").but(stall_after=1), say("Hi."), say("Cut.").but(cut_after=1)]
    async with Simulator(script) as simulator, ws(simulator) as socket:
        await ask(socket, "quiet")
        await ask(socket, "other")
        assert of(await ends(socket, 1), "other")[-1]["type"] == "response.completed"
        await ask(socket, "other")
        with pytest.raises(ConnectionClosedError):
            await ends(socket, 1)


async def test_two_responses_that_end_a_connection_end_it_once() -> None:
    broken = say("Hi.").but(no_terminal=True)
    async with Simulator([broken, broken]) as simulator, ws(simulator) as socket:
        await ask(socket, "a")
        await ask(socket, "b")
        with pytest.raises(ConnectionClosedOK):
            await ends(socket, 1)


def raising(body: JsonObject) -> Reply:
    raise ValueError(f"no answer to {body['input']}")


async def test_a_script_that_raises_behind_another_response_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Simulator([say("Hi.").but(delay=0.001), raising]) as simulator:
        async with ws(simulator) as socket:
            await ask(socket)
            await ask(socket)
            with pytest.raises(ConnectionClosedError):
                await ends(socket, 2)
    assert "no answer to Hi." in caplog.text


# -- the age of a connection ---------------------------------------------------------------


@pytest.mark.parametrize("busy", [True, False])
async def test_a_connection_that_is_too_old_says_so_and_is_closed(busy: bool) -> None:
    script = [say("Never whole.").but(stall_after=1)]
    async with Simulator(script, connection_seconds=0.05) as simulator, ws(simulator) as socket:
        if busy:
            await ask(socket, "a")
            assert loads_object(await socket.recv())["type"] == "response.created"
        told = loads_object(await socket.recv())
        assert (told["type"], told["status"]) == ("error", 400)
        assert code(told) == "websocket_connection_limit_reached"
        assert "stream_id" not in told
        with pytest.raises(ConnectionClosedOK):
            await socket.recv()
