"""Real processes, really killed; a new one recovers, resumes, and does nothing twice unasked."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import turnlog
from turnlog import events as ev
from turnlog.conversation import Conversation
from turnlog.ports import Endpoint
from turnlog.testing import call, calls, text
from turnlog_transports import fallback
from turnlog_transports.profiles import OPENAI
from turnlog_transports.simulator import Simulator

from .dying import OnCrash, agent_of
from .given import all_of, said, tags

LONG = "It was a bright cold day in April, and the clocks were striking thirteen."
BOTH = calls(call("safe", n=1), call("deadly", n=2))


async def killed(path: Path, place: str, simulator: Simulator) -> None:
    """Run a process until it kills itself."""
    script = Path(__file__).with_name("dying.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        str(path),
        place,
        simulator.base_url,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        _, errors = await process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()


@asynccontextmanager
async def reopened(
    path: Path, simulator: Simulator, on_crash: OnCrash = "ask"
) -> AsyncGenerator[tuple[turnlog.Log, Conversation]]:
    """The same file in this process, with tools that survive."""
    agent = agent_of(on_crash, dies=False, ran=f"{path}.ran")
    transport = fallback.open_transport(Endpoint(base_url=simulator.base_url, profile=OPENAI))
    async with turnlog.open(str(path), agents=[agent], transport=transport) as log:
        yield log, await log.get("c")
        report = await log.verify()
        assert report.ok, report.findings


def ran(path: Path) -> list[list[str]]:
    """Which tool ran with which key, for the how-many-th time."""
    return [line.split() for line in Path(f"{path}.ran").read_text().splitlines()]


async def finished(chat: Conversation) -> turnlog.TurnResult[str]:
    """The turn, resumed and waited for."""
    (row,) = await chat.turns()
    turn = await chat.turn(row.turn)
    await turn.resume()
    return await turn.result()


async def test_a_tool_that_may_be_rerun_is_rerun_with_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Simulator([BOTH, text("Done.")]) as simulator:
        await killed(path, "rerun", simulator)
        async with reopened(path, simulator, "rerun") as (log, chat):
            done = await log.recover()
            assert [one.action for one in done] == [
                "marked 1 started call(s) as uncertain",
                "left the turn to be resumed",
            ]
            assert await log.recover() == []
            assert len(simulator.creates) == 1
            assert (await finished(chat)).output_text == "Done."
            safe, first, second = ran(path)
            assert safe[0] == "safe"
            assert (first[0], first[2], second[2]) == ("deadly", "1", "2")
            assert first[1] == second[1]
            body = simulator.creates[1]
            assert said(body) == ["function_call_output", "function_call_output"]
            assert body["previous_response_id"] == "resp_1"


async def test_a_tool_that_asks_waits_for_somebody(tmp_path: Path) -> None:
    died = tmp_path / "died" / "a.db"
    died.parent.mkdir()
    async with Simulator([BOTH, text("Done."), text("Done."), text("Done.")]) as simulator:
        await killed(died, "ask", simulator)
        for decision, runs in (("answer", 2), ("rerun", 3), ("abandon", 2)):
            path = tmp_path / decision / "a.db"
            shutil.copytree(died.parent, path.parent)
            async with reopened(path, simulator) as (log, chat):
                await decide(log, chat, decision)
                assert (await finished(chat)).output_text == "Done."
                assert len(ran(path)) == runs


async def decide(log: turnlog.Log, chat: Conversation, decision: str) -> None:
    """Find the call that is uncertain, and say what is to become of it."""
    await log.recover()
    result = await finished(chat)
    assert (result.status, result.reason) == ("waiting", "uncertain")
    (uncertain,) = (await chat.state()).pending
    assert (uncertain.name, uncertain.status, uncertain.waits_for) == (
        "deadly",
        "uncertain",
        "uncertain",
    )
    assert [row.call for row in await log.pending()] == [uncertain.id]
    if decision == "answer":
        await uncertain.answer("it had happened", by="ana")
    elif decision == "rerun":
        await uncertain.rerun(by="ana")
    else:
        await uncertain.abandon(by="ana")


async def test_a_tool_that_gives_up_says_the_truth(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Simulator([BOTH, text("Done.")]) as simulator:
        await killed(path, "give_up", simulator)
        async with reopened(path, simulator, "give_up") as (log, chat):
            await log.recover()
            assert (await finished(chat)).output_text == "Done."
            assert len(ran(path)) == 2
            told = [one.item["output"] for one in await all_of(chat, ev.CallAnswered)]
            assert told[0] == "safe" and "outcome is unknown" in str(told[1])


async def test_before_the_first_frame_the_outcome_is_unknown_and_it_is_sent_again(
    tmp_path: Path,
) -> None:
    """W-31: as one more try of the same turn; the same key continues it as `resume` does."""
    died = tmp_path / "died" / "a.db"
    died.parent.mkdir()
    async with Simulator([text("Done.")] * 4) as simulator:
        await killed(died, "sent", simulator)
        shutil.copytree(died.parent, tmp_path / "again")
        async with reopened(died, simulator) as (log, chat):
            await log.recover()
            (outcome,) = await all_of(chat, ev.ResponseUnknown)
            assert outcome.reason == "crashed"
            assert (await finished(chat)).output_text == "Done."
            assert said(simulator.creates[-1]) == ["Go."]
        async with reopened(tmp_path / "again" / "a.db", simulator) as (_, chat):
            result = await chat.run("Go.", idempotency_key="k")
            assert result.output_text == "Done."
            assert len(await chat.turns()) == 1


async def test_a_response_that_finished_meanwhile_is_fetched_and_not_paid_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    stalls = text(LONG).but(stall_after=9, finishes=True)
    async with Simulator([stalls, text("Next.")]) as simulator:
        await killed(path, "text", simulator)
        async with reopened(path, simulator) as (log, chat):
            done = await log.recover()
            assert done[0].action == "fetched the response, which had finished"
            assert "output.checkpointed" in await tags(chat)
            assert (await finished(chat)).output_text == LONG
            assert len(simulator.creates) == 1
            assert (await chat.run("And?")).output_text == "Next."
            assert simulator.creates[1]["previous_response_id"] == "resp_1"


async def test_a_response_that_is_gone_is_interrupted_and_asked_for_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Simulator([text(LONG).but(stall_after=9), text("Short.")]) as simulator:
        await killed(path, "text", simulator)
        async with reopened(path, simulator) as (log, chat):
            await log.recover()
            (outcome,) = await all_of(chat, ev.ResponseInterrupted)
            assert outcome.response == "resp_1"
            assert (await finished(chat)).output_text == "Short."
            assert said(simulator.creates[1]) == ["Go."]


async def test_after_completion_the_turn_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Simulator([text("Done.")]) as simulator:
        await killed(path, "completed", simulator)
        async with reopened(path, simulator) as (log, chat):
            assert await log.recover() == []
            assert (await chat.run("Go.", idempotency_key="k")).output_text == "Done."
            assert len(simulator.creates) == 1
