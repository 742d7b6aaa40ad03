"""Every example runs, as the program that it is, without a key and without a network."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, cast

import httpx2
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def environment() -> dict[str, str]:
    """Without a key: an example that needs one must do without."""
    return {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}


def run(*arguments: str | Path, cwd: Path, status: int = 0) -> str:
    """The output of a program, which must end with `status`."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=110,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_the_demo_keeps_what_it_promises(tmp_path: Path) -> None:
    said = run(EXAMPLES / "demo.py", cwd=tmp_path)
    assert "All of it held" in said
    assert "find_order, which had answered, did not run again" in said
    assert "transport.switched: from websocket to http" in said


def test_the_demo_fails_loudly(tmp_path: Path) -> None:
    # Nothing can be recorded there, and so nothing of what is promised can be so.
    blocked = tmp_path / "not-a-folder"
    blocked.write_text("")
    said = run(EXAMPLES / "demo.py", blocked, cwd=tmp_path, status=1)
    assert "not so" in said


def test_hello_says_it_and_can_be_run_again(tmp_path: Path) -> None:
    for _ in range(2):
        said = run(EXAMPLES / "hello.py", cwd=tmp_path)
        assert said.startswith("It left on Monday.")
        assert said.endswith("verified: True\n")


def test_a_call_is_approved_in_another_process_and_audited_in_a_third(tmp_path: Path) -> None:
    approvals = EXAMPLES / "approvals.py"
    waiting = run(approvals, "ask", "bank.db", "Send 900 euros to Ben.", cwd=tmp_path)
    assert waiting.startswith("waiting: call_")
    inbox = run(approvals, "inbox", "bank.db", cwd=tmp_path)
    call = inbox.split()[0]
    assert "{'to': 'Ben', 'amount': 900.0}" in inbox
    done = run(approvals, "approve", "bank.db", call, "--by", "ana", cwd=tmp_path)
    assert f"[the bank sends 900.00 to Ben, once for {call}]" in done
    assert "completed: The money is on its way." in done
    assert run(approvals, "inbox", "bank.db", cwd=tmp_path) == ""

    run(EXAMPLES / "auditor.py", "bank.db", "report.md", cwd=tmp_path)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert re.search(r"v\d+ ana call\.approved: send_money", report)
    assert "customer said: Send 900 euros to Ben." in report
    assert " 0 finding(s)." in report


def test_a_call_is_rejected_and_the_model_is_told(tmp_path: Path) -> None:
    approvals = EXAMPLES / "approvals.py"
    call = run(approvals, "ask", "bank.db", "Send 900 euros.", cwd=tmp_path).split()[1]
    done = run(approvals, "reject", "bank.db", call, "--reason", "Not to him.", cwd=tmp_path)
    assert done == "completed: I did not send it.\n"
    report = run(EXAMPLES / "auditor.py", "bank.db", cwd=tmp_path)
    assert "call.rejected: send_money" in report and "Not to him." in report


def test_the_test_of_an_agent_passes(tmp_path: Path) -> None:
    said = run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLES / "test_refunds.py", cwd=tmp_path
    )
    assert "1 passed" in said


# -- the support bot -----------------------------------------------------------------------


class Loaded(TypedDict):
    """What a page gets when it is loaded."""

    messages: list[dict[str, str]]
    cursor: str


@dataclass
class Page:
    """What a page has shown so far, and how far it has come."""

    client: httpx2.AsyncClient
    said: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    cursor: str = ""
    text: str = ""
    calls: list[str] = field(default_factory=list[str])
    idle: bool = False

    async def load(self) -> Page:
        """Show what was said before."""
        found = cast("Loaded", (await self.client.get("/chats/ben")).json())
        self.said = [(one["role"], one["text"]) for one in found["messages"]]
        self.cursor = found["cursor"]
        return self

    async def send(self, words: str, key: str = "key-1") -> int:
        """Send a message; the status."""
        message = {"text": words, "key": key}
        return (await self.client.post("/chats/ben/messages", json=message)).status_code

    async def watch(self, leave_after: int | None = None) -> None:
        """Attach, and stay until nothing runs, or until so many characters were shown."""
        url, query = "/chats/ben/updates", {"after": self.cursor}
        async with self.client.stream("GET", url, params=query) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            async for event in sse(response.aiter_lines()):
                self.show(event)
                if self.idle or (leave_after is not None and len(self.text) >= leave_after):
                    return

    def show(self, event: Mapping[str, str]) -> None:
        """Show one event."""
        self.idle = event.get("event") == "idle"
        self.cursor = event.get("id", self.cursor)
        told = cast("dict[str, str]", json.loads(event["data"]))
        match told.get("type"):
            case "text.delta":
                self.text += told["text"]
            case "call.started":
                self.calls.append(told["text"])
            case "retracted":
                self.text = ""
            case _:
                pass


async def sse(lines: AsyncIterator[str]) -> AsyncGenerator[dict[str, str]]:
    """Server-sent events: their fields."""
    fields: dict[str, str] = {}
    async for line in lines:
        if not line:
            yield fields
            fields = {}
            continue
        name, _, value = line.partition(": ")
        fields[name] = value


@asynccontextmanager
async def bot(folder: Path) -> AsyncGenerator[httpx2.AsyncClient]:
    """The bot behind a real server; the socket listens before the server runs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        arguments = ["-m", "uvicorn", "--app-dir", str(EXAMPLES), "--fd", str(listener.fileno())]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            *("--log-level", "warning", "support_bot.app:app"),
            cwd=folder,
            env=environment(),
            pass_fds=[listener.fileno()],
        )
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        process.terminate()
        # uvicorn closes in good order, and then dies of the signal that it was sent.
        assert await process.wait() in (0, -signal.SIGTERM)


QUESTION = "Where is order 42?"
ANSWER = (
    "Thank you for waiting. Order 42 left the warehouse on Monday and arrives on Thursday."
    " Is there anything else I can do?"
)
on_sockets = pytest.mark.skipif(sys.platform == "win32", reason="a server is handed its socket")


@on_sockets
async def test_a_page_that_comes_back_shows_the_whole_answer_once(tmp_path: Path) -> None:
    async with bot(tmp_path) as client:
        assert "<title>Lamp support</title>" in (await client.get("/")).text
        page = await Page(client).load()
        assert page.said == []
        assert await page.send(QUESTION) == 202
        await page.watch(leave_after=20)
        assert 20 <= len(page.text) < len(ANSWER) and not page.idle
        # Sent again, as by a browser that did not hear the answer: the same turn.
        assert await page.send(QUESTION) == 202
        assert await page.send("And order 43?", key="key-2") == 409
        # One page comes back to where it was; another one is loaded meanwhile.
        reloaded = await Page(client).load()
        assert reloaded.said == [("user", QUESTION)]
        await asyncio.gather(page.watch(), reloaded.watch())
        assert page.text == reloaded.text == ANSWER
        assert page.calls == reloaded.calls == ["order_status"]
        assert (await Page(client).load()).said == [("user", QUESTION), ("assistant", ANSWER)]


@on_sockets
async def test_an_answer_that_nobody_watched_is_found(tmp_path: Path) -> None:
    async with bot(tmp_path) as client:
        page, other = await Page(client).load(), await Page(client).load()
        assert await page.send(QUESTION) == 202
        await other.watch()
        await page.watch()
        assert page.text == other.text == ANSWER


@on_sockets
async def test_an_answer_goes_on_when_the_server_is_restarted(tmp_path: Path) -> None:
    async with bot(tmp_path) as client:
        page = await Page(client).load()
        assert await page.send(QUESTION) == 202
        await page.watch(leave_after=20)
    async with bot(tmp_path) as client:
        page.client = client
        await page.watch()
        assert page.text == ANSWER
