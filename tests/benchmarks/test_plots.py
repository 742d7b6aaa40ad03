"""Charts are well-formed, say the same in the same bytes, and keep everything inside the frame."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from bench.charts import all_charts
from bench.plots import HEIGHT, LINE, WIDTH, Bar, Series, apart, bar_chart, line_chart, number

from .made import changed, medians

SVG = "{http://www.w3.org/2000/svg}"
LONG = Series("one <&> two", [(10, 0.5), (1000, 0.6), (100_000, 90)], strong=True)
SHORT = Series("three", [(10, 0.5), (1000, 0.6)])
BARS = [Bar("a", 100, 90, 120, "100 WAL/FULL", True), Bar("b & c", 3, 2, 4, "3")]


def places(svg: str) -> Iterator[tuple[float, float]]:
    """Every point that a chart draws."""
    for one in ElementTree.fromstring(svg).iter():
        at = one.attrib
        if one.tag == f"{SVG}polyline":
            yield from ((float(x), float(y)) for x, y in re.findall(r"(\S+),(\S+)", at["points"]))
        for x, y in (("x", "y"), ("x1", "y1"), ("x2", "y2"), ("cx", "cy")):
            if x in at:
                yield float(at[x]), float(at[y])
        if one.tag == f"{SVG}rect":
            yield float(at["x"]) + float(at["width"]), float(at["y"]) + float(at["height"])


def texts(svg: str) -> list[str]:
    """Every text of a chart, in order."""
    return [one.text or "" for one in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize(
    "svg",
    [
        line_chart("t", "x", "y", [LONG, SHORT], log_x=True, log_y=True),
        line_chart("t", "x", "y", [LONG, SHORT]),
        line_chart("t", "x", "y", [Series("flat", [(at, 5) for at in range(100)])]),
        line_chart("t", "x", "y", [Series("nought", [(0, 0), (1, 0)])]),
        line_chart("t", "x", "y", [Series("below", [(0, -3), (1, 4)])]),
        line_chart("t", "x", "y", [Series("one", [(7, 5)])], log_x=True, log_y=True),
        line_chart("t", "x", "y", [Series("none", [])], log_x=True, log_y=True),
        line_chart("t", "x", "y", []),
        bar_chart("t", "x", BARS),
        bar_chart("t", "x", [Bar("nought", 0, 0, 0, "0")]),
        bar_chart("t", "x", []),
        *(chart.svg for chart in all_charts(medians())),
    ],
)
def test_everything_is_inside_the_frame(svg: str) -> None:
    height = float(ElementTree.fromstring(svg).attrib["height"])
    found = list(places(svg))

    assert found
    assert all(0 <= x <= WIDTH and 0 <= y <= height for x, y in found)
    assert all(map(math.isfinite, (value for point in found for value in point)))


def test_the_same_values_give_the_same_bytes() -> None:
    assert bar_chart("t", "x", BARS) == bar_chart("t", "x", BARS)
    assert [one.svg for one in all_charts(medians())] == [one.svg for one in all_charts(medians())]


def test_a_line_has_its_name_its_axes_have_units_and_grow_upwards() -> None:
    svg = line_chart("A title", "items", "ms", [LONG, SHORT], log_x=True, log_y=True)
    first, *_, last = re.findall(r'points="([^"]+)"', svg)[0].split()

    assert {"A title", "items", "ms", "one <&> two", "three", "10", "100,000"} <= set(texts(svg))
    assert float(first.split(",")[0]) < float(last.split(",")[0])
    assert float(first.split(",")[1]) > float(last.split(",")[1])


def test_what_a_logarithm_cannot_show_is_left_out() -> None:
    svg = line_chart(
        "t", "x", "y", [Series("a", [(0, 1), (1, 0), (2, 3), (4, 5)])], log_x=True, log_y=True
    )

    assert len(re.findall(r"points=\"([^\"]+)\"", svg)[0].split()) == 2


def test_bars_are_as_long_as_their_values() -> None:
    svg = bar_chart("t", "turns a second", BARS)
    frame, *bars = ElementTree.fromstring(svg).findall(f"{SVG}rect")
    lengths = [float(one.attrib["width"]) for one in bars]

    assert frame.attrib["fill"] == "#fcfcfd"
    assert lengths[0] / lengths[1] == pytest.approx(100 / 3, rel=0.02)
    assert {"a", "b & c", "100 WAL/FULL", "turns a second"} <= set(texts(svg))


@pytest.mark.parametrize("wanted", [[], [50], [100, 100, 100], [0, 400, 399, 2], [400] * 9])
def test_labels_do_not_touch_and_stay_inside(wanted: list[float]) -> None:
    found = apart(wanted, 50, 380)

    assert len(found) == len(wanted)
    assert all(50 <= one <= 380 for one in found)
    assert all(below - above >= LINE - 1e-9 for above, below in pairwise(sorted(found)))
    assert [sorted(wanted).index(one) for one in wanted] == [
        sorted(found).index(found[wanted.index(one)]) for one in wanted
    ]


def test_labels_of_lines_that_end_together_stand_apart() -> None:
    same = [Series(f"line {place}", [(1, 5), (2, 5 + place / 100)]) for place in range(8)]
    svg = line_chart("t", "x", "y", same)
    heights = [
        float(one.attrib["y"])
        for one in ElementTree.fromstring(svg).iter(f"{SVG}text")
        if (one.text or "").startswith("line")
    ]

    assert min(below - above for above, below in pairwise(sorted(heights))) >= LINE - 0.2
    assert max(heights) < HEIGHT


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.05, "0.05"), (2.5, "2.5"), (1000, "1,000"), (150_000, "150,000"), (2e6, "2M")],
)
def test_a_number_on_an_axis(value: float, text: str) -> None:
    assert number(value) == text


def test_there_is_a_chart_of_what_was_measured_only() -> None:
    names = [chart.name for chart in all_charts(medians())]
    only = [run for run in changed("turns", "turnlog") if run.scenario == "deltas"]

    assert names == ["turns", "many", "latency", "written", "opening", "deltas"]
    assert [chart.name for chart in all_charts(medians(only))] == ["deltas"]
