"""A cache of its own for each test, small weights, and a stand-in for llama.cpp."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from .given import Line, Small, fake_pip, small, stand_in


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, wherever it is on this system."""
    found = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(found))
    monkeypatch.setenv("LOCALAPPDATA", str(found))
    monkeypatch.setenv("HOME", str(found))
    return found


@pytest.fixture
def tiny(tmp_path: Path, cache: Path) -> Small:
    return small(tmp_path)


@pytest.fixture
def llamacpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """The stand-in is what is installed, here and in child processes."""
    found = stand_in(tmp_path)
    before = os.environ.get("PYTHONPATH")
    both = f"{found}{os.pathsep}{before}" if before else str(found)
    monkeypatch.setenv("PYTHONPATH", both)
    monkeypatch.setattr(sys, "path", [str(found), *sys.path])
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    yield found
    sys.modules.pop("localplugin", None)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What pip takes packages from: a directory, and no network."""
    found = tmp_path / "wheels"
    found.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(found))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PATH", str(fake_pip(tmp_path)), prepend=os.pathsep)
    return found


@pytest.fixture
def line() -> Generator[Line]:
    found = Line()
    yield found
    found.close()
