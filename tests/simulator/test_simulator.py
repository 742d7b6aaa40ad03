"""The simulator on loopback: what a client sees of it by HTTP and by WebSocket, faults included."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect as sync_connect

from turnlog.canonical import Json, JsonObject, array, loads_object, obj, text
from turnlog.errors import ConfigurationError
from turnlog.testing import call, error, refuse_upgrade, scripts
from turnlog.testing.scripts import Reply
from turnlog_transports import simulator as module
from turnlog_transports.simulator import Simulator, main, serve

say = scripts.text
BODY: dict[str, Json] = {"model": "m", "input": "Hi."}
STREAM: dict[str, Json] = {**BODY, "stream": True}


@asynccontextmanager
async def http(simulator: Simulator, **headers: str) -> AsyncGenerator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        base_url=simulator.base_url, headers=headers, timeout=10.0, trust_env=False
    ) as client:
        yield client


def ws(simulator: Simulator, **headers: str) -> connect:
    address = simulator.base_url.replace("http", "ws", 1) + "/responses"
    return connect(address, additional_headers=headers, max_size=None, proxy=None)


async def heard(client: httpx2.AsyncClient, into: list[JsonObject | str]) -> None:
    """Every event of a stream, as it comes; raises what httpx raises when it breaks."""
    async with client.stream("POST", "/responses", json=STREAM) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        named = ""
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                named = line.removeprefix("event: ")
            elif line.startswith("data: "):
                into.append(_data(line.removeprefix("data: "), named))


def _data(raw: str, named: str) -> JsonObject | str:
    try:
        event = loads_object(raw)
    except ValueError:
        return raw
    assert event["type"] == named
    return event


async def ask(socket: ClientConnection, **fields: Json) -> JsonObject:
    """The last frame of an answer on a WebSocket."""
    await socket.send(json.dumps({"type": "response.create", **BODY, **fields}))
    while True:
        frame = loads_object(await socket.recv())
        if frame["type"] in ("response.completed", "response.failed", "error"):
            return frame


def tags(events: Sequence[JsonObject | str]) -> list[str]:
    return [event if isinstance(event, str) else str(event["type"]) for event in events]


# -- answers -------------------------------------------------------------------------------


async def test_a_stream_and_a_whole_answer_say_the_same() -> None:
    async with Simulator([say("Hi."), say("Hi.")]) as simulator, http(simulator) as client:
        events: list[JsonObject | str] = []
        await heard(client, events)
        whole = (await client.post("/responses", json=BODY)).json()
    last = events[-1]
    assert isinstance(last, dict)
    streamed = obj(last, "response")
    assert tags(events)[0] == "response.created"
    assert (streamed["status"], whole["status"]) == ("completed", "completed")
    assert (streamed["id"], whole["id"]) == ("resp_1", "resp_2")


async def test_a_websocket_and_http_share_what_is_stored() -> None:
    async with (
        Simulator([say("One."), say("Two.")]) as simulator,
        ws(simulator) as socket,
        http(simulator) as client,
    ):
        first = obj(await ask(socket), "response")
        asked = {**BODY, "previous_response_id": first["id"]}
        second = (await client.post("/responses", json=asked)).json()
    assert second["previous_response_id"] == first["id"]


async def test_a_response_is_found_with_its_input_and_deleted() -> None:
    async with Simulator([say("Hi.")]) as simulator, http(simulator) as client:
        made = (await client.post("/responses", json=BODY)).json()
        assert (await client.get("/responses/resp_1")).json() == made
        items = (await client.get("/responses/resp_1/input_items")).json()
        assert items["data"][0]["content"] == "Hi."
        streamed = await client.get(
            "/responses/resp_1", params={"stream": "true", "starting_after": "3"}
        )
        assert streamed.status_code == 400
        assert (await client.delete("/responses/resp_1")).json()["deleted"] is True
        assert (await client.get("/responses/resp_1")).status_code == 404
    assert [heard.method for heard in simulator.requests][-2:] == ["DELETE", "GET"]


async def test_an_unstored_chain_lives_on_its_connection() -> None:
    async with Simulator([say("One."), say("Two.")]) as simulator:
        async with ws(simulator) as socket:
            first = obj(await ask(socket, store=False), "response")
            second = await ask(socket, store=False, previous_response_id=first["id"])
            assert second["type"] == "response.completed"
        async with ws(simulator) as socket:
            lost = await ask(socket, previous_response_id=obj(second, "response")["id"])
    assert lost["status"] == 400
    assert obj(lost, "error")["code"] == "previous_response_not_found"


async def test_a_client_that_leaves_ends_its_response() -> None:
    async with Simulator([say("Hi.").but(stall_after=2)]) as simulator:
        async with http(simulator) as client:
            async with client.stream("POST", "/responses", json=STREAM) as response:
                await anext(response.aiter_lines())
            assert (await client.get("/responses/resp_1")).status_code == 404


async def test_a_script_may_be_changed_while_it_runs() -> None:
    async with Simulator([]) as simulator, http(simulator) as client:
        over = (await client.post("/responses", json=BODY)).json()
        assert over["error"]["code"] == "script_exhausted"
        simulator.play([say("Hi.")])
        assert simulator.left == 1
        assert (await client.post("/responses", json=BODY)).status_code == 200


async def test_without_a_script_it_echoes() -> None:
    async with Simulator() as simulator, http(simulator) as client:
        assert "Hi." in (await client.post("/responses", json=BODY)).text


async def test_it_keeps_what_was_asked() -> None:
    async with Simulator([say("a"), say("b")]) as simulator:
        async with http(simulator) as client:
            await client.post("/responses", json=BODY)
            await client.get("/responses/resp_x")
        async with ws(simulator) as socket:
            await ask(socket)
    assert [(heard.carrier, heard.method) for heard in simulator.requests] == [
        ("http", "POST"),
        ("http", "GET"),
        ("websocket", "UPGRADE"),
        ("websocket", "response.create"),
    ]
    assert simulator.creates == [BODY, BODY]
    assert simulator.requests[0].size == len(json.dumps(BODY, separators=(",", ":")))
    assert simulator.requests[3].size > simulator.requests[0].size


async def test_a_simulator_that_runs_for_long_keeps_no_record() -> None:
    async with Simulator(record=False, keep=1) as simulator, http(simulator) as client:
        async with ws(simulator) as socket:
            await ask(socket)
        await client.post("/responses", json=BODY)
        assert (await client.get("/responses/resp_1")).status_code == 404
        assert (await client.get("/responses/resp_2")).status_code == 200
    assert (simulator.requests, simulator.creates) == ([], [])
    assert simulator.connections.total == 1


# -- refusals ------------------------------------------------------------------------------


async def test_a_refusal_has_the_shape_of_its_carrier() -> None:
    async with Simulator([call("a"), call("b")]) as simulator:
        async with http(simulator) as client:
            await client.post("/responses", json=BODY)
            flat = await client.post(
                "/responses", json={**STREAM, "previous_response_id": "resp_1"}
            )
        async with ws(simulator) as socket:
            nested = await ask(socket, previous_response_id="resp_1")
    problem = flat.json()["error"]
    assert (flat.status_code, problem["code"], problem["param"]) == (400, None, "input")
    assert problem["message"] == "No tool output found for function call call_1."
    assert nested == {"type": "error", "status": 400, "error": problem}


async def test_too_many_requests_say_how_long_to_wait() -> None:
    limited = error(429, "rate_limit_exceeded", retry_after=2)
    async with Simulator([limited, limited]) as simulator:
        async with http(simulator) as client:
            answer = await client.post("/responses", json=STREAM)
        async with ws(simulator) as socket:
            frame = await ask(socket, stream_id="side")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert (frame["status"], frame["stream_id"]) == (429, "side")
    assert obj(frame, "error")["headers"] == {"retry-after": "2"}


async def test_an_error_within_a_stream_has_the_shape_of_its_carrier() -> None:
    flat: JsonObject = {"type": "error", "code": "server_error", "message": "It broke."}
    async with Simulator([Reply(events=(flat,))] * 2) as simulator:
        async with http(simulator) as client:
            events: list[JsonObject | str] = []
            await heard(client, events)
        async with ws(simulator) as socket:
            nested = await ask(socket)
    assert events == [flat]
    assert obj(nested, "error")["code"] == "server_error"


@pytest.mark.parametrize("raw", [b"{", b"[]"])
async def test_a_body_that_is_no_json_object_is_refused(raw: bytes) -> None:
    async with Simulator() as simulator:
        async with http(simulator) as client:
            answer = await client.post("/responses", content=raw)
        async with ws(simulator) as socket:
            await socket.send(raw.decode())
            frame = loads_object(await socket.recv())
    assert answer.status_code == 400
    assert "parse the JSON body" in answer.json()["error"]["message"]
    assert (frame["type"], frame["status"]) == ("error", 400)
    assert [heard.body for heard in simulator.requests] == [None, None, None]


async def test_what_is_no_create_or_has_no_lane_is_refused_and_the_socket_goes_on() -> None:
    async with Simulator() as simulator, ws(simulator) as socket:
        await socket.send(b'{"type":"response.cancel"}')
        assert "response.create" in str(obj(loads_object(await socket.recv()), "error")["message"])
        for lane in ("", "a b", 7):
            frame = await ask(socket, stream_id=lane)
            assert obj(frame, "error")["code"] == "invalid_stream_id"
            assert "stream_id" not in frame
        assert (await ask(socket))["type"] == "response.completed"


async def test_a_key_is_wanted_where_there_is_one() -> None:
    async with Simulator(key="sk-1") as simulator:
        async with http(simulator) as client:
            for answer in (
                await client.post("/responses", json=BODY),
                await client.get("/responses/resp_1"),
            ):
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "invalid_api_key"
        with pytest.raises(InvalidStatus, match="401"):
            await ws(simulator, Authorization="Bearer sk-2")
        async with http(simulator, Authorization="Bearer sk-1") as client:
            assert (await client.post("/responses", json=BODY)).status_code == 200
        async with ws(simulator, Authorization="Bearer sk-1") as socket:
            assert (await ask(socket))["type"] == "response.completed"


async def test_an_upgrade_is_refused_by_the_script(caplog: pytest.LogCaptureFixture) -> None:
    async with Simulator([refuse_upgrade(403), say("Hi.")]) as simulator:
        with pytest.raises(InvalidStatus, match="403"):
            await ws(simulator)
        async with ws(simulator) as socket:
            assert (await ask(socket))["type"] == "response.completed"
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_the_websocket_can_be_taken_away_and_given_back() -> None:
    async with Simulator([say("Hi."), say("Never.").but(stall_after=1)]) as simulator:
        async with ws(simulator) as idle, ws(simulator) as busy:
            await ask(idle)
            await busy.send(json.dumps({"type": "response.create", **BODY}))
            await busy.recv()
            simulator.websocket = False
            for socket in (idle, busy):
                with pytest.raises(ConnectionClosedOK, match="1001"):
                    await socket.recv()
        with pytest.raises(InvalidStatus, match="426"):
            await ws(simulator)
        assert not simulator.websocket
        simulator.websocket = True
        async with ws(simulator):
            pass


# -- faults --------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 4])
async def test_a_cut_ends_the_connection_after_so_many_frames(after: int) -> None:
    reply = say("A long answer.").but(cut_after=after)
    async with Simulator([reply, reply]) as simulator:
        events: list[JsonObject | str] = []
        async with http(simulator) as client:
            with pytest.raises(httpx2.RemoteProtocolError):
                await heard(client, events)
        assert len(events) == after
        async with ws(simulator) as socket:
            await socket.send(json.dumps({"type": "response.create", **BODY}))
            frames: list[str | bytes] = []
            with pytest.raises(ConnectionClosedError) as caught:
                while True:
                    frames.append(await socket.recv())
        assert len(frames) == after
        assert caught.value.rcvd is None


async def test_a_cut_behind_a_large_frame_delivers_the_frame() -> None:
    large = "x" * 3_000_000
    reply = Reply(items=say(large).items, chunk=len(large), cut_after=5)
    async with Simulator([reply]) as simulator, http(simulator) as client:
        events: list[JsonObject | str] = []
        with pytest.raises(httpx2.RemoteProtocolError):
            await heard(client, events)
    last = events[-1]
    assert isinstance(last, dict)
    assert len(text(last, "delta") or "") == len(large)


@pytest.mark.parametrize(
    "reply", [say("Hi.").but(cut_after=3), say("Hi.").but(no_terminal=True), Reply(events=())]
)
async def test_a_whole_answer_that_is_never_whole_is_cut(reply: Reply) -> None:
    async with Simulator([reply]) as simulator, http(simulator) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.post("/responses", json=BODY)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stall_is_silent_for_as_long_as_one_waits(stream: bool) -> None:
    async with Simulator([say("Hi.").but(stall_after=0)]) as simulator, http(simulator) as client:
        with pytest.raises(httpx2.ReadTimeout):
            await client.post("/responses", json={**BODY, "stream": stream}, timeout=0.05)


async def test_a_malformed_frame_comes_in_between() -> None:
    reply = say("Hi.").but(malformed_after=2)
    async with Simulator([reply, reply, reply]) as simulator:
        events: list[JsonObject | str] = []
        async with http(simulator) as client:
            await heard(client, events)
            whole = await client.post("/responses", json=BODY)
        async with ws(simulator) as socket:
            await socket.send(json.dumps({"type": "response.create", **BODY}))
            frames = [await socket.recv() for _ in range(10)]
    for found in (events[2], frames[2], whole.text):
        assert isinstance(found, str)
        with pytest.raises(ValueError):
            json.loads(found)
    assert tags(events)[-1] == "response.completed"
    assert whole.status_code == 200


async def test_a_stream_may_end_in_good_order_without_its_terminal_frame() -> None:
    reply = say("Hi.").but(no_terminal=True)
    async with Simulator([reply, reply, Reply(events=())]) as simulator:
        events: list[JsonObject | str] = []
        async with http(simulator) as client:
            await heard(client, events)
        async with ws(simulator) as socket:
            await socket.send(json.dumps({"type": "response.create", **BODY}))
            with pytest.raises(ConnectionClosedOK):
                while True:
                    await socket.recv()
        async with http(simulator) as client:
            await heard(client, events)
    assert tags(events)[-1] == "response.output_item.done"


async def test_a_lost_response_may_finish_on_the_server() -> None:
    reply = say("Kept.").but(cut_after=2, finishes=True, polls=1)
    async with Simulator([reply]) as simulator, http(simulator) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await heard(client, [])
        statuses = [(await client.get("/responses/resp_1")).json()["status"] for _ in range(2)]
    assert statuses == ["in_progress", "completed"]


async def test_a_script_that_raises_is_a_server_error(caplog: pytest.LogCaptureFixture) -> None:
    def broken(body: JsonObject) -> Reply:
        raise ValueError(f"no answer to {body['input']}")

    async with Simulator([broken, broken]) as simulator:
        async with http(simulator) as client:
            assert (await client.post("/responses", json=BODY)).status_code == 500
        async with ws(simulator) as socket:
            await socket.send(json.dumps({"type": "response.create", **BODY}))
            with pytest.raises(ConnectionClosedError):
                await socket.recv()
    assert "no answer to Hi." in caplog.text


# -- starting and stopping -----------------------------------------------------------------


async def test_it_stops_while_clients_are_connected() -> None:
    async with Simulator([say("Hi.").but(stall_after=1)] * 2) as simulator:
        socket = await ws(simulator)
        await socket.send(json.dumps({"type": "response.create", **BODY}))
        await socket.recv()
        client = httpx2.AsyncClient(base_url=simulator.base_url, trust_env=False)
        stream = client.stream("POST", "/responses", json=STREAM)
        lines = (await stream.__aenter__()).aiter_lines()
        assert await anext(lines) == "event: response.created"
    with pytest.raises(httpx2.RemoteProtocolError):
        async for _ in lines:
            pass
    with pytest.raises(ConnectionClosedError):
        await socket.recv()
    await stream.__aexit__(None, None, None)
    await client.aclose()


async def test_an_address_that_is_taken_is_named() -> None:
    async with Simulator() as first:
        port = int(first.base_url.rpartition(":")[2].removesuffix("/v1"))
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1, port {port}"):
            async with Simulator(port=port):
                pass


async def test_it_can_listen_on_another_address() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    async with Simulator([say("a").but(cut_after=1)], host="::1") as simulator:
        assert simulator.base_url.startswith("http://[::1]:")
        async with http(simulator) as client:
            with pytest.raises(httpx2.RemoteProtocolError):
                await heard(client, [])


# -- by hand -------------------------------------------------------------------------------


def asking(found: list[JsonObject]) -> module.Ready:
    """When the simulator is ready: ask once from another thread, then stop the process politely."""

    def ready(simulator: Simulator) -> None:
        def once() -> None:
            with httpx2.Client(base_url=simulator.base_url, trust_env=False) as client:
                found.append(client.post("/responses", json=BODY).json())
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=once).start()

    return ready


def output(found: JsonObject) -> str:
    return repr(array(found, "output"))


@pytest.mark.parametrize(
    ("entries", "options"),
    [
        ([{"text": "From a script."}], "script"),
        (
            [
                {
                    "request": {"method": "POST", "path": "/v1/responses"},
                    "response": {"status": 200, "body": {"object": "response", "output": ["a"]}},
                }
            ],
            "transcript",
        ),
    ],
)
def test_it_serves_a_file_until_it_is_stopped(tmp_path: Path, entries: Json, options: str) -> None:
    path = tmp_path / "play.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    found: list[JsonObject] = []
    if options == "script":
        serve(script=path, on_ready=asking(found))
        assert "From a script." in output(found[0])
    else:
        serve(transcript=path, on_ready=asking(found))
        assert found[0]["output"] == ["a"]


def test_it_serves_an_echo_with_ids_of_its_own() -> None:
    found: list[JsonObject] = []
    for _ in range(2):
        serve(on_ready=asking(found))
    assert "Hi." in output(found[0])
    assert found[0]["id"] != found[1]["id"]


def test_it_serves_websockets_for_as_long_as_it_is_told() -> None:
    told: list[JsonObject] = []

    def ready(simulator: Simulator) -> None:
        def idle() -> None:
            address = simulator.base_url.replace("http", "ws", 1) + "/responses"
            with sync_connect(address, proxy=None) as socket:
                told.append(loads_object(socket.recv()))
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=idle).start()

    serve(connection_seconds=0.05, on_ready=ready)
    assert obj(told[0], "error")["code"] == "websocket_connection_limit_reached"


def test_a_script_and_a_transcript_at_once_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="name one of them"):
        serve(script="a", transcript="b", on_ready=asking([]))


def test_the_command_prints_its_address_and_says_what_it_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def announce(simulator: Simulator) -> None:
        module.announce(simulator)
        os.kill(os.getpid(), signal.SIGINT)

    main(["--port", "0", "--connection-seconds", "60"], on_ready=announce)
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")


def test_the_command_says_in_one_line_what_cannot_be_played(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--script", str(tmp_path / "nope.json")])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: the script ") and said.count("\n") == 1


async def test_the_command_runs_until_it_is_terminated() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "turnlog_transports.simulator", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    address = (await process.stdout.readline()).decode().strip()
    async with httpx2.AsyncClient(base_url=address, trust_env=False) as client:
        assert "Hi." in (await client.post("/responses", json=BODY)).text
    process.terminate()
    assert await process.wait() == 0


async def test_without_its_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['uvicorn'] = None; import turnlog_transports.simulator"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await process.communicate()
    assert b"ConfigurationError: the simulator needs its HTTP server" in stderr
    assert b"turnlog[simulator]" in stderr


async def test_a_client_that_leaves_in_the_middle_of_a_request_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Simulator([say("Fine.")]) as simulator, http(simulator) as client:
        address = urlsplit(simulator.base_url)
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        head = "POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
        writer.write(f'{head}{{"model": '.encode())
        await writer.drain()
        writer.transport.abort()
        found = await client.post("/responses", json=BODY)
        assert found.status_code == 200
        assert [one.size for one in simulator.requests] == [len(found.request.content)]
    assert [one for one in caplog.records if one.levelname in ("WARNING", "ERROR")] == []
