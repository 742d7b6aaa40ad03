"""One measurement, in a process of its own: `python -m bench.subject MODULE SCENARIO PARAMETERS`.

The one rule: only the standard library is imported here, because it runs in every peer's own
environment. A subject is a module of `bench.subjects` with a function for each scenario that it
takes part in:

    async def turns(given: Given) -> Measured      # or a plain `def`

`PARAMETERS` is a JSON object; what the function returns is printed as one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import json
import os
import resource
import statistics
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

Item = dict[str, Any]

BEGINS = b"span begins"
ENDS = b"span ends"


@dataclass(frozen=True, slots=True)
class Given:
    """What a measurement is given: an empty directory of its own, and its parameters."""

    folder: Path
    parameters: dict[str, Any]

    def number(self, name: str) -> int:
        """A parameter that is a whole number."""
        return int(self.parameters[name])

    def text(self, name: str) -> str:
        """A parameter that is text."""
        return str(self.parameters[name])


@dataclass(slots=True)
class Measured:
    """Figures by name, whose unit ends the name (`_per_s`, `_ms`, `_us`, `_bytes`), and facts.

    Facts say what a figure depends on: `journal_mode`, `synchronous`, a library's version.
    """

    figures: dict[str, float] = field(default_factory=dict[str, float])
    facts: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Span:
    """A stretch of time: by the wall, and of the CPU of this process with its threads."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def rate(self, count: int) -> dict[str, float]:
        """Figures for `count` things that were done in it: how many a second, CPU for each."""
        return {"per_s": count / self.seconds, "cpu_us": self.cpu_seconds / count * 1e6}


@contextmanager
def span() -> Generator[Span]:
    """Measure what is done inside."""
    found = Span()
    _mark(BEGINS)
    cpu, begun = _cpu(), time.perf_counter()
    yield found
    found.seconds = time.perf_counter() - begun
    found.cpu_seconds = _cpu() - cpu
    _mark(ENDS)


def _mark(word: bytes) -> None:
    """Write where nobody reads, for a trace of the system calls, which counts between the two."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.write(nowhere, word)
    os.close(nowhere)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """Figures for the times that the same thing took, in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50_ms": statistics.median(ordered) * 1e3,
        "p99_ms": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1e3,
        "least_ms": ordered[0] * 1e3,
    }


def resident_bytes() -> int:
    """How much memory this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def versions(*packages: str) -> dict[str, str]:
    """The versions of packages, as facts."""
    return {name: version(name) for name in packages}


def turn_items(number: int) -> list[Item]:
    """The four items of a turn, as a provider has them; each turn has ids of its own."""
    call = f"call_{number:08d}"
    answer = _text("It comes on Monday. ", 600)
    return [
        {"role": "user", "content": _text("Where is my order? ", 200)},
        {
            "type": "function_call",
            "id": f"fc_{number:08d}",
            "call_id": call,
            "name": "look_up",
            "arguments": '{"order":"A-1009"}',
        },
        {"type": "function_call_output", "call_id": call, "output": _text("on its way; ", 400)},
        {
            "type": "message",
            "id": f"msg_{number:08d}",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": answer, "annotations": []}],
        },
    ]


def _text(words: str, length: int) -> str:
    return (words * (length // len(words) + 1))[:length]


def main(module: str, scenario: str, parameters: str) -> None:
    """Measure in the current directory, and print what was found."""
    # A session peer has a connection for each conversation and thread, more than a shell allows.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    function = getattr(importlib.import_module(f"bench.subjects.{module}"), scenario)
    found = function(Given(Path.cwd(), json.loads(parameters)))
    if inspect.iscoroutine(found):
        found = asyncio.run(found)
    print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m bench.subject", description="One measurement, printed as a line of JSON."
    )
    parser.add_argument("module", help="a module of bench.subjects")
    parser.add_argument("scenario", help="the name of a function in it")
    parser.add_argument("parameters", help="a JSON object")
    main(**vars(parser.parse_args()))
