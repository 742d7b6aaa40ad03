"""How much memory this process holds, and whether that grows.

The one rule: a line through what was measured, by least squares, and nothing smoothed before.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression

_STATM = Path("/proc/self/statm")
_DESCRIPTORS = Path("/proc/self/fd")

Sample = tuple[float, float]
"""Seconds, and resident MiB."""


@dataclass(frozen=True, slots=True)
class Growth:
    """A line: where it begins, in MiB, and how much it rises in a minute."""

    begins: float
    a_minute: float

    @property
    def share(self) -> float:
        """How much of what there was at the beginning is added in a minute."""
        return self.a_minute / self.begins


def growth(samples: Sequence[Sample], *, after: float) -> Growth:
    """The line through the samples that were taken after so many seconds."""
    kept = [sample for sample in samples if sample[0] >= after]
    times, sizes = zip(*kept, strict=True)
    line = linear_regression(times, sizes)
    return Growth(line.intercept + line.slope * times[0], line.slope * 60)


def resident() -> float | None:
    """Resident MiB of this process; None where the system does not say."""
    if not _STATM.exists():
        return None
    pages = int(_STATM.read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


class _Mallinfo(ctypes.Structure):
    """What glibc tells of its heaps, in its order."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )

    arena: int
    hblkhd: int
    uordblks: int


@dataclass(frozen=True, slots=True)
class Heap:
    """MiB in use by libraries and by Python's larger objects, and MiB held for them.

    What is in use is exact: what was freed does not count. What is held is, in part, free and kept
    for what comes next, and it follows the most that was ever in use.
    """

    in_use: float
    held: float


def heap() -> Heap | None:
    """The heaps of all threads, and so SQLite's memory too; None where nobody says."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return None
    ask.restype = _Mallinfo
    told = ask()
    assert isinstance(told, _Mallinfo)
    in_use, held = told.uordblks + told.hblkhd, told.arena + told.hblkhd
    return Heap(in_use / (1 << 20), held / (1 << 20))


def files() -> int | None:
    """How many files and sockets this process has open; None where the system does not say."""
    # One of them is the directory itself, while it is read.
    return len(list(_DESCRIPTORS.iterdir())) - 1 if _DESCRIPTORS.is_dir() else None


def sockets() -> list[str] | None:
    """The sockets that this process has open; None where the system does not say."""
    if not _DESCRIPTORS.is_dir():
        return None
    found: list[str] = []
    for each in _DESCRIPTORS.iterdir():
        try:
            target = os.readlink(each)
        except FileNotFoundError:  # the directory itself, which was open while it was read
            continue
        if target.startswith("socket:"):
            found.append(target)
    return sorted(found)
