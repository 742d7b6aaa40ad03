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


class Told(TypedDict, total=False):
    """The data of one event."""

    type: str
    text: str
    name: str


@dataclass
class Page:
    """What a page has shown so far, and the id of the last event that it got."""

    client: httpx2.AsyncClient
    chat: str
    text: str = ""
    calls: list[str] = field(default_factory=list[str])
    cursor: str | None = None
    idle: bool = False

    async def watch(self, leave_after: int | None = None) -> None:
        """Attach, and stay until the turn is done, or until so many characters were shown."""
        headers = {} if self.cursor is None else {"Last-Event-ID": self.cursor}
        url = f"/chats/{self.chat}/updates"
        async with self.client.stream("GET", url, headers=headers) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            async for event in sse(response.aiter_lines()):
                self.show(event)
                if self.idle or (leave_after is not None and len(self.text) >= leave_after):
                    return

    def show(self, event: Mapping[str, str]) -> None:
        """Show one event."""
        self.idle = event.get("event") == "idle"
        told = cast("Told", json.loads(event["data"]))
        self.cursor = event.get("id", self.cursor)
        if told.get("type") == "text.delta":
            self.text += told.get("text", "")
        if told.get("type") == "call.started":
            self.calls.append(told.get("name", ""))


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


async def said_in(client: httpx2.AsyncClient, chat: str) -> list[tuple[str, str]]:
    """What the page shows when it is loaded."""
    found = cast("list[dict[str, str]]", (await client.get(f"/chats/{chat}")).json())
    return [(one["role"], one["text"]) for one in found]


async def ask(client: httpx2.AsyncClient, words: str, key: str) -> int:
    """Send a message; the status."""
    message = {"text": words, "key": key}
    return (await client.post("/chats/ben/messages", json=message)).status_code


ANSWER = "Thank you for waiting. Order 42 left the warehouse on Monday and arrives on Thursday."


@pytest.mark.skipif(sys.platform == "win32", reason="a socket is handed to the server")
async def test_a_page_reloads_and_shows_the_whole_answer_once(tmp_path: Path) -> None:
    async with bot(tmp_path) as client:
        assert "<title>Lamp support</title>" in (await client.get("/")).text
        assert await said_in(client, "ben") == []
        assert await ask(client, "Where is order 42?", "key-1") == 202
        page = Page(client, "ben")
        await page.watch(leave_after=20)
        assert 20 <= len(page.text) < len(ANSWER) and not page.idle
        # Sent again, as by a browser that did not hear the answer: the same turn.
        assert await ask(client, "Where is order 42?", "key-1") == 202
        assert await ask(client, "And order 43?", "key-2") == 409
        # A reload shows what was said, and the answer from its start.
        assert await said_in(client, "ben") == [("user", "Where is order 42?")]
        reloaded = Page(client, "ben")
        await asyncio.gather(page.watch(), reloaded.watch())
        (_, answer) = (await said_in(client, "ben"))[-1]
        assert answer.startswith(ANSWER)
        assert page.text == reloaded.text == answer
        assert page.calls == reloaded.calls == ["order_status"]


@pytest.mark.skipif(sys.platform == "win32", reason="a socket is handed to the server")
async def test_an_answer_goes_on_when_the_server_is_restarted(tmp_path: Path) -> None:
    async with bot(tmp_path) as client:
        assert await ask(client, "Where is order 42?", "key-1") == 202
        page = Page(client, "ben")
        await page.watch(leave_after=20)
    async with bot(tmp_path) as client:
        reloaded = Page(client, "ben")
        await reloaded.watch()
        (_, answer) = (await said_in(client, "ben"))[-1]
        assert answer.startswith(ANSWER)
        assert reloaded.text.endswith(answer)
