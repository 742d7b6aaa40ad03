"""The WebSocket transport against real servers: losses, strays, memory, and who uses what."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request as Upgrade
from websockets.utils import accept_key

from turnlog.canonical import Json, JsonObject
from turnlog.errors import Closed, InvalidInput, Lost, NotSent, NotSupported, Unheard
from turnlog.ports import (
    Cancel,
    Compact,
    Create,
    Delete,
    Endpoint,
    Profile,
    Request,
    Retrieve,
    Timeouts,
)
from turnlog_transports.profiles import OPENAI
from turnlog_transports.websocket import WebSocketTransport, open_transport

from ..faults.given import in_no_time
from .clock import settle
from .servers import (
    Talk,
    answering,
    ask,
    completed,
    create,
    created,
    delta,
    frame,
    hear,
    held,
    outcome,
    parent,
    tell,
    websocket_server,
)

ONE = replace(OPENAI, lanes=False)
"""A provider that answers one request at a time on each connection."""

WHOLE: list[JsonObject] = [created("r1"), delta("a"), delta("b"), completed("r1")]


def reach(
    url: str, idle_timeout: float = 5.0, profile: Profile = ONE, **options: object
) -> Endpoint:
    timeouts = Timeouts(connect=5.0, first_frame=idle_timeout, idle=idle_timeout)
    return Endpoint(base_url=url, profile=profile, timeouts=timeouts, options=options)


@asynccontextmanager
async def talking(
    talk: Talk,
    *,
    idle_timeout: float = 5.0,
    profile: Profile = ONE,
    refuse: Callable[[Upgrade], tuple[int, str] | None] | None = None,
    **options: object,
) -> AsyncGenerator[WebSocketTransport]:
    async with websocket_server(talk, refuse=refuse) as url:
        transport = open_transport(reach(url, idle_timeout, profile, **options))
        try:
            yield transport
        finally:
            await transport.close()


def once(*frames: JsonObject | str | bytes, then: Callable[[ServerConnection], None]) -> Talk:
    """Answer the first request of a connection with these frames, and then do something."""

    async def talk(connection: ServerConnection) -> None:
        await hear(connection)
        await tell(connection, *frames)
        then(connection)
        await connection.wait_closed()

    return talk


def drop(connection: ServerConnection) -> None:
    connection.transport.close()


def keep(connection: ServerConnection) -> None:
    """The connection stays as it is."""


async def remembered(transport: WebSocketTransport) -> tuple[str, str]:
    """Ask once; the response and the connection that it came over."""
    last = (await ask(transport))[-1]
    response = last.data["response"]
    assert isinstance(response, dict) and last.connection is not None
    return str(response["id"]), last.connection


# -- what goes out -------------------------------------------------------------------------


async def test_a_request_goes_out_as_text_with_the_key_of_the_moment() -> None:
    seen: list[tuple[str | bytes, str | None, str]] = []

    async def talk(connection: ServerConnection) -> None:
        raw = await connection.recv()
        assert connection.request is not None
        headers = connection.request.headers
        seen.append((raw, headers.get("Authorization"), connection.request.path))
        await tell(connection, *WHOLE)

    async with websocket_server(talk) as url:
        transport = open_transport(
            Endpoint(base_url=url, profile=ONE, key=lambda: "sk-1", headers={"X-Own": "1"})
        )
        await ask(transport, create("Hi.", stream=True))
        await transport.close()
    raw, key, path = seen[0]
    assert isinstance(raw, str)
    assert json.loads(raw) == {"type": "response.create", "model": "gpt-5.5", "input": "Hi."}
    assert (key, path) == ("Bearer sk-1", "/v1/responses")


async def test_every_frame_says_which_connection_it_came_over() -> None:
    async with talking(answering()) as transport:
        frames = await ask(transport) + await ask(transport)
    assert len({frame.connection for frame in frames}) == 1


async def test_it_says_what_it_is() -> None:
    async with talking(answering()) as transport:
        assert (transport.choose(), transport.profile) == ("websocket", ONE)
        transport.check()


@pytest.mark.parametrize(
    "request_",
    [Retrieve(response="r"), Cancel(response="r"), Delete(response="r"), Compact(body={})],
)
async def test_it_asks_for_responses_and_nothing_else(request_: Request) -> None:
    async with talking(answering()) as transport:
        with pytest.raises(NotSupported, match=type(request_).__name__):
            await ask(transport, request_)


async def test_w34_what_cannot_be_written_opens_no_connection() -> None:
    seen: list[tuple[int, JsonObject]] = []
    async with talking(answering(seen)) as transport:
        with pytest.raises(InvalidInput):
            await ask(transport, Create(body={"temperature": float("nan")}))
        with pytest.raises(NotSupported):
            await ask(transport, create(background=True))
        await ask(transport)
    assert [number for number, _ in seen] == [1]


# -- losses --------------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(len(WHOLE)))
async def test_w25_a_connection_that_breaks_at_any_frame_is_never_a_success(after: int) -> None:
    async with talking(once(*WHOLE[:after], then=drop)) as transport:
        types, error = await outcome(transport)
    assert len(types) == after
    assert isinstance(error, Lost if after else Unheard)


@pytest.mark.parametrize("after", [0, 2])
async def test_w25_a_goodbye_in_the_middle_is_no_success_either(after: int) -> None:
    async def talk(connection: ServerConnection) -> None:
        await hear(connection)
        await tell(connection, *WHOLE[:after])
        await connection.close(1000)

    async with talking(talk) as transport:
        _, error = await outcome(transport)
    assert isinstance(error, Lost if after else Unheard)


@pytest.mark.parametrize("after", [0, 2])
@in_no_time
async def test_w23_silence_ends_when_the_idle_timeout_does(after: int) -> None:
    async with talking(once(*WHOLE[:after], then=keep), idle_timeout=5.5) as transport:
        types, error = await outcome(transport)
    assert len(types) == after
    assert isinstance(error, Lost if after else Unheard)
    assert "5.5 seconds" in str(error)


async def test_a_request_that_cannot_be_written_in_time_is_unheard() -> None:
    go_on = asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await go_on.wait()
        connection.transport.resume_reading()

    async with talking(talk, idle_timeout=0.1) as transport:
        _, error = await outcome(transport, create("x" * 30_000_000))
        await transport.close()  # even though the provider does not read
        go_on.set()
    assert isinstance(error, Unheard)


async def test_a_frame_beyond_the_limit_is_a_loss() -> None:
    big = delta("x" * 2000)
    async with talking(once(created("r1"), big, then=keep), max_frame_bytes=1000) as transport:
        types, error = await outcome(transport)
    assert types == ["response.created"]
    assert isinstance(error, Lost)


async def test_w22_a_frame_that_is_not_json_does_not_end_the_stream() -> None:
    odd: list[JsonObject | str | bytes] = [created("r1"), "{broken", b'{"x":"\xff"}']
    async with talking(once(*odd, completed("r1"), then=keep)) as transport:
        frames = await ask(transport)
    assert [frame.text for frame in frames] == [None, "{broken", '{"x":"\\xff"}', None]
    assert frames[-1].terminal == "completed"


# -- connecting ----------------------------------------------------------------------------


async def test_nobody_there_means_that_nothing_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    transport = open_transport(reach(f"http://127.0.0.1:{port}/v1"))
    with pytest.raises(NotSent, match="cannot connect") as caught:
        await ask(transport)
    await transport.close()
    assert caught.value.status is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 426, 429, 503])
async def test_a_refused_upgrade_is_not_sent_and_names_its_status(status: int) -> None:
    body = '{"error":{"message":"No sockets with sk-hush here."}}'
    async with websocket_server(answering(), refuse=lambda request: (status, body)) as url:
        transport = open_transport(Endpoint(base_url=url, profile=ONE, key="sk-hush"))
        with pytest.raises(NotSent, match=f"HTTP {status}: No sockets with") as caught:
            await ask(transport)
        await transport.close()
    assert caught.value.status == status
    assert "sk-hush" not in str(caught.value)


async def test_an_answer_that_is_no_upgrade_is_not_sent_either() -> None:
    async with talking(answering(), refuse=lambda request: (200, "{}")) as transport:
        with pytest.raises(NotSent, match="no upgrade") as caught:
            await ask(transport)
    assert caught.value.status == 200


async def test_a_redirect_is_not_followed_with_the_key_in_hand() -> None:
    seen: list[tuple[int, JsonObject]] = []
    async with websocket_server(answering(seen)) as elsewhere:

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            target = elsewhere.replace("http", "ws")
            writer.write(f"HTTP/1.1 307 Over there\r\nLocation: {target}\r\n\r\n".encode())
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            transport = open_transport(reach(f"http://127.0.0.1:{port}/v1"))
            with pytest.raises(NotSent) as caught:
                await ask(transport)
            await transport.close()
    assert caught.value.status == 307
    assert seen == []


async def test_a_handshake_that_takes_too_long_means_that_nothing_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        transport = open_transport(
            Endpoint(base_url=url, profile=ONE, timeouts=Timeouts(connect=0.05, idle=9))
        )
        with pytest.raises(NotSent):
            await ask(transport)
        await transport.close()


async def test_w46_closing_while_connecting_leaves_nothing_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = open_transport(reach(f"http://127.0.0.1:{server.getsockname()[1]}/v1"))
        asking = asyncio.create_task(outcome(transport))
        loop = asyncio.get_running_loop()
        server.setblocking(False)
        accepted, _ = await loop.sock_accept(server)
        with accepted:
            await transport.close()
            types, error = await asking
    assert types == []
    assert isinstance(error, Closed)


async def test_a_provider_that_says_goodbye_at_once_was_sent_nothing() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = head.lower().split(b"sec-websocket-key: ")[1][:24]
        accept = accept_key(head[head.lower().index(key) :][:24].decode())
        # The handshake and the close frame arrive together.
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n\x88\x02\x03\xe9"
        )
        await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        transport = open_transport(reach(f"http://127.0.0.1:{port}/v1"))
        with pytest.raises(NotSent, match="as soon as it was open"):
            await ask(transport)
        await transport.close()


# -- whose frame it is ---------------------------------------------------------------------


async def test_w24_strays_never_reach_a_request(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(connection: ServerConnection) -> None:
        await hear(connection)
        await tell(connection, *WHOLE)
        await hear(connection)
        # Late frames of the first response, and some of one that nobody asked for.
        await tell(connection, completed("r1"), created("r2"), completed("other"), completed("r2"))
        await connection.wait_closed()

    async with talking(talk) as transport:
        await ask(transport)
        frames = await ask(transport)
    assert [frame.type for frame in frames] == ["response.created", "response.completed"]
    strays = [r for r in caplog.records if "no response in progress" in r.getMessage()]
    assert ["'r1'" in strays[0].getMessage(), "'other'" in strays[1].getMessage()] == [True, True]


async def test_w24_an_error_behind_the_terminal_frame_is_noted_and_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    late = asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        await hear(connection)
        failed = frame("response.failed", response={"id": "r1", "error": None})
        await tell(connection, created("r1"), failed, frame("error", message="late"))
        await (await connection.ping())  # answered, so the late frame has arrived
        late.set()
        await hear(connection)
        await tell(connection, created("r2"), completed("r2"))

    caplog.set_level(logging.WARNING)
    async with talking(talk) as transport:
        assert (await ask(transport))[-1].terminal == "failed"
        await late.wait()
        assert [frame.type for frame in await ask(transport)][-1] == "response.completed"
    assert "'error'" in caplog.records[0].getMessage()


async def test_w02_w24_a_response_left_early_costs_its_connection_and_no_other() -> None:
    gone = asyncio.Event()
    numbers = iter(range(1, 9))

    async def talk(connection: ServerConnection) -> None:
        id = f"r{next(numbers)}"
        await hear(connection)
        await tell(connection, created(id), delta("a"))
        if id == "r1":
            await connection.wait_closed()
            gone.set()
        else:
            await tell(connection, completed(id))

    async with talking(talk) as transport:
        async with aclosing(transport.send(create())) as frames:
            await anext(frames)
        await gone.wait()
        assert [frame.terminal for frame in await ask(transport)] == [None, None, "completed"]


async def test_leaving_behind_the_terminal_frame_keeps_the_connection() -> None:
    seen: list[tuple[int, JsonObject]] = []
    async with talking(answering(seen)) as transport:
        async with aclosing(transport.send(create())) as frames:
            async for each in frames:
                if each.terminal is not None:
                    break
        await ask(transport)
    assert [number for number, _ in seen] == [1, 1]


# -- which connection ----------------------------------------------------------------------


async def test_requests_one_after_the_other_share_a_connection() -> None:
    seen: list[tuple[int, JsonObject]] = []
    async with talking(answering(seen)) as transport:
        for _ in range(3):
            await ask(transport)
    assert [number for number, _ in seen] == [1, 1, 1]


async def test_w43_a_hanging_handshake_holds_nobody_else_up() -> None:
    seen: list[tuple[int, JsonObject]] = []
    hold, held = asyncio.Event(), asyncio.Event()
    first = iter([True])

    async def key() -> str:
        if next(first, False):
            held.set()
            await hold.wait()
        return "k"

    async with websocket_server(answering(seen)) as url:
        transport = open_transport(Endpoint(base_url=url, profile=ONE, key=key))
        first_ask = asyncio.create_task(ask(transport))
        await held.wait()
        await asyncio.gather(first_ask, ask(transport))  # both over what could be opened
        hold.set()
        await transport.close()
    assert [number for number, _ in seen] == [1, 1]


async def test_w44_no_more_connections_are_kept_than_allowed() -> None:
    seen: list[tuple[int, JsonObject]] = []
    async with talking(answering(seen), max_idle_connections=1) as transport:
        await asyncio.gather(*[ask(transport) for _ in range(3)])
        for _ in range(3):
            await ask(transport)
    assert len({number for number, _ in seen[:3]}) == 3
    assert len({number for number, _ in seen[3:]}) == 1


async def test_w44_a_connection_that_nobody_uses_is_closed_in_time() -> None:
    closed = asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        await hear(connection)
        await tell(connection, *WHOLE)
        await connection.wait_closed()
        closed.set()

    async with talking(talk, keep_idle_seconds=0.02) as transport:
        _, connection = await remembered(transport)
        async with asyncio.timeout(5):
            await closed.wait()
        assert not held(transport, parent("r1", connection))


async def test_w41_a_connection_that_closed_while_idle_costs_nothing() -> None:
    ids = iter(["r1", "r2"])
    bye, gone = asyncio.Event(), asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        await hear(connection)
        id = next(ids)
        await tell(connection, created(id), completed(id))
        await bye.wait()
        await connection.close(1001)
        gone.set()

    async with talking(talk) as transport:
        response, connection = await remembered(transport)
        assert held(transport, parent(response, connection))
        bye.set()
        await gone.wait()
        assert not held(transport, parent(response, connection))
        assert (await ask(transport))[-1].connection != connection


async def test_w40_a_broken_connection_takes_no_other_with_it() -> None:
    go, both = asyncio.Event(), asyncio.Barrier(2)
    ids = iter(["broken", "whole"])

    async def talk(connection: ServerConnection) -> None:
        await hear(connection)
        id = next(ids)
        await tell(connection, created(id))
        await both.wait()
        if id == "broken":
            connection.transport.abort()
            go.set()
        else:
            await go.wait()
            await tell(connection, completed(id))

    async with talking(talk) as transport:
        results = await asyncio.gather(outcome(transport), outcome(transport))
    errors = [error for _, error in results]
    assert sorted(type(error).__name__ for error in errors) == ["Lost", "NoneType"]


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_w45_an_error_is_no_fault_of_the_connection(status: int) -> None:
    async def talk(connection: ServerConnection) -> None:
        await hear(connection)
        await tell(connection, frame("error", status=status, error={"message": "no"}))
        await hear(connection)
        await tell(connection, *WHOLE)
        await connection.wait_closed()

    async with talking(talk) as transport:
        first = await ask(transport)
        second = await ask(transport)
    assert first[0].problem is not None and first[0].problem.status == status
    assert first[0].connection == second[0].connection


# -- the 60 minutes ------------------------------------------------------------------------

LIMIT: dict[str, Json] = frame(
    "error", status=400, error={"code": "websocket_connection_limit_reached"}
)


@pytest.mark.parametrize("begun", [[], [created("r1"), delta("a")]])
async def test_w37_a_connection_that_is_too_old_is_not_used_again(begun: list[JsonObject]) -> None:
    seen: list[int] = []

    async def talk(connection: ServerConnection) -> None:
        seen.append(len(seen))
        await hear(connection)
        if len(seen) == 1:
            await tell(connection, *begun, LIMIT)
        else:
            await tell(connection, *WHOLE)
        await connection.wait_closed()

    async with talking(talk) as transport:
        last = (await ask(transport))[-1]
        assert last.problem is not None
        assert last.problem.code == "websocket_connection_limit_reached"
        assert (await ask(transport))[-1].connection != last.connection
    assert seen == [0, 1]


async def test_w37_a_limit_that_arrived_a_moment_before_a_request_costs_nothing() -> None:
    numbers = iter([1, 2])
    arrived = asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        await hear(connection)
        number = next(numbers)
        await tell(connection, *WHOLE)
        if number == 1:
            await tell(connection, delta("late"), LIMIT)
            await (await connection.ping())
            arrived.set()

    async with talking(talk) as transport:
        async with aclosing(transport.send(create())) as stream:
            first = await anext(stream)
            await arrived.wait()
            assert [frame.terminal async for frame in stream][-1] == "completed"
        again = await ask(transport)
    assert again[-1].terminal == "completed"
    assert again[-1].connection != first.connection


async def test_w37_the_limit_may_be_reached_while_nobody_asks() -> None:
    ids = iter(["r1", "r2"])
    now, gone = asyncio.Event(), asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        await hear(connection)
        id = next(ids)
        await tell(connection, created(id), completed(id))
        await now.wait()
        await tell(connection, LIMIT)
        await connection.wait_closed()
        gone.set()

    async with talking(talk) as transport:
        response, connection = await remembered(transport)
        now.set()
        await gone.wait()
        assert not held(transport, parent(response, connection))
        assert (await ask(transport))[-1].terminal == "completed"


# -- memory --------------------------------------------------------------------------------


async def test_w13_an_unstored_parent_is_remembered_where_it_was_made() -> None:
    async with talking(answering()) as transport:
        response, connection = await remembered(transport)
        assert held(transport, parent(response, connection))
        assert not held(transport, parent("resp_other", connection))
        assert not held(transport, parent(response, "ws_other"))
        assert not held(transport, parent(response, None))
        assert not held(transport, parent(response, connection, lane="left"))
        await ask(transport, create(parent=parent(response, connection)))
        assert not held(transport, parent(response, connection))  # no longer the newest
    assert not held(transport, parent(response, connection))


async def test_a_parent_is_not_remembered_while_its_connection_is_in_use() -> None:
    async with talking(answering()) as transport:
        response, connection = await remembered(transport)
        async with aclosing(transport.send(create())) as frames:
            await anext(frames)
            assert not held(transport, parent(response, connection))


@pytest.mark.parametrize(
    ("frames", "continued", "kept"),
    [
        ([frame("error", status=400)], False, True),
        ([frame("error", status=400)], True, False),
        ([created("x"), frame("response.failed", response={"id": "x"})], False, False),
        ([created("x"), frame("response.incomplete", response={"id": "x"})], True, False),
        ([frame("response.completed", response={"id": None})], True, False),
    ],
)
async def test_law8_a_failed_continuation_is_forgotten(
    frames: list[JsonObject], continued: bool, kept: bool
) -> None:
    async def talk(connection: ServerConnection) -> None:
        await hear(connection)
        await tell(connection, *WHOLE)
        await hear(connection)
        await tell(connection, *frames)
        await connection.wait_closed()

    async with talking(talk) as transport:
        response, connection = await remembered(transport)
        own = parent(response, connection)
        fields: dict[str, Json] = {"previous_response_id": response} if continued else {}
        await ask(transport, Create(body={**create().body, **fields}, parent=own))
        assert held(transport, own) is kept


async def test_w49_a_continuation_prefers_the_connection_of_its_parent() -> None:
    seen: list[tuple[int, JsonObject]] = []
    async with talking(answering(seen)) as transport:
        both = await asyncio.gather(remembered(transport), remembered(transport))
        for response, connection in [*both, *both]:
            stored = replace(parent(response, connection), store=True)
            frames = await ask(transport, create(parent=stored))
            assert {frame.connection for frame in frames} == {connection}
    assert {number for number, _ in seen} == {1, 2}


async def test_w49_nobody_takes_the_connection_of_an_unstored_parent() -> None:
    async with talking(answering()) as transport:
        async with asyncio.timeout(5):
            frames = await ask(transport, create(store=False))
            response = frames[-1].data["response"]
            assert isinstance(response, dict)
            own = parent(str(response["id"]), frames[-1].connection)
            await ask(transport)
        assert held(transport, own)
        again = await ask(transport, create(store=False, parent=own))
    assert again[0].connection == own.connection


# -- leaving and closing -------------------------------------------------------------------


async def test_w47_closing_ends_what_is_under_way_even_where_frames_wait() -> None:
    async with talking(once(*WHOLE, then=keep)) as transport:
        stream = transport.send(create())
        await anext(stream)
        await transport.close()
        with pytest.raises(Closed):
            await anext(stream)


async def test_a_request_cancelled_while_it_waits_is_never_written() -> None:
    seen: list[Json] = []
    go_on = asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        for _ in range(2):
            seen.append((await hear(connection))["input"])
            id = f"r{len(seen)}"
            await tell(connection, created(id))
            await go_on.wait()
            await tell(connection, completed(id))

    async with talking(talk, max_connections=1) as transport:
        async with aclosing(transport.send(create("first"))) as stream:
            await anext(stream)
            waiting = asyncio.create_task(ask(transport, create("second")))
            await settle()
            waiting.cancel()
            await asyncio.wait({waiting})
            assert waiting.cancelled()
            go_on.set()
            assert [frame.terminal async for frame in stream] == ["completed"]
        await ask(transport, create("third"))
    assert seen == ["first", "third"]


async def test_a_request_cancelled_as_it_is_written_is_a_response_left_early() -> None:
    async def talk(connection: ServerConnection) -> None:
        while (await hear(connection))["input"] != "left":
            await tell(connection, created("r"))
            await go_on.wait()
            await tell(connection, completed("r"))
        await connection.wait_closed()
        closed.set()

    go_on, closed = asyncio.Event(), asyncio.Event()
    async with talking(talk, max_connections=1) as transport:
        async with aclosing(transport.send(create())) as stream:
            await anext(stream)
            waiting = asyncio.create_task(ask(transport, create("left")))
            await settle()
            go_on.set()
            await anext(stream)  # whoever hears of the end runs before whoever was waiting for it
            waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        async with asyncio.timeout(5):
            await closed.wait()


async def test_w36_a_connection_that_breaks_while_idle_breaks_nothing_else() -> None:
    broken = asyncio.Event()
    ids = iter(["r1", "r2"])

    async def talk(connection: ServerConnection) -> None:
        await hear(connection)
        id = next(ids)
        await tell(connection, created(id), completed(id))
        if id == "r1":
            connection.transport.write_eof()  # no goodbye
            await connection.wait_closed()
            broken.set()

    async with talking(talk) as transport:
        await ask(transport)
        await broken.wait()
        assert (await ask(transport))[-1].terminal == "completed"
