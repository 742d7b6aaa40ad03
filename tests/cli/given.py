"""What the tests of the command line share: agents, scripts, and running the command in process."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.main import get_command

from turnlog.canonical import Json, JsonObject
from turnlog.cli.app import app

AGENTS = '''
import asyncio, os, signal
import turnlog

@turnlog.tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b

@turnlog.tool(needs_approval=True)
async def pay(ctx: turnlog.ToolContext[None], amount: float, to: str) -> str:
    """Pay."""
    await ctx.progress(step="paying")
    return f"paid {amount}"

@turnlog.tool
async def later(what: str) -> str:
    """Comes later."""
    raise turnlog.Deferred()

@turnlog.tool
async def interrupt() -> None:
    """Press Ctrl-C, and go on until somebody stops it."""
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.Event().wait()

@turnlog.tool
def die() -> str:
    """Kill the process."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"

support = turnlog.Agent("support", model="gpt-5.5", tools=[add, pay, later, interrupt, die])
other = turnlog.Agent("other", model="gpt-5.5")
both = [support, other]
not_agents = [support, 7]
empty = []
'''

COMMAND = [sys.executable, "-c", "from turnlog.cli import main; main()"]

ADD_AND_PAY: Json = {
    "reply": [
        {"reasoning": "I add, and I pay."},
        {"call": "add", "arguments": {"a": 1, "b": 2}},
        {"call": "pay", "arguments": {"amount": 3.5, "to": "Ana"}},
    ]
}


@dataclass(frozen=True)
class Ran:
    """What a command said, and the code that it exited with."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> list[JsonObject]:
        return [json.loads(line) for line in self.lines]


def plain(stream: io.StringIO) -> str:
    """What a terminal shows, without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        return True


class Keys(io.BytesIO):
    """What somebody types, one line at a time; a line `^C` is an interrupt."""

    def read1(self, size: int | None = -1, /) -> bytes:
        line = self.readline()
        if line == b"^C\n":
            raise KeyboardInterrupt
        return line


class Keyboard(io.TextIOWrapper):
    """Where somebody sits and types."""

    def isatty(self) -> bool:
        return True


COMMANDS = get_command(app)
"""Made once: it takes longer than most commands."""


def invoke(arguments: Sequence[str], input: io.TextIOWrapper, out: io.StringIO) -> Ran:
    """Run the command in this process, as its entry point does."""
    err = type(out)()
    before, sys.stdin = sys.stdin, input
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as exit:
            COMMANDS.main(list(arguments), prog_name="turnlog")
    finally:
        sys.stdin = before
    code = exit.value.code
    return Ran(code if isinstance(code, int) else 0, plain(out), plain(err))


@dataclass(frozen=True)
class Desk:
    """A directory with a database, a script and a module of agents, and the command."""

    path: Path

    @property
    def db(self) -> str:
        return str(self.path / "agent.db")

    def script(self, *entries: Json) -> str:
        path = self.path / "script.json"
        path.write_text(json.dumps(entries))
        return str(path)

    def run(self, *arguments: str, input: str = "") -> Ran:
        """Run a command in a pipe."""
        typed = io.TextIOWrapper(io.BytesIO(input.encode()), encoding="utf-8")
        return invoke(arguments, typed, io.StringIO())

    def at_terminal(self, *arguments: str, typed: Sequence[str] = ()) -> Ran:
        """Run a command at a terminal, without its colours; `typed` are lines."""
        lines = "".join(f"{line}\n" for line in typed)
        keys = Keyboard(Keys(lines.encode()), encoding="utf-8")
        return invoke(arguments, keys, Terminal())

    def talk(self, id: str, *typed: str, entries: Sequence[Json]) -> Ran:
        """A conversation at a terminal."""
        script = self.script(*entries)
        more = ("--script", script, "--agents", "desk:support")
        return self.at_terminal("chat", self.db, id, *more, typed=typed)

    async def aside(self, *arguments: str) -> Ran:
        """Run a command while this loop goes on."""
        return await asyncio.to_thread(self.run, *arguments)

    def chat(self, id: str, message: str, *entries: Json, more: Sequence[str] = ()) -> Ran:
        script = self.script(*entries)
        return self.run(
            "chat", self.db, id, message, "--script", script, "--agents", "desk:support", *more
        )
