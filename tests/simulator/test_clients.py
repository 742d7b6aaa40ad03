"""The provider's own client, unchanged, takes the simulator for the provider."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, RateLimitError
from openai.types.responses import ResponseCompletedEvent, ResponseFunctionToolCall

from turnlog.testing import call, calls, error, reasoning, reply, text
from turnlog_transports.simulator import Simulator


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
