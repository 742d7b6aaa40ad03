"""What every transport promises, as a suite: subclass `TransportContract`, and run it.

The one rule: the suite sees only what the engine sees, `ports.Transport`, so that a transport of
somebody else passes exactly what ours do. It needs a test runner for `async` methods (pytest with
pytest-asyncio in its `auto` mode, or the like), and imports none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import cast

from ..canonical import Json, JsonObject, dumps, integer, obj, text
from ..errors import Closed, InvalidInput, Lost, NotSent, NotSupported, TurnlogError, Unheard
from ..ports import (
    PARENT_GONE,
    Cancel,
    Compact,
    Create,
    Delete,
    Frame,
    Late,
    Problem,
    Request,
    Retrieve,
    Timeouts,
    Transport,
)
from ..state import Parent
from . import scripts
from .scripts import Reply

DEADLINES = (0.15, 1.0, 5.0)
"""How many seconds a deadline lasts that a test waits for; all others are far away.

A longer one counts where the machine was too busy for what has to happen within a shorter one.
"""

CROWD = 20
"""How many requests are made at once where answers might mix."""


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
    """The suite. A subclass says how to serve replies, and may clean up in `stop`.

    Where there is a network, it says how to reach nobody, too. `patience` is how many seconds a
    test waits before it fails; nothing that passes takes as long.
    """

    patience = 30.0

    async def serve(
        self, replies: Sequence[Reply], *, timeouts: Timeouts | None = None
    ) -> Transport:
        """A transport, new and open, to a provider that answers with these replies, in order.

        `timeouts` are those of its endpoint; None leaves them as they are by default.
        """
        raise NotImplementedError

    async def unreachable(self) -> Transport | None:
        """A transport to an address where nobody listens; None where there is no address."""
        return None

    async def appear(self, replies: Sequence[Reply]) -> None:
        """From now on a provider listens where `unreachable` looks for one, and answers so."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Called behind each test, when its transport is closed."""

    # -- helpers ---------------------------------------------------------------------------

    @asynccontextmanager
    async def serving(
        self, *replies: Reply, timeouts: Timeouts | None = None
    ) -> AsyncGenerator[Transport]:
        """The transport of one test, closed behind it."""
        try:
            async with asyncio.timeout(self.patience):
                if timeouts is None:
                    transport = await self.serve(replies)
                else:
                    transport = await self.serve(replies, timeouts=timeouts)
                async with _closing(transport):
                    yield transport
        finally:
            await self.stop()

    @asynccontextmanager
    async def reaching_nobody(self) -> AsyncGenerator[Transport | None]:
        """The transport of one test to nobody, closed behind it; None where that cannot be."""
        try:
            async with asyncio.timeout(self.patience):
                transport = await self.unreachable()
                if transport is None:
                    yield None
                else:
                    async with _closing(transport):
                        yield transport
        finally:
            await self.stop()

    def create(self, **fields: Json) -> Create:
        """A request for a response, as a conversation's first."""
        message: JsonObject = {"type": "message", "role": "user", "content": "Hello."}
        return Create(body={"model": "gpt-5.5", "input": [message], **fields})

    async def ask(self, transport: Transport, request: Request | None = None) -> Heard:
        """Everything that comes of one request."""
        return await _hear(transport.send(request or self.create()))

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
        assert [_without_lane(frame) for frame in heard.frames] == [started, novel, ended]

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

    async def test_frames_are_handed_on_as_they_come(self) -> None:
        # The provider waits behind its first words: whoever waits for more of them gets none.
        stalled = scripts.text("First words, and then no more.").but(stall_after=5)
        async with self.serving(stalled) as transport:
            async with aclosing(transport.send(self.create())) as stream:
                heard = [await anext(stream) for _ in range(5)]
        assert heard[-1].type == "response.output_text.delta"

    async def test_a_request_is_not_changed_and_may_be_sent_again(self) -> None:
        request = self.create(metadata={"nested": ["kept", {"as": "it is"}]}, store=False)
        before = dumps(request.body)
        async with self.serving(scripts.text("Once."), scripts.text("Twice.")) as transport:
            assert (await self.ask(transport, request)).text == "Once."
            assert (await self.ask(transport, request)).text == "Twice."
        assert dumps(request.body) == before

    async def test_a_request_that_nobody_listens_to_is_not_sent(self) -> None:
        async with self.serving(scripts.text("The first.")) as transport:
            await transport.send(self.create()).aclose()
            assert (await self.ask(transport)).text == "The first."

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

    # -- deadlines -------------------------------------------------------------------------

    async def test_w23_silence_before_the_first_frame_is_unheard(self) -> None:
        silent = scripts.text("Never.").but(stall_after=0)
        heard = await self._too_late(silent, lambda seconds: Timeouts(first_frame=seconds), 0)
        assert heard.frames == ()
        assert isinstance(heard.error, Unheard)

    async def test_w23_silence_behind_a_frame_is_lost(self) -> None:
        stalled = scripts.text("Never whole.").but(stall_after=2)
        heard = await self._too_late(stalled, lambda seconds: Timeouts(idle=seconds), 2)
        assert len(heard.frames) == 2
        assert isinstance(heard.error, Lost)

    async def test_an_answer_that_never_ends_is_lost_in_the_end(self) -> None:
        endless = Reply(items=scripts.text("On and on. " * 200).items, chunk=1, delay=0.05)
        heard = await self._too_late(endless, lambda seconds: Timeouts(total=2 * seconds), 1)
        assert heard.frames
        assert isinstance(heard.error, Lost)

    async def test_a_slow_answer_takes_longer_than_any_silence_may(self) -> None:
        heard = Heard(())
        for seconds in DEADLINES:
            slow = scripts.text("Slow but alive.").but(delay=seconds / 4)
            deadlines = Timeouts(first_frame=2 * seconds, idle=2 * seconds)
            async with self.serving(slow, timeouts=deadlines) as transport:
                heard = await self.ask(transport)
            if heard.error is None:
                break
        assert heard.error is None
        assert len(heard.frames) / 4 > 2
        assert heard.text == "Slow but alive."

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

    async def test_w24_answers_that_were_left_mix_with_no_other(self) -> None:
        told = [f"This is answer {number:02}, and no other." for number in range(CROWD)]
        replies = [scripts.text(words) for words in told]
        async with self.serving(*_LEFT, *replies) as transport:
            kept = await self._left_two(transport, [])
            answers = await asyncio.gather(*[self.ask(transport) for _ in told])
            assert (await kept).text == _KEPT
        assert sorted(heard.text for heard in answers) == told
        for heard in answers:
            assert heard.error is None
            assert heard.text in repr(obj(heard.last.data, "response").get("output"))
            ids = {text(obj(frame.data, "response"), "id") for frame in heard.frames} - {None}
            assert len(ids) == 1

    async def test_w02_what_was_left_is_told_once_if_it_is_told(self) -> None:
        told: list[Late] = []
        async with self.serving(*_LEFT) as transport:
            kept = await self._left_two(transport, told)
            assert (await kept).error is None
        assert len(told) == len({late.attempt for late in told})
        for late in told:
            assert late.attempt in {"attempt_1", "attempt_2"}
            assert late.conversation == f"conversation of {late.attempt}"
            assert late.frame.terminal is not None

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

    async def test_a_request_that_was_not_sent_when_it_closed_is_not_sent(self) -> None:
        async with self.serving(scripts.text("Never.")) as transport:
            stream = transport.send(self.create())
            await transport.close()
            heard = await _hear(stream)
        assert heard.frames == ()
        assert isinstance(heard.error, Closed)

    # -- connecting ahead ------------------------------------------------------------------

    async def test_w46_warming_may_be_repeated_and_may_overlap(self) -> None:
        async with self.serving(scripts.text("Hi.")) as transport:
            await asyncio.gather(transport.warm(), transport.warm())
            await transport.warm()
            assert (await self.ask(transport)).text == "Hi."
            await transport.warm()

    async def test_w46_a_closed_transport_does_not_warm(self) -> None:
        async with self.serving(scripts.text("Never.")) as transport:
            await transport.warm()
            await transport.close()
            assert isinstance(await _warming(transport), Closed)

    async def test_w46_closing_ends_what_warms(self) -> None:
        async with self.serving(scripts.text("Never.")) as transport:
            warming = asyncio.create_task(_warming(transport))
            await asyncio.sleep(0)
            await transport.close()
            assert isinstance(await warming, Closed | NotSent | None)
            assert isinstance((await self.ask(transport)).error, Closed)

    async def test_where_nobody_listens_nothing_is_sent(self) -> None:
        async with self.reaching_nobody() as transport:
            if transport is None:
                return
            for request in (self.create(), self.create(), Retrieve(response="resp_1")):
                heard = await self.ask(transport, request)
                assert heard.frames == ()
                assert isinstance(heard.error, NotSent | NotSupported)
            assert isinstance((await self.ask(transport)).error, NotSent)

    async def test_w46_a_failed_warming_does_not_keep_it_from_working_later(self) -> None:
        async with self.reaching_nobody() as transport:
            if transport is None:
                return
            for _ in range(2):
                # Where there is something to connect, that it failed is said.
                assert isinstance(await _warming(transport), NotSent | None)
            await self.appear([scripts.text("Here now.")])
            assert (await self.ask(transport)).text == "Here now."

    # -- what else can be asked for --------------------------------------------------------

    async def test_a_background_response_is_heard_to_its_end(self) -> None:
        reply = scripts.text("Made while nobody listens.").but(cut_after=4)
        async with self.serving(reply) as transport:
            heard = await self.ask(transport, self._background(transport))
            if not transport.profile.background or isinstance(heard.error, NotSupported):
                return
            assert isinstance(heard.error, Lost)
            response = text(obj(heard.frames[0].data, "response"), "id") or ""
            after = integer(heard.last.data, "sequence_number") or 0
            rest = await self.ask(transport, Retrieve(response=response, starting_after=after))
        assert rest.error is None
        assert rest.last.terminal == "completed"
        numbers = [integer(frame.data, "sequence_number") for frame in rest.frames]
        assert numbers == list(range(after + 1, after + 1 + len(numbers)))
        assert heard.text + rest.text == "Made while nobody listens."

    async def test_a_background_response_is_stopped(self) -> None:
        held = scripts.text("Never whole.").but(hold=3, cut_after=3)
        async with self.serving(held) as transport:
            heard = await self.ask(transport, self._background(transport))
            if not transport.profile.background or isinstance(heard.error, NotSupported):
                return
            response = text(obj(heard.frames[0].data, "response"), "id") or ""
            stopped = await self.ask(transport, Cancel(response=response))
            found = await self.ask(transport, Retrieve(response=response))
        assert stopped.error is None
        assert [frame.terminal for frame in stopped.frames] == ["cancelled"]
        assert found.last.terminal == "cancelled"

    async def test_a_window_is_compacted(self) -> None:
        async with self.serving(scripts.text("Not asked for.")) as transport:
            heard = await self.ask(transport, Compact(body=self.create().body))
            able = transport.profile.compact
        if not able or isinstance(heard.error, NotSupported):
            return
        assert heard.error is None
        assert [frame.terminal for frame in heard.frames] == ["completed"]
        assert obj(heard.last.data, "response").get("output")

    async def test_what_its_profile_cannot_do_is_not_supported(self) -> None:
        async with self.serving(scripts.text("Hi.")) as transport:
            profile = transport.profile
            asked: list[tuple[bool, Request]] = [
                (profile.retrieve, Retrieve(response="resp_1")),
                (profile.retrieve, Delete(response="resp_1")),
                (profile.background, Cancel(response="resp_1")),
                (profile.compact, Compact(body=self.create().body)),
            ]
            for able, request in asked:
                error = (await self.ask(transport, request)).error
                assert isinstance(error, NotSupported) or (able and error is None), request
            assert (await self.ask(transport)).text == "Hi."

    async def test_a_request_of_a_kind_that_it_does_not_know_is_not_supported(self) -> None:
        # There may be more kinds one day than there were when it was written.
        novel = cast("Request", object())
        async with self.serving(scripts.text("Hi.")) as transport:
            assert isinstance((await self.ask(transport, novel)).error, NotSupported)
            assert (await self.ask(transport)).text == "Hi."

    # -- the rest --------------------------------------------------------------------------

    async def test_the_ways_that_it_names_lead_to_the_provider(self) -> None:
        async with self.serving(scripts.text("One way."), scripts.text("Another.")) as transport:
            via = transport.choose()
            assert via == transport.choose()
            assert transport.choose(background=True)
            assert (await self.ask(transport, _by(self.create(), via))).text == "One way."
            other = transport.choose(before=via, failed=True)
            assert (await self.ask(transport, _by(self.create(), other))).text == "Another."

    async def test_what_it_remembers_can_be_continued(self) -> None:
        async with self.serving(scripts.text("Noted."), scripts.text("Continued.")) as transport:
            via = transport.choose()
            heard = await self.ask(transport, _by(self.create(store=False), via, "mine"))
            parent = _parent(heard, via)
            remembered = transport.remembers(parent, via=via, conversation="mine")
            then = await self.ask(transport, self._continuing(parent, via, "mine"))
        assert then.text == "Continued." or (_gone(then) and not remembered)

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
            via = transport.choose()
            assert not transport.remembers(stranger, via=via, conversation="other")
            assert _gone(await self.ask(transport, self._continuing(stranger, via, "other")))
            assert (await self.ask(transport)).text == "Hi."

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

    async def _too_late(
        self, reply: Reply, timeouts: Callable[[float], Timeouts], frames: int
    ) -> Heard:
        """What comes of an answer that outlasts its deadline; the next request is answered.

        As many frames are there in time, and that next answer, or the deadline was too short.
        """
        heard = taken = Heard(())
        for seconds in DEADLINES:
            after = scripts.text("Taken.")
            async with self.serving(reply, after, timeouts=timeouts(seconds)) as transport:
                heard, taken = await self.ask(transport), await self.ask(transport)
            if len(heard.frames) >= frames and taken.error is None:
                break
        assert taken.text == "Taken.", taken.error
        return heard

    async def _left_two(self, transport: Transport, told: list[Late]) -> asyncio.Task[Heard]:
        """Three answers begin: one is kept, whose task this is, and two are left in two ways."""
        transport.on_late(told.append)
        kept, begun = self._watched(transport, 1)
        await begun.wait()
        async with aclosing(transport.send(self._attempt(1))) as stream:
            await anext(stream)
        left, begun = self._watched(transport, 1, request=self._attempt(2))
        await begun.wait()
        left.cancel()
        await asyncio.wait({left})
        return kept

    def _attempt(self, number: int) -> Create:
        attempt = f"attempt_{number}"
        body = self.create().body
        return Create(body=body, conversation=f"conversation of {attempt}", attempt=attempt)

    def _continuing(self, parent: Parent, via: str, conversation: str) -> Create:
        body = self.create(store=False, previous_response_id=parent.response).body
        return Create(body=body, parent=parent, conversation=conversation, via=via)

    def _background(self, transport: Transport) -> Create:
        via = transport.choose(background=True)
        return _by(self.create(background=True, store=True), via)

    def _watched(
        self,
        transport: Transport,
        enough: int,
        seen: list[Frame] | None = None,
        *,
        request: Request | None = None,
    ) -> tuple[asyncio.Task[Heard], asyncio.Event]:
        """A request in a task of its own, and an event that is set when enough was heard."""
        frames = [] if seen is None else seen
        started = asyncio.Event()

        async def watch() -> Heard:
            async with aclosing(transport.send(request or self.create())) as stream:
                async for frame in stream:
                    frames.append(frame)
                    if len(frames) == enough:
                        started.set()
            return Heard(tuple(frames))

        return asyncio.create_task(watch()), started


_KEPT = "This one is kept, and it is long enough for the others to run out. " * 2

_LEFT = (
    Reply(items=scripts.text(_KEPT).items, chunk=4, delay=0.005),
    scripts.text("Left by closing.").but(delay=0.005),
    scripts.text("Left by cancelling.").but(delay=0.005),
)


@asynccontextmanager
async def _closing(transport: Transport) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await transport.close()


async def _hear(stream: AsyncGenerator[Frame]) -> Heard:
    frames: list[Frame] = []
    try:
        async with aclosing(stream):
            async for frame in stream:
                frames.append(frame)
    except TurnlogError as error:
        return Heard(tuple(frames), error)
    return Heard(tuple(frames))


async def _warming(transport: Transport) -> TurnlogError | None:
    """What comes of connecting ahead: nothing, or an error."""
    try:
        await transport.warm()
    except TurnlogError as error:
        return error
    return None


def _gone(heard: Heard) -> bool:
    """Whether a parent that is not remembered was not continued from, and it was said so."""
    if isinstance(heard.error, NotSent):
        return heard.error.code == PARENT_GONE
    return heard.last.terminal == "error"


def _without_lane(frame: Frame) -> JsonObject:
    """What arrived, without the name of a lane that a provider writes into every frame."""
    lane = frame.lane
    return {key: value for key, value in frame.data.items() if key != "stream_id" or value != lane}


def _by(request: Create, via: str, conversation: str = "") -> Create:
    return Create(body=request.body, via=via, conversation=conversation)


def _parent(heard: Heard, via: str) -> Parent:
    """What the engine would keep of an unstored response."""
    return Parent(
        response=text(obj(heard.last.data, "response"), "id") or "",
        end=2,
        version=5,
        time=0,
        store=False,
        transport=via,
        connection=heard.last.connection,
        lane=heard.last.lane,
    )
