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


def ended(*arguments: str | Path, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """A program that has ended, as it must, with `status`."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=110,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def run(*arguments: str | Path, cwd: Path) -> str:
    """The output of a program, which must end well."""
    return ended(*arguments, cwd=cwd).stdout


def refused(*arguments: str | Path, cwd: Path, status: int = 1) -> str:
    """What a program says in one line, and no traceback, when it ends with `status`."""
    done = ended(*arguments, cwd=cwd, status=status)
    *usage, line = done.stderr.splitlines()
    assert not done.stdout and (status == 2 or not usage), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return line


DEMO = EXAMPLES / "demo.py"


def test_the_demo_keeps_what_it_promises_in_a_folder_that_it_makes(tmp_path: Path) -> None:
    said = run(DEMO, "new/kept", cwd=tmp_path)
    assert "All of it held" in said
    assert "find_order, which had answered, did not run again" in said
    assert "transport.switched: from websocket to http" in said
    assert (tmp_path / "new" / "kept" / "demo.db").exists()
    folder = tmp_path / "new" / "kept"
    again = refused(DEMO, folder, cwd=tmp_path)
    assert again == f"error: {folder} holds a demo already: name another folder"


def test_the_demo_says_that_a_worker_died(tmp_path: Path) -> None:
    # Where owners keep their locks, there is a file: no worker can open the log.
    (tmp_path / "demo.db-owners").write_text("")
    done = ended(DEMO, tmp_path, cwd=tmp_path, status=1)
    assert re.search(r"✗ worker \d+ died with status 1: see above", done.stdout)


def test_the_demo_needs_a_folder(tmp_path: Path) -> None:
    blocked = tmp_path / "not-a-folder"
    blocked.write_text("")
    said = refused(DEMO, blocked, cwd=tmp_path)
    assert said == f"error: {blocked} cannot be used as a folder: File exists"


async def test_the_demo_ends_quietly_when_it_is_interrupted(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        DEMO,
        tmp_path,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    while b"A customer writes" not in await process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, complaints = await process.communicate()
    assert (process.returncode, complaints) == (130, b"")


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
    assert re.search(r"v\d+ ana call\.approved: send_money\(.*\)$", report, re.MULTILINE)
    assert "customer said: Send 900 euros to Ben." in report
    assert " 0 finding(s)." in report


def test_a_call_is_rejected_and_the_model_is_told(tmp_path: Path) -> None:
    approvals = EXAMPLES / "approvals.py"
    call = run(approvals, "ask", "bank.db", "Send 900 euros.", cwd=tmp_path).split()[1]
    done = run(approvals, "reject", "bank.db", call, "--reason", "Not to him.", cwd=tmp_path)
    assert done == "completed: I did not send it.\n"
    report = run(EXAMPLES / "auditor.py", "bank.db", cwd=tmp_path)
    assert "call.rejected: send_money" in report and "Not to him." in report


def test_an_auditor_needs_a_database(tmp_path: Path) -> None:
    auditor = EXAMPLES / "auditor.py"
    assert "required: database" in refused(auditor, cwd=tmp_path, status=2)
    assert "there is no database" in refused(auditor, "nothere.db", cwd=tmp_path)
    (tmp_path / "notes.txt").write_text("no database")
    assert "not a database of turnlog's" in refused(auditor, "notes.txt", cwd=tmp_path)


def test_approvals_ask_for_what_is_missing(tmp_path: Path) -> None:
    approvals = EXAMPLES / "approvals.py"
    assert "required: verb" in refused(approvals, cwd=tmp_path, status=2)
    assert "required: words" in refused(approvals, "ask", "bank.db", cwd=tmp_path, status=2)
    assert "required: call" in refused(approvals, "approve", "bank.db", cwd=tmp_path, status=2)
    assert "there is no database" in refused(approvals, "inbox", "nothere.db", cwd=tmp_path)
    unknown = refused(approvals, "reject", "bank.db", "call_x", cwd=tmp_path)
    assert unknown == "no call call_x waits here"


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
