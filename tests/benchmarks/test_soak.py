"""The verdicts of the soak: what grows is seen behind noise, and what does not is let be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest

from bench.flat import Points, behind, below, level, per_turn, rise, rises, shown, slower
from bench.soak import CHARTS, Kept, draw, judge, keep, whole


def over_time(
    value: Callable[[float], float], *, seconds: int = 3600, noise: float = 0.0
) -> list[tuple[float, float]]:
    """A value every fifteen seconds, with noise that is the same on every run."""
    draw = Random(2)
    return [(float(at), value(at) + draw.gauss(0, noise)) for at in range(15, seconds + 1, 15)]


def an_hour(share: float, *, begins: float = 100.0) -> Callable[[float], float]:
    """What grows by a share of its beginning in an hour."""
    return lambda at: begins * (1 + share * at / 3600)


@pytest.mark.parametrize(
    ("share", "noise", "word"),
    [(0.0, 1.0, "flat"), (0.02, 1.0, "flat"), (0.10, 1.0, "grows"), (0.06, 10.0, "unclear")],
)
def test_a_rise_is_told_from_noise(share: float, noise: float, word: str) -> None:
    """Less than the bound is flat, more grows, and what jumps about too much is unclear."""
    points = over_time(an_hour(share), noise=noise)
    assert rises(points, share=0.05, unit="MiB").word == word


def test_a_rise_is_that_of_an_hour() -> None:
    """However long the run was; what there was before it was warm does not count."""
    line = rise(over_time(lambda at: 50 + at / 60 if at > 150 else 1000.0, seconds=600))
    assert line is not None
    assert line.an_hour == pytest.approx(60)
    assert line.error == pytest.approx(0, abs=1e-6)


def test_a_bound_says_what_is_allowed() -> None:
    """As a share of the beginning, as a number, and as both."""
    points = over_time(an_hour(0.03))
    assert rises(points, share=0.05).bound == "at most +5% an hour"
    assert rises(points, most=2.0, unit="files").bound == "at most +2 files an hour"
    assert rises(points, share=0.02, most=2.0).bound == "at most +2% and +2 an hour"
    assert (rises(points, most=2.0).word, rises(points, share=0.02, most=2.0).word) == (
        "grows",
        "flat",
    )


@pytest.mark.parametrize(("ratio", "word"), [(1.0, "flat"), (1.25, "flat"), (1.4, "grows")])
def test_what_becomes_slower_is_seen(ratio: float, word: str) -> None:
    """The last quarter against the second; the first is not looked at."""

    def took(at: float) -> float:
        return 900.0 if at <= 900 else 10.0 * ratio if at > 2700 else 10.0

    assert slower(over_time(took), 1.3).word == word


def test_a_log_that_outgrows_its_checkpoints_is_seen() -> None:
    """Once is enough."""
    assert below(over_time(lambda at: 3.9), 8.0, "MiB").word == "flat"
    assert below(over_time(lambda at: 9.0 if at == 1800 else 3.9), 8.0, "MiB").word == "grows"


@pytest.mark.parametrize(
    ("values", "word"),
    [((9, 4, 4, 4), "flat"), ((9, 4, 4, 5), "grows"), ((9, 4, 4, 3), "flat"), ((4,), "unclear")],
)
def test_one_file_too_many_is_seen_where_it_is_exact(values: tuple[int, ...], word: str) -> None:
    """Behind the warm-up, nothing may be added."""
    points = [(900.0 * (place + 1), float(value)) for place, value in enumerate(values)]
    assert level(points).word == word


def test_what_a_turn_adds() -> None:
    """In each part of the time; a part without turns says nothing."""
    total = [(0.0, 10.0), (1.0, 30.0), (2.0, 30.0), (3.0, 90.0), (4.0, 100.0)]
    turns = [(0.0, 0.0), (1.0, 10.0), (2.0, 10.0), (3.0, 30.0), (4.0, 40.0)]
    assert per_turn(total, turns, parts=4) == [(1.0, 2.0), (3.0, 3.0), (4.0, 1.0)]


@pytest.mark.parametrize("points", [[], [(1.0, 1.0)]])
def test_nothing_is_said_of_too_little(points: Points) -> None:
    """Of nothing, and of one sample."""
    assert rises(points, share=0.05).word == slower(points, 1.3).word == "unclear"
    assert level(points).word == "unclear"
    assert below([], 8.0, "MiB").word == "unclear"
    assert shown(points, "MiB").word == "shown"
    assert per_turn([], []) == []


def test_parts_of_the_time_do_not_overlap() -> None:
    """Each sample is in one quarter."""
    points = over_time(an_hour(0.0))
    quarters = [behind(points, share, share + 0.25) for share in (0.0, 0.25, 0.5, 0.75)]
    assert [one for quarter in quarters for one in quarter] == points


def an_hour_of(*, leak: float = 0.0, kept: float = 0.0) -> Kept:
    """What would be kept of an hour in which only memory may grow, by so many MiB.

    `leak` is all that is resident, `kept` what is still in use while the log is closed.
    """
    held = {
        "heap": 30.0,
        "heap_held": 35.0,
        "blocks": 4e5,
        "files": 30.0,
        "tasks": 1100.0,
        "threads": 5.0,
        "wal": 4.0,
    }
    took = {"turn": 20.0, "send": 6.0, "append": 3.0}
    samples = [
        {**held, "seconds": at, "resident": 90 + leak * at / 3600, "turns": 20 * at}
        | {"database": at * 0.17, "under_way": 40.0, "under_way_most": 60.0}
        for at in (15.0 * number for number in range(1, 241))
    ]
    windows = [
        {"seconds": at, "cpu_ms": 20.0, "turns_per_s": 20.0}
        | {f"{name}_{share}_ms": value for name, value in took.items() for share in ("p50", "p99")}
        for at in (60.0 * number for number in range(1, 61))
    ]
    closed = [
        {"seconds": at, "files": 6.0, "threads": 1.0, "tasks": 1003.0, "blocks": 4e5}
        | {"heap": 20 + kept * at / 3600}
        for at in (300.0 * number for number in range(1, 12))
    ]
    nothing = {
        name: list[str]() for name in ("wrong", "wrong_in_log", "tasks_left", "sockets_left")
    }
    return Kept(
        run={"seconds": 3600.0},
        machine={},
        client={**nothing},
        provider={"wrong": [], "connections_left": 0},
        samples=samples,
        windows=windows,
        closed=closed,
    )


@pytest.mark.parametrize(
    ("leak", "kept", "grown"),
    [
        (0.0, 0.0, []),
        (9.0, 0.0, ["resident memory, MiB"]),
        (0.0, 0.6, ["heap in use, log closed"]),
    ],
)
def test_an_hour_is_judged(leak: float, kept: float, grown: list[str]) -> None:
    """Where nothing grows, everything is flat; a leak is named, and nothing else."""
    judged = judge(an_hour_of(leak=leak, kept=kept))
    assert [one.name for one in judged if one.verdict.word == "grows"] == grown
    assert [one.name for one in judged if one.verdict.word == "unclear"] == []


def test_what_was_wrong_is_not_overlooked() -> None:
    """A run in which something was wrong, or left, does not pass."""
    kept = an_hour_of()
    assert whole(kept)
    kept["client"]["sockets_left"] = ["socket:[1]"]
    assert not whole(kept)


def test_what_is_kept_can_be_judged_and_drawn_again(tmp_path: Path) -> None:
    """The same comes back, and every chart is one."""
    kept = an_hour_of()
    keep(kept, tmp_path / "results" / "soak.json")
    again: Kept = json.loads((tmp_path / "results" / "soak.json").read_text())
    assert again == kept
    draw(again, tmp_path / "plots")
    charts = sorted((tmp_path / "plots").iterdir())
    assert len(charts) == len(CHARTS) + 1
    assert all(ElementTree.parse(chart).getroot().tag.endswith("svg") for chart in charts)
