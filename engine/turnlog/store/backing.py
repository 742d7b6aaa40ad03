"""Copying a database that is in use, as it is at one moment.

The one rule: the copy is put in its place whole or not at all, and is one state of the database,
whoever writes meanwhile: nobody is held up, and what is committed later is not in it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from ..errors import InvalidInput
from .faults import FAILED, primary, translate


def back_up(address: str, name: str, target: Path) -> None:
    """Copy the database at `address` to a new file.

    Raises InvalidInput where there is something at the target or it cannot be written,
    StoreUnavailable where its disk is full, and that and StoreCorrupt where the database cannot
    be read.
    """
    if target.exists():
        raise InvalidInput(f"{target} is there already: choose a new file for the copy")
    part = target.with_name(f"{target.name}.part")
    try:
        part.unlink(missing_ok=True)
        part.touch(mode=0o600, exist_ok=False)
        _copy(address, name, part, str(target))
        _settle(part)
        os.link(part, target)  # unlike a move, it does not replace what came meanwhile
        _settle(target.parent)
    except FileExistsError as error:
        raise InvalidInput(f"{target} is there already: choose a new file for the copy") from error
    except OSError as error:
        raise InvalidInput(f"{target} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _copy(address: str, name: str, part: Path, target: str) -> None:
    source = None
    copy = sqlite3.connect(part, isolation_level=None)
    try:
        source = sqlite3.connect(address, uri=True, isolation_level=None)
        # In one step: in several, it would begin anew whenever somebody writes.
        source.backup(copy, pages=-1)
    except FAILED as error:
        full = primary(error) == sqlite3.SQLITE_FULL  # what is read does not grow
        raise translate(error, target if full else name) from error
    finally:
        copy.close()
        if source is not None:
            source.close()


def _settle(path: Path) -> None:
    """Have what was written survive a power cut."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
