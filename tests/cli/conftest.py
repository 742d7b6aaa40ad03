"""A desk for each test: a directory of its own, where `--agents desk:support` is found."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from turnlog.store import migrate

from .given import AGENTS, Desk


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, to be copied: making one takes longer than most tests."""
    path = tmp_path_factory.mktemp("empty") / "agent.db"
    migrate(path)
    return path


@pytest.fixture(scope="session")
def once(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which `c1` has one turn, to be copied."""
    desk = Desk(tmp_path_factory.mktemp("once"))
    shutil.copy(empty, desk.db)
    script = desk.script({"text": "1"})
    ran = desk.run("chat", desk.db, "c1", "One", "--script", script, "--model", "gpt-5.5")
    assert ran.code == 0, ran.err
    return Path(desk.db)


@pytest.fixture
def answered(desk: Desk, once: Path) -> Desk:
    """A desk on whose database `c1` was asked `One` and answered `1`."""
    shutil.copy(once, desk.db)
    return desk


@pytest.fixture
def desk(tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Desk]:
    shutil.copy(empty, tmp_path)
    (tmp_path / "desk.py").write_text(AGENTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "TURNLOG_DB", "TURNLOG_MODEL"):
        monkeypatch.delenv(name, raising=False)
    yield Desk(tmp_path)
    sys.modules.pop("desk", None)
