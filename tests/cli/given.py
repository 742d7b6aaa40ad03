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
from typer.testing import CliRunner

from turnlog.canonical import Json, JsonObject
from turnlog.cli.app import app

AGENTS = '''
import os, signal
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
def interrupt() -> str:
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)
    return "pressed"

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
    """A stream that somebody looks at, or types into; a line `^C` is an interrupt."""

    def isatty(self) -> bool:
        return True

    def readline(self, size: int | None = -1, /) -> str:
        line = super().readline()
        if line == "^C\n":
            raise KeyboardInterrupt
        return line


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

    def run(self, *arguments: str, input: str | None = None) -> Ran:
        """Run a command that is to succeed or fail in a way that it explains."""
        done = CliRunner().invoke(app, arguments, input=input)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Ran(done.exit_code, done.stdout, done.stderr)

    def at_terminal(self, *arguments: str, typed: Sequence[str] = ()) -> Ran:
        """Run a command at a terminal, without its colours; `typed` are lines."""
        keys, out, err = Terminal("".join(f"{line}\n" for line in typed)), Terminal(), Terminal()
        before, sys.stdin = sys.stdin, keys
        try:
            with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as exit:
                app(arguments)
        finally:
            sys.stdin = before
        code = exit.value.code
        return Ran(code if isinstance(code, int) else 0, plain(out), plain(err))

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
