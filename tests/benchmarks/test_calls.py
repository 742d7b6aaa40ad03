"""System calls count where they begin, between the marks, for each kind of file."""

from __future__ import annotations

from bench.calls import count

BEGINS = '7  write(6</dev/null>, "span begins", 11) = 11'
ENDS = '7  write(6</dev/null>, "span ends", 9) = 9'
TRACE = f"""
7  pwrite64(4</tmp/a.db-wal>, "before"..., 4096, 32) = 4096
{BEGINS}
7  pwrite64(4</tmp/a.db-wal>, "\\0\\"\\2, 5"..., 24, 8272) = 24
8  pwrite64(4</tmp/a.db-wal>, "\\r\\0"..., 4096, 8296 <unfinished ...>
7  write(9<socket:[44]>, "\\1\\0", 2) = 2
8  <... pwrite64 resumed>) = 4096
8  fdatasync(4</tmp/a.db-wal>) = 0
8  pwrite64(3</tmp/a.db>, "SQLite format 3\\0"..., 100, 0) = 100
8  pwrite64(5</tmp/a.db-journal>, "x", 12, 0) = 12
8  pwrite64(5</var/tmp/etilqs_1>(deleted), "x"..., 8, 0) = 8
8  fsync(3</tmp/a.db>) = 0
{ENDS}
7  fdatasync(4</tmp/a.db-wal>) = 0
7  +++ exited with 0 +++
"""


def test_only_what_lies_between_the_marks_counts_and_it_counts_once() -> None:
    assert count(TRACE.splitlines(), turns=2) == {
        "fsyncs": 1,
        "wal_written_bytes": 2060,
        "file_written_bytes": 50,
        "journal_written_bytes": 6,
        "temporary_written_bytes": 4,
    }


def test_stretches_add_up() -> None:
    stretch = [BEGINS, "7  fsync(3</tmp/a.db>) = 0", ENDS]

    assert count([*stretch, *stretch], turns=1)["fsyncs"] == 2
