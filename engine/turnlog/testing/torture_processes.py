"""The processes of the torture, from outside: started, listened to, killed, and frozen.

The one rule: nobody asks a worker anything. What it says is taken down, and how it ends is up to
whoever kills it, or to the trap that was set for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from .torture_report import Report
from .torture_worker import Job


@dataclass(slots=True)
class Workers:
    """The process that forks workers, and what those have said so far."""

    launcher: Process
    report: Report
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    _pids: asyncio.Queue[int] = field(default_factory=asyncio.Queue[int])

    async def start(self, *words: str) -> int:
        """Start a worker; its process id."""
        assert self.launcher.stdin is not None
        self.launcher.stdin.write((" ".join(words) + "\n").encode())
        return await self._pids.get()

    async def ended(self, pid: int) -> None:
        """Let a worker find that all is done; where something is wrong, it may never be."""
        await gone(pid, unless=lambda: bool(self.report.problems))
        await killed(pid)

    async def listen(self) -> None:
        """Take down what is said, until nobody is left who could say anything."""
        assert self.launcher.stdout is not None
        async for line in self.launcher.stdout:
            word, _, rest = line.decode().rstrip("\n").partition(" ")
            match word:
                case "PID":
                    self._pids.put_nowait(int(rest))
                case "ACK":
                    self.report.acknowledged.update(rest.split())
                case "DIES":
                    self.report.traps[rest.partition(":")[0]] += 1
                case "DONE":
                    self.finished.set()
                case _:
                    self.report.problems.append(f"a worker said {word} {rest}")
                    self.finished.set()


@asynccontextmanager
async def launched(job: Job, report: Report) -> AsyncGenerator[Workers]:
    """A launcher of workers, whose output is read to its end."""
    launcher = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "turnlog.testing.torture_worker", job.dump()),
        stdin=PIPE,
        stdout=PIPE,
        limit=1 << 24,
    )
    workers = Workers(launcher, report)
    listening = asyncio.create_task(workers.listen())
    try:
        yield workers
    finally:
        assert launcher.stdin is not None
        launcher.stdin.close()
        await launcher.wait()
        await listening


def is_gone(pid: int) -> bool:
    """Whether there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def gone(pid: int, *, unless: Callable[[], bool] = lambda: False) -> None:
    """Wait until a process is no more, unless something else happens."""
    while not (unless() or is_gone(pid)):  # noqa: ASYNC110 - no child of ours, whose end is told
        await asyncio.sleep(0.001)


async def killed(pid: int) -> None:
    """Kill a process, and wait until it is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    await gone(pid)


def is_stopped(pid: int) -> bool:
    """Whether no thread of a process goes on; where the system does not say, it is not known."""
    states = [
        path.read_text().rpartition(")")[2].split()[0]
        for path in Path(f"/proc/{pid}/task").glob("*/stat")
    ]
    return bool(states) and set(states) == {"T"}
