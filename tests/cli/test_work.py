"""`turnlog work`: a service that is told to stop by a signal, as it is run in the field."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

import turnlog
from turnlog import events as ev
from turnlog.testing import call, scripted

from .given import COMMAND

AGENT = """
import turnlog


@turnlog.tool(needs_approval=True)
def pay(amount: int) -> str:
    return f"paid {amount}"


bot = turnlog.Agent("bot", model="gpt-5", tools=[pay])
"""


async def waiting(path: Path, module: Path) -> None:
    """A file in which a turn waits for an approval, which has come."""
    module.write_text(AGENT)
    names: dict[str, object] = {}
    exec(AGENT, names)
    bot = names["bot"]
    assert isinstance(bot, turnlog.Agent)
    transport = scripted([call("pay", amount=3)])
    async with turnlog.open(path, agents=[bot], transport=transport) as log:
        chat = await log.conversation("c", agent=bot)
        assert (await chat.run("Pay.")).status == "waiting"
        (pending,) = (await chat.state()).pending
        await pending.approve(by="ana")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of Unix")
async def test_a_worker_goes_on_with_what_was_approved_and_stops_when_told(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await waiting(path, tmp_path / "shop.py")
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"text": "Paid."}]))
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "work", str(path), "--agents", "shop:bot"),
        *("--script", str(script), "--poll", "0.05", "--every", "60", "--json"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with turnlog.open(path, transport=scripted([])) as log:
        chat = await log.get("c")
        async with asyncio.timeout(60):
            while not any(isinstance(one.event, ev.TurnEnded) for one in await chat.events()):
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        assert b"stopping: waits up to 30 s for what runs" in errors
        assert b"no --agents" not in errors
        report = json.loads(out.splitlines()[-1])
        assert (report["resumed"], report["running"]) == (1, 0)
        assert [item.text for item in await chat.items()][-1] == "Paid."


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of Unix")
async def test_a_worker_without_agents_says_so_and_reports_in_words(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await waiting(path, tmp_path / "shop.py")
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"text": "Never."}]))
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "work", str(path), "--script", str(script), "--every", "0.1"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert (await process.stdout.readline()).startswith(b"running=0 waiting=1")
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    assert (process.returncode, b"no --agents" in errors) == (0, True)
