"""`make soak-long`: a thousand conversations for an hour, and whether anything grows.

    python -m bench.soak [--seconds 3600] [--seed 1] [--results DIRECTORY] [--plots DIRECTORY]
    python -m bench.soak --again benchmarks/results/soak-3600s.json

The one rule: `tests.soak` does it and `bench.flat` judges it; here is only what is looked at, and
how it is shown. The second form judges and draws once more what was kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from .flat import Points, Verdict, below, level, per_turn, rises, shown, slower
from .machine import look, probe
from .plots import Series, line_chart

ROOT = Path(__file__).parents[2]

LOOKED_AT = 100
"""How many conversations are read event by event in the end; all of them are verified."""

CHECKPOINT_MIB = 1000 * 4096 / (1 << 20)
"""At what size of the write-ahead log SQLite moves it to the file: a thousand pages."""

KIB = 1024.0

ALLOCATOR = (("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "131072"))
"""What glibc is told where nothing else is (`tests/soak/run.py`)."""

Row = Mapping[str, float]


class Kept(TypedDict):
    """What is kept of a run: the machine, what both processes counted, and all samples."""

    run: dict[str, object]
    machine: dict[str, object]
    client: dict[str, object]
    provider: dict[str, object]
    samples: list[dict[str, float]]
    windows: list[dict[str, float]]
    closed: list[dict[str, float]]


@dataclass(frozen=True, slots=True)
class Judged:
    """A series, and what is said of it."""

    name: str
    points: Points
    verdict: Verdict


def column(rows: Sequence[Row], name: str, scale: float = 1.0) -> list[tuple[float, float]]:
    """A figure over time, where there is one."""
    return [(row["seconds"], row[name] * scale) for row in rows if name in row]


def judge(kept: Kept) -> list[Judged]:
    """Every series with its verdict, in the order in which they are told."""
    found = [*_held(kept["samples"], kept["closed"]), *_took(kept["windows"])]
    samples = kept["samples"]
    database, turns = column(samples, "database"), column(samples, "turns")
    each = per_turn(column(samples, "database", KIB), turns)
    return [
        *found,
        Judged("database, KiB a turn", each, slower(each, 1.1)),
        Judged("database, MiB", database, shown(database, "MiB")),
        Judged("turns", turns, shown(turns, "turns")),
    ]


def _held(samples: Sequence[Row], closed: Sequence[Row]) -> Iterator[Judged]:
    """What the process holds; while the log is closed, that is exact.

    How many connections there are goes up and down, so that a few files are not seen in an hour; a
    connection of a thousand that is left open is, and one file that is left by a closed log.
    """
    names: list[tuple[str, str, Callable[[Points], Verdict]]] = [
        ("resident memory, MiB", "resident", lambda points: rises(points, share=0.05, unit="MiB")),
        ("heap in use, MiB", "heap", lambda points: rises(points, share=0.05, unit="MiB")),
        ("Python's blocks", "blocks", lambda points: rises(points, share=0.05)),
        ("open files", "files", lambda points: rises(points, most=8.0)),
        ("asyncio tasks", "tasks", lambda points: rises(points, share=0.05)),
        ("threads", "threads", lambda points: rises(points, most=1.0)),
        ("write-ahead log, MiB", "wal", lambda points: below(points, 2 * CHECKPOINT_MIB, "MiB")),
    ]
    for name, key, verdict in names:
        points = column(samples, key)
        yield Judged(name, points, verdict(points))
    for name, key in (("files", "files"), ("threads", "threads"), ("tasks", "tasks")):
        points = column(closed, key)
        yield Judged(f"{name}, log closed", points, level(points))
    for name, key, unit in (("heap in use", "heap", "MiB"), ("Python's blocks", "blocks", "")):
        points = column(closed, key)
        yield Judged(f"{name}, log closed", points, rises(points, share=0.02, unit=unit))


def _took(windows: Sequence[Row]) -> Iterator[Judged]:
    """How long things take, and at what cost."""
    for name, key in (("a turn", "turn"), ("a send", "send"), ("an append", "append")):
        for share, most in (("p50", 1.3), ("p99", 2.0)):
            points = column(windows, f"{key}_{share}_ms")
            yield Judged(f"{name}, {share} ms", points, slower(points, most))
    points = column(windows, "cpu_ms")
    yield Judged("processor, ms a turn", points, slower(points, 1.3))


# -- showing it ----------------------------------------------------------------------------

CHARTS: dict[str, tuple[str, str, tuple[tuple[str, str, str], ...]]] = {
    "memory": (
        "Memory: resident, and what libraries and large objects use of it",
        "MiB",
        (
            ("samples", "resident", "resident"),
            ("samples", "heap_held", "heap, with what is free in it"),
            ("samples", "heap", "heap in use"),
            ("closed", "heap", "heap in use, log closed"),
        ),
    ),
    "blocks": ("What Python holds", "blocks", (("samples", "blocks", "memory blocks"),)),
    "files": (
        "Open files and sockets, and threads",
        "open",
        (
            ("samples", "files", "files"),
            ("closed", "files", "files, log closed"),
            ("samples", "threads", "threads"),
        ),
    ),
    "tasks": (
        "asyncio tasks: one for each conversation, and those of the turns under way",
        "tasks",
        (
            ("samples", "tasks", "tasks"),
            ("samples", "under_way_most", "turns under way, at most"),
            ("samples", "under_way", "turns under way"),
        ),
    ),
    "wal": ("Write-ahead log", "MiB", (("samples", "wal", "WAL"),)),
    "database": ("The database grows with the turns", "MiB", (("samples", "database", "file"),)),
    "turn": (
        "A turn that waits for nobody, from the call to its end",
        "ms",
        (("windows", "turn_p50_ms", "p50"), ("windows", "turn_p99_ms", "p99")),
    ),
    "append": (
        "One durable append, and a send",
        "ms",
        (
            ("windows", "append_p50_ms", "append p50"),
            ("windows", "append_p99_ms", "append p99"),
            ("windows", "send_p50_ms", "send p50"),
        ),
    ),
    "cost": (
        "Processor time of the process for each turn, and turns a second",
        "ms, and turns a second",
        (("windows", "cpu_ms", "ms a turn"), ("windows", "turns_per_s", "turns/s")),
    ),
}

ADDED = ("bytes", "What a turn adds to the database")
"""A chart more, of what is worked out."""

TITLES: Mapping[str, str] = dict([*((name, title) for name, (title, *_) in CHARTS.items()), ADDED])
"""What each chart shows, in the order of the page."""


def draw(kept: Kept, plots: Path) -> None:
    """Write every chart."""
    plots.mkdir(parents=True, exist_ok=True)
    rows = {"samples": kept["samples"], "windows": kept["windows"], "closed": kept["closed"]}
    for name, (title, unit, lines) in CHARTS.items():
        series = [
            Series(label, minutes(column(rows[table], key)), strong=place == 0)
            for place, (table, key, label) in enumerate(lines)
        ]
        _write(plots, name, title, unit, series)
    samples = kept["samples"]
    each = per_turn(column(samples, "database", KIB), column(samples, "turns"))
    added = [Series("a turn", minutes(each), strong=True)]
    _write(plots, *ADDED, "KiB", added)


def minutes(points: Points) -> list[tuple[float, float]]:
    """The same over minutes."""
    return [(seconds / 60, value) for seconds, value in points]


def _write(plots: Path, name: str, title: str, unit: str, series: Sequence[Series]) -> None:
    chart = line_chart(title, "minutes", unit, series)
    (plots / f"soak-{name}.svg").write_text(chart, encoding="utf-8")


def tell(kept: Kept, judged: Sequence[Judged]) -> None:
    """Print what was done, and what is said of it."""
    for part in ("run", "machine", "client", "provider"):
        told = kept[part]
        print(f"{part}:", *(f"  {name}: {value}" for name, value in told.items()), sep="\n")
    width = max(len(one.name) for one in judged)
    print()
    for one in judged:
        verdict = one.verdict
        print(f"{one.name:{width}}  {verdict.word:7}  {verdict.found}  ({verdict.bound})")


# -- doing it ------------------------------------------------------------------------------


def run(seconds: float, seed: str) -> Kept:
    """Have it run in processes of their own, in a directory that is gone afterwards."""
    begun = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="turnlog-soak-") as folder:
        command = [sys.executable, "-m", "tests.soak.run", seed, "hour", str(seconds)]
        command += [f"{folder}/soak.db", str(LOOKED_AT)]
        machine = look(Path(folder), (probe(Path(folder)),))
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    client = found["client"]
    until = client["began_seconds"]  # behind that nothing new is begun
    return Kept(
        run={
            "begun": begun.isoformat(timespec="seconds"),
            "seconds": seconds,
            "seed": seed,
            **{name: os.environ.get(name, f"{own} (the soak's own)") for name, own in ALLOCATOR},
        },
        machine={
            **asdict(machine),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
        },
        samples=_short(client.pop("samples"), until),
        windows=_short(client.pop("windows"), until),
        closed=_short(client.pop("closed"), until),
        client=client,
        provider=found["provider"],
    )


def _short(rows: Sequence[Row], until: float) -> list[dict[str, float]]:
    """Rows of the time in which turns began, without digits that say nothing."""
    return [
        {name: float(f"{value:.7g}") for name, value in row.items()}
        for row in rows
        if row["seconds"] <= until
    ]


def keep(kept: Kept, path: Path) -> None:
    """Write what was found, a row a line, so that a person can read it too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [
        f'"{name}": {json.dumps(kept[name], indent=1)}'
        for name in ("run", "machine", "client", "provider")
    ]
    for name in ("samples", "windows", "closed"):
        rows = ",\n".join(f"  {json.dumps(row)}" for row in kept[name])
        parts.append(f'"{name}": [\n{rows}\n]')
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def whole(kept: Kept) -> bool:
    """Whether nothing was wrong, nothing was left, and all of the log was verified."""
    client, provider = kept["client"], kept["provider"]
    told = [client["wrong"], client["wrong_in_log"], provider["wrong"], client["tasks_left"]]
    return not any([*told, client["sockets_left"], provider["connections_left"]])


def main() -> int:
    """Run or take up again, judge, draw, and say 1 where something grows or was wrong."""
    parser = argparse.ArgumentParser(prog="bench.soak", description="A soak of an hour.")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--plots", type=Path, default=ROOT / "docs" / "performance")
    parser.add_argument("--again", type=Path, help="judge and draw what was kept in this file")
    given = parser.parse_args()
    if given.again is None:
        kept = run(given.seconds, given.seed)
        keep(kept, given.results / f"soak-{given.seconds:g}s.json")
    else:
        kept = json.loads(given.again.read_text(encoding="utf-8"))
    judged = judge(kept)
    draw(kept, given.plots)
    tell(kept, judged)
    grows = [one.name for one in judged if one.verdict.word == "grows"]
    print("\ngrows:", ", ".join(grows) or "nothing", "" if whole(kept) else "; SOMETHING WAS WRONG")
    return int(bool(grows) or not whole(kept))


if __name__ == "__main__":
    sys.exit(main())
