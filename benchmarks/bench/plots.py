"""Charts as SVG, from the standard library alone.

The one rule: the same values give the same bytes, so that a chart kept beside its results changes
only when they do. A chart brings its own light ground, and so reads the same on a dark page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 860, 440
TOP, BOTTOM, LEFT = 58, 56, 76
LETTER = 6.7
"""About how wide a letter is at 12 pixels; text is given room by it."""
LINE = 17
"""How far apart labels stand at least."""
BAR = 30
COLOURS = (
    "#0b62c4",
    "#5f6b76",
    "#c2410c",
    "#15803d",
    "#7e22ce",
    "#b4236f",
    "#8a6d00",
    "#0f766e",
)
STYLE = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#3d4752}"
    "text.title{font-size:15px;font-weight:600;fill:#1c2329}"
    "text.strong{font-weight:600}"
)


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a chart; a strong one is thicker. Without a `colour` it takes the next one."""

    name: str
    points: Sequence[tuple[float, float]]
    strong: bool = False
    colour: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a chart: `low` to `high` is what rounds of it gave, `text` stands at its end."""

    name: str
    value: float
    low: float
    high: float
    text: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class _Axis:
    """Values from `low` to `high` on pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Where a value stands."""
        low, high, here = self.low, self.high, value
        if self.log:
            low, high, here = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (here - low) / (high - low) * (self.end - self.start)


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """Lines over one axis, each with its name at its end. A linear y axis begins at nought.

    What a logarithmic axis cannot show (nought and below) is left out.
    """
    shown = [(one, _shown(one.points, log_x, log_y)) for one in series]
    shown = [(one, points) for one, points in shown if points]
    right = WIDTH - 30 - max((_room(one.name) for one, _ in shown), default=0)
    xs = [x for _, points in shown for x, _ in points]
    ys = [y for _, points in shown for _, y in points]
    across = _log_axis(xs, LEFT + 8, right - 8) if log_x else _line_axis(xs, LEFT + 8, right - 8)
    up = (
        _log_axis(ys, HEIGHT - BOTTOM, TOP, steps=True)
        if log_y
        else _line_axis([0.0, *ys], HEIGHT - BOTTOM, TOP, above=True)
    )
    parts = [*_frame(across, up, right, x_label, y_label), *_lines(shown, across, up, right)]
    return _svg(title, HEIGHT, parts)


def bar_chart(title: str, x_label: str, bars: Sequence[Bar]) -> str:
    """Bars one below the other, each with its name before it and its value after."""
    height = TOP + BAR * len(bars) + BOTTOM
    left = 30 + max((_room(one.name) for one in bars), default=0)
    right = WIDTH - 30 - max((_room(one.text) for one in bars), default=0)
    across = _line_axis([0.0, *(one.high for one in bars)], left, right)
    parts = list(_grid_down(across, height - BOTTOM))
    for place, one in enumerate(bars):
        parts += _bar(one, across, TOP + BAR * place)
    parts.append(_text((left + right) / 2, height - 14, x_label, "middle"))
    return _svg(title, height, parts)


def number(value: float) -> str:
    """A number on an axis, in as few letters as tell it."""
    if value >= 1e6:
        return f"{value / 1e6:,.12g}M"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" '
            'fill="#fcfcfd" stroke="#d5dae0"/>',
            _text(20, 30, title, "start", "title"),
            *parts,
            "</svg>\n",
        ]
    )


def _frame(across: _Axis, up: _Axis, right: float, x_label: str, y_label: str) -> Iterator[str]:
    yield from _grid_down(across, HEIGHT - BOTTOM)
    for tick in up.ticks:
        yield _stroke(LEFT, up.at(tick), right, up.at(tick), "#e3e7eb")
        yield _text(LEFT - 8, up.at(tick) + 4, number(tick), "end")
    yield _stroke(LEFT, HEIGHT - BOTTOM, right, HEIGHT - BOTTOM, "#9aa4ae")
    yield _text((LEFT + right) / 2, HEIGHT - 14, x_label, "middle")
    yield _text(20, TOP - 10, y_label, "start")


def _grid_down(across: _Axis, bottom: float) -> Iterator[str]:
    for tick in across.ticks:
        yield _stroke(across.at(tick), TOP, across.at(tick), bottom, "#e3e7eb")
        yield _text(across.at(tick), bottom + 18, number(tick), "middle")


def _lines(
    shown: Sequence[tuple[Series, list[tuple[float, float]]]],
    across: _Axis,
    up: _Axis,
    right: float,
) -> Iterator[str]:
    ends = [up.at(points[-1][1]) for _, points in shown]
    for place, ((one, points), label) in enumerate(
        zip(shown, apart(ends, TOP, HEIGHT - BOTTOM), strict=True)
    ):
        colour = one.colour or COLOURS[place % len(COLOURS)]
        path = [(across.at(x), up.at(y)) for x, y in points]
        yield _path(path, colour, 3 if one.strong else 1.8)
        if len(path) <= 20:
            yield from (_dot(x, y, colour, 4 if one.strong else 3) for x, y in path)
        (x, y) = path[-1]
        yield _stroke(x + 6, y, right + 10, label, colour, "1 3")
        yield _text(
            right + 16, label + 4, one.name, "start", "strong" if one.strong else "", colour
        )


def _bar(one: Bar, across: _Axis, top: float) -> Iterator[str]:
    colour, middle, weight = COLOURS[not one.strong], top + BAR / 2, "strong" if one.strong else ""
    length = across.at(one.value) - across.start
    yield _text(across.start - 8, middle + 4, one.name, "end", weight)
    yield (
        f'<rect x="{across.start:.1f}" y="{top + 6:.1f}" width="{length:.1f}" '
        f'height="{BAR - 12}" fill="{colour}" fill-opacity="0.8"/>'
    )
    yield _stroke(across.at(one.low), middle, across.at(one.high), middle, "#1c2329")
    for edge in (one.low, one.high):
        yield _stroke(across.at(edge), middle - 4, across.at(edge), middle + 4, "#1c2329")
    yield _text(
        max(across.at(one.high), across.at(one.value)) + 8, middle + 4, one.text, "start", weight
    )


def _shown(
    points: Sequence[tuple[float, float]], log_x: bool, log_y: bool
) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if (x > 0 or not log_x) and (y > 0 or not log_y)]


def apart(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Places for labels near those wanted, in the same order, so that none touches the next."""
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    found = [0.0] * len(wanted)
    least = top
    for place in order:
        found[place] = max(wanted[place], least)
        least = found[place] + LINE
    most = bottom
    for place in reversed(order):
        found[place] = min(found[place], most)
        most = found[place] - LINE
    return found


def _line_axis(values: Sequence[float], start: float, end: float, *, above: bool = False) -> _Axis:
    """A linear axis over the values; `above` lets it end at the tick above the greatest of them."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    high = high if high > low else low + 1
    step = _step((high - low) / 5)
    last = math.ceil(high / step - 1e-9) if above else math.floor(high / step + 1e-9)
    ticks = tuple(step * count for count in range(math.ceil(low / step - 1e-9), last + 1))
    return _Axis(low, ticks[-1] if above else high, start, end, False, ticks)


def _step(rough: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * one for one in (1, 2, 5, 10) if power * one >= rough * (1 - 1e-9))


def _log_axis(values: Sequence[float], start: float, end: float, *, steps: bool = False) -> _Axis:
    """A logarithmic axis over the values; `steps` lets it begin and end at 1, 2 or 5 of a power."""
    low, high = min(values, default=1.0), max(values, default=10.0)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [mark * 10.0**power for power in powers for mark in (1, 2, 5)]
    if steps:
        low = max(one for one in fine if one <= low * (1 + 1e-9))
        high = min(one for one in fine if one >= high * (1 - 1e-9))
    high = high if high > low else low * 10
    tens = [10.0**power for power in powers if low <= 10.0**power <= high]
    ticks = tens if len(tens) > 2 else [one for one in fine if low <= one <= high]
    return _Axis(low, high, start, end, True, tuple(ticks))


def _room(text: str) -> float:
    return LETTER * len(text) + 16


def _text(x: float, y: float, text: str, anchor: str, kind: str = "", colour: str = "") -> str:
    style = (f' class="{kind}"' if kind else "") + (f' style="fill:{colour}"' if colour else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dashed}/>'
    )


def _path(points: Sequence[tuple[float, float]], colour: str, width: float) -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="{width}" '
        'stroke-linejoin="round"/>'
    )


def _dot(x: float, y: float, colour: str, radius: int) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>'
