"""What was measured, as tables.

The one rule: a cell is text that was made here, three digits at most; a dash is what was not
measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .medians import Figure, Medians
from .plan import OVER_SSE, OVER_WEBSOCKET
from .table import Table
from .targets import Row, verdict
from .wording import share, short, times

NONE = "-"
KIB = 1024


def targets(rows: Iterable[Row]) -> Table:
    """The table of targets: what was reached, and whether that is enough."""
    return Table(
        "What was reached",
        ("what", "at least", "reached", ""),
        tuple((row.what, row.target, row.reached, verdict(row)) for row in rows),
        words=4,
    )


def all_tables(found: Medians) -> list[Table]:
    """Every table of a run but that of its targets; those of which nothing was measured are not."""
    made = [
        appends(found),
        *(many(found, value) for value in found.values("many")),
        written(found),
        by_value(found, "length", "Latency of an append (p50, ms), by items"),
        by_value(found, "length", "Written for an append (KiB), by items", "written_bytes", KIB),
        growth(found),
        by_value(found, "opening", "Opening a conversation (p50, ms), by items"),
        by_value(found, "among", "Opening one of so many conversations (p50, ms)"),
        by_value(found, "last", "The last 50 items (p50, ms), of so many"),
        by_value(found, "load", "All items (p50, ms), of so many"),
        wire(found, "Over a WebSocket", OVER_WEBSOCKET, "raw websockets + orjson"),
        wire(found, "Over server-sent events", OVER_SSE, "raw httpx2 SSE + orjson"),
        streams(found),
        rest(found),
    ]
    return [table for table in made if table.rows]


# -- the store -----------------------------------------------------------------------------


def appends(found: Medians) -> Table:
    """One conversation: a turn in one append, and item by item."""
    names = list(dict.fromkeys([*found.subjects("turns"), *found.subjects("items")]))
    columns = ("turns/s", "of raw", "CPU µs", "spread")
    return Table(
        "One conversation: a turn in one append | item by item",
        ("", "journal/sync", *columns, *columns),
        tuple(
            (
                name,
                found.durable("turns", name) or found.durable("items", name) or NONE,
                *_rate(found, "turns", name),
                *_rate(found, "items", name),
            )
            for name in names
        ),
        words=2,
    )


def many(found: Medians, conversations: int) -> Table:
    """So many conversations at once in one process."""
    return Table(
        f"{conversations:,} conversations at once, a turn in one append",
        ("", "journal/sync", "turns/s", "of raw", "CPU µs", "spread", "p50 ms", "p99 ms"),
        tuple(
            (
                name,
                found.durable("many", name) or NONE,
                *_rate(found, "many", name, conversations),
                *(
                    _number(found.find("many", name, figure, conversations))
                    for figure in ("p50_ms", "p99_ms")
                ),
            )
            for name in found.subjects("many")
            if found.find("many", name, "per_s", conversations)
        ),
        words=2,
    )


def _rate(found: Medians, scenario: str, name: str, value: int | None = None) -> tuple[str, ...]:
    rate = found.find(scenario, name, "per_s", value)
    return (
        _number(rate),
        _ratio(rate, found.find(scenario, "raw sqlite3", "per_s", value)),
        _number(found.find(scenario, name, "cpu_us", value)),
        _spread(rate),
    )


def written(found: Medians) -> Table:
    """What a turn syncs and writes, counted in its system calls."""
    figures = (
        ("fsyncs", 1),
        ("wal_written_bytes", KIB),
        ("journal_written_bytes", KIB),
        ("file_written_bytes", KIB),
        ("temporary_written_bytes", KIB),
    )
    columns = ("fsyncs", "WAL KiB", "journal KiB", "file KiB", "temporary KiB")
    return Table(
        "Synced and written for a turn: in one append | item by item",
        ("", *columns, *columns),
        tuple(
            (
                name,
                *(
                    _number(found.find(scenario, name, figure), unit)
                    for scenario in ("turns", "items")
                    for figure, unit in figures
                ),
            )
            for name in found.subjects("turns")
            if found.find("turns", name, "fsyncs")
        ),
        note="Counted under strace, in a round of its own.",
    )


def growth(found: Medians) -> Table:
    """What a turn adds to the file, and to the write-ahead log."""
    return Table(
        "Bytes of a turn: the file grows | the write-ahead log is given",
        ("", "file KiB", "of raw", "WAL KiB", "of raw"),
        tuple(
            (
                name,
                *(
                    cell
                    for figure in ("file_bytes", "wal_bytes")
                    for cell in (
                        _number(found.find("growth", name, figure), KIB),
                        _ratio(
                            found.find("growth", name, figure),
                            found.find("growth", "raw sqlite3", figure),
                        ),
                    )
                ),
            )
            for name in found.subjects("growth")
        ),
    )


# -- reading, the wire and the rest --------------------------------------------------------


def by_value(
    found: Medians, scenario: str, title: str, figure: str = "p50_ms", unit: int = 1
) -> Table:
    """A figure of everyone, a column for each value, and how far its last one is spread."""
    values = found.values(scenario)
    return Table(
        title,
        ("", *(f"{value:,}" for value in values), "spread"),
        tuple(
            (
                name,
                *(_number(found.find(scenario, name, figure, value), unit) for value in values),
                _widest(found.find(scenario, name, figure, value) for value in values),
            )
            for name in found.subjects(scenario)
        ),
    )


def wire(found: Medians, title: str, names: Sequence[str], raw: str) -> Table:
    """Clients of one provider, from a call to its deltas."""
    columns: tuple[tuple[str, Callable[[str], str]], ...] = (
        ("deltas/s", lambda name: _number(found.find("deltas", name, "per_s"))),
        (
            "of raw",
            lambda name: _ratio(
                found.find("deltas", name, "per_s"), found.find("deltas", raw, "per_s")
            ),
        ),
        ("CPU µs", lambda name: _number(found.find("deltas", name, "cpu_us"))),
        ("call to wire ms", lambda name: _number(found.find("first", name, "to_wire_p50_ms"))),
        ("first delta ms", lambda name: _number(found.find("first", name, "first_p50_ms"))),
        (
            "call to first ms",
            lambda name: _number(found.find("first", name, "call_to_first_p50_ms")),
        ),
        (
            "full request ms",
            lambda name: _number(found.find("full_request", name, "to_wire_p50_ms")),
        ),
    )
    scenarios = ("deltas", "first", "full_request")
    measured = {name for scenario in scenarios for name in found.subjects(scenario)}
    return Table(
        title,
        ("", *(column for column, _ in columns)),
        tuple((name, *(cell(name) for _, cell in columns)) for name in names if name in measured),
        note="Times are p50; turnlog's intent is durable before its request is on the wire.",
    )


def streams(found: Medians) -> Table:
    """Many streams through one process."""
    names = ("cpu_cores", "lag_p50_ms", "lag_p99_ms")
    return Table(
        "Conversations that stream 50 deltas a second each, through one process",
        ("", "conversations", "kept up", "cores", "lag p50 ms", "lag p99 ms"),
        tuple(
            (
                name,
                f"{value:,}",
                "yes" if kept_up.median >= 1 else "no",
                *(_number(found.find("streams", name, figure, value)) for figure in names),
            )
            for value in found.values("streams")
            for name in found.subjects("streams")
            if (kept_up := found.find("streams", name, "kept_up", value)) is not None
        ),
    )


REST = (
    ("idle", "each_bytes", "an idle conversation, bytes of resident memory"),
    ("idle", "each_traced_bytes", "an idle conversation, bytes that Python allocated"),
    ("idle", "held_items", "items that idle conversations hold"),
    ("diff", "append_ms", "difference of 10,000 items, one appended, ms"),
    ("diff", "middle_ms", "difference of 10,000 items, one edited in the middle, ms"),
    ("startup", "python_ms", "`python -c pass`, ms"),
    ("startup", "import_ms", "`import turnlog`, ms"),
    ("startup", "help_ms", "`turnlog --help`, ms"),
    ("startup", "transports_loaded", "modules of transports that the import loads"),
)


def rest(found: Medians) -> Table:
    """Memory, differences and starting, of which there is only turnlog's own."""
    figures = [(what, found.find(scenario, "turnlog", name)) for scenario, name, what in REST]
    return Table(
        "Memory, differences, starting",
        ("", "turnlog", "spread"),
        tuple((what, _number(one), _spread(one)) for what, one in figures if one),
    )


def _number(figure: Figure | None, unit: float = 1) -> str:
    return short(figure.median / unit) if figure else NONE


def _ratio(figure: Figure | None, other: Figure | None) -> str:
    return times(figure.over(other).median) if figure and other else NONE


def _widest(figures: Iterable[Figure | None]) -> str:
    return _spread(max((one for one in figures if one), key=lambda one: one.spread, default=None))


def _spread(figure: Figure | None) -> str:
    """How far rounds are apart; one alone does not say."""
    return share(figure.spread) if figure and figure.rounds > 1 else NONE
