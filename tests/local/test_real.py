"""Real tokens: llama.cpp and SmolLM2, where both are there (the extra, and `turnlog local fetch`).

Nothing is said here about what the model answers: it is small.
"""

from __future__ import annotations

from importlib.util import find_spec

import httpx2
import pytest

import turnlog
from turnlog_transports.local import PROFILE, serving
from turnlog_transports.weights import SMOLLM2, is_whole

if find_spec("xllamacpp") is None:
    pytest.skip("llama.cpp is not there: pip install 'turnlog[local]'", allow_module_level=True)
if not SMOLLM2.path.is_file():
    pytest.skip("the weights are not there: turnlog local fetch", allow_module_level=True)


@turnlog.tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def test_several_turns_and_a_cancelled_one() -> None:
    assert is_whole(SMOLLM2)
    agent = turnlog.Agent("helper", model="smollm2", instructions="Be brief.", tools=[add])
    async with (
        serving() as url,
        turnlog.open(
            ":memory:", agents=[agent], base_url=url, profile=PROFILE, transport="http"
        ) as log,
    ):
        async with httpx2.AsyncClient(trust_env=False) as client:
            # It answers 503 while it loads, and has loaded when its address is known.
            assert (await client.get(f"{url.removesuffix('/v1')}/health")).status_code == 200
        chat = await log.conversation("c1", agent=agent)
        for message in ("Hello!", "What is two and three?", "Thank you."):
            result = await chat.run(message, max_output_tokens=24)
            assert result.status == "completed" and result.usage.output_tokens > 0
        turn = await chat.send("Tell me a story of two thousand words.")
        deltas = 0
        async for update in turn.updates():
            deltas += update.type == "text.delta"
            if deltas == 3 and update.type == "text.delta":
                await turn.cancel()
        assert (await turn.peek()).status == "cancelled"
        result = await chat.run("Never mind.", max_output_tokens=8)
        assert result.status == "completed"
        assert (await log.verify()).ok
