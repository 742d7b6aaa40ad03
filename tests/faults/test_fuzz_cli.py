"""Command lines from a fuzzer: every command with arguments that are right, strange or wrong.

Exit codes are the documented ones, an error is one line that names the fix, there is never a
traceback, and nothing is written where the usage is wrong. TURNLOG_FUZZ=<examples> says how many
command lines are tried; without it, a few, the same on every run. Left out is what would ask the
network or not end by itself: `work`, `doctor`, `serve-simulator`, `local` and `--follow`.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from typer.core import TyperGroup

from ..cli import given as cli
from ..cli.given import ADD_AND_PAY, AGENTS, Desk, Ran

MANY = int(os.environ.get("TURNLOG_FUZZ", 0))


assert isinstance(cli.COMMANDS, TyperGroup)
GROUP = cli.COMMANDS


def cases(few: int) -> settings:
    """How many cases are tried: the same few on every run, or as many as were asked for."""
    return settings(
        max_examples=MANY or few,
        derandomize=not MANY,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


COMMANDS: dict[str, Sequence[str]] = {
    "chat": ("id", "text"),
    "resume": ("id",),
    "ls": (),
    "show": ("id",),
    "log": ("id",),
    "diff": ("id", "at", "at"),
    "fork": ("id", "id"),
    "approve": ("id", "call"),
    "reject": ("id", "call"),
    "resolve": ("id", "call"),
    "recover": (),
    "verify": ("id", "id"),
    "export": ("id",),
    "import": ("path",),
    "backup": ("path",),
    "migrate": (),
}
OPTIONS = {
    "--agents": "agents", "--agent": "text", "--model": "text", "--instructions": "text",
    "--by": "text", "--transport": "text", "--base-url": "url", "--profile": "text",
    "--script": "path", "--transcript": "path", "--option": "pair", "--status": "text",
    "--metadata": "pair", "--since": "at", "--after": "at", "--limit": "at", "--last": "at",
    "--turn": "at", "--before": "at", "--at": "at", "--reason": "text", "--answer": "text",
    "--answer-json": "json", "--output": "path", "--db": "path",
}  # fmt: skip
FLAGS = ("--json", "--rerun", "--abandon", "--approve", "--reject", "--failed", "--resume")
KNOWN: dict[str, set[str]] = {
    name: {option for one in command.params for option in one.opts}
    for name, command in GROUP.commands.items()
}
ODD = [
    "", " ", "-", "--", "--json", "-x",
    "x" * 200, "\u00e9\U0001f600", "\udc80", "a\nb", "\x1b[2J",
    "0", "-1", "1e9", "9" * 30, "../..", "%s", "NaN", "\u202e", "=",
    "a=b", "{}", "[", "'; DROP TABLE",
]  # fmt: skip
VALUES: dict[str, list[str]] = {
    "id": ["c1", "c1", "c2", "c2", "new"],
    "call": ["pay", "add", "call_1"],
    "text": ["Hello", "support", "idle", "busy", "replay", "http", "openai", "user:42"],
    "at": ["1", "3", "2", "2026-01-31", "c1", "1h", "10"],
    "path": ["script.json", "agent.db", "export.jsonl", "new.db", "nowhere/x", ".", "noise", "-"],
    "agents": ["desk:support", "desk:both", "desk:empty", "desk:", "nothing:x", "os:path"],
    "url": ["x", "http://", "http://[", "file:///etc", "://"],
    "pair": ["a=b", "customer=7", "timeout=1", "max_in_flight=x", "script=x"],
    "json": ["{}", "[1]", '"x"', '{"type":"function_call_output"}', "1e999", "[" * 3000],
}


TYPED = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
"""No command line can hold a null character."""


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command with its arguments, some of them strange, some too few or too many."""
    command = draw(st.sampled_from(sorted(COMMANDS)))
    kinds = ["path" if draw(st.integers(0, 5)) == 0 else "db", *COMMANDS[command]]
    kinds = kinds[: draw(st.sampled_from([len(kinds)] * 5 + [1, 2, 0]))]
    found = [command]
    for kind in kinds:
        found.append("agent.db" if kind == "db" else draw(value(kind)))
    if command in ("chat", "resume", "recover", "resolve") and draw(st.integers(0, 3)):
        found += ["--script", "script.json", "--agents", "desk:support"]
    strange = draw(st.integers(0, 9)) == 0
    options = sorted(OPTIONS) if strange else [one for one in OPTIONS if one in KNOWN[command]]
    flags = [one for one in FLAGS if strange or one in KNOWN[command]]
    for name in draw(st.lists(st.sampled_from(options), max_size=2)) if options else ():
        found += [name, draw(value(OPTIONS[name]))]
    return [*found, *(draw(st.lists(st.sampled_from(flags), max_size=2)) if flags else ())]


def value(kind: str) -> st.SearchStrategy[str]:
    """A value of a kind, or a strange one."""
    fine = st.sampled_from(VALUES[kind])
    return fine | fine | fine | fine | st.sampled_from(ODD) | TYPED


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which a conversation is over, and one waits for an approval."""
    path = tmp_path_factory.mktemp("made")
    desk = Desk(path)
    (path / "desk.py").write_text(AGENTS)
    (path / "noise").write_bytes(bytes(range(256)) * 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr(sys, "path", [str(path), *sys.path])
        assert desk.chat("c1", "One", {"text": "1"}).code == 0
        desk.chat("c2", "Add and pay", ADD_AND_PAY)
        export = desk.run("export", "agent.db")
    sys.modules.pop("desk", None)
    (path / "export.jsonl").write_text(export.out)
    (path / "script.json").write_text(json.dumps([{"text": "More."}] * 3))
    return path


@pytest.fixture
def desk(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Desk]:
    shutil.copytree(made, tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "desk"), *sys.path])
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "TURNLOG_DB", "TURNLOG_MODEL"):
        monkeypatch.delenv(name, raising=False)
    yield Desk(tmp_path / "desk")
    sys.modules.pop("desk", None)


def held(path: Path) -> tuple[list[str], int]:
    """The files that are there, and how many events the database has."""
    names = sorted(one.name for one in path.iterdir() if "agent.db-" not in one.name)
    connection = sqlite3.connect(path / "agent.db")
    try:
        return names, connection.execute("SELECT count(*) FROM events").fetchone()[0]
    finally:
        connection.close()


def is_told(line: Sequence[str], ran: Ran) -> None:
    """The exit code is documented, and an error is one line."""
    assert ran.code in {0, 1, 2, 3, 4, 5, 6}, ran
    if ran.code == 0:
        return
    said = [one for one in ran.err.splitlines() if one.strip()]
    assert "Traceback" not in ran.err, ran.err
    if ran.code > 1:
        assert said, (line, ran)
        usage = ran.err.startswith("Usage: ")
        ours = [one for one in said if one.startswith("error: ")]
        assert usage or len(ours) == 1 or ran.code == 4, ran.err


def test_a_command_line_is_done_or_refused_in_a_line(desk: Desk, made: Path) -> None:
    ran = Counter[str]()

    @cases(40)
    @given(lines(), st.sampled_from(["", "Hello\n", "y\n"]))
    def fuzz(line: list[str], typed: str) -> None:
        shutil.rmtree(desk.path)
        shutil.copytree(made, desk.path)
        os.chdir(desk.path)
        before = held(desk.path)
        found = desk.run(*line, input=typed)
        is_told(line, found)
        # With --resume, the call is settled before a provider is looked for.
        if found.code in (2, 3) and "--resume" not in line:
            # `chat` makes its database before it looks at the message.
            since = slice(1, None) if line[0] == "chat" else slice(None)
            assert held(desk.path)[since] == before[since], (line, found)
        ran[f"code {found.code}"] += 1

    fuzz()
    print(f"\nfuzz, command lines: {dict(ran)}")
    assert ran["code 0"] and ran["code 2"] and ran["code 3"]
