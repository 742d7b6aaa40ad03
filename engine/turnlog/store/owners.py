"""Owners on one machine: each open store holds a lock on a file of its own.

The one rule: an owner is alive as long as its lock is held, and the operating system lets go of
the lock when the process dies, however it dies. No clock is read, and nobody cleans up.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import InvalidInput, StoreReadOnly, StoreUnavailable

if sys.platform == "win32":  # pragma: no cover - the other branch runs on every other system
    import msvcrt

    def _lock(file: int, *, shared: bool = False) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def _when_forked(call: Callable[[], None]) -> None:
        """Nothing is forked here."""

else:
    import fcntl

    def _when_forked(call: Callable[[], None]) -> None:
        os.register_at_fork(after_in_child=call)

    def _lock(file: int, *, shared: bool = False) -> None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


SUFFIX = ".lock"
OPENING = "opening"
_HELD = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK})
"""How the operating system says that somebody else holds a lock."""
_READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""How it says that nothing can be written in a directory."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


class LockFile:
    """A file that this process has locked, until it lets go or dies."""

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._file: int | None = file
        _held.add(self)

    @classmethod
    def take(cls, path: Path) -> LockFile | None:
        """Lock a file, making it where it is absent; None where somebody else holds it.

        Raises OSError where the file cannot be made, or files cannot be locked there.
        """
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(file)
        except OSError as error:
            os.close(file)
            if error.errno in _HELD:
                return None
            raise
        return cls(path, file)

    def release(self, *, remove: bool = False) -> None:
        """Let go of the lock, and remove the file where nobody needs it any more. Idempotent."""
        if self._file is None:
            return
        file, self._file = self._file, None
        if remove:
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(file)
        _held.discard(self)

    @property
    def owner(self) -> str:
        """Whose lock it is."""
        return self._path.stem

    def forget(self) -> None:
        """Close a forked child's copy: the lock must go when the parent dies."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


_held: weakref.WeakSet[LockFile] = weakref.WeakSet()


def after_fork() -> None:
    """Let a child let go of its parent's locks."""
    for lock in list(_held):
        lock.forget()


_when_forked(after_fork)


def abandon(owner: str) -> None:
    """Let go of an owner's lock as the operating system does when its process dies."""
    for lock in list(_held):
        if lock.owner == owner:
            lock.forget()


class CannotLock(StoreUnavailable):
    """No lock file can be made or locked."""


def check_name(owner: str) -> None:
    """Raise InvalidInput where a lock file cannot be named after an owner."""
    if owner == OPENING or not _NAME.fullmatch(owner):
        raise InvalidInput(f"an owner is named with letters, digits, - and _, not {owner!r}")


class Owners:
    """The owners of one database, as lock files in the directory beside it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _path(self, owner: str) -> Path:
        return self._directory / f"{owner}{SUFFIX}"

    def enter(self, owner: str) -> LockFile:
        """Come alive as an owner.

        Raises InvalidInput (that owner lives already, or its name is no file name),
        StoreReadOnly and StoreUnavailable (the lock file cannot be made).
        """
        check_name(owner)
        lock = self._take(owner)
        if lock is None:
            raise InvalidInput(f"the owner {owner!r} is open already")
        return lock

    def opening(self) -> LockFile | None:
        """The lock that whoever opens the database holds meanwhile; None while another has it.

        Raises StoreReadOnly and StoreUnavailable.
        """
        return self._take(OPENING)

    def _take(self, name: str) -> LockFile | None:
        try:
            self._directory.mkdir(exist_ok=True)
            return LockFile.take(self._path(name))
        except OSError as error:
            if error.errno in _READ_ONLY:
                said = f"cannot write in {self._directory}: {error.strerror}"
                raise StoreReadOnly(said) from error
            raise CannotLock(
                f"cannot lock in {self._directory}: {error.strerror}; where no file can be locked,"
                " open the log with owners='beats'"
            ) from error

    def alive(self, owner: str) -> bool:
        """Whether an owner is known to live; one whose lock file is absent or free does not."""
        try:
            file = os.open(self._path(owner), os.O_RDWR)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        try:
            _lock(file, shared=True)  # so that two who ask do not take each other for the owner
        except OSError:
            return True
        finally:
            os.close(file)
        return False

    def known(self) -> Iterator[str]:
        """Everybody who has a lock file, alive or dead."""
        with contextlib.suppress(OSError):
            names = (path.stem for path in self._directory.glob(f"*{SUFFIX}"))
            yield from (name for name in names if name != OPENING)

    def bury(self, owner: str) -> None:
        """Remove the lock file of a dead owner that holds no lease."""
        with contextlib.suppress(OSError):
            lock = LockFile.take(self._path(owner))
            if lock is not None:
                lock.release(remove=True)
