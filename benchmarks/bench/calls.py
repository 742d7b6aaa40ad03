"""What a traced measurement wrote and synced, from strace's record of its system calls.

The one rule: only what lies between the marks of `bench.subject.span` counts, in all threads, and
a call counts once, where it begins.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath

from .subject import BEGINS, ENDS

TRACE = ("strace", "-f", "-y", "-s", "16", "-e", "trace=fsync,fdatasync,write,pwrite64", "-o")

# `123 pwrite64(5</tmp/a.db-wal>, "..."..., 24, 32 <unfinished ...>`: descriptor, path, arguments.
_CALL = re.compile(r"^\d+\s+(\w+)\(\d+<([^>]*)>(.*)$")
_WRITTEN = re.compile(r'^, "(?:\\.|[^"\\])*"(?:\.\.\.)?, (\d+)')
_FILES = (
    ("wal_written_bytes", ("-wal",)),
    ("journal_written_bytes", ("-journal",)),
    ("file_written_bytes", (".db", ".sqlite", ".sqlite3")),
)


def count(lines: Iterable[str], turns: int) -> dict[str, float]:
    """Figures for each turn: `fsyncs`, and bytes written to a database and to its journals."""
    found: Counter[str] = Counter()
    inside = False
    for line in lines:
        call = _CALL.match(line)
        if call is None:
            continue
        name, path, rest = call.groups()
        if name.startswith("f"):
            found["fsyncs"] += inside
        elif path == "/dev/null":
            inside = (inside or BEGINS.decode() in rest) and ENDS.decode() not in rest
        elif inside:
            found[_kind(path)] += _length(rest)
    wanted = ("fsyncs", *(kind for kind, _ in _FILES))
    return {name: found[name] / turns for name in wanted}


def _kind(path: str) -> str:
    file = PurePath(path).name
    return next((kind for kind, ends in _FILES if file.endswith(ends)), "")


def _length(rest: str) -> int:
    written = _WRITTEN.match(rest)
    return int(written[1]) if written else 0
