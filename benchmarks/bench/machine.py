"""The machine that figures come from, as far as they depend on it.

The one rule: nothing here tells one machine of a kind from another, because results are published.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PROBES = 200
BLOCK = b"\x00" * 4096


@dataclass(frozen=True, slots=True)
class Machine:
    """What was measured on. `sync_ms` is what a write of 4 KiB and its fdatasync take.

    It was looked at several times in a run: each number is the median of 200.
    """

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    file_system: str
    sync_ms: tuple[float, ...]

    @property
    def label(self) -> str:
        """A short name, for files."""
        words = re.sub(r"\(.*?\)|@.*|\bcpu\b|\bprocessor\b", " ", self.cpu.lower())
        return "-".join([*re.findall(r"[a-z0-9]+", words)[:4], f"{self.cores}-cores"])

    def same_kind(self, other: Machine) -> bool:
        """Whether figures of the two may be set side by side."""
        mine = (self.cpu, self.cores, self.file_system)
        return mine == (other.cpu, other.cores, other.file_system)


def look(folder: Path, sync_ms: tuple[float, ...]) -> Machine:
    """This machine, with the file system that `folder` is on."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        kernel=f"{platform.system()} {platform.release()}",
        file_system=file_system(folder),
        sync_ms=sync_ms,
    )


def probe(folder: Path, times: int = PROBES) -> float:
    """The median of what a write of 4 KiB at the end of a file, and its fdatasync, take in ms."""
    found: list[float] = []
    with tempfile.NamedTemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(times):
            begun = time.perf_counter()
            file.write(BLOCK)
            os.fdatasync(file.fileno())
            found.append(time.perf_counter() - begun)
    return round(statistics.median(found) * 1e3, 4)


def file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The kind of the file system that a folder is on, as the kernel calls it."""
    if not mounts.exists():
        return "unknown"
    kinds = {Path(line.split()[1]): line.split()[2] for line in mounts.read_text().splitlines()}
    place = folder.resolve()
    return next((kinds[one] for one in (place, *place.parents) if one in kinds), "unknown")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
