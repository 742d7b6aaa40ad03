"""Imports form a ladder (design section 2): a module imports what is below it, and nothing else.

Imports are read from the source, so that those under `TYPE_CHECKING` and inside functions count.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    "turnlog": ROOT / "engine",
    "turnlog_transports": ROOT / "transports",
    "turnlog_migrations": ROOT / "migrations",
}

LADDER: list[set[str]] = [
    # 0: values and their bytes
    {"errors", "canonical", "making", "events", "items", "item", "record", "secrets"},
    # 1: the head and its fold
    {"tail", "head", "fold_context", "fold_requests", "fold_calls", "state"},
    # 2: what is cached beside the log
    {"index"},
    # 3: what to do, as pure functions
    {"commands", "decide_calls", "decide", "diff", "plan", "recovery"},
    # 4: the edges as protocols, and what is told
    {"ports", "updates", "outcomes", "reception", "narrator", "inputs", "draft"},
]
"""The rungs of the engine; any other module is above them, and `cli` is above all."""

CORE = set[str]().union(*LADDER)
ON_ONE_RUNG = {
    "record": {"errors", "canonical", "making", "events"},
    "items": {"errors", "canonical"},
    "item": {"errors", "canonical", "making", "events", "items"},
    "secrets": {"errors", "canonical"},
    "events": {"canonical"},
    "canonical": {"errors"},
    "making": set[str](),
    "errors": set[str](),
}
"""What the modules of rung 0 import of each other."""

PURE = CORE - {"secrets", "inputs"}
FOREIGN = {
    "pydantic",
    "sqlalchemy",
    "aiosqlite",
    "alembic",
    "websockets",
    "httpx2",
    "rich",
    "typer",
}
CLOCKS = {"time", "datetime", "random", "secrets", "uuid", "asyncio", "threading", "os", "sqlite3"}
"""Where time, randomness and the world come from; they are arguments of the core (law 14)."""

STORE_MAY_IMPORT = {
    "errors",
    "canonical",
    "events",
    "record",
    "items",
    "item",
    "state",
    "index",
    "ports",
}
TRANSPORTS_MAY_IMPORT = {
    "turnlog",
    "turnlog.canonical",
    "turnlog.errors",
    "turnlog.events",
    "turnlog.items",
    "turnlog.ports",
    "turnlog.record",
    "turnlog.secrets",
    "turnlog.state",
    "turnlog.testing",
}


def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its full name."""
    root = SOURCES[package]
    found: dict[str, Path] = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


ALL = {name: path for package in SOURCES for name, path in modules(package).items()}


@cache
def imports(name: str) -> frozenset[str]:
    """The full names that a module imports, wherever in it."""
    path = ALL[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= set(_from(node, package))
    return frozenset(found - {name})


def _from(node: ast.ImportFrom, package: str) -> Iterator[str]:
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    base = ".".join([*above, *([node.module] if node.module else [])])
    for alias in node.names:
        # `from . import events` names a module, `from .events import Fork` something in one.
        full = f"{base}.{alias.name}"
        yield full if full in ALL else base


def inner(name: str) -> set[str]:
    """The modules of this project that a module imports."""
    return {found for found in imports(name) if found in ALL}


def short(name: str) -> str:
    return name.removeprefix("turnlog.")


def rung(name: str) -> int:
    """Where a module of the engine stands; whatever is not in the table is above it."""
    for height, names in enumerate(LADDER):
        if short(name) in names:
            return height
    return len(LADDER) + (short(name) == "cli")


@pytest.mark.parametrize("name", sorted(modules("turnlog")))
def test_a_module_imports_what_is_below_it(name: str) -> None:
    """The package itself exports lazily, and may name anything."""
    if name == "turnlog":
        return
    higher = {other for other in inner(name) - {"turnlog"} if rung(other) > rung(name)}
    assert not higher, f"{name} imports upwards"


@pytest.mark.parametrize("name", sorted(ON_ONE_RUNG))
def test_rung_0_has_an_order_of_its_own(name: str) -> None:
    assert {short(other) for other in inner(f"turnlog.{name}")} <= ON_ONE_RUNG[name]


def test_the_table_names_modules_that_exist() -> None:
    assert {f"turnlog.{name}" for name in CORE} <= ALL.keys()


def test_nothing_imports_in_a_circle() -> None:
    graph = {name: inner(name) for name in ALL}
    while leaves := {name for name, needs in graph.items() if not needs & graph.keys()}:
        for name in leaves:
            del graph[name]
    assert not graph, f"these import each other: {sorted(graph)}"


@pytest.mark.parametrize("name", sorted(modules("turnlog")))
def test_the_engine_never_imports_a_transport(name: str) -> None:
    """They are found by entry point, so that a third party's is as good as ours."""
    assert not any(other.split(".")[0] == "turnlog_transports" for other in imports(name))


@pytest.mark.parametrize("name", sorted(modules("turnlog_transports")))
def test_transports_import_public_names_only(name: str) -> None:
    engine = {other for other in imports(name) if other.split(".")[0] == "turnlog"}
    allowed = TRANSPORTS_MAY_IMPORT | {o for o in engine if o.startswith("turnlog.testing.")}
    assert engine <= allowed, f"{name} reaches into the engine"


def stores() -> list[str]:
    return sorted(name for name in ALL if name.startswith("turnlog.store"))


@pytest.mark.parametrize("name", stores())
def test_the_store_imports_values_and_ports(name: str) -> None:
    outside = {short(other) for other in inner(name) if not other.startswith("turnlog.store")}
    assert outside <= STORE_MAY_IMPORT | {"turnlog_migrations"}


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_core_is_pure(name: str) -> None:
    """Laws 2 and 14: no I/O, no clock, no randomness, no framework."""
    top = {found.split(".")[0] for found in imports(f"turnlog.{name}")}
    assert not top & FOREIGN
    assert name == "draft" or not top & CLOCKS


def test_import_turnlog_loads_nothing_heavy() -> None:
    """The package exports lazily: who only wants an error class pays for an error class."""
    code = "import sys, turnlog; print(*sorted(name.split('.')[0] for name in sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "engine")},
    )
    loaded = set(ran.stdout.split())
    assert "turnlog" in loaded
    assert not loaded & (FOREIGN | {"turnlog_transports", "turnlog_migrations"})
