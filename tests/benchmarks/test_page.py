"""What is shown of a run: tables, the page, and the run beside the one before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import page, results, tables
from bench.compare import changes
from bench.compare import table as comparison
from bench.runner import Run
from bench.soak import Kept
from bench.table import Table, as_markdown, as_text
from bench.targets import rows
from bench.wording import share, short, times

from .made import COUNTS, MACHINE, changed, medians, result, run, runs


def named(title: str, given: list[Run] | None = None) -> Table:
    """The table whose title begins so."""
    return next(one for one in tables.all_tables(medians(given)) if one.title.startswith(title))


# -- tables --------------------------------------------------------------------------------


def test_a_table_for_a_terminal_is_aligned_and_breaks_long_words() -> None:
    long = "a sentence that is too long for one line of a column"
    table = Table("T", ("", "n"), (("one", "1,000"), (long, "2")), note="Note.")

    assert as_text(table) == (
        "T\nNote.\n\n"
        "                                         n\n"
        "-----------------------------------  -----\n"
        "one                                  1,000\n\n"
        "a sentence that is too long for one      2\n"
        "line of a column\n"
    )


def test_a_table_for_a_page_aligns_numbers_and_keeps_bars() -> None:
    table = Table("T", ("", "a|b"), (("one", "1"),))

    assert as_markdown(table) == "|  | a\\|b |\n| --- | ---: |\n| one | 1 |\n"


def test_every_line_of_a_table_has_every_column() -> None:
    made = [*tables.all_tables(medians()), tables.targets(rows(medians(), MACHINE))]

    assert len(made) == 15
    for table in made:
        assert {len(line) for line in table.rows} == {len(table.columns)}


def test_the_store_is_shown_with_what_it_syncs_and_beside_the_floor() -> None:
    ours = named("One conversation").rows[0]

    assert ours == (
        "turnlog", "WAL/FULL",
        "4,040", "4.00x", "303", "2%",
        "2,020", "4.00x", "606", "2%",
    )  # fmt: skip


def test_counts_are_shown_of_whom_they_were_taken() -> None:
    counted = replace(run("turns", "turnlog", None, 0, COUNTS), counted=True)

    table = named("Synced", [*runs(), counted])

    assert table.rows == (("turnlog", "1", "20", *"--------"),)


def test_lengths_have_a_column_each() -> None:
    table = named("Written for an append")

    assert table.columns == ("", "10", "1,000", "10,000", "100,000", "spread")
    assert table.rows[0] == ("turnlog", "20.2", "20.2", "20.2", "20.2", "2%")


def test_the_wire_is_shown_beside_its_own_floor() -> None:
    sse = named("Over server-sent events").rows

    assert [line[0] for line in sse] == ["turnlog SSE", "raw httpx2 SSE + orjson", "openai SDK SSE"]
    assert sse[0][1:4] == ("404,000", "4.00x", "10.1")


def test_nothing_is_shown_of_what_was_not_measured() -> None:
    only = [one for one in runs() if one.scenario == "diff"]

    (table,) = tables.all_tables(medians(only))

    assert [line[1] for line in table.rows] == ["1.01", "10.1"]
    assert tables.all_tables(medians([])) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1838.4, "1,840"), (173_000, "173,000"), (99.96, "100"), (16.23, "16.2"),
        (2.0, "2"), (0.00317, "0.00317"), (-0.25, "-0.25"), (float("inf"), "∞"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert short(value) == text


def test_ratios_and_shares() -> None:
    assert (times(1.046), times(23.44), share(0.163)) == ("1.05x", "23.4x", "16%")


# -- the run before ------------------------------------------------------------------------


def test_a_run_is_set_beside_the_one_before() -> None:
    before = result()
    now = result(changed("turns", "turnlog", per_s=1000), when="2026-02-01T00:00:00+00:00")

    found = {one.case: one for one in changes(now, before) if one.verdict}

    assert list(found) == [("turns", "turnlog", None)]
    one = found["turns", "turnlog", None]
    assert (one.name, one.verdict, round(one.ratio, 2)) == ("per_s", "worse", 0.25)


def test_less_time_is_better() -> None:
    now = result(changed("opening", "turnlog", p50_ms=0.01))

    assert {one.verdict for one in changes(now, result()) if one.case[0] == "opening"} == {
        "", "better",
    }  # fmt: skip


@pytest.mark.parametrize(("rate", "verdict"), [(5000.0, ""), (7000.0, "better"), (2000.0, "worse")])
def test_a_single_round_is_given_half_as_much_again(rate: float, verdict: str) -> None:
    then = result([run("turns", "turnlog")])
    now = result([run("turns", "turnlog", None, 0, {"per_s": rate})])

    assert [one.verdict for one in changes(now, then)] == [verdict]


def test_another_machine_is_told() -> None:
    elsewhere = replace(result(), machine=replace(MACHINE, cpu="Other CPU"))

    assert "ANOTHER MACHINE: Other CPU, ext4." in comparison(result(), elsewhere).note
    same = comparison(result(), result())
    assert "ANOTHER" not in same.note and "0 of " in same.note
    assert ("many 1,000", "turnlog", "per_s", "16,200", "16,200", "1.00x", "") in same.rows


# -- the page ------------------------------------------------------------------------------


def test_the_page_shows_targets_tables_charts_and_the_machine() -> None:
    text = page.document(result())

    assert "18 of 18 targets are met. Measured on 2026-01-02 on 2 cores of Some CPU" in text
    assert "![Opening a conversation](performance/opening.svg)" in text
    assert "| `turnlog` | abc |" in text
    assert "Where a target is not met" not in text and "could not be measured" not in text
    assert all(len(line) <= 100 or line.startswith("|") for line in text.splitlines())


def test_the_page_tells_limits_failures_and_what_kind_of_run_it_was() -> None:
    failed = Run("turns", "langgraph", {}, 0, True, failure="no | wheel")
    text = page.document(replace(result([failed], quick=True), partial=True), "Disks sync.\n")

    assert "0 of 18 targets are met (of a quick run, which is not the measure; of a part of" in text
    assert "## Where a target is not met\n\nDisks sync.\n" in text
    assert "| turns | langgraph | no \\| wheel |" in text


def test_the_page_tells_of_an_hour_where_there_was_one() -> None:
    samples = [
        {"seconds": at, "resident": 100.0, "database": at, "turns": at}
        for at in map(float, range(0, 3600, 15))
    ]
    soak = Kept(run={}, machine={}, client={}, provider={}, samples=samples, windows=[], closed=[])

    text = page.document(result(), "", soak)

    assert "## And for an hour" in text and "## And for an hour" not in page.document(result())
    assert "| resident memory, MiB | flat |" in text
    assert "(performance/soak-memory.svg)" in text


def test_a_page_is_written_with_its_charts(tmp_path: Path) -> None:
    limits = tmp_path / "limits.md"
    limits.write_text("Because.")
    (tmp_path / "performance").mkdir()
    (tmp_path / "performance" / "soak-wal.svg").write_text("kept")

    page.write(result(), tmp_path / "performance.md", limits)

    assert "Because." in (tmp_path / "performance.md").read_text()
    assert len(list((tmp_path / "performance").iterdir())) == 7


def test_the_page_is_that_of_the_newest_kept_result() -> None:
    newest = results.newest()
    if newest is None:
        assert not page.PAGE.exists(), "docs/performance.md has no result behind it"
        return
    for path, text in page.files(newest).items():
        assert path.read_text(encoding="utf-8") == text, "run `python -m bench --page`"
