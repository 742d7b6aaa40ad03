"""Several responses over one WebSocket: whose frame it is, who goes where, and what is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import pytest
from websockets.utils import accept_key

from turnlog.canonical import JsonObject
from turnlog.errors import Closed, Lost, NotSent, Unheard
from turnlog.ports import PARENT_GONE, Endpoint, Frame, Late
from turnlog_transports import wire
from turnlog_transports.connection import on_lane
from turnlog_transports.profiles import OPENAI
from turnlog_transports.websocket import open_transport

from .clock import settle
from .lane_server import behind, came_of, lanes, of, turn
from .servers import ask, completed, created, delta, frame, held, outcome, tell

LIMIT: JsonObject = frame("error", status=400, error={"code": "websocket_connection_limit_reached"})
ONE_EACH = replace(OPENAI, max_in_flight=1)
FEW = replace(OPENAI, max_in_flight=2, max_lanes=3)


async def _until_lost(stream: AsyncGenerator[Frame]) -> AsyncGenerator[Frame]:
    with pytest.raises(Lost, match="more than 1000 bytes behind"):
        async for each in stream:
            yield each


def rows(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


# -- lanes ---------------------------------------------------------------------------------


async def test_w24_responses_at_once_share_a_connection_and_never_mix() -> None:
    async with lanes() as (server, transport):
        asking = [asyncio.create_task(ask(transport, of(who))) for who in "abc"]
        asked = [await server.next() for _ in asking]
        for step in (created, delta, completed):
            for number, each in enumerate(asked):
                await each.tell(step(f"r{number}"))
        answers = await asyncio.gather(*asking)
    assert {each.number for each in asked} == {1}
    assert [each.lane for each in asked] == ["lane-01", "lane-02", "lane-03"]
    for number, frames in enumerate(answers):
        assert [each.data.get("delta") for each in frames] == [None, f"r{number}", None]
        assert {each.lane for each in frames} == {f"lane-{number + 1:02d}"}
        assert len({each.connection for each in frames}) == 1


async def test_no_more_are_in_flight_than_the_provider_allows() -> None:
    async with lanes(FEW) as (server, transport):
        asking = [asyncio.create_task(ask(transport, of(who))) for who in "abcde"]
        asked = [await server.next() for _ in asking]
        for number, each in enumerate(asked):
            await each.answer(f"r{number}")
        await asyncio.gather(*asking)
    assert sorted(each.number for each in asked) == [1, 1, 2, 2, 3]


async def test_names_are_used_again_and_never_made_for_each_request() -> None:
    async with lanes(FEW) as (server, transport):
        asked = [
            (await turn(server, transport, of(f"c{n}", store=True), f"r{n}"))[0] for n in range(8)
        ]
    assert {each.lane for each in asked} == {"lane-01", "lane-02", "lane-03"}
    assert {each.number for each in asked} == {1}


@pytest.mark.parametrize("lane", ["lane-01", None])
def test_a_lane_is_written_as_if_it_had_always_been_there(lane: str | None) -> None:
    body: JsonObject = {"model": "m", "input": "Ça va?", "stream_id": "theirs"}
    assert on_lane(wire.create_payload(body), lane) == wire.create_payload(body, lane=lane)


@pytest.mark.parametrize(
    ("last", "terminal"),
    [
        (
            frame("response.completed", response={"id": "x", "usage": None, "output": None}),
            "completed",
        ),
        (frame("response.failed", response={"id": "x", "error": None}), "failed"),
        (frame("response.incomplete", response=None), "incomplete"),
        (
            frame("error", status=None, error={"code": None, "message": None, "param": None}),
            "error",
        ),
    ],
)
async def test_w20_w21_whatever_is_null_in_it_a_terminal_frame_frees_its_lane(
    last: JsonObject, terminal: str
) -> None:
    async with lanes() as (server, transport):
        asking = asyncio.create_task(ask(transport, of("a")))
        asked = await server.next()
        await asked.tell(last)
        assert [each.terminal for each in await asking] == [terminal]
        again, _ = await turn(server, transport, of("a"), "a2")
    assert (again.number, again.lane) == (asked.number, asked.lane) or terminal == "completed"


# -- what is remembered --------------------------------------------------------------------


async def test_w13_each_conversation_continues_on_the_lane_of_its_own() -> None:
    async with lanes() as (server, transport):
        _, first = await turn(server, transport, of("a"), "a1")
        _, other = await turn(server, transport, of("b"), "b1")
        assert held(transport, first, "a") and held(transport, other, "b")
        again, second = await turn(server, transport, of("a", first), "a2")
        assert (again.lane, again.body["previous_response_id"]) == (first.lane, "a1")
        assert not held(transport, first, "a") and held(transport, second, "a")
        assert held(transport, other, "b")


async def test_a_fork_leaves_its_source_where_it_is_until_it_has_begun() -> None:
    async with lanes() as (server, transport):
        _, source = await turn(server, transport, of("a"), "a1")
        forking = asyncio.create_task(ask(transport, of("b", source)))
        fork = await server.next()
        assert (fork.number, fork.body["previous_response_id"]) == (1, "a1")
        assert fork.lane != source.lane
        await fork.tell(created("b1"))
        await fork.settled()
        # The source goes on elsewhere, since its lane may not move yet.
        meanwhile, _ = await turn(server, transport, of("a", source), "a2")
        assert meanwhile.lane not in (source.lane, fork.lane)
        await fork.tell(frame("response.in_progress", response={"id": "b1"}))
        await fork.settled()
        after, _ = await turn(server, transport, of("a", source), "a3")
        assert after.lane == source.lane
        await fork.tell(completed("b1"))
        await forking


async def test_law8_a_fork_that_fails_keeps_its_source_and_a_continuation_does_not() -> None:
    async with lanes() as (server, transport):
        _, source = await turn(server, transport, of("a"), "a1")
        for who, kept in (("b", True), ("a", False)):
            asking = asyncio.create_task(ask(transport, of(who, source)))
            asked = await server.next()
            await asked.tell(frame("error", status=500, error={"message": "no"}))
            assert (await asking)[-1].terminal == "error"
            assert held(transport, source, "a") is kept


async def test_w13_an_unstored_parent_that_is_gone_is_said_to_be_so_before_anything_is_sent() -> (
    None
):
    async with lanes(FEW) as (server, transport):
        _, parent = await turn(server, transport, of("a"), "a1")
        asking = asyncio.create_task(ask(transport, of("a", parent)))
        asked = await server.next()
        for who in "ab":  # busy
            assert not held(transport, parent, who)
            with pytest.raises(NotSent, match="does not remember the unstored") as caught:
                await ask(transport, of(who, parent))
            assert caught.value.code == PARENT_GONE
        await asked.answer("a2")
        await asking
        assert server.arrived.empty()


async def test_w49_where_all_is_taken_the_response_used_longest_ago_makes_room() -> None:
    async with lanes(FEW, max_connections=1) as (server, transport):
        parents = [(await turn(server, transport, of(f"c{n}"), f"r{n}"))[1] for n in range(3)]
        asked, _ = await turn(server, transport, of("new"), "r9")
        assert asked.lane == parents[0].lane
        assert [held(transport, each, f"c{n}") for n, each in enumerate(parents)] == [
            False,
            True,
            True,
        ]


# -- who waits -----------------------------------------------------------------------------


async def test_w43_who_waits_is_served_in_order_by_whatever_frees_up() -> None:
    async with lanes(FEW, max_connections=1) as (server, transport):
        first = [asyncio.create_task(ask(transport, of(who))) for who in "ab"]
        asked = [await server.next() for _ in first]
        later = [asyncio.create_task(ask(transport, of(who))) for who in "cd"]
        await settle()
        assert server.arrived.empty()
        for number, each in enumerate(asked):
            await each.answer(f"r{number}")
        asked = [await server.next() for _ in later]
        for number, each in enumerate(asked):
            await each.answer(f"s{number}")
        answers = await asyncio.gather(*first, *later)
    assert [frames[-1].terminal for frames in answers] == ["completed"] * 4


async def test_a_connection_that_fails_costs_the_first_who_has_no_other_way() -> None:
    refused, go_on = asyncio.Event(), asyncio.Event()
    calls: list[int] = []

    async def key() -> str:
        calls.append(len(calls))
        if len(calls) == 1:
            await refused.wait()
            raise OSError
        await go_on.wait()
        return "k"

    async with lanes(ONE_EACH, key=key) as (server, transport):
        asking = [asyncio.create_task(outcome(transport, of(who))) for who in "abc"]
        await settle()
        assert len(calls) == 3  # one for each
        refused.set()
        assert isinstance((await asking[2])[1], NotSent)  # the others have two connections left
        go_on.set()
        for id in ("r1", "r2"):
            await (await server.next()).answer(id)
        assert [error for _, error in await asyncio.gather(*asking[:2])] == [None, None]
        assert len(calls) == 3


async def test_w40_a_failure_that_nobody_waits_for_is_noted_and_no_more() -> None:
    refused = asyncio.Event()
    calls: list[int] = []

    async def key() -> str:
        calls.append(len(calls))
        if len(calls) == 2:
            await refused.wait()
            raise OSError
        return "k"

    async with lanes(ONE_EACH, key=key) as (server, transport):
        first = asyncio.create_task(ask(transport, of("a")))
        asked = await server.next()
        second = asyncio.create_task(ask(transport, of("b")))
        await settle()
        await asked.answer("r1")
        again = await server.next()  # over the connection of the first, which was free sooner
        refused.set()
        await settle()
        await again.answer("r2")
        await asyncio.gather(first, second)
    assert again.number == 1


async def test_w43_whoever_left_the_queue_stands_in_nobodys_way() -> None:
    async with lanes(ONE_EACH, max_connections=1) as (server, transport):
        stream = transport.send(of("a"))
        asking = asyncio.ensure_future(anext(stream))
        await (await server.next()).tell(created("a1"))
        await asking
        gone, stays = (asyncio.create_task(ask(transport, of(who))) for who in "bc")
        await settle()
        gone.cancel()
        await stream.aclose()  # closes the connection, so that another may be opened
        await (await server.next()).answer("c1")
        assert (await stays)[-1].terminal == "completed"
        assert gone.cancelled() and server.arrived.empty()


async def test_w47_whoever_left_the_queue_is_not_told_that_it_closed() -> None:
    async with lanes(ONE_EACH, max_connections=1) as (server, transport):
        first = asyncio.create_task(outcome(transport, of("a")))
        await server.next()
        gone = asyncio.create_task(ask(transport, of("b")))
        await settle()
        gone.cancel()
        await transport.close()
        assert isinstance((await first)[1], Closed)
        await asyncio.wait({gone})
        assert gone.cancelled()


@pytest.mark.parametrize("rounds", range(12))
async def test_w46_closing_at_any_moment_of_a_handshake_leaves_nothing_open(rounds: int) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = head.lower().split(b"sec-websocket-key: ")[1][:24]
        answer = accept_key(head[head.lower().index(key) :][:24].decode())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + answer.encode() + b"\r\n\r\n"
        )
        await settle(rounds)
        closing = asyncio.create_task(transport.close())
        await settle(5)
        writer.close()  # instead of a goodbye
        await closing
        over.set()

    over = asyncio.Event()
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        transport = open_transport(Endpoint(base_url=f"http://127.0.0.1:{port}/v1", profile=OPENAI))
        _, error = await outcome(transport, of("a"))
        await over.wait()
    assert isinstance(error, Closed)


# -- what is given up ----------------------------------------------------------------------


async def test_w02_a_response_left_early_runs_out_behind_the_others() -> None:
    told: list[Late] = []
    async with lanes(FEW) as (server, transport):
        transport.on_late(told.append)
        other = asyncio.create_task(ask(transport, of("a")))
        asked = await server.next()
        async with aclosing(transport.send(of("b", attempt="t1"))) as stream:
            asking = asyncio.ensure_future(anext(stream))
            left = await server.next()
            await left.tell(created("b1"))
            await asking
        await left.tell(delta("nobody hears it"))
        await left.settled()
        third = asyncio.create_task(ask(transport, of("c")))
        elsewhere = await server.next()  # what runs out is in flight all the same
        assert elsewhere.number == 2
        await left.tell(completed("b1"))
        await left.settled()
        assert [(each.conversation, each.attempt, each.frame.terminal) for each in told] == [
            ("b", "t1", "completed")
        ]
        _, parent = await turn(server, transport, of("d"), "d1")
        assert held(transport, parent, "d")
        await asked.answer("a1")
        await elsewhere.answer("c1")
        await asyncio.gather(other, third)


async def test_w02_a_response_left_early_costs_nobody_their_memory() -> None:
    async with lanes() as (server, transport):
        _, parent = await turn(server, transport, of("a"), "a1")
        async with aclosing(transport.send(of("b"))) as stream:
            asking = asyncio.ensure_future(anext(stream))
            left = await server.next()
            await left.tell(created("b1"))
            await asking
        assert held(transport, parent, "a")
        async with aclosing(transport.send(of("a"))) as stream:  # of the same, and alone
            asking = asyncio.ensure_future(anext(stream))
            await left.tell(completed("b1"))
            await (await server.next()).tell(created("a2"))
            await asking
            await left.settled()
        assert not held(transport, parent, "a")
        await left.tell(delta("said before it heard our goodbye"))
        await left.socket.wait_closed()


async def test_a_response_that_ended_before_it_was_left_is_told_and_no_parent() -> None:
    told: list[Late] = []

    def fail(late: Late) -> None:
        raise RuntimeError("of the application")

    async with lanes() as (server, transport):
        transport.on_late(fail)
        transport.on_late(told.append)
        async with aclosing(transport.send(of("a"))) as stream:
            asking = asyncio.ensure_future(anext(stream))
            asked = await server.next()
            await asked.answer("a1")
            first = await asking
            await asked.settled()
        assert [late.frame.terminal for late in told] == ["completed"]
        assert not held(transport, replace(behind(told[0].frame), connection=first.connection), "a")
        again, _ = await turn(server, transport, of("b"), "b1")
    assert (again.number, again.lane) == (1, asked.lane)


async def test_w40_a_lost_connection_ends_each_response_by_what_it_heard() -> None:
    async with lanes() as (server, transport):
        asking = [asyncio.create_task(outcome(transport, of(who))) for who in "ab"]
        asked = [await server.next() for _ in asking]
        await asked[0].tell(created("a1"))
        await asked[0].settled()
        asked[0].socket.transport.abort()
        (types, lost), (nothing, unheard) = await asyncio.gather(*asking)
    assert (types, nothing) == (["response.created"], [])
    assert isinstance(lost, Lost) and "after 1 frames" in str(lost)
    assert isinstance(unheard, Unheard)


# -- a reader that falls behind ------------------------------------------------------------


async def test_a_reader_that_falls_too_far_behind_loses_its_response_and_no_other() -> None:
    told: list[Late] = []
    async with lanes(lane_buffer_bytes=1000) as (server, transport):
        transport.on_late(told.append)
        quick = asyncio.create_task(ask(transport, of("a")))
        other = await server.next()
        async with aclosing(transport.send(of("b"))) as slow:
            asking = asyncio.ensure_future(anext(slow))
            asked = await server.next()
            await asked.tell(created("b1"))
            await asking
            await asked.tell(delta("x" * 3000))  # one frame fits, whatever its size
            await asked.settled()
            await asked.tell(delta("one too many"), delta("never kept"))
            await asked.settled()  # a ping, answered all the same
            await other.answer("a1")
            assert (await quick)[-1].terminal == "completed"
            assert [frame.type async for frame in _until_lost(slow)] == [
                "response.output_text.delta"
            ]
        await asked.tell(completed("b1"))
        await asked.settled()
        assert [late.frame.terminal for late in told] == ["completed"]
        again, _ = await turn(server, transport, of("c"), "c1")
        assert again.number == 1


async def test_the_last_frame_fits_however_far_behind_a_reader_is() -> None:
    async with lanes(lane_buffer_bytes=100) as (server, transport):
        async with aclosing(transport.send(of("a"))) as slow:
            asking = asyncio.ensure_future(anext(slow))
            asked = await server.next()
            await asked.tell(created("a1"))
            await asking
            await asked.tell(delta("x"))
            await asked.tell(completed("a1"))
            await asked.settled()
            assert [frame.terminal async for frame in slow] == [None, "completed"]


# -- what is said to nobody in particular --------------------------------------------------


async def test_w24_an_error_without_a_lane_is_that_of_the_only_response() -> None:
    async with lanes() as (server, transport):
        asking = asyncio.create_task(ask(transport, of("a")))
        asked = await server.next()
        await tell(asked.socket, frame("error", status=400, error={"code": "invalid_stream_id"}))
        [only] = await asking
    assert (only.terminal, only.lane) == ("error", asked.lane)
    assert only.problem is not None and only.problem.code == "invalid_stream_id"


async def test_w22_w24_an_error_without_a_lane_is_nobodys_where_two_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with lanes() as (server, transport):
        asking = [asyncio.create_task(ask(transport, of(who))) for who in "ab"]
        asked = [await server.next() for _ in asking]
        await tell(asked[0].socket, frame("error", status=400, error={"message": "whose?"}))
        for number, each in enumerate(asked):
            await each.answer(f"r{number}")
        answers = await asyncio.gather(*asking)
    assert [frames[-1].terminal for frames in answers] == ["completed", "completed"]
    assert any("no response in progress: type 'error'" in row for row in rows(caplog))


async def test_w37_the_limit_without_a_lane_ends_every_response_there() -> None:
    async with lanes() as (server, transport):
        asking = [asyncio.create_task(ask(transport, of(who))) for who in "ab"]
        asked = [await server.next() for _ in asking]
        await asked[0].tell(created("a1"))
        await tell(asked[0].socket, LIMIT)
        for each, answer in zip(asked, await asyncio.gather(*asking), strict=True):
            assert answer[-1].problem is not None
            assert answer[-1].problem.code == "websocket_connection_limit_reached"
            assert answer[-1].lane == each.lane
        await asked[0].socket.wait_closed()
        again, _ = await turn(server, transport, of("a"), "a2")
    assert again.number == 2


async def test_w37_the_limit_of_one_lane_lets_the_others_end() -> None:
    async with lanes() as (server, transport):
        asking = [asyncio.create_task(ask(transport, of(who))) for who in "ab"]
        first, other = [await server.next() for _ in asking]
        await first.tell(LIMIT)
        assert (await asking[0])[-1].terminal == "error"
        again, _ = await turn(server, transport, of("a"), "a2")
        assert again.number == 2  # it takes nothing new
        await other.answer("b1")
        assert (await asking[1])[-1].terminal == "completed"
        await other.socket.wait_closed()


async def test_w37_the_limit_while_nobody_asks_costs_nothing() -> None:
    async with lanes() as (server, transport):
        asked, parent = await turn(server, transport, of("a"), "a1")
        await asked.tell(LIMIT)
        await asked.socket.wait_closed()
        assert not held(transport, parent, "a")
        assert (await turn(server, transport, of("b"), "b1"))[0].number == 2


# -- a request that is too large for the server's WebSocket ----------------------------------


async def test_the_only_request_in_flight_was_too_large_and_was_not_taken() -> None:
    async with lanes() as (server, transport):
        asking = asyncio.create_task(came_of(transport, of("a")))
        asked = await server.next()
        await asked.socket.close(1009, "message too big")
        types, error = await asking
        assert types == []
        assert isinstance(error, NotSent)
        assert (error.status, error.code) == (413, "request_too_large")


async def test_of_several_requests_nobody_knows_which_was_too_large() -> None:
    async with lanes() as (server, transport):
        asking = [asyncio.create_task(came_of(transport, of(name))) for name in "ab"]
        asked = [await server.next() for _ in asking]
        assert asked[0].socket is asked[1].socket
        await asked[0].socket.close(1009, "message too big")
        assert [type(error) for _, error in [await one for one in asking]] == [Unheard, Unheard]
