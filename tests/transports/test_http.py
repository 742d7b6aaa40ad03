"""The HTTP transport against real servers: streams, plain answers, losses, and what is asked."""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from turnlog.canonical import Json, JsonObject
from turnlog.errors import (
    Closed,
    ConfigurationError,
    InvalidInput,
    Lost,
    NotSent,
    NotSupported,
    Unheard,
)
from turnlog.ports import Cancel, Compact, Delete, Endpoint, Request, Retrieve
from turnlog_transports.http import HttpTransport, open_transport
from turnlog_transports.profiles import GENERIC, OPENAI

from .servers import (
    Answer,
    Web,
    ask,
    completed,
    create,
    created,
    cut,
    delta,
    endpoint,
    event,
    held,
    outcome,
    parent,
    plain,
    stream,
    web_server,
)

WHOLE = [event(created("r1")), event(delta("a")), event(completed("r1"))]
RESPONSE: dict[str, Json] = {"id": "r1", "object": "response", "status": "completed", "output": []}


@asynccontextmanager
async def serving(
    *answers: Answer, idle_timeout: float = 5.0, **options: object
) -> AsyncGenerator[tuple[HttpTransport, Web]]:
    async with web_server(*answers) as web:
        transport = open_transport(endpoint(web.url, idle_timeout=idle_timeout, **options))
        try:
            yield transport, web
        finally:
            await transport.close()


async def types(*answers: Answer, request: Request | None = None) -> list[str]:
    async with serving(*answers) as (transport, _):
        return [frame.type for frame in await ask(transport, request)]


# -- streams -------------------------------------------------------------------------------


async def test_a_stream_is_asked_for_and_read_to_its_terminal_frame() -> None:
    async with serving(stream(*WHOLE)) as (transport, web):
        frames = await ask(transport, create("Hi."))
        assert not held(transport, parent("r1", None))
        assert (transport.choose(), transport.profile) == ("http", OPENAI)
    assert [frame.terminal for frame in frames] == [None, None, "completed"]
    asked = web.asked[0]
    assert (asked.method, asked.path) == ("POST", "/v1/responses")
    assert json.loads(asked.body) == {"model": "gpt-5.5", "input": "Hi.", "stream": True}
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["user-agent"] == "turnlog"


async def test_the_key_and_the_headers_of_the_moment_go_out() -> None:
    keys = iter(["sk-1", "sk-2"])
    async with web_server(stream(*WHOLE), stream(*WHOLE)) as web:
        transport = open_transport(
            Endpoint(base_url=web.url, key=lambda: next(keys), headers={"X-Own": "1"})
        )
        await ask(transport)
        await ask(transport)
        await transport.close()
    assert [asked.headers["authorization"] for asked in web.asked] == ["Bearer sk-1", "Bearer sk-2"]
    assert [asked.headers["x-own"] for asked in web.asked] == ["1", "1"]


async def test_a_stream_read_to_its_end_leaves_the_connection_for_the_next() -> None:
    done = event("[DONE]")
    async with serving(stream(*WHOLE, done), stream(*WHOLE)) as (transport, web):
        await ask(transport)
        await ask(transport)
    assert web.connections == 1


async def test_two_turns_take_one_connection() -> None:
    async with serving(stream(*WHOLE), plain(429, {}), stream(*WHOLE)) as (transport, web):
        for _ in "abc":
            await ask(transport)
    assert (len(web.asked), web.connections) == (3, 1)


async def test_a_stream_that_goes_on_behind_its_terminal_frame_holds_nobody_up() -> None:
    hang = asyncio.Event()
    async with serving(stream(*WHOLE, hang=hang), stream(*WHOLE)) as (transport, web):
        assert len(await ask(transport)) == 3
        hang.set()
        assert len(await ask(transport)) == 3
    assert web.connections == 2


async def test_a_connection_cut_behind_the_terminal_frame_is_no_loss() -> None:
    assert len(await types(stream(*WHOLE, cut=True))) == 3


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_a_stream_may_arrive_in_any_pieces(size: int) -> None:
    long = b": a comment\r\n\r\nid: 1\n\n" + b"".join(WHOLE)
    pieces = [long[start : start + size] for start in range(0, len(long), size)]
    assert await types(stream(*pieces)) == [
        "response.created",
        "response.output_text.delta",
        "response.completed",
    ]


async def test_a_stream_may_arrive_all_at_once() -> None:
    behind = [event(delta("late")), event("[DONE]")]
    assert len(await types(stream(b"".join((*WHOLE, *behind))))) == len(WHOLE)


async def test_the_first_text_of_many_is_seen_before_the_rest_is_read() -> None:
    seen: list[str] = []
    said = asyncio.Event()

    async def watch() -> int:
        await said.wait()
        return len(seen)

    rest = [event(delta("b")), event(delta("c")), WHOLE[2]]
    async with serving(stream(b"".join((*WHOLE[:2], *rest)))) as (transport, _):
        watching = asyncio.create_task(watch())
        async for frame in transport.send(create()):
            seen.append(frame.type)
            if frame.type.endswith(".delta"):
                said.set()
        assert await watching == 2
    assert len(seen) == 5


async def test_a_stream_may_end_with_the_line_of_its_last_frame() -> None:
    """A return at the very end is the end of the event: a line feed might have come behind it."""
    last = WHOLE[2].rstrip(b"\n") + b"\n\r"
    assert len(await types(stream(*WHOLE[:2], last))) == len(WHOLE)


async def test_a_stream_is_utf8_whatever_it_declares() -> None:
    raw = 'data: {"type":"response.completed","x":"é\u2028"}\n\n'.encode()
    answer = stream(raw, content_type="text/event-stream; charset=latin-1")
    async with serving(answer) as (transport, _):
        frames = await ask(transport)
    assert frames[0].data["x"] == "é\u2028"


async def test_w22_a_frame_that_is_not_json_does_not_end_the_stream() -> None:
    parts = [WHOLE[0], event("{broken"), *WHOLE[1:]]
    async with serving(stream(*parts)) as (transport, _):
        frames = await ask(transport)
    assert [frame.text for frame in frames] == [None, "{broken", None, None]


async def test_an_error_in_a_stream_is_a_frame() -> None:
    async with serving(
        stream(WHOLE[0], event({"type": "error", "code": "c", "message": "m", "param": None}))
    ) as (transport, _):
        last = (await ask(transport))[-1]
    assert last.terminal == "error"
    assert last.problem is not None
    assert (last.problem.code, last.problem.message) == ("c", "m")


@pytest.mark.parametrize("kind", ["incomplete", "cancelled", "failed"])
async def test_w21_every_end_of_a_response_ends_its_stream(kind: str) -> None:
    response: JsonObject = {"id": "r1", "status": kind, "error": None, "usage": None}
    last = event({"type": f"response.{kind}", "response": response})
    async with serving(stream(*WHOLE[:2], last)) as (transport, _):
        frames = await ask(transport)
    assert [frame.terminal for frame in frames] == [None, None, kind]
    assert frames[-1].data["response"] == response


async def test_w20_an_error_of_nulls_ends_its_stream() -> None:
    nulls: JsonObject = {"type": "error", "code": None, "message": None, "param": None}
    async with serving(stream(WHOLE[0], event(nulls))) as (transport, _):
        last = (await ask(transport))[-1]
    assert last.terminal == "error"
    assert last.problem is not None


async def test_w26_refusals_reasoning_and_items_are_frames_like_any_other() -> None:
    kinds = ["refusal.delta", "reasoning_summary_text.delta", "output_item.added", "brand_new.kind"]
    said: list[dict[str, Json]] = [{"type": f"response.{kind}", "delta": "x"} for kind in kinds]
    async with serving(stream(*map(event, said), WHOLE[2])) as (transport, _):
        frames = await ask(transport)
    assert [frame.data for frame in frames[:-1]] == said


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after_ms": "70"}, 0.07),
        (
            {
                "retry_after": "Wed, 21 Oct 2026 07:28:30 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            30,
        ),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
    ],
)
async def test_w33_a_refusal_says_how_long_to_wait(
    headers: dict[str, str], seconds: float | None
) -> None:
    async with serving(plain(503, {"error": None}, **headers)) as (transport, _):
        problem = (await ask(transport))[0].problem
    assert problem is not None
    assert problem.retry_after == seconds


async def test_w34_a_body_that_is_not_json_never_gets_as_far_as_a_connection() -> None:
    async with serving() as (transport, web):
        with pytest.raises(InvalidInput):
            await ask(transport, create(temperature=float("nan")))
    assert web.connections == 0


# -- losses --------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("ending", ["cut", "end", "done", "half"])
@pytest.mark.parametrize("at_once", [True, False])
async def test_w25_a_stream_without_its_terminal_frame_is_never_a_success(
    at_once: bool, after: int, ending: str
) -> None:
    rest = {"done": [event("[DONE]")], "half": [WHOLE[2][:20]]}.get(ending, [])
    pieces = [*WHOLE[:after], *rest]
    answer = stream(*([b"".join(pieces)] if at_once else pieces), cut=ending == "cut")
    async with serving(answer) as (transport, _):
        got, error = await outcome(transport)
    assert len(got) == after
    assert isinstance(error, Lost if after else Unheard)


async def test_a_connection_cut_before_any_answer_is_unheard() -> None:
    async with serving(cut) as (transport, web):
        got, error = await outcome(transport)
    assert got == []
    assert isinstance(error, Unheard)
    assert len(web.asked) == 1  # and never again by itself (W-31)


async def test_a_frame_beyond_the_limit_is_a_loss() -> None:
    big = event(delta("x" * 3000))
    answers = stream(WHOLE[0], big), stream(WHOLE[0] + big + WHOLE[2])
    async with serving(*answers, max_frame_bytes=1000) as (transport, _):
        for _ in answers:
            got, error = await outcome(transport)
            assert got == ["response.created"]
            assert isinstance(error, Lost)
            assert "raise the option max_frame_bytes, after 1 frames" in str(error)


async def test_nobody_there_means_that_nothing_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    transport = open_transport(endpoint(f"http://127.0.0.1:{port}/v1"))
    with pytest.raises(NotSent, match="cannot reach the provider") as caught:
        await ask(transport)
    await transport.close()
    assert caught.value.status is None


# -- plain answers -------------------------------------------------------------------------


async def test_a_plain_answer_to_a_create_is_one_frame() -> None:
    assert await types(plain(200, RESPONSE)) == ["response.completed"]


async def test_w25_a_plain_answer_that_is_not_finished_is_lost() -> None:
    async with serving(plain(200, {**RESPONSE, "status": "in_progress"})) as (transport, _):
        got, error = await outcome(transport)
    assert got == ["response.in_progress"]
    assert isinstance(error, Lost)


async def test_w22_a_success_that_is_no_response_is_kept_and_lost() -> None:
    async with serving(plain(200, b"<html>", content_type="text/html")) as (transport, _):
        got, error = await outcome(transport)
    assert got == [""]
    assert isinstance(error, Lost)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 503])
async def test_w31_a_refusal_is_one_frame_and_one_request(status: int) -> None:
    error: JsonObject = {"error": {"message": "No.", "code": None, "type": "t", "param": "input"}}
    async with serving(plain(status, error, retry_after="7")) as (transport, web):
        frames = await ask(transport)
    assert len(web.asked) == 1
    assert [frame.terminal for frame in frames] == ["error"]
    problem = frames[0].problem
    assert problem is not None
    assert (problem.status, problem.message, problem.retry_after) == (status, "No.", 7)


async def test_a_refusal_that_looks_like_a_stream_is_a_refusal() -> None:
    assert await types(plain(502, b"bad", content_type="text/event-stream")) == ["error"]


async def test_a_redirect_is_not_followed_with_the_key_in_hand() -> None:
    async with web_server(stream(*WHOLE)) as elsewhere:
        async with serving(plain(307, b"", location=elsewhere.url)) as (transport, _):
            frames = await ask(transport)
        assert elsewhere.asked == []
    assert frames[0].problem is not None
    assert frames[0].problem.status == 307


async def test_a_key_that_the_provider_repeats_is_not_passed_on() -> None:
    body: JsonObject = {"error": {"message": "Incorrect key: sk-hush", "code": "invalid_api_key"}}
    async with web_server(plain(401, body)) as web:
        transport = open_transport(Endpoint(base_url=web.url, key="sk-hush"))
        frames = await ask(transport)
        await transport.close()
    assert web.asked[0].headers["authorization"] == "Bearer sk-hush"
    assert "Incorrect key: ***" in repr(frames)
    assert "sk-hush" not in repr(frames)


async def test_a_key_in_a_header_of_its_own_is_not_passed_on_either() -> None:
    async with web_server(plain(401, {"error": "wrong: sk-hush"})) as web:
        own = replace(OPENAI, key_header="X-Own")
        transport = open_transport(Endpoint(base_url=web.url, key="sk-hush", profile=own))
        frames = await ask(transport)
        await transport.close()
    assert web.asked[0].headers["x-own"] == "sk-hush"
    assert "authorization" not in web.asked[0].headers
    assert "sk-hush" not in repr(frames)


# -- what else is asked --------------------------------------------------------------------


async def test_a_response_is_retrieved_as_one_frame() -> None:
    async with serving(plain(200, RESPONSE)) as (transport, web):
        frames = await ask(transport, Retrieve(response="r/1 ?"))
    assert (web.asked[0].method, web.asked[0].path) == ("GET", "/v1/responses/r%2F1%20%3F")
    assert [frame.data["response"] for frame in frames] == [RESPONSE]


async def test_a_response_that_still_runs_is_a_frame_and_no_loss() -> None:
    running = plain(200, {**RESPONSE, "status": "queued"})
    async with serving(running) as (transport, _):
        frames = await ask(transport, Retrieve(response="r1"))
    assert [(frame.type, frame.terminal) for frame in frames] == [("response.queued", None)]


async def test_a_response_is_resumed_behind_a_number() -> None:
    async with serving(stream(*WHOLE[1:])) as (transport, web):
        frames = await ask(transport, Retrieve(response="r1", starting_after=4))
    assert web.asked[0].path == "/v1/responses/r1?stream=true&starting_after=4"
    assert [frame.terminal for frame in frames] == [None, "completed"]


async def test_the_query_of_the_base_url_and_of_the_endpoint_stays() -> None:
    async with web_server(stream(*WHOLE)) as web:
        own = replace(endpoint(f"{web.url}?api-version=1"), query={"tenant": "a b"})
        transport = open_transport(own)
        await ask(transport, Retrieve(response="r1", starting_after=0))
        await transport.close()
    path = "/v1/responses/r1?api-version=1&tenant=a+b&stream=true&starting_after=0"
    assert web.asked[0].path == path


async def test_what_is_resumed_may_have_ended_long_ago() -> None:
    async with serving(plain(200, RESPONSE)) as (transport, _):
        frames = await ask(transport, Retrieve(response="r1", starting_after=4))
    assert [(frame.type, frame.terminal) for frame in frames] == [
        ("response.completed", "completed")
    ]


async def test_w25_a_resumed_stream_that_breaks_off_is_lost() -> None:
    async with serving(stream(WHOLE[1])) as (transport, _):
        got, error = await outcome(transport, Retrieve(response="r1", starting_after=0))
    assert got == ["response.output_text.delta"]
    assert isinstance(error, Lost)


async def test_a_background_response_is_made_with_a_stream_to_listen_to() -> None:
    async with serving(stream(*WHOLE)) as (transport, web):
        await ask(transport, create(background=True))
    body = json.loads(web.asked[0].body)
    assert (body["background"], body["stream"]) == (True, True)


@pytest.mark.parametrize("status", ["cancelled", "completed", "failed", "incomplete"])
async def test_a_response_is_cancelled(status: str) -> None:
    async with serving(plain(200, {**RESPONSE, "status": status})) as (transport, web):
        frames = await ask(transport, Cancel(response="r1"))
    assert (web.asked[0].method, web.asked[0].path) == ("POST", "/v1/responses/r1/cancel")
    assert [frame.terminal for frame in frames] == [status]


@pytest.mark.parametrize("body", [b"", b'{"id":"r1","object":"response","deleted":true}'])
async def test_a_response_is_deleted(body: bytes) -> None:
    async with serving(plain(200, body)) as (transport, web):
        frames = await ask(transport, Delete(response="r1"))
    assert (web.asked[0].method, web.asked[0].path) == ("DELETE", "/v1/responses/r1")
    assert [(frame.type, frame.terminal) for frame in frames] == [("response.deleted", "completed")]


async def test_a_response_that_is_not_there_is_a_refusal() -> None:
    found = plain(404, {"error": {"message": "Not found."}})
    assert await types(found, request=Delete(response="r1")) == ["error"]


async def test_a_window_is_compacted() -> None:
    window: JsonObject = {"id": "c1", "object": "response.compaction", "output": []}
    async with web_server(plain(200, window)) as web:
        own = replace(endpoint(web.url), profile=replace(OPENAI, compact=True))
        transport = open_transport(own)
        frames = await ask(transport, Compact(body={"model": "m", "stream": True}))
        await transport.close()
    assert [frame.terminal for frame in frames] == ["completed"]
    assert web.asked[0].path == "/v1/responses/compact"
    assert json.loads(web.asked[0].body) == {"model": "m"}
    assert [frame.data["response"] for frame in frames] == [window]


@pytest.mark.parametrize(
    "request_",
    [Retrieve(response="r"), Delete(response="r"), Cancel(response="r"), Compact(body={})],
)
async def test_what_a_profile_cannot_do_is_not_sent(request_: Request) -> None:
    async with web_server() as web:
        transport = open_transport(Endpoint(base_url=web.url, profile=GENERIC))
        with pytest.raises(NotSupported, match="'generic'"):
            await ask(transport, request_)
        await transport.close()
    assert web.connections == 0


async def test_an_address_that_httpx2_refuses_is_an_error_before_anything_is_sent() -> None:
    transport = open_transport(Endpoint(base_url=f"https://{'x' * 70_000}/v1", key="k"))
    with pytest.raises(ConfigurationError, match="cannot be used"):
        transport.check()
    await transport.close()


# -- leaving and closing -------------------------------------------------------------------


async def test_w02_a_stream_left_early_does_not_reach_the_next_request() -> None:
    hang = asyncio.Event()
    other = [event(created("r2")), event(completed("r2"))]
    async with serving(stream(*WHOLE[:2], hang=hang), stream(*other)) as (transport, web):
        async with aclosing(transport.send(create())) as frames:
            await anext(frames)
        got = await ask(transport)
        hang.set()
    assert [frame.type for frame in got] == ["response.created", "response.completed"]
    assert web.connections == 2


async def test_w47_closing_ends_what_is_under_way() -> None:
    hang = asyncio.Event()
    async with serving(stream(*WHOLE[:1], hang=hang), stream(*WHOLE)) as (transport, _):
        waiting, paused = transport.send(create()), transport.send(create())
        await anext(waiting)
        await anext(paused)
        task = asyncio.create_task(anext(waiting))
        await asyncio.sleep(0)
        await transport.close()
        with pytest.raises(Closed):
            await task
        with pytest.raises(Closed):
            await anext(paused)
        hang.set()


async def test_w47_closing_ends_what_has_arrived_and_was_not_taken() -> None:
    async with serving(stream(b"".join(WHOLE))) as (transport, _):
        async with aclosing(transport.send(create())) as frames:
            await anext(frames)
            await transport.close()
            with pytest.raises(Closed):
                await anext(frames)


# -- answers that are not what they seem ---------------------------------------------------


async def test_a_plain_answer_is_no_larger_than_a_frame_may_be_however_it_is_packed() -> None:
    body = {"id": "resp_1", "object": "response", "status": "completed", "pad": "x" * 50_000}
    packed = plain(200, gzip.compress(json.dumps(body).encode()), content_encoding="gzip")
    answers = [plain(200, body), packed, plain(200, {**body, "pad": "fits"})]
    async with serving(*answers, max_frame_bytes=4000) as (transport, _):
        for _ in answers[:2]:
            got, error = await outcome(transport)
            assert (got, type(error)) == ([], Unheard)
            assert "larger than 4000 bytes" in str(error)
        assert (await outcome(transport))[0] == ["response.completed"]


async def test_w22_a_stream_may_begin_with_a_mark() -> None:
    async with serving(stream(b"\xef\xbb\xbf" + WHOLE[0], *WHOLE[1:])) as (transport, _):
        got, error = await outcome(transport)
    assert (len(got), error) == (len(WHOLE), None)


async def test_w24_what_comes_behind_a_broken_stream_answers_nobody() -> None:
    """Two answers to one request: the first has no terminal frame, and says where it ends."""
    half = WHOLE[0] + WHOLE[1]
    other = b"".join(WHOLE)

    def answer(body: bytes) -> bytes:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {len(body)}"
        return head.encode() + b"\r\n\r\n" + body

    async def twice(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(half) + answer(other))
        await writer.drain()

    async with serving(twice, stream(*WHOLE)) as (transport, web):
        assert isinstance((await outcome(transport))[1], Lost)
        assert (await outcome(transport))[1] is None
        assert len(web.asked) == 2
