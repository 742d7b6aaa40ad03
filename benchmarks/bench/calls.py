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
_WRITTEN = re.compile(r'^(?:\(deleted\))?, "(?:\\.|[^"\\])*"(?:\.\.\.)?, (\d+)')
_FILES = {
    "wal_written_bytes": re.compile(r"-wal$"),
    "journal_written_bytes": re.compile(r"-journal$"),
    "file_written_bytes": re.compile(r"\.(db|sqlite3?)$"),
    "temporary_written_bytes": re.compile(r"^etilqs_"),  # what SQLite names its temporary files
}


def count(lines: Iterable[str], turns: int) -> dict[str, float]:
    """Figures for each turn: `fsyncs`, and bytes written to each kind of a database's files."""
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
    return {name: found[name] / turns for name in ("fsyncs", *_FILES)}


def _kind(path: str) -> str:
    file = PurePath(path).name
    return next((kind for kind, named in _FILES.items() if named.search(file)), "")


def _length(rest: str) -> int:
    written = _WRITTEN.match(rest)
    return int(written[1]) if written else 0
