"""Frames from a fuzzer: real streams changed by rule, sent over real sockets to every transport.

Never a hang, never an exception that is no TurnlogError, and every frame counted: what came was
yielded, or logged as a stray. TURNLOG_FUZZ=<examples> says how many cases each test tries; without
it, a few, the same on every run. Nobody waits: the clock leaps as soon as all is silent.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import selectors
import ssl
import subprocess
import sys
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from typing import Literal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject, dumps, loads, loads_object, text
from turnlog.conversation import Conversation
from turnlog.errors import Lost, TurnlogError, Unheard
from turnlog.ports import Create, Endpoint, Frame, Profile, Timeouts, Transport
from turnlog.reception import Reception, final_parts
from turnlog.record import Recorded, encode
from turnlog.state import replay, start
from turnlog.store import MemoryStore
from turnlog.updates import TurnDone
from turnlog_transports import http, websocket, wire
from turnlog_transports.profiles import OPENAI
from turnlog_transports.sequence import Sequencer

from . import fuzzing
from .fuzzing import (
    NOISE,
    Dress,
    Mutation,
    Piece,
    dresses,
    expected,
    heard,
    kind_of,
    mutated,
    mutations,
    numbers,
)
from .given import Leaper, collect, leaping, one_outcome_each

MANY = int(os.environ.get("TURNLOG_FUZZ", 0))


def cases(few: int) -> settings:
    """How many cases are tried: the same few on every run, or as many as were asked for."""
    return settings(
        max_examples=MANY or few,
        derandomize=not MANY,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@cache
def streams(where: str) -> Sequence[list[Piece]]:
    """The streams that cases begin with."""
    found = fuzzing.synthesised() if where == "synthesised" else fuzzing.recorded()
    if not found:
        pytest.skip("the recorded exchanges are not here: they are kept beside the project")
    return found


def case(
    where: str, number: int, changes: Sequence[Mutation], *, short: bool = True
) -> list[Piece]:
    """One of the streams, with these changes."""
    among = streams(where)
    if short:
        among = fuzzing.short(among)
    return mutated(among[number % len(among)], changes)


BOTH = pytest.mark.parametrize("where", ["synthesised", "recorded"])


# -- values only ---------------------------------------------------------------------------


@BOTH
def test_what_is_read_is_a_frame_and_is_recorded(where: str) -> None:
    """`wire`, `Sequencer` and `Reception`, from the bytes to the events of the log."""
    ran = Counter[str]()

    @cases(250)
    @given(numbers, mutations)
    def check(number: int, changes: list[Mutation]) -> None:
        raws = [piece.raw for piece in case(where, number, changes, short=False)]
        frames = [wire.read(raw, connection="ws_1") for raw in raws]
        for raw, frame in zip(raws, frames, strict=True):
            is_faithful(raw, frame)
        are_told_apart(frames)
        is_received(raws, frames)
        ran[where] += 1
        ran["frames"] += len(frames)

    check()
    print(dict(ran))


def is_faithful(raw: bytes, frame: Frame) -> None:
    """A frame is the object that was sent, or its text; and it ends what it says it ends."""
    kind = kind_of(raw)
    assert (frame.text is not None) == (kind == "unreadable")
    assert (frame.terminal is not None) == (kind == "terminal")
    assert frame.data == ({} if frame.text is not None else loads(raw))
    assert (frame.problem is not None) == (frame.terminal in ("failed", "error"))


def are_told_apart(frames: Sequence[Frame]) -> None:
    """Every frame counts for the response in progress, or for none; behind its end, none does."""
    for lane in (None, "lane-01"):
        sequencer, over = Sequencer(lane), False
        sequencer.begin()
        counted = 0
        for frame in frames:
            ours = sequencer.ours(frame)
            assert not (ours and over)
            counted += ours
            over = over or (ours and frame.terminal is not None)
        assert sequencer.heard == counted
        assert sequencer.busy == (not over)


def is_received(raws: Sequence[bytes], frames: Sequence[Frame]) -> None:
    """What is made of the frames can be written, and counts what nobody knows."""
    heard = len(expected(raws))
    reception = Reception(attempt="a", version=3)
    for frame in frames[:heard]:
        reception.feed(frame)
    assert reception.heard == heard
    kinds = Counter(kind_of(raw) for raw in raws[:heard])
    noted = [one for one in reception.notes if isinstance(one, ev.ProviderNoted)]
    assert Counter(one.kind for one in noted) == +Counter(
        {"unreadable": kinds["unreadable"], "unknown_frame": kinds["unknown"]}
    )
    assert reception.unreadable == kinds["unreadable"]
    outcome = reception.outcome()
    assert (outcome is not None) == (kinds["terminal"] == 1)
    outputs = reception.outputs()
    final_parts(outputs)
    assert loads(dumps(outputs)) == outputs
    written = [*reception.take_notes(), *reception.take_checkpoints()]
    written += [outcome or reception.interrupted("lost")]
    for one in written:
        loads(encode(one))
    assert "".join(one.delta for one in reception.so_far()) == "".join(
        reception.shown(part) for part in reception.parts
    )


HEADERS = ("retry-after", "retry-after-ms", "x-ratelimit-reset", "content-type")
VALUES = ("1", "-1", "soon", "1e999", "nan", "Wed, 21 Oct 2015 07:28:00 GMT", "9" * 5000, "")


def test_a_plain_answer_is_a_frame_whatever_it_says() -> None:
    @cases(300)
    @given(
        st.integers(100, 999),
        st.dictionaries(st.sampled_from(HEADERS), st.sampled_from(VALUES)),
        numbers,
        mutations,
        st.sampled_from(NOISE) | st.binary(max_size=60),
        st.booleans(),
    )
    def check(
        status: int,
        headers: dict[str, str],
        number: int,
        changes: list[Mutation],
        noise: bytes,
        noisy: bool,
    ) -> None:
        last = case("synthesised", number, changes)[-1:]
        raw = noise if noisy or not last else last[0].raw
        frame = wire.answer(status, headers, raw)
        if 200 <= status < 300:
            assert (frame.problem is not None) == (frame.terminal in ("failed", "error"))
        else:
            assert frame.terminal == "error" and frame.problem is not None
            assert frame.problem.status == status and frame.problem.message
        reception = Reception(attempt="a", version=3)
        reception.feed(frame)
        written = [*reception.take_notes(), reception.outcome() or reception.interrupted("lost")]
        for one in written:
            loads(encode(one))

    check()


# -- a provider on real sockets ------------------------------------------------------------

Ending = Literal["stays", "closes", "is cut", "babbles", "waits"]
ENDINGS: Sequence[Ending] = ("stays", "closes", "is cut")
COUNTED = ("stays", "closes")
"""Endings behind which everything that was sent has arrived."""
TIMEOUTS = Timeouts(connect=1.0, queue=1.0, first_frame=1.0, idle=1.0, total=3.0, ping=None)
GRACE = 0.02
"""For how many seconds sockets are silent before the clock leaps."""

HANGING = 10.0
"""Seconds on a clock that leaps: whoever is not done then waits for nothing."""


PLAIN = Dress()
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Case:
    """What the provider answers to one request, and what becomes of the connection behind it.

    Over HTTP the answer begins with `head`, and `noise` is what is babbled.
    """

    pieces: Sequence[Piece]
    ending: Ending = "stays"
    dress: Dress = PLAIN
    head: bytes = STREAM
    noise: bytes = b""


PROPER = Case(())


class Odd:
    """A provider that answers one create with a case, and every other as it should."""

    def __init__(self) -> None:
        self.url = ""
        self.cases: deque[Case] = deque()
        self.sent: list[bytes] = []
        self.body = b""
        self.links = 0
        self.settled = asyncio.Event()
        self.released = asyncio.Event()

    def next(self, *cases: Case) -> None:
        """Answer the next creates with these."""
        self.cases, self.sent = deque(cases), []
        self.settled.clear()

    # -- over a WebSocket ------------------------------------------------------------------

    async def talk(self, socket: ServerConnection) -> None:
        """What becomes of one WebSocket."""
        async for raw in socket:
            lane = text(loads_object(raw), "stream_id")
            case = self.cases.popleft() if self.cases else None
            messages = sane() if case is None else case.pieces
            try:
                for piece in messages:
                    await self._send(socket, piece, lane, note=case is not None)
                await self._end(socket, case or PROPER)
            except ConnectionClosed:
                pass
            self.settled.set()

    async def _send(
        self, socket: ServerConnection, piece: Piece, lane: str | None, *, note: bool
    ) -> None:
        raw = on_lane(piece.raw, lane)
        if note:
            self.sent.append(raw)
        match piece.how:
            case "text":
                await socket.send(raw, text=True)
            case "binary":
                await socket.send(raw)
            case "in pieces":
                size = len(raw) // 3 + 1
                parts = [raw[at : at + size] for at in range(0, len(raw), size)]
                await socket.send(parts or [b""], text=True)
            case "behind a ping":
                await socket.ping()
                await socket.pong(b"nobody asked")
                await socket.send(raw, text=True)

    async def _end(self, socket: ServerConnection, case: Case) -> None:
        match case.ending:
            case "closes":
                await socket.close()
            case "is cut":
                socket.transport.abort()
            case "babbles":
                socket.transport.write(case.noise)
                socket.transport.close()
            case "waits":
                await self.released.wait()
                await socket.send('{"type":"response.completed"}')
            case "stays":
                # The client has read everything when it answers.
                await (await socket.ping())

    # -- over HTTP -------------------------------------------------------------------------

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What becomes of one HTTP connection."""
        self.links += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._answered(reader, writer):
                    pass
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        finally:
            self.links -= 1

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        size = re.search(rb"content-length: (\d+)", head.lower())
        await reader.readexactly(int(size[1]) if size else 0)
        if head.startswith(b"GET"):
            writer.write(b"HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\n{}")
            return True
        odd = self.cases.popleft() if self.cases else None
        case = odd or Case(sane(), "closes")
        body = case.dress.written([piece.raw for piece in case.pieces])
        if odd is not None:
            self.body = body
        writer.write(case.head)
        for chunk in case.dress.chunks(body):
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()
        if case.ending == "closes":
            writer.write(b"0\r\n\r\n")
        elif case.ending == "babbles":
            writer.write(case.noise)
        elif case.ending == "waits":
            await self.released.wait()
            last = b'data: {"type":"response.completed"}\n\n'
            writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(last), last))
        return case.ending in ("stays", "closes", "waits") and case.head is STREAM


def sane() -> list[Piece]:
    """An answer as it should be, unlike any other."""
    response: JsonObject = {"id": f"resp_sane_{next(_ids)}"}
    return fuzzing.pieces(
        [
            {"type": "response.created", "response": response},
            {"type": "response.output_text.delta", "output_index": 0, "delta": "Fine."},
            {"type": "response.completed", "response": response},
        ]
    )


_ids = count(1)


def on_lane(raw: bytes, lane: str | None) -> bytes:
    """A message on the lane of its request, unless it names one itself."""
    if lane is None or not raw.startswith(b'{"') or b'"stream_id"' in raw:
        return raw
    return b'{"stream_id":"%s",%s' % (lane.encode(), raw[1:])


TLS = ssl.create_default_context()
"""Nothing is encrypted here; to make one for each case would take longer than the case."""


@dataclass(frozen=True, slots=True)
class Way:
    """A transport, and what the provider can do."""

    open: Callable[[Endpoint], Transport]
    profile: Profile = OPENAI
    lane: str | None = None

    def to(self, url: str, **options: object) -> Transport:
        """A new transport to a provider."""
        endpoint = Endpoint(
            base_url=url, profile=self.profile, timeouts=TIMEOUTS, tls=TLS, options=options
        )
        return self.open(endpoint)


WAYS: Mapping[str, Way] = {
    "http": Way(http.open_transport),
    "websocket": Way(websocket.open_transport, replace(OPENAI, lanes=False)),
    "lanes": Way(websocket.open_transport, lane="lane-01"),
}
EVERY_WAY = pytest.mark.parametrize("way", WAYS)


class PatientLeaper(Leaper):
    """Leaps later: among thousands of cases, a handshake takes more than a moment now and then."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready."""
        ready = super().select(0)
        if not ready and timeout is not None and timeout > GRACE:
            ready = selectors.DefaultSelector.select(self, GRACE)
        return ready or super().select(timeout)


class PatientLoop(asyncio.SelectorEventLoop):
    """A loop on which nobody waits for long."""

    def __init__(self) -> None:
        self._leaper = PatientLeaper()
        super().__init__(self._leaper)

    def time(self) -> float:
        """Seconds of a clock that leaps."""
        return super().time() + self._leaper.ahead


class Stage:
    """A provider, and the loop on which everything happens."""

    def __init__(self, way: str, runner: asyncio.Runner) -> None:
        self.odd = Odd()
        self.way = WAYS[way]
        self.ran = Counter[str]()
        self.wrong: list[Mapping[str, object]] = []
        self._runner = runner
        self._runner.get_loop().set_exception_handler(lambda _, about: self.wrong.append(about))

    def run(self, work: Coroutine[None, None, None]) -> None:
        """Do something to its end; nothing may fail behind the scenes."""
        self._runner.run(work)
        self.ran["cases"] += 1
        assert self.wrong == []

    def transport(self) -> Transport:
        """A new transport to the provider."""
        return self.way.to(self.odd.url)

    def counted(self) -> list[bytes]:
        """Those of the messages sent that belong to the answer."""
        if self.way.open is http.open_transport:
            return expected(heard(self.odd.body))
        return fuzzing.mine(self.odd.sent, self.way.lane)


@contextmanager
def stage(way: str) -> Generator[Stage]:
    """A provider that is there for one test, by one way."""
    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        found = Stage(way, runner)
        stack = AsyncExitStack()
        runner.run(stack.enter_async_context(listening(found.odd, way)))
        try:
            yield found
        finally:
            runner.run(stack.aclose())
    print(way, dict(found.ran))


@asynccontextmanager
async def listening(odd: Odd, way: str) -> AsyncGenerator[Odd]:
    """Let the provider listen, and take note of its address."""
    serving: Server | asyncio.Server
    if way == "http":
        serving = await asyncio.start_server(odd.answer, "127.0.0.1", 0)
    else:
        serving = await serve(odd.talk, "127.0.0.1", 0, ping_interval=None, compression=None)
    host, port = next(iter(serving.sockets)).getsockname()[:2]
    odd.url = f"http://{host}:{port}/v1"
    try:
        yield odd
    finally:
        serving.close()
        await serving.wait_closed()
        while odd.links:
            await asyncio.sleep(0)


class Strays(logging.Handler):
    """Counts the frames that were logged as belonging to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.getMessage().startswith("a frame of no response in progress")


@contextmanager
def strays() -> Generator[Strays]:
    """What is logged as a stray from now on."""
    found, logger = Strays(), logging.getLogger("turnlog.transports")
    logger.addHandler(found)
    try:
        yield found
    finally:
        logger.removeHandler(found)


async def gathered(transport: Transport) -> tuple[list[Frame], TurnlogError | None]:
    """The frames of one create, and the error behind them; any other error goes through."""
    frames: list[Frame] = []
    create = Create(body={"model": "gpt-5", "input": "Hi."}, conversation="c", attempt="a")
    try:
        async with asyncio.timeout(HANGING), aclosing(transport.send(create)) as sending:
            async for frame in sending:
                frames.append(frame)
    except TurnlogError as error:
        return frames, error
    return frames, None


# -- transports ----------------------------------------------------------------------------


@BOTH
@EVERY_WAY
def test_every_frame_of_an_odd_stream_is_counted(where: str, way: str) -> None:
    streams(where)
    with stage(way) as now:

        @cases(60)
        @given(numbers, mutations, st.sampled_from(ENDINGS), dresses)
        def check(number: int, changes: list[Mutation], ending: Ending, dress: Dress) -> None:
            now.run(strike(now, Case(case(where, number, changes), ending, dress)))

        check()


async def strike(now: Stage, what: Case) -> None:
    """Send a request into a case, count what comes, and send another."""
    transport = now.transport()
    now.odd.next(what)
    try:
        with strays() as strayed:
            frames, error = await gathered(transport)
            is_typed(frames, error)
            now.ran["frames"] += len(frames)
            if now.way.open is not http.open_transport:
                await now.odd.settled.wait()
        now.ran["strays"] += strayed.count
        wanted = now.counted()
        for raw, frame in zip(wanted, frames, strict=what.ending in COUNTED):
            is_faithful(raw, frame)
        if what.ending in COUNTED and not any(LIMIT in raw for raw in now.odd.sent):
            assert is_all(now, len(frames) + strayed.count)
        again, error = await gathered(transport)
        assert (error, [frame.type for frame in again]) == (None, SANE_TYPES)
    finally:
        await transport.close()


def is_typed(frames: Sequence[Frame], error: TurnlogError | None) -> None:
    """A stream ends with its terminal frame, or with the error that says what is known of it."""
    assert all(frame.terminal is None for frame in frames[:-1])
    if error is None:
        assert frames[-1].terminal is not None
    else:
        assert not frames or frames[-1].terminal is None
        assert isinstance(error, Lost if frames else Unheard), error


def is_all(now: Stage, counted: int) -> bool:
    """Whether as many messages were counted as were sent; HTTP takes none behind the terminal."""
    sent = now.counted() if now.way.open is http.open_transport else now.odd.sent
    return counted == len(sent)


LIMIT = b"websocket_connection_limit_reached"
SANE_TYPES = ["response.created", "response.output_text.delta", "response.completed"]


HEADS: Sequence[bytes] = (
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 40\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: -1\r\n\r\n",
    STREAM.replace(b"200 OK", b"204 None"),
    STREAM.replace(b"200 OK", b"302 Found\r\nlocation: /elsewhere"),
    STREAM.replace(b"200 OK", b"500 Oh"),
    STREAM.replace(b"200 OK", b"999 Oh"),
    STREAM.replace(b"200 OK", b"OK"),
    STREAM.replace(b"HTTP/1.1", b"HTTP/3"),
    b"HTTP/1.1 100 Continue\r\n\r\n" + STREAM,
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n" + STREAM,
    STREAM.replace(b"event-stream", b"event-streams"),
    STREAM.replace(b"event-stream", b"event-stream; charset=utf-16"),
    STREAM.replace(b"text/event-stream", b"application/json"),
    STREAM.replace(b"text/event-stream", b"\xff\xfe"),
    STREAM.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n"),
    STREAM.replace(b"\r\n\r\n", b"\r\ncontent-length: 3\r\n\r\n"),
    STREAM.replace(b"\r\n\r\n", b"\r\nx: " + b"x" * 200_000 + b"\r\n\r\n"),
    STREAM.replace(b"\r\n\r\n", b"\r\nbad header\r\n\r\n"),
    STREAM.replace(b"chunked", b"chunked, chunked"),
    STREAM,
)
"""How an answer begins that a stream was asked for; the last is how it should."""


@EVERY_WAY
def test_bytes_that_break_the_protocol_end_one_request(way: str) -> None:
    with stage(way) as now:

        @cases(60)
        @given(
            numbers,
            st.sampled_from(HEADS),
            st.binary(max_size=40),
            st.sampled_from(("babbles", "closes")),
        )
        def check(number: int, head: bytes, noise: bytes, ending: Ending) -> None:
            pieces = case("synthesised", number, ())
            some = pieces[: number % (len(pieces) + 1)]
            now.run(break_off(now, Case(some, ending, head=head, noise=noise)))

        check()


async def break_off(now: Stage, what: Case) -> None:
    """Send a request into bytes that are not of the protocol, and then another."""
    transport = now.transport()
    now.odd.next(what)
    try:
        frames, error = await gathered(transport)
        is_typed(frames, error)
        now.ran["broken" if error else "whole"] += 1
        if now.way.open is not http.open_transport:
            await now.odd.settled.wait()
        await asyncio.sleep(0.1)  # whatever is still under way arrives first
        again, error = await gathered(transport)
        assert (error, [frame.type for frame in again]) == (None, SANE_TYPES)
    finally:
        await transport.close()


@pytest.mark.parametrize("way", ["http", "websocket"])
@pytest.mark.parametrize("more", [0, 1, 4000])
async def test_a_frame_above_the_limit_ends_its_own_connection_alone(way: str, more: int) -> None:
    limit = 4000
    above = Case(large(way, limit + more), "closes")
    async with listening(Odd(), way) as odd:
        transport = WAYS[way].to(odd.url, max_frame_bytes=limit)
        odd.next(Case(sane()[:2], "waits"), above)
        beside = asyncio.create_task(gathered(transport))
        await until(lambda: len(odd.cases) == 1)
        frames, error = await gathered(transport)
        assert isinstance(error, Lost) == (more > 0)
        assert len(frames) == (1 if more else 3)
        assert (await gathered(transport))[1] is None
        odd.released.set()
        frames, error = await beside
        assert (error, len(frames)) == (None, 3)
        await transport.close()


async def until(done: Callable[[], bool]) -> None:
    """Return as soon as something is so."""
    async with asyncio.timeout(HANGING):
        while not done():
            await asyncio.sleep(0)


# -- the engine ----------------------------------------------------------------------------


async def add(ctx: turnlog.ToolContext[None], a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


AGENT = turnlog.Agent("test", model="gpt-5", tools=[add])


@EVERY_WAY
def test_a_turn_ends_whatever_the_provider_says(way: str) -> None:
    with stage(way) as now:

        @cases(40)
        @given(numbers, mutations, st.sampled_from(ENDINGS), dresses)
        def check(number: int, changes: list[Mutation], ending: Ending, dress: Dress) -> None:
            now.run(converse(now, Case(case("synthesised", number, changes), ending, dress)))

        check()


async def converse(now: Stage, what: Case) -> None:
    """A turn that is answered by a case, and another one behind it."""
    now.odd.next(what)
    async with turnlog.open(
        "", agents=[AGENT], transport=now.transport(), store=MemoryStore(), ambient=leaping()
    ) as log:
        chat = await log.conversation("c", agent=AGENT)
        turn = await chat.send("Go.")
        updates = await collect(aiter(turn))
        result = await turn.peek()
        now.ran[result.status] += 1
        assert isinstance(updates[-1], TurnDone)
        assert updates[-1].status == result.status
        await is_sound(log, chat)
        if what.ending in COUNTED:
            counts_what_nobody_knows(now, await chat.events())
        again = await chat.run("And now?", pending="abandon")
        assert (again.status, again.output_text) == ("completed", "Fine.")
        await is_sound(log, chat)


async def is_sound(log: turnlog.Log, chat: Conversation) -> None:
    """The log verifies, the head is its fold, and every attempt has one outcome."""
    report = await log.verify(chat.id)
    assert report.ok, report.findings
    events = await chat.events()
    assert replay(start(chat.id), events) == (await chat.state()).head
    one_outcome_each([one.event for one in events])


def counts_what_nobody_knows(now: Stage, events: Sequence[Recorded]) -> None:
    """Each frame that is unknown or unreadable is in the log, of the attempt that was sent."""
    first = next(one.event for one in events if isinstance(one.event, ev.RequestPrepared))
    noted = [
        one.event.kind
        for one in events
        if isinstance(one.event, ev.ProviderNoted) and one.event.attempt == first.attempt
    ]
    kinds = Counter(kind_of(raw) for raw in now.counted())
    assert noted.count("unreadable") == kinds["unreadable"]
    assert noted.count("unknown_frame") == kinds["unknown"]


# -- frames that are too large -------------------------------------------------------------

LARGEST = 64 * 1024 * 1024
"""What `max_frame_bytes` is where it is not given."""

AT_MOST = 5
"""How many times the largest frame the memory of a process may grow by, in all."""

READER = """
import asyncio, json, re, sys
from pathlib import Path
from turnlog.canonical import text
from turnlog.errors import TurnlogError
from turnlog.ports import Create, Endpoint, Timeouts
from turnlog_transports import http, websocket
from turnlog_transports.profiles import OPENAI

async def main(url, way):
    open_transport = {"http": http, "lanes": websocket}[way].open_transport
    transport = open_transport(Endpoint(base_url=url, profile=OPENAI))
    for _ in range(4):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, sizes, error = memory("VmRSS"), [], None
        try:
            async for frame in transport.send(Create(body={"model": "gpt-5", "input": "Hi."})):
                sizes.append(len(text(frame.data, "delta") or ""))
        except TurnlogError as found:
            error = type(found).__name__
        print(json.dumps([sizes, error, memory("VmHWM") - before]), flush=True)
    await transport.close()

def memory(what):
    said = Path("/proc/self/status").read_text()
    return int(re.search(rf"{what}:\\s*(\\d+)", said)[1]) * 1024

asyncio.run(main(*sys.argv[1:]))
"""


def large(way: str, size: int) -> list[Piece]:
    """An answer with a frame of so many bytes, counted as its carrier does."""
    first, _, last = sane()
    frame = b'{"type":"response.output_text.delta","delta":"%s"}'
    if way == "lanes":
        frame = on_lane(frame, "lane-01")
    around = len(frame) - len(b"%s") + (len(b"data: ") if way == "http" else 0)
    return [first, Piece(frame % (b"x" * (size - around))), last]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted as Linux does")
@pytest.mark.parametrize("way", ["http", "lanes"])
async def test_the_largest_frame_is_taken_and_one_byte_more_is_refused(way: str) -> None:
    ending: Ending = "closes" if way == "http" else "stays"
    above, at = Case(large(way, LARGEST + 1), ending), Case(large(way, LARGEST), ending)
    async with listening(Odd(), way) as odd:
        odd.next(Case(sane(), ending), above, at)
        reader = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-c", READER, odd.url, way, stdout=subprocess.PIPE
        )
        said, _ = await reader.communicate()
    first, refused, taken, last = [json.loads(line) for line in said.splitlines()]
    assert first[:2] == last[:2] == [[0, 5, 0], None]
    assert refused[:2] == [[0], "Lost"]
    assert taken[:2] == [[0, at.pieces[1].raw.count(b"x") - 1, 0], None]
    assert max(refused[2], taken[2]) < AT_MOST * LARGEST
    print(f"{way}: {taken[2] >> 20} MiB for the largest, {refused[2] >> 20} MiB to refuse more")
