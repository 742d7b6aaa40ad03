"""The template of a transport works where a stranger puts it, and is found when it is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from turnlog_transports import fallback, http, websocket

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "examples" / "transport_template"
PAGE = ROOT / "docs" / "transports.md"
SOURCES = [ROOT / name for name in ("engine", "transports", "migrations")]

OPEN = """
import asyncio, turnlog
from turnlog.errors import ConfigurationError

async def main():
    async with turnlog.open("agent.db", transport="example", api_key="any") as log:
        print(log.__class__.__name__)
    try:
        async with turnlog.open("agent.db", transport="example", options={"speed": 9}):
            pass
    except ConfigurationError as error:
        print(error)

asyncio.run(main())
"""


PUBLIC = {f"turnlog.{name}" for name in ("ports", "errors", "canonical", "state", "testing")}
IMPORT = re.compile(r"^\s*(?:from|import) (turnlog(?:_transports)?[.\w]*)", re.MULTILINE)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The template, as somebody has copied it out of this repository."""
    left = shutil.ignore_patterns("__pycache__", ".*")
    return Path(shutil.copytree(TEMPLATE, tmp_path / "mine", ignore=left))


def run(*arguments: str, cwd: Path, path: tuple[Path, ...] = ()) -> str:
    """What a program of this interpreter says, which must succeed."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, *SOURCES)))}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        encoding="utf-8",
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_template_passes_its_tests_and_the_contract(copied: Path) -> None:
    said = run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=copied)
    assert " passed" in said
    assert not {"failed", "skipped", "xfailed"} & set(said.split())


def test_an_installed_transport_is_found_by_its_name(copied: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--no-compile", "--quiet")
    run(
        *("-m", "pip", "--disable-pip-version-check", "install"),
        *(*offline, "--target", str(site), str(copied)),
        cwd=tmp_path,
    )
    assert (site / "turnlog_transport_example" / "py.typed").exists()
    said = run("-c", OPEN, cwd=tmp_path, path=(site,))
    assert said.splitlines() == ["Log", "the transport 'example' does not know speed"]


def test_the_template_imports_what_the_page_allows() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert not {name for name in PUBLIC if f"`{name}`" not in page}
    for path in (TEMPLATE / "src").rglob("*.py"):
        assert set(IMPORT.findall(path.read_text(encoding="utf-8"))) <= PUBLIC, path


def test_the_page_names_every_option() -> None:
    page = PAGE.read_text(encoding="utf-8")
    replay = {"script", "transcript", "checks", "seed"}
    options = fallback.OPTIONS | http.OPTIONS | websocket.OPTIONS | replay
    assert not {name for name in options if f"`{name}`" not in page}
