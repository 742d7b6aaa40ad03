"""The command line, as far as it measures nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import results
from bench.__main__ import Left, main

from .made import changed, result, run


def kept(folder: Path, *, missed: bool = False) -> str:
    """The path of a result."""
    given = changed("turns", "turnlog", per_s=1) if missed else None
    results.save(result(given), folder / "result.json")
    return str(folder / "result.json")


def test_a_result_is_shown_with_its_targets_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--results", kept(tmp_path), "--check"]) == 0

    told = capsys.readouterr().out
    assert told.startswith("What was reached\n")
    assert "18 of 18 targets are met, 0 are not, the rest was not measured.\n" in told


def test_a_target_that_is_missed_is_an_error_only_where_asked(tmp_path: Path) -> None:
    file = kept(tmp_path, missed=True)

    assert (main(["--results", file]), main(["--results", file, "--check"])) == (0, 1)


def test_what_was_not_measured_is_missed_by_a_whole_run_only(tmp_path: Path) -> None:
    for quick, code in ((True, 0), (False, 1)):
        results.save(result([run("turns", "turnlog")], quick=quick), tmp_path / "result.json")
        assert main(["--results", str(tmp_path / "result.json"), "--check"]) == code


def test_a_file_that_is_not_a_result_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--page", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_a_name_that_nobody_has_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "turns,none"])
    assert "'none' is none of: turns; items;" in capsys.readouterr().err


def test_what_is_left_is_reckoned_by_what_is_done() -> None:
    now = 100.0
    planned = [run("turns", "turnlog") for _ in range(3)] + [run("load", "turnlog")]
    left = Left(planned, lambda: now)
    assert left.words() == "0/4"

    now = 110.0
    left.took(planned[0])
    assert left.words() == "1/4, about 30 s left"
    now = 200.0
    left.took(planned[1])
    assert left.words() == "2/4, about 2 min left"
