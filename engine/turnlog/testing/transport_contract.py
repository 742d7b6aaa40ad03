"""What every transport promises, as a suite: subclass `TransportContract`, and run it.

The one rule: the suite sees only what the engine sees, `ports.Transport`, so that a transport of
somebody else passes exactly what ours do. It needs a test runner for `async` methods (pytest with
pytest-asyncio in its `auto` mode, or the like), and imports none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from ..canonical import JsonObject, integer, obj, text
from ..errors import Closed, InvalidInput, Lost, NotSupported, TurnlogError, Unheard
from ..ports import Create, Delete, Frame, Problem, Request, Retrieve, Transport
from ..state import Parent
from . import scripts
from .scripts import Reply

PATIENCE = 10.0
"""How many seconds a test waits before it fails; nothing that passes takes as long."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of one request: its frames in order, and the error behind them, if any."""

    frames: tuple[Frame, ...]
    error: TurnlogError | None = None

    @property
    def types(self) -> list[str]:
        """The tags of the frames."""
        return [frame.type for frame in self.frames]

    @property
    def text(self) -> str:
        """The text that streamed."""
        deltas = (f for f in self.frames if f.type == "response.output_text.delta")
        return "".join(text(frame.data, "delta") or "" for frame in deltas)

    @property
    def last(self) -> Frame:
        """The last frame."""
        return self.frames[-1]


class TransportContract:
    """The suite. A subclass says how to serve replies, and may clean up in `stop`."""

    async def serve(self, replies: Sequence[Reply]) -> Transport:
        """A transport, new and open, to a provider that answers with these replies, in order."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Called behind each test, when its transport is closed."""

    # -- helpers ---------------------------------------------------------------------------

    @asynccontextmanager
    async def serving(self, *replies: Reply) -> AsyncGenerator[Transport]:
        """The transport of one test, closed behind it."""
        try:
            async with asyncio.timeout(PATIENCE):
                transport = await self.serve(replies)
                try:
                    yield transport
                finally:
                    await transport.close()
        finally:
            await self.stop()

    def create(self, **fields: str) -> Create:
        """A request for a response, as a conversation's first."""
        message: JsonObject = {"type": "message", "role": "user", "content": "Hello."}
        return Create(body={"model": "gpt-5.5", "input": [message], **fields})

    async def ask(self, transport: Transport, request: Request | None = None) -> Heard:
        """Everything that comes of one request."""
        frames: list[Frame] = []
        try:
            async with aclosing(transport.send(request or self.create())) as stream:
                async for frame in stream:
                    frames.append(frame)
        except TurnlogError as error:
            return Heard(tuple(frames), error)
        return Heard(tuple(frames))

    async def answer(self, *replies: Reply) -> Heard:
        """What comes of one request to a provider that answers so."""
        async with self.serving(*replies) as transport:
            return await self.ask(transport)

    async def problem(self, reply: Reply) -> Problem:
        """What a refusal is read as."""
        heard = await self.answer(reply)
        assert heard.error is None, heard.error
        assert heard.types == ["error"]
        assert heard.last.terminal == "error"
        assert heard.last.problem is not None
        return heard.last.problem

    # -- answers ---------------------------------------------------------------------------

    async def test_an_answer_streams_in_order_and_ends_behind_its_terminal(self) -> None:
        heard = await self.answer(scripts.text("The parcel is on its way."))
        assert heard.error is None
        assert heard.text == "The parcel is on its way."
        assert heard.types[0] == "response.created"
        assert heard.types[-1] == "response.completed"
        assert [frame.terminal for frame in heard.frames if frame.terminal] == ["completed"]
        numbers = [integer(frame.data, "sequence_number") for frame in heard.frames]
        assert numbers == sorted(numbers, key=lambda number: -1 if number is None else number)
        assert len(set(numbers)) == len(numbers)

    async def test_the_terminal_frame_carries_the_whole_response(self) -> None:
        heard = await self.answer(scripts.call("refund", order="7"))
        response = obj(heard.last.data, "response")
        assert text(response, "id") == text(obj(heard.frames[0].data, "response"), "id")
        assert text(response, "status") == "completed"
        assert "refund" in repr(response.get("output"))

    async def test_w21_an_incomplete_answer_is_terminal(self) -> None:
        heard = await self.answer(scripts.incomplete("max_output_tokens", "As far as"))
        assert heard.error is None
        assert heard.text == "As far as"
        assert heard.last.terminal == "incomplete"

    async def test_a_failed_response_is_terminal_and_says_why(self) -> None:
        heard = await self.answer(scripts.failed("server_error", "It broke."))
        assert heard.last.terminal == "failed"
        assert heard.last.problem is not None
        assert heard.last.problem.code == "server_error"
        assert heard.last.problem.message == "It broke."

    async def test_w20_a_terminal_frame_full_of_nulls_ends_the_response(self) -> None:
        bare: JsonObject = {"type": "response.completed", "response": {"id": "r", "usage": None}}
        heard = await self.answer(Reply(events=(bare,)))
        assert heard.error is None
        assert heard.last.terminal == "completed"

    async def test_w22_frames_and_fields_that_nobody_knows_pass_unchanged(self) -> None:
        started: JsonObject = {"type": "response.created", "response": {"id": "resp_1", "new": [1]}}
        novel: JsonObject = {"type": "response.novelty", "what": {"deep": [None, 1.5, "é"]}}
        ended: JsonObject = {"type": "response.completed", "response": {"id": "resp_1"}}
        heard = await self.answer(Reply(events=(started, novel, ended)))
        assert [frame.data for frame in heard.frames] == [started, novel, ended]

    async def test_w22_a_frame_that_is_not_json_is_kept_as_text(self) -> None:
        heard = await self.answer(scripts.text("Still here.").but(malformed_after=2))
        unreadable = [frame for frame in heard.frames if not frame.type]
        assert heard.error is None
        assert len(unreadable) == 1
        assert unreadable[0].text
        assert unreadable[0].data == {}
        assert heard.text == "Still here."

    async def test_a_frame_of_two_million_characters_arrives_whole(self) -> None:
        long = "0123456789" * 200_000
        reply = scripts.text(long)
        heard = await self.answer(Reply(items=reply.items, chunk=len(long)))
        assert heard.error is None
        assert heard.text == long

    async def test_answers_asked_for_at_once_do_not_mix(self) -> None:
        async with self.serving(*[scripts.text("alike")] * 4) as transport:
            answers = await asyncio.gather(*[self.ask(transport) for _ in range(4)])
        ids = [text(obj(heard.last.data, "response"), "id") for heard in answers]
        assert [heard.text for heard in answers] == ["alike"] * 4
        assert len(set(ids)) == 4
        for heard, own in zip(answers, ids, strict=True):
            named = {text(obj(frame.data, "response"), "id") for frame in heard.frames}
            assert named - {None} == {own}

    # -- refusals --------------------------------------------------------------------------

    async def test_a_refusal_says_what_is_wrong(self) -> None:
        found = await self.problem(scripts.error(400, None, "No tool output found.", param="input"))
        assert (found.status, found.code, found.param) == (400, None, "input")
        assert found.type == "invalid_request_error"
        assert found.message == "No tool output found."

    async def test_w33_a_refusal_says_how_long_to_wait(self) -> None:
        found = await self.problem(scripts.error(429, "rate_limit_exceeded", retry_after=7))
        assert (found.status, found.code) == (429, "rate_limit_exceeded")
        assert found.retry_after == 7

    async def test_a_server_that_fails_is_a_refusal_too(self) -> None:
        found = await self.problem(scripts.error(500, "server_error", "Try later."))
        assert (found.status, found.code, found.message) == (500, "server_error", "Try later.")
        assert found.retry_after is None

    async def test_w45_the_next_request_after_a_refusal_is_answered(self) -> None:
        async with self.serving(scripts.error(400), scripts.text("Better.")) as transport:
            assert (await self.ask(transport)).types == ["error"]
            assert (await self.ask(transport)).text == "Better."

    # -- losses ----------------------------------------------------------------------------

    async def test_a_connection_cut_before_the_first_frame_is_unheard(self) -> None:
        heard = await self.answer(scripts.text("Nothing of it.").but(cut_after=0))
        assert heard.frames == ()
        assert isinstance(heard.error, Unheard)

    async def test_w25_a_connection_cut_after_any_frame_is_lost(self) -> None:
        reply = scripts.text("ab")
        whole = await self.answer(reply)
        for after in range(1, len(whole.frames)):
            heard = await self.answer(reply.but(cut_after=after))
            assert heard.types == whole.types[:after]
            assert isinstance(heard.error, Lost)

    async def test_w25_a_stream_that_ends_without_its_terminal_frame_is_lost(self) -> None:
        heard = await self.answer(scripts.text("Half").but(no_terminal=True))
        assert heard.text == "Half"
        assert isinstance(heard.error, Lost)

    async def test_the_next_request_after_a_loss_is_answered(self) -> None:
        async with self.serving(
            scripts.text("Cut.").but(cut_after=2), scripts.text("Whole.")
        ) as transport:
            assert isinstance((await self.ask(transport)).error, Lost)
            assert (await self.ask(transport)).text == "Whole."

    # -- leaving early ---------------------------------------------------------------------

    async def test_w02_an_answer_left_early_does_not_reach_the_next_request(self) -> None:
        async with self.serving(scripts.text("Left."), scripts.text("Taken.")) as transport:
            async with aclosing(transport.send(self.create())) as stream:
                assert (await anext(stream)).type == "response.created"
            assert (await self.ask(transport)).text == "Taken."

    async def test_a_cancelled_wait_is_cancelled_and_the_next_request_answered(self) -> None:
        stalled = scripts.text("Silence.").but(stall_after=1)
        async with self.serving(stalled, scripts.text("Taken.")) as transport:
            task, started = self._watched(transport, 1)
            await started.wait()
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            assert (await self.ask(transport)).text == "Taken."

    # -- closing ---------------------------------------------------------------------------

    async def test_w47_closing_ends_a_stream_under_way_with_closed(self) -> None:
        async with self.serving(scripts.text("Never whole.").but(stall_after=2)) as transport:
            seen: list[Frame] = []
            task, started = self._watched(transport, 2, seen)
            await started.wait()
            await transport.close()
            await asyncio.wait({task})
        assert len(seen) == 2
        assert isinstance(task.exception(), Closed)

    async def test_w46_a_closed_transport_sends_nothing(self) -> None:
        async with self.serving(scripts.text("Never.")) as transport:
            await transport.close()
            await transport.close()
            heard = await self.ask(transport)
        assert heard.frames == ()
        assert isinstance(heard.error, Closed)

    # -- the rest --------------------------------------------------------------------------

    async def test_it_says_what_it_is(self) -> None:
        async with self.serving(scripts.text("Hi.")) as transport:
            assert transport.choose()
            assert transport.profile.name
            transport.check()

    async def test_it_does_not_remember_what_it_never_saw(self) -> None:
        stranger = Parent(
            response="resp_x",
            end=0,
            version=0,
            time=0,
            store=False,
            transport="websocket",
            connection="ws_x",
        )
        async with self.serving(scripts.text("Hi.")) as transport:
            assert not transport.remembers(stranger, via=transport.choose(), conversation="other")

    async def test_w34_a_body_that_is_not_json_is_refused_before_anything_is_sent(self) -> None:
        async with self.serving(scripts.text("Hi.")) as transport:
            heard = await self.ask(transport, Create(body={"temperature": float("nan")}))
            assert isinstance(heard.error, InvalidInput)
            assert (await self.ask(transport)).text == "Hi."

    async def test_a_stored_response_is_found_and_deleted_or_that_is_not_supported(self) -> None:
        async with self.serving(scripts.text("Kept.")) as transport:
            response = text(obj((await self.ask(transport)).last.data, "response"), "id") or ""
            found = await self.ask(transport, Retrieve(response=response))
            gone = await self.ask(transport, Delete(response=response))
        if not isinstance(found.error, NotSupported):
            assert [frame.terminal for frame in found.frames] == ["completed"]
            assert text(obj(found.last.data, "response"), "id") == response
            assert [frame.terminal for frame in gone.frames] == ["completed"]

    def _watched(
        self, transport: Transport, enough: int, seen: list[Frame] | None = None
    ) -> tuple[asyncio.Task[None], asyncio.Event]:
        """A request in a task of its own, and an event that is set when enough was heard."""
        frames = [] if seen is None else seen
        started = asyncio.Event()

        async def watch() -> None:
            async with aclosing(transport.send(self.create())) as stream:
                async for frame in stream:
                    frames.append(frame)
                    if len(frames) == enough:
                        started.set()

        return asyncio.create_task(watch()), started
