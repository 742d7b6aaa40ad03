"""The public names: sorted, few, lazy, and each of them there."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files

import pytest

import turnlog
import turnlog.errors

HEAVY = ("aiosqlite", "httpx2", "pydantic", "sqlalchemy", "turnlog_transports", "websockets")


@pytest.mark.parametrize("name", ["turnlog", "turnlog.testing"])
def test_the_names_are_sorted_and_each_can_be_had(name: str) -> None:
    module = import_module(name)
    names: list[str] = module.__all__
    assert names == sorted(names)
    assert len(names) <= 30
    assert dir(module) == names
    for one in names:
        assert getattr(module, one) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


def test_importing_loads_nothing_heavy() -> None:
    code = f"import sys, turnlog; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert found.stdout.strip() == "[]"


def test_the_entry_points_resolve() -> None:
    transports = entry_points(group="turnlog.transports")
    assert {"auto", "http", "replay", "websocket"} <= set(transports.names)
    for entry in transports:
        assert callable(entry.load())
    (command,) = entry_points(group="console_scripts", name="turnlog")
    assert callable(command.load())


@pytest.mark.parametrize("package", ["turnlog", "turnlog_transports", "turnlog_migrations"])
def test_the_packages_are_typed(package: str) -> None:
    assert (files(package) / "py.typed").is_file()


def drawn() -> dict[str, str]:
    """The tree at the top of errors.py: each class and the one above it."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(turnlog.errors).split('"""')[1].splitlines():
        match = re.match(r"    ((?:[│ ]   )*)(?:[├└]── )?([A-Z]\w+)(?:  |$)", line)
        if match is None:
            continue
        depth = len(match[1]) // 4 + ("── " in line)
        above[depth:] = [match[2]]
        if depth:
            found[match[2]] = above[depth - 1]
    return found


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    real = {
        name: next(base.__name__ for base in one.__bases__)
        for name, one in inspect.getmembers(turnlog.errors, inspect.isclass)
        if one.__module__ == "turnlog.errors" and one is not turnlog.errors.TurnlogError
    }
    assert drawn() == real
    assert len(real) > 20


def test_every_error_is_documented() -> None:
    for _, one in inspect.getmembers(turnlog.errors, inspect.isclass):
        assert (one.__doc__ or "").strip()
