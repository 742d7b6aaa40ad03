"""The provider's own client, unchanged, takes the simulator for the provider."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, RateLimitError
from openai.lib.responses_websocket import (
    AsyncResponsesWebSocketSession,
    ResponsesWebSocketError,
    ResponsesWebSocketLimits,
)
from openai.types.responses import (
    ResponseCompactionItem,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
)

from turnlog.testing import call, calls, error, reasoning, reply, text
from turnlog_transports import transcript
from turnlog_transports.simulator import Simulator

from .test_transcript import recording


@asynccontextmanager
async def openai(simulator: Simulator) -> AsyncGenerator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=simulator.base_url, api_key="sk-1", max_retries=0) as client:
        yield client


async def test_a_response_is_created_found_and_deleted() -> None:
    script = [reply(reasoning("Hm."), text("Hello."))]
    async with Simulator(script, key="sk-1") as simulator, openai(simulator) as client:
        made = await client.responses.create(model="gpt-5.5", input="Hi.")
        assert (made.output_text, made.status) == ("Hello.", "completed")
        assert (await client.responses.retrieve(made.id)).output_text == "Hello."
        await client.responses.delete(made.id)
        with pytest.raises(NotFoundError):
            await client.responses.retrieve(made.id)


async def test_a_stream_with_two_calls_and_their_answer() -> None:
    script = [calls(call("refund", order="7"), call("look", order="7")), text("Done.")]
    async with Simulator(script) as simulator, openai(simulator) as client:
        made = None
        async with client.responses.stream(model="gpt-5.5", input="Refund it.") as stream:
            async for _ in stream:
                pass
            made = await stream.get_final_response()
        found = [item for item in made.output if isinstance(item, ResponseFunctionToolCall)]
        assert [(item.name, item.arguments) for item in found] == [
            ("refund", '{"order":"7"}'),
            ("look", '{"order":"7"}'),
        ]
        with pytest.raises(BadRequestError, match="No tool output found for function call call_1"):
            await client.responses.create(model="gpt-5.5", previous_response_id=made.id)
        done = await client.responses.create(
            model="gpt-5.5",
            previous_response_id=made.id,
            input=[
                {"type": "function_call_output", "call_id": item.call_id, "output": "ok"}
                for item in found
            ],
        )
    assert done.output_text == "Done."
    assert done.previous_response_id == made.id


async def test_a_rate_limit_is_one_for_the_client_too() -> None:
    script = [error(429, "rate_limit_exceeded", "Slow down.", retry_after=2)]
    async with Simulator(script) as simulator, openai(simulator) as client:
        with pytest.raises(RateLimitError) as caught:
            await client.responses.create(model="gpt-5.5", input="Hi.")
    assert caught.value.response.headers["retry-after"] == "2"
    assert caught.value.code == "rate_limit_exceeded"


async def test_a_websocket_chain_that_is_not_stored() -> None:
    async with Simulator([text("One."), text("Two.")]) as simulator, openai(simulator) as client:
        async with client.responses.connect() as connection:
            parent = None
            for expected in ("One.", "Two."):
                await connection.response.create(
                    model="gpt-5.5", input="Go on.", store=False, previous_response_id=parent
                )
                async for event in connection:
                    if isinstance(event, ResponseCompletedEvent):
                        assert event.response.output_text == expected
                        parent = event.response.id
                        break
    assert [body.get("previous_response_id") for body in simulator.creates] == [None, "resp_1"]


LIMITS = ResponsesWebSocketLimits(
    max_lanes=4,
    max_events_per_lane=1000,
    max_events=1000,
    max_bytes_per_lane=1 << 20,
    max_bytes=1 << 20,
)


async def test_lanes_of_one_connection() -> None:
    script = [text("Slow.").but(delay=0.005), text("Quick."), error(429), text("Again.")]
    async with Simulator(script) as simulator, openai(simulator) as client:
        async with client.responses.connect() as connection:
            async with AsyncResponsesWebSocketSession(connection, limits=LIMITS) as session:
                slow, quick = session.lane("slow"), session.lane("quick")
                for lane in (slow, quick):
                    await lane.send({"type": "response.create", "model": "m", "input": "Hi."})
                assert (await quick.get_final_response()).output_text == "Quick."
                assert (await slow.get_final_response()).output_text == "Slow."
                await quick.send({"type": "response.create", "model": "m", "input": "Hi."})
                with pytest.raises(ResponsesWebSocketError):
                    await quick.get_final_response()
                await quick.send({"type": "response.create", "model": "m", "input": "Hi."})
                assert (await quick.get_final_response()).output_text == "Again."
    assert simulator.in_flight.most == 2


async def test_a_background_response_is_resumed_and_cancelled() -> None:
    script = [text("Hello.").but(hold=3), text("Never.").but(hold=0)]
    async with Simulator(script) as simulator, openai(simulator) as client:
        stream = await client.responses.create(model="m", input="Hi.", background=True, stream=True)
        first = await anext(aiter(stream))
        await stream.close()
        assert first.type == "response.created"
        simulator.release()
        async with client.responses.stream(
            response_id=first.response.id, starting_after=first.sequence_number
        ) as rest:
            seen = [event.sequence_number async for event in rest]
        assert seen == list(range(1, 10))
        assert (await client.responses.retrieve(first.response.id)).output_text == "Hello."
        queued = await client.responses.create(model="m", input="Hi.", background=True)
        assert queued.status == "queued"
        assert (await client.responses.cancel(queued.id)).status == "cancelled"
        assert (await client.responses.retrieve(queued.id)).status == "cancelled"


async def test_a_recorded_background_response_is_resumed() -> None:
    recorded = transcript.load(recording("background_resume"))
    async with Simulator(recorded) as simulator, openai(simulator) as client:
        stream = await client.responses.create(
            model="m", input="What is 2 + 2?", background=True, stream=True
        )
        first = await anext(aiter(stream))
        await stream.close()
        assert first.type == "response.created"
        rest = await client.responses.retrieve(first.response.id, stream=True, starting_after=0)
        assert [event.sequence_number async for event in rest] == list(range(1, 17))
        assert (await client.responses.retrieve(first.response.id)).status == "completed"


async def test_a_window_is_compacted_and_goes_on() -> None:
    async with Simulator([text("One."), text("Two.")]) as simulator, openai(simulator) as client:
        first = await client.responses.create(model="m", input="First.")
        window = await client.responses.compact(model="m", previous_response_id=first.id)
        assert (window.object, [item.type for item in window.output]) == (
            "response.compaction",
            ["message", "compaction"],
        )
        compacted = window.output[-1]
        assert isinstance(compacted, ResponseCompactionItem)
        assert compacted.encrypted_content
        done = await client.responses.create(
            model="m",
            input=[
                {"role": "user", "content": "First."},
                {
                    "type": "compaction",
                    "id": compacted.id,
                    "encrypted_content": compacted.encrypted_content,
                },
                {"role": "user", "content": "Next."},
            ],
        )
    assert done.output_text == "Two."


async def test_a_recorded_compaction_is_answered() -> None:
    recorded = transcript.load(recording("compaction_chain"))
    async with Simulator(recorded) as simulator, openai(simulator) as client:
        for input in ("What is 2+2?", "And 3+3?"):
            last = await client.responses.create(model="m", input=input)
        window = await client.responses.compact(model="m", previous_response_id=last.id)
        assert [item.type for item in window.output] == ["message", "message", "compaction"]
        assert (await client.responses.create(model="m", input="And 4+4?")).output_text
    assert simulator.left == 2
