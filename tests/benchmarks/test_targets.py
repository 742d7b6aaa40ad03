"""Targets are judged by the figures of one run, and by nothing else."""

from __future__ import annotations

import pytest

from bench.medians import Figure, Medians, NotMeasured, middle
from bench.targets import TARGETS, Row, rows, summed, verdict

from .made import MACHINE, changed, medians, result, run, runs


def by_check(found: Medians) -> dict[str, Row]:
    """The rows by the names of their checks."""
    names = [check.__name__ for _, _, check in TARGETS]
    return dict(zip(names, rows(found, MACHINE), strict=True))


def test_all_is_met_where_every_figure_is_good_enough() -> None:
    assert {row.what: row.reached for row in rows(medians(), MACHINE) if not row.met} == {}


def test_nothing_is_judged_where_nothing_was_measured() -> None:
    found = rows(Medians([]), MACHINE)

    assert len(found) == 18
    assert {row.met for row in found} == {None}
    assert {verdict(row) for row in found} == {"not measured"}
    assert all(row.reached.startswith("not measured: ") for row in found)


@pytest.mark.parametrize(
    ("check", "subject", "figures"),
    [
        ("turns", "turnlog", {"per_s": 600}),
        ("items", "turnlog", {"per_s": 400}),
        ("hundred", "turnlog", {"per_s": 11_000}),
        ("thousand", "turnlog", {"p99_ms": 50}),
        ("growth", "turnlog", {"file_bytes": 9000}),
        ("growth", "turnlog", {"wal_bytes": 99_000}),
        ("opening", "turnlog", {"p50_ms": 0.3}),
        ("reading", "turnlog", {"p50_ms": 50}),
        ("idle", "turnlog", {"each_bytes": 1100}),
        ("idle", "turnlog", {"each_traced_bytes": 1100}),
        ("idle", "turnlog", {"held_items": 1}),
        ("over_websocket", "turnlog WebSocket", {"per_s": 40_000}),
        ("over_websocket", "livekit WebSocket", {"per_s": 900_000}),
        ("over_sse", "openai SDK SSE", {"per_s": 900_000}),
        ("to_wire", "turnlog WebSocket", {"to_wire_p50_ms": 1.9}),
        ("to_wire", "turnlog SSE", {"to_wire_p50_ms": 1.9}),
        ("first", "turnlog WebSocket", {"first_p50_ms": 0.3}),
        ("full_request", "turnlog SSE", {"to_wire_p50_ms": 20}),
        ("streams", "turnlog WebSocket", {"kept_up": 0}),
        ("streams", "turnlog WebSocket", {"cpu_cores": 1.1}),
        ("diff", "turnlog", {"append_ms": 3}),
        ("diff", "turnlog", {"middle_ms": 30}),
        ("startup", "turnlog", {"import_ms": 160}),
        ("startup", "turnlog", {"transports_loaded": 1}),
        ("startup", "turnlog", {"help_ms": 260}),
    ],
)
def test_one_figure_that_is_not_good_enough_misses_its_own_target(
    check: str, subject: str, figures: dict[str, float]
) -> None:
    scenario = {
        "hundred": "many",
        "thousand": "many",
        "reading": "load",
        "over_websocket": "deltas",
        "over_sse": "deltas",
        "to_wire": "first",
    }.get(check, check)

    found = by_check(medians(changed(scenario, subject, **figures)))

    assert [name for name, row in found.items() if row.met is False] == [check]
    assert all(row.met is not None for row in found.values())


@pytest.mark.parametrize(
    ("scenario", "value", "figures", "said"),
    [
        ("length", 100_000, {"written_bytes": 30_000.0}, "NOT met"),
        ("length", 10, {"p50_ms": 0.7}, "NOT met"),
        ("opening", 100_000, {"p50_ms": 0.15}, "NOT met"),
        ("among", 100_000, {"p50_ms": 0.2}, "NOT met"),
        ("many", 1000, {"per_s": 9000.0}, "NOT met"),
        ("many", 1000, {"per_s": 14_000.0}, "equal"),
    ],
)
def test_what_grows_with_length_or_number_is_not_flat(
    scenario: str, value: int, figures: dict[str, float], said: str
) -> None:
    given = runs()
    for one in given:
        if (one.scenario, one.subject) == (scenario, "turnlog") and value in set(
            one.parameters.values()
        ):
            one.figures.update(figures)

    missed = [row for row in rows(medians(given), MACHINE) if row.met is False]

    assert [verdict(row) for row in missed] == [said]


def test_the_best_peer_is_the_fastest_and_is_named_with_what_it_syncs() -> None:
    row = by_check(medians(changed("turns", "langgraph", per_s=2000)))["turns"]

    assert row.reached == "4,040/s (`chat.add` 4,040/s): 2.02x langgraph (2,000/s, WAL/FULL)"


def test_an_fsync_is_granted_as_the_machine_was_measured() -> None:
    row = by_check(medians(changed("first", "turnlog WebSocket", to_wire_p50_ms=1.6)))["to_wire"]

    assert row.met
    assert "WebSocket +1.4 ms (an fsync takes 1 ms)" in row.reached


def test_a_sync_that_was_measured_with_the_calls_goes_before_the_machines() -> None:
    slow = changed("first", "turnlog WebSocket", to_wire_p50_ms=1.6, sync_ms=0.8)
    row = by_check(medians(slow))["to_wire"]

    assert row.met is False
    assert "WebSocket +1.4 ms (an fsync takes 0.8 ms)" in row.reached


def test_rounds_on_both_sides_of_a_bound_are_told() -> None:
    given = [
        run("diff", "turnlog", None, at, {"append_ms": one, "middle_ms": 3})
        for at, one in enumerate((1.0, 1.9, 2.2))
    ]

    row = by_check(Medians(given))["diff"]

    assert (row.met, row.equal) == (True, True)
    assert verdict(row) == "met, within the spread"


@pytest.mark.parametrize(
    ("scenario", "rate", "said", "summary"),
    [
        ("turns", 700.0, "equal", "17 of 18 targets are met, 1 is equal"),
        ("turns", 600.0, "NOT met", "17 of 18 targets are met"),
        ("items", 400.0, "equal", "17 of 18 targets are met, 1 is equal"),
        ("items", 290.0, "NOT met", "17 of 18 targets are met"),
    ],
)
def test_what_is_nearly_as_fast_as_a_peer_is_equal_to_it(
    scenario: str, rate: float, said: str, summary: str
) -> None:
    found = medians(changed(scenario, "turnlog", per_s=rate))

    row = by_check(found)[scenario]

    assert (row.met, verdict(row)) == (False, said)
    assert summed(rows(found, MACHINE)) == summary


def test_one_part_that_is_missed_misses_the_row_though_another_was_not_measured() -> None:
    given = [run("items", "turnlog"), run("items", "raw sqlite3", None, 0, {"per_s": 9000})]

    row = by_check(Medians(given))["items"]

    assert row.met is False
    assert "not measured: items of any peer" in row.reached
    assert verdict(row) == "NOT met"


def test_figures_keep_their_span_through_arithmetic() -> None:
    ratio = Figure(10, 8, 12).over(Figure(5, 4, 6))
    difference = Figure(10, 8, 12).less(Figure(5, 4, 6))

    assert ratio == Figure(2, 8 / 6, 3)
    assert difference == Figure(5, 2, 8)
    assert (Figure(10, 8, 12).spread, Figure(0, 0, 0).spread) == (0.4, 0)
    assert Figure(1, 1, 1).over(Figure(0, 0, 0)).median == float("inf")


def test_a_ratio_is_of_what_was_measured_in_the_same_round() -> None:
    """A machine that is slow for a while is slow for both, and nothing is to be learned of it."""
    one, other = middle({0: 10, 1: 6, 2: 12}), middle({0: 5, 1: 3, 2: 6})

    assert one.over(other) == middle({0: 2, 1: 2, 2: 2})
    assert one.over(other).spread == 0
    assert one.less(other) == middle({0: 5, 1: 3, 2: 6})
    assert one.over(other, apart=True) == Figure(2, 1, 4)


def test_rounds_that_only_one_was_measured_in_are_not_set_beside_each_other() -> None:
    ratio = middle({0: 10, 1: 6, 2: 12}).over(middle({0: 5, 2: 6}))

    assert ratio == Figure(10 / 5.5, 1, 12 / 5)


def test_medians_are_of_the_rounds_of_the_same_measurement() -> None:
    found = medians()

    assert found.get("turns", "raw sqlite3", "per_s") == middle({0: 1000, 1: 1010, 2: 1020})
    assert found.values("length") == [10, 1000, 10_000, 100_000]
    assert found.subjects("opening") == ["turnlog", "aiosqlite"]
    assert found.durable("turns", "turnlog") == "WAL/FULL"
    assert found.durable("none", "turnlog") == ""
    assert found.cases()[0] == ("turns", "turnlog", None)
    with pytest.raises(NotMeasured, match="length at 7 of turnlog"):
        found.get("length", "turnlog", "p50_ms", 7)


def test_a_scenario_that_the_plan_no_longer_has_comes_last() -> None:
    old = result().runs[0]
    given = [type(old)("gone", "nobody", {}, 0, True, figures={"per_s": 1}), *runs()]

    assert medians(given).cases()[-1] == ("gone", "nobody", None)
