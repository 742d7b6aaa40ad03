"""The circuit breaker: what follows what, as values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlog_transports.breaker import Breaker

EVEN = 0.5
"""The draw that makes a pause neither longer nor shorter."""


def opened(*, failures: int = 1, pause: float = 60.0) -> Breaker:
    """A breaker at time 0, right after it opened for the first time."""
    breaker = Breaker(failures=failures, pause=pause)
    for _ in range(failures):
        breaker = breaker.failed(0.0, EVEN)
    return breaker


def test_a_new_breaker_is_closed_and_nothing_is_due() -> None:
    assert Breaker().phase == "closed"
    assert not Breaker().due(1e9)


def test_a_failure_opens_it_for_a_pause() -> None:
    breaker = Breaker(pause=10.0).failed(100.0, EVEN)
    assert (breaker.phase, breaker.until) == ("open", 110.0)
    assert [breaker.due(now) for now in (100.0, 109.9, 110.0, 1e9)] == [False, False, True, True]


def test_only_so_many_failures_in_a_row_open_it() -> None:
    breaker = Breaker(failures=3).failed(0.0, EVEN).failed(1.0, EVEN)
    assert breaker.phase == "closed"
    assert breaker.failed(2.0, EVEN).phase == "open"
    again = breaker.worked().failed(2.0, EVEN).failed(3.0, EVEN)
    assert again.phase == "closed"


def test_what_fails_behind_the_opening_makes_no_pause_longer() -> None:
    breaker = opened()
    assert breaker.failed(5.0, EVEN) == breaker
    assert breaker.probed().failed(70.0, EVEN) == breaker.probed()


def test_each_pause_that_ends_in_a_failure_doubles_the_next() -> None:
    breaker, now, lengths = opened(pause=1.0), 0.0, list[float]()
    for _ in range(7):
        lengths.append(breaker.until - now)
        now = breaker.until
        breaker = breaker.probed().refused(now, EVEN)
    assert lengths == [1, 2, 4, 8, 16, 16, 16]


@pytest.mark.parametrize(("draw", "length"), [(0.0, 80.0), (0.5, 100.0), (1.0, 120.0)])
def test_w35_a_pause_is_a_fifth_longer_or_shorter_at_random(draw: float, length: float) -> None:
    assert Breaker(pause=100.0).failed(0.0, draw).until == pytest.approx(length)


def test_while_it_is_probed_nothing_else_is_due() -> None:
    probing = opened().probed()
    assert probing.phase == "probing"
    assert not probing.due(1e9)


def test_a_probe_that_connects_closes_it_and_the_pauses_count_on() -> None:
    closed = opened(pause=1.0).probed().connected()
    assert closed.phase == "closed"
    assert closed.failed(10.0, EVEN).until == 12.0


def test_a_response_makes_it_forget() -> None:
    for breaker in (opened(pause=1.0), opened(pause=1.0).probed()):
        closed = breaker.worked()
        assert closed == Breaker(pause=1.0)
        assert closed.failed(10.0, EVEN).until == 11.0


def test_a_probe_that_decides_nothing_is_made_again_behind_the_same_pause() -> None:
    breaker = opened(pause=1.0).probed().undecided(10.0, EVEN)
    assert (breaker.phase, breaker.until) == ("open", 11.0)


def test_the_end_of_a_probe_means_nothing_once_a_response_came() -> None:
    closed = opened().probed().worked()
    assert closed.connected() == closed.refused(0.0, EVEN) == closed.undecided(0.0, EVEN) == closed


@given(
    st.lists(st.sampled_from(["failed", "worked", "connected", "refused", "undecided", "due"])),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 4),
)
def test_whatever_happens_a_probe_is_due_in_time(
    steps: list[str], draw: float, failures: int
) -> None:
    breaker, now = Breaker(failures=failures, pause=1.0), 0.0
    for step in steps:
        now += 1.0
        match step:
            case "worked":
                breaker = breaker.worked()
            case "connected":
                breaker = breaker.connected()
            case "failed":
                breaker = breaker.failed(now, draw)
            case "refused":
                breaker = breaker.refused(now, draw)
            case "undecided":
                breaker = breaker.undecided(now, draw)
            case _:
                breaker = breaker.probed() if breaker.due(now) else breaker
    assert breaker.phase != "open" or breaker.due(now + 16 * 1.2)
    assert 0 <= breaker.row < failures
