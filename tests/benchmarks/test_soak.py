"""The verdicts of the soak: what grows is seen behind noise, and what does not is let be."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from bench.flat import Points, behind, below, level, per_turn, rise, rises, shown, slower


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
