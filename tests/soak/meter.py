"""What a process holds, and how long things take in it, as time goes on.

The one rule: measuring takes hardly any memory. What was measured is kept as its figures, and these
as text, of which a row takes one block and not a dozen.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import threading
from array import array
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .memory import files, heap, resident

Row = dict[str, float]


def cpu() -> float:
    """Seconds of a processor that this process has used."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def quantile(values: array[float], share: float) -> float:
    """What this share of some values is at most."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def size(path: Path) -> float:
    """Of a file, in MiB; none of one that is not there."""
    return path.stat().st_size / (1 << 20) if path.exists() else 0.0


def _times() -> defaultdict[str, array[float]]:
    return defaultdict(lambda: array("d"))


@dataclass(slots=True)
class Meter:
    """`samples` say what was held at a moment, `windows` what happened between two of them.

    `closed` says what was held while the log was closed: what stays open then stays for ever.

    Those who talk count in `turns` how many were accepted, in `under_way` how many are taken at
    this moment, and in `most` how many were at most since the last look: what is freed stays
    resident in part, so that resident memory follows the most that was ever under way.
    """

    path: Path
    window: float
    tell: Callable[[str], None] | None = None
    turns: int = 0
    under_way: int = 0
    most: int = 0
    samples: list[str] = field(default_factory=list[str])
    windows: list[str] = field(default_factory=list[str])
    closed: list[str] = field(default_factory=list[str])
    _began: float = 0.0
    _took: defaultdict[str, array[float]] = field(default_factory=_times)
    _before: tuple[float, float, int] = (0.0, 0.0, 0)

    def note(self, name: str, seconds: float) -> None:
        """Something took so long."""
        self._took[name].append(seconds)

    @contextmanager
    def taking(self) -> Generator[None]:
        """A turn is taken inside."""
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            yield
        finally:
            self.under_way -= 1

    async def go_on(self, every: float) -> None:
        """Take a sample every so many seconds, and close windows, until cancelled."""
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        self._before = (0.0, cpu(), self.turns)
        while True:
            await asyncio.sleep(every)
            now = loop.time() - self._began
            self.samples.append(json.dumps(self.sample(now)))
            if now - self._before[0] >= self.window:
                self.close_window(now)

    async def look_at_closed(self) -> None:
        """Take a sample of what is left when the log was closed."""
        await asyncio.sleep(0)  # whoever waited for it is told
        now = asyncio.get_running_loop().time() - self._began
        self.closed.append(json.dumps(self.sample(now)))

    def sample(self, now: float) -> Row:
        """What is held now, and reachable."""
        gc.collect()
        wal = self.path.with_name(f"{self.path.name}-wal")
        one: Row = {
            "seconds": now,
            "blocks": sys.getallocatedblocks(),
            "tasks": len(asyncio.all_tasks()),
            "threads": threading.active_count(),
            "wal": size(wal),
            "database": size(self.path),
            "turns": self.turns,
            "under_way": self.under_way,
            "under_way_most": self.most,
        }
        self.most = self.under_way
        if (used := heap()) is not None:
            one |= {"heap": used.in_use, "heap_held": used.held}
        for name, value in (("resident", resident()), ("files", files())):
            if value is not None:
                one[name] = value
        return one

    def close_window(self, now: float) -> None:
        """What happened since the last one: how many turns, at what cost, and how quick."""
        (before, used, turned), spent, turns = self._before, cpu(), self.turns
        self._before = (now, spent, turns)
        taken = max(1, turns - turned)
        one: Row = {
            "seconds": now,
            "turns_per_s": (turns - turned) / (now - before),
            "cpu_ms": (spent - used) / taken * 1e3,
        }
        for name, values in self._took.items():
            one[f"{name}_p50_ms"] = quantile(values, 0.5) * 1e3
            one[f"{name}_p99_ms"] = quantile(values, 0.99) * 1e3
            one[f"{name}_count"] = len(values)
        self._took.clear()
        self.windows.append(json.dumps(one))
        if self.tell is not None:
            self.tell(f"{self.samples[-1]} {self.windows[-1]}")
