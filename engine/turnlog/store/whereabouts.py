"""Whether the files of a database are still where they were when it was opened.

The one rule: nothing is read from and nothing written to a file that has another name by now. A
file that was removed or moved stays readable and writable for those who have it open, and so what
they write would be lost; and two processes with two write-ahead logs, or two of the files that
hold its locks, would write over each other.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import StoreMoved

BESIDE = ("-wal", "-shm")
"""What SQLite keeps beside a file as long as anybody has it open."""

Identity = tuple[int, int]


class Whereabouts:
    """The files of one database, by device and inode; asked from any thread.

    What is beside the file comes and goes with those who have it open, and so it is known only
    from `settle` to `leave`.
    """

    def __init__(self, path: Path) -> None:
        self._name = str(path)
        # SQLite follows links, and keeps what is beside a file where the file really is.
        self._path = os.path.realpath(path)
        self._file = _identity(self._name)
        self._beside: dict[str, Identity | None] = {}

    def check(self) -> None:
        """Raise StoreMoved where a file is not the one that was opened."""
        if self._file is None or _identity(self._name) != self._file:
            raise StoreMoved(
                f"the database {self._name} was removed, moved or replaced while it was open, and"
                " nothing was written: put it back, or open the log again"
            )
        for path, identity in self._beside.items():
            if _identity(path) != identity:
                raise StoreMoved(
                    f"{path} was removed or replaced while the database was open, and nothing was"
                    " written: close the log, which saves what is in it, and open it again"
                )

    def settle(self) -> None:
        """Take note of what is beside the file now; raises StoreMoved."""
        if not self._beside:
            self._beside = {path: _identity(path) for path in (self._path + end for end in BESIDE)}
        self.check()

    def leave(self) -> None:
        """Forget what is beside the file, unless it is gone: then nobody may begin anew."""
        if all(_identity(path) == identity for path, identity in self._beside.items()):
            self._beside = {}

    def free(self) -> bool:
        """Whether what is in the write-ahead log can be moved to the file without harm to others.

        Where it is gone, this is what saves it. Where somebody has begun another in its place, it
        would be moved over what they write.
        """
        if _identity(self._name) not in (None, self._file):
            return False
        wal, shm = (self._path + end for end in BESIDE)
        begun = _identity(wal) not in (None, self._beside.get(wal)) and _holds(wal)
        return not begun and _identity(shm) == self._beside.get(shm)


def _holds(path: str) -> bool:
    """Whether there is anything in a file."""
    return os.path.isfile(path) and os.path.getsize(path) > 0


def _identity(path: str) -> Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
