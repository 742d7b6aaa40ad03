"""docs/performance.md, and its charts, from a kept result.

The one rule: every number on the page comes from the result, or from that of the soak; the words
around it are here, but for those about a target that is not met, which are in benchmarks/limits.md.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill

from . import tables, targets
from .charts import all_charts
from .medians import Medians
from .results import BENCHMARKS, RESULTS, Result, failures
from .soak import TITLES as SOAKED
from .soak import Kept, judge
from .table import Table, as_markdown
from .wording import short

PAGE = BENCHMARKS.parent / "docs" / "performance.md"
CHARTS = "performance"
LIMITS = BENCHMARKS / "limits.md"
SOAK = RESULTS / "soak-3600s.json"
"""What `bench.soak` keeps of an hour; it draws the charts of it too."""

HEAD = """\
# How fast, and how flat

<!-- Written by `PYTHONPATH=benchmarks python -m bench --page` from the newest file in
benchmarks/results, benchmarks/bench/page.py and benchmarks/limits.md: change those. -->

turnlog keeps every event of a conversation, chained by hashes and durable at power loss before
anything is sent. This page says what that costs beside doing less: beside bare SQLite and bare
sockets, and beside other libraries that keep conversations or call the same API.
"""

READING = """\
## How to read it

- **Ratios, not speeds.** Everything was measured in one run on one machine. Another disk changes
  every number of the store; what stays about the same is how the subjects relate.
- **Read ratios between subjects under 1.5 as equal.** So does the table of targets where one is to
  be as fast as another: *equal* is not *met*, and not slower either. *Spread* is from the slowest
  round to the fastest, as a share of the median; a target that has rounds on both sides of its
  bound is marked *within the spread*. Subjects take turns, and a ratio is the median of what each
  round gives for itself: a machine has minutes in which everything takes half as long again.
- **A turn is four items**: a user's message of 200 characters, a function call, its output of 400,
  and an answer of 600. One turn a second is four items a second.
- **Who syncs what.** Every subject runs with its own defaults; *journal/sync* is what its
  connection says of `journal_mode` and `synchronous`. `WAL/FULL` and `DELETE/FULL` survive the loss
  of power; `WAL/NORMAL` may lose the last commits. turnlog runs with `durability="power"`, and its
  hash chain, its index and the head of each conversation are written in the same transaction.
- **CPU stands beside the wall**, because a wall clock mostly measures the disk. It counts all
  threads of the process. Each process is pinned to one CPU but where many streams are measured:
  whether two threads share a core changes what a hop between them costs by a factor of two.
- *raw* is what the task needs at least: `sqlite3` and one `INSERT` an item, or `websockets` and
  `httpx2` with `orjson`. Nothing is validated there, nothing is chained, nothing can be resumed.
"""

BEHIND = """\
## What is behind the numbers

- **One writer.** A thread owns the only connection that writes. Whoever appends hands it a unit and
  waits; it takes all units that wait and commits them in one `BEGIN IMMEDIATE`. One conversation
  pays a sync for each append, a hundred share it.
- **Statements of the driver.** Rows are bound to SQL that is prepared once. An object mapper or an
  asynchronous facade costs more CPU for each transaction than the rest of it together.
- **A head, not a replay.** The fold of a conversation is stored in the transaction that changes it,
  in a row whose size depends on what is open and not on what was said. Opening is reading that row;
  an append writes its events, their chain, their index and the head, however long the log is.
- **Type first.** A frame's type is found before anything of it is validated, and a delta is parsed
  for what its watcher is given.
- **Intent before sending.** A request is durable before it is on the wire, so a call costs one sync
  more than a bare one. That is what makes it safe to resume after a crash, and it is not for sale.
"""

AGAIN = """\
## Measure it yourself

    make bench-quick        # about two minutes: shorter, fewer sizes, one round
    make bench              # everything here: about an hour on two cores

The first run installs every peer from PyPI into an environment of its own under `.bench/`, from the
pins in `benchmarks/requirements`. Files are made under `.bench/work`, or in `--folder DIR`: that
should be on the disk you mean, not in memory. `--keep` stores the result in `benchmarks/results`
and writes this page; without it a run is only shown, beside the last that was kept.
`benchmarks/README.md` says what each measurement does, and how to add a peer.
"""


HOUR = """\
## And for an hour

`make soak-long`: a thousand conversations talk for an hour to a provider that fails, cuts, rotates
and stalls, and the log is closed and opened again on the way. What could grow is looked at all the
time, and judged by how it changes from the beginning to the end. glibc is told where large blocks
begin (`MALLOC_MMAP_THRESHOLD_=131072`) and to have one heap (`MALLOC_ARENA_MAX=1`), so that what is
resident is what is in use; without the first, resident memory grew by 7.9 % in an hour, and the
heap in use by nothing.
"""


def document(result: Result, limits: str = "", soak: Kept | None = None) -> str:
    """The page of a result; `limits` is what stands under targets that are not met."""
    found = Medians(result.runs)
    rows = targets.rows(found, result.machine)
    parts = [
        HEAD,
        "## What was to be reached\n",
        fill(f"{targets.summed(rows)}{_kind(result)}. {_where(result)}", 100) + "\n",
        as_markdown(tables.targets(rows)),
    ]
    if limits.strip():
        parts += ["## Where a target is not met\n", limits.strip() + "\n"]
    parts += [READING, "## Charts\n"]
    parts += [f"![{one.title}]({CHARTS}/{one.name}.svg)\n" for one in all_charts(found)]
    parts.append("## Tables\n")
    for table in tables.all_tables(found):
        parts += _section(table)
    if soak is not None:
        parts += _hour(soak)
    parts += [BEHIND, *_measured_on(result), AGAIN]
    return "\n".join(parts)


def files(result: Result, page: Path = PAGE, limits: Path = LIMITS) -> dict[Path, str]:
    """The page and its charts, by their paths."""
    said = limits.read_text(encoding="utf-8") if limits.exists() else ""
    soak: Kept | None = json.loads(SOAK.read_text(encoding="utf-8")) if SOAK.exists() else None
    charts = all_charts(Medians(result.runs))
    folder = page.parent / CHARTS
    return {
        page: document(result, said, soak),
        **{folder / f"{chart.name}.svg": chart.svg for chart in charts},
    }


def write(result: Result, page: Path = PAGE, limits: Path = LIMITS) -> None:
    """Write the page and its charts."""
    for path, text in files(result, page, limits).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _kind(result: Result) -> str:
    said = [
        *(["of a quick run, which is not the measure"] if result.quick else []),
        *(["of a part of the benchmark"] if result.partial else []),
    ]
    return f" ({'; '.join(said)})" if said else ""


def _where(result: Result) -> str:
    machine = result.machine
    sync = statistics.median(machine.sync_ms)
    return (
        f"Measured on {result.when[:10]} on {machine.cores} cores of {machine.cpu}, where a write "
        f"of 4 KiB and its `fdatasync` take {short(sync)} ms."
    )


def _section(table: Table) -> Iterator[str]:
    yield f"### {table.title}\n"
    if table.note:
        yield f"{table.note}\n"
    yield as_markdown(table)


def _hour(soak: Kept) -> Iterator[str]:
    yield HOUR
    judged = tuple(
        (one.name, one.verdict.word, one.verdict.found, one.verdict.bound) for one in judge(soak)
    )
    yield as_markdown(Table("", ("what", "", "found", "allowed"), judged, words=4))
    yield from (f"![{title}]({CHARTS}/soak-{name}.svg)\n" for name, title in SOAKED.items())


def _measured_on(result: Result) -> Iterator[str]:
    machine = result.machine
    yield "## Machine and versions\n"
    about = Table(
        "",
        ("", ""),
        (
            ("CPU", f"{machine.cpu}, {machine.cores} cores"),
            ("memory", f"{short(machine.memory_gib)} GiB"),
            ("kernel", machine.kernel),
            ("file system", machine.file_system),
            ("write and `fdatasync`", ", ".join(f"{short(one)} ms" for one in machine.sync_ms)),
            *((f"`{name}`", text) for name, text in result.versions.items()),
        ),
        words=2,
    )
    yield as_markdown(about)
    failed = failures(result.runs)
    if failed:
        yield "What could not be measured:\n"
        yield as_markdown(Table("", ("scenario", "subject", "because"), tuple(failed), words=3))
