"""What the command says of itself: documented, quick to come, and nobody else's burden."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from turnlog.cli.app import app, exit_code
from turnlog.errors import (
    Busy,
    ImportFailed,
    InvalidInput,
    NotFound,
    ProviderError,
    StoreReadOnly,
    TurnFailed,
    TurnlogError,
    VersionConflict,
)

ROOT = Path(__file__).resolve().parents[2]


def imported(code: str) -> set[str]:
    """The modules that are loaded behind a piece of code."""
    told = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_document_is_what_the_help_says() -> None:
    # `python scripts/cli_docs.py` brings it up to date.
    spec = spec_from_file_location("cli_docs", ROOT / "scripts" / "cli_docs.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(["--check"]) == 0


def test_the_library_needs_nothing_of_the_command() -> None:
    found = imported("import turnlog, turnlog.log, turnlog.agent, turnlog.testing")
    assert not {name for name in found if name.split(".")[0] in ("typer", "rich")}
    assert not {name for name in found if name.startswith("turnlog.cli")}


def test_help_loads_neither_the_engine_nor_what_draws() -> None:
    found = imported("import turnlog.cli.app")
    heavy = {"rich", "asyncio", "sqlalchemy", "pydantic", "websockets", "httpx2", "turnlog.log"}
    assert not found & heavy


def test_every_command_has_a_short_help() -> None:
    for command in app.registered_commands:
        doc = (command.callback.__doc__ or "") if command.callback is not None else ""
        summary = doc.splitlines()[0]
        assert summary.endswith(".") and len(summary) < 45, summary


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound(), 3),
        (InvalidInput(), 2),
        (Busy(""), 4),
        (VersionConflict("c", expected=1, actual=2), 4),
        (StoreReadOnly(), 5),
        (TurnFailed(""), 1),
        (ProviderError(), 6),
        (ImportFailed("", line=3), 1),
        (TurnlogError(), 1),
    ],
)
def test_exit_codes(error: TurnlogError, code: int) -> None:
    assert exit_code(error) == code


def test_the_command_is_installed() -> None:
    (script,) = entry_points(group="console_scripts", name="turnlog")
    assert script.value == "turnlog.cli:main"


def test_the_command_as_a_process() -> None:
    code = "import sys; from turnlog.cli import main; sys.argv = ['turnlog', '--version']; main()"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("turnlog ")
