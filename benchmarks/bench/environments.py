"""Environments of the peers: one under `.bench/` for each file in `benchmarks/requirements`.

The one rule: what the file pins is what is installed, and it is built again only when the file or
the interpreter changed. A peer that cannot be installed is named, and costs its own rows only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent
REQUIREMENTS = BENCHMARKS / "requirements"
ROOT = BENCHMARKS.parent / ".bench"
_STAMP = "requirements.txt"
_WRONG = ("error", "\N{MULTIPLICATION SIGN}")


class Unavailable(Exception):
    """Something that a measurement needs cannot be had; the text says what, and why."""


def names() -> tuple[str, ...]:
    """The environments that there are."""
    return tuple(sorted(file.stem for file in REQUIREMENTS.glob("*.txt")))


def interpreter(
    name: str,
    *,
    requirements: Path = REQUIREMENTS,
    root: Path = ROOT,
    say: Callable[[str], None] = print,
) -> Path:
    """The Python of an environment, which is built where it is not there; "" is this one.

    Raises Unavailable.
    """
    if not name:
        return Path(sys.executable)
    file, place = requirements / f"{name}.txt", root / name
    try:
        pinned = file.read_text()
    except FileNotFoundError:
        raise Unavailable(f"environment {name}: there is no {file.name}") from None
    if not _is_built(place, pinned):
        say(f"Building .bench/{name} from {file.name}")
        _build(name, file, place)
        (place / _STAMP).write_text(_stamp(pinned))
    return place / "bin" / "python"


def _stamp(pinned: str) -> str:
    return f"# for Python {sys.version.split()[0]}\n{pinned}"


def _is_built(place: Path, pinned: str) -> bool:
    stamp = place / _STAMP
    return stamp.is_file() and stamp.read_text() == _stamp(pinned)


def _build(name: str, file: Path, place: Path) -> None:
    python = place / "bin" / "python"
    uv = _uv()
    if uv is not None:
        make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(place)]
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    else:
        make = [sys.executable, "-m", "venv", "--clear", str(place)]
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(name, make)
    _run(name, [*install, "-r", str(file)])


def _uv() -> str | None:
    """The uv to use: what UV says, empty for none, else the one on the path that runs."""
    found = shutil.which(os.environ.get("UV", "uv") or "-")
    if found is None or subprocess.run([found, "--version"], capture_output=True).returncode:
        return None
    return found


def _run(name: str, command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"environment {name}: {_reason(done.stderr or done.stdout)}")


def _reason(said: str) -> str:
    """The line of an installer's words that says what is wrong, and the next, which says why."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    wrong = [place for place, line in enumerate(lines) if line.lower().startswith(_WRONG)]
    place = wrong[-1] if wrong else -1
    return " ".join(lines[place:][:2]) or "it said nothing"
