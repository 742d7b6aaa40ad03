"""The Python of the README and the docs runs as it stands, and what they list is there."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import turnlog
from turnlog.testing import Reply, call, scripted, text
from turnlog_transports.simulator import Simulator

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TOOLS = ROOT / "docs" / "tools.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[str]:
    """The Python of a page, block by block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


async def play(page: Path, source: Sequence[str], script: Sequence[Reply], folder: Path) -> None:
    """Run blocks one behind the other, with an open `log` that answers from a script."""
    model = scripted(script)
    async with turnlog.open(str(folder / "agent.db"), transport=model) as log:
        namespace: dict[str, object] = {"turnlog": turnlog, "log": log, "__name__": page.stem}
        for block in source:
            code = compile(block, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            running: object = eval(code, namespace)
            if inspect.isawaitable(running):
                await running
    assert model.left == 0, f"{page.name} asks for less than its script has"


def test_the_first_screen_is_hello_and_runs(tmp_path: Path) -> None:
    hello = (ROOT / "examples" / "hello.py").read_text(encoding="utf-8")
    first = blocks(README)[0]
    assert first == hello.split('"""', 2)[2].lstrip("\n")
    assert len([line for line in first.splitlines() if line.strip()]) <= 20
    done = subprocess.run(
        [sys.executable, "-c", first], cwd=tmp_path, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("It left on Monday.")


async def test_the_quick_tour_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = [
        call("refund", order="7", amount=20.0),
        text("20 euros are on their way."),
        text('{"number": 7, "amount": 20.0}'),
        call("refund", order="8", amount=900.0),
        text("900 euros are on their way."),
        text("You are welcome."),
        text("Order 9 is on its way.").but(stall_after=2),
        text("I have stopped."),
        text("Thank you for asking."),
        text("Any shop that sells lamps takes it back."),
        text("At any shop that sells lamps."),
    ]
    await play(README, blocks(README)[1:], script, tmp_path)
    said = capsys.readouterr().out
    assert "completed 20 euros are on their way." in said
    assert "refund {'order': '8', 'amount': 900.0} approval" in said
    assert "cancelled completed" in said
    assert "Any shop that sells lamps takes it back." in said


async def test_the_page_on_tools_runs(tmp_path: Path) -> None:
    script = [
        call("transfer", to="Ben", amount=900.0),
        text("Done."),
        call("ask_the_lab", sample="12"),
        text("There is little lead in it."),
        text("Once upon a time."),
        call("pay_back", order="7"),
        text("Done."),
    ]
    await play(TOOLS, blocks(TOOLS), script, tmp_path)


async def test_the_command_line_of_the_readme_runs(tmp_path: Path) -> None:
    source = README.read_text(encoding="utf-8")
    serve, chat, *read, restore = re.findall(r"^\$ (turnlog .*)$", source, flags=re.MULTILINE)
    assert serve == "turnlog serve-simulator --port 8080 &"
    command = shutil.which("turnlog", path=str(Path(sys.executable).parent))

    async def run(line: str) -> None:
        process = await asyncio.create_subprocess_shell(
            line.replace("turnlog", str(command), 1), cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, (line, said)

    async with Simulator() as simulator:
        await run(chat.replace("http://127.0.0.1:8080/v1", simulator.base_url))
    await asyncio.gather(*map(run, read))
    await run(restore)


@pytest.mark.parametrize("module", ["bench", "bench.stages", "bench.subject"])
def test_what_the_page_of_benchmarks_names_says_what_it_takes(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert f"python -m {module}" in (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert done.stdout.startswith(f"usage: python -m {module} ")


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_page_of_events_is_current() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "events_md.py", "--check"])
    assert done.returncode == 0, "run `python scripts/events_md.py`"
