"""Which charts a page shows.

The one rule: a subject has the same colour in all of them, and turnlog is drawn strongest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .medians import Medians
from .plan import OVER_SSE, OVER_WEBSOCKET, SCENARIOS
from .plots import COLOURS, Bar, Series, bar_chart, line_chart
from .wording import short

KIB = 1024
LINES = next(one.subjects for one in SCENARIOS if one.name == "length")
COLOUR = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate((*LINES, "aiosqlite"))}


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture: the name of its file, what it shows in words, and its SVG."""

    name: str
    title: str
    svg: str


def all_charts(found: Medians) -> list[Chart]:
    """Every chart of which something was measured."""
    made = [
        _rates(found, "turns", "One conversation, a turn's four items in one append"),
        _rates(found, "many", "100 conversations at once, a turn in one append", 100),
        _lines(found, "length", "latency", "Latency of one more append", "ms, p50", "p50_ms"),
        _lines(
            found, "length", "written", "Written for one more append", "KiB", "written_bytes", KIB
        ),
        _lines(
            found, "opening", "opening", "Opening a conversation", "ms, p50", "p50_ms", log=False
        ),
        _deltas(found),
    ]
    return [chart for chart in made if chart is not None]


def _rates(found: Medians, scenario: str, title: str, value: int | None = None) -> Chart | None:
    names = found.subjects(scenario)
    bars = _bars(found, scenario, names, value)
    return Chart(scenario, title, bar_chart(title, "turns a second", bars)) if bars else None


def _deltas(found: Medians) -> Chart | None:
    title = "Deltas a second, from the socket to the watcher's loop"
    bars = _bars(found, "deltas", (*OVER_WEBSOCKET, *OVER_SSE), None)
    return Chart("deltas", title, bar_chart(title, "deltas a second", bars)) if bars else None


def _bars(found: Medians, scenario: str, names: Iterable[str], value: int | None) -> Sequence[Bar]:
    """The fastest first; each says how its database syncs, where it has one."""
    bars: list[Bar] = []
    for name in names:
        rate = found.find(scenario, name, "per_s", value)
        if rate is not None:
            text = f"{short(rate.median)} {found.durable(scenario, name)}".strip()
            strong = name.startswith("turnlog")
            bars.append(Bar(name, rate.median, rate.low, rate.high, text, strong))
    return sorted(bars, key=lambda one: -one.value)


def _lines(
    found: Medians,
    scenario: str,
    name: str,
    title: str,
    y_label: str,
    figure: str,
    unit: int = 1,
    *,
    log: bool = True,
) -> Chart | None:
    """A figure over the length of a conversation; it is linear where all are about the same."""
    series: list[Series] = []
    for subject in found.subjects(scenario):
        seen = [
            (float(value), one.median / unit)
            for value in found.values(scenario, subject)
            if (one := found.find(scenario, subject, figure, value)) is not None
        ]
        if seen:
            series.append(Series(subject, seen, subject == "turnlog", COLOUR.get(subject, "")))
    if not series:
        return None
    # What is strong is drawn last, and so above the others.
    series.sort(key=lambda one: one.strong)
    svg = line_chart(title, "items in the conversation", y_label, series, log_x=True, log_y=log)
    return Chart(name, title, svg)
