"""A result is kept as a file that says the same in the same bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import results
from bench.machine import Machine, file_system, look, probe
from bench.results import BadResult
from bench.runner import Run

from .made import MACHINE, result, run, runs

COUNTED = Run("turns", "turnlog", {"turns": 4}, 0, True, counted=True, figures={"fsyncs": 1.0})


def test_a_result_is_read_as_it_was_written_in_the_plans_order(tmp_path: Path) -> None:
    failed = Run("turns", "langgraph", {"turns": 4}, 0, True, failure="environment: no wheel")
    one = result([*reversed(runs()), COUNTED, failed])

    results.save(one, tmp_path / "a" / one.name)
    again = results.load(tmp_path / "a" / one.name)

    assert again == replace(one, runs=tuple(results.ordered(one.runs)))
    assert results.write(again) == results.write(one)
    assert (
        results.write(one).count("\n")
        == len(one.runs) + len(results.write(result([])).split("\n")) - 2
    )


def test_a_figure_is_kept_in_six_digits() -> None:
    one = result([run("turns", "turnlog", None, 0, {"per_s": 1234.56789})])

    assert json.loads(results.write(one))["runs"][0]["figures"] == {"per_s": 1234.57}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ('"quick": false', "quick"),
        ('"subject": "turnlog"', "subject"),
        ('"sync_ms": [', "sync_ms"),
        ('"round": 0', "round"),
    ],
)
def test_what_is_not_a_result_is_told(tmp_path: Path, change: str, told: str) -> None:
    text = results.write(result([run("turns", "turnlog")]))
    assert change in text
    file = tmp_path / "2026.json"
    file.write_text(text.replace(change, change.replace(told, "other")))

    with pytest.raises(BadResult, match=rf"(?s)2026\.json.*{told}"):
        results.load(file)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadResult, match="none"):
        results.load(tmp_path / "none.json")


def test_the_newest_is_the_last_full_one(tmp_path: Path) -> None:
    assert results.newest(tmp_path) is None
    quick = result([], when="2026-03-01T00:00:00+00:00", quick=True)
    for one in (quick, result([]), result([], when="2026-02-01T00:00:00+00:00")):
        results.save(one, tmp_path / one.name)
    (tmp_path / "soak-60s.json").write_text("{}")

    newest = results.newest(tmp_path)

    assert newest is not None and newest.when.startswith("2026-02")
    assert [one.when[:7] for one in results.kept(tmp_path)] == ["2026-01", "2026-02", "2026-03"]
    assert [one.quick for one in results.kept(tmp_path, quick=True)] == [True]
    assert quick.name == "2026-03-01-some-2-cores-quick.json"


def test_versions_are_those_that_the_subjects_told() -> None:
    one = replace(COUNTED, facts={"orjson": "3.13.0", "journal_mode": "wal"})
    other = replace(COUNTED, facts={"orjson": "3.14.0", "pydantic": "2.14.3"})

    found = results.versions_of([one, other])

    assert (found["orjson"], found["pydantic"]) == ("3.13.0, 3.14.0", "2.14.3")
    assert set(found) == {"python", "sqlite", "orjson", "pydantic", "turnlog"}


def test_a_folder_without_git_has_no_revision(tmp_path: Path) -> None:
    assert results.revision(tmp_path) == "unknown"


def test_a_failure_is_told_once() -> None:
    one = replace(COUNTED, failure="it took more than 900 s")

    assert results.failures([one, replace(one, round=1), COUNTED]) == [
        ("turns", "turnlog", "it took more than 900 s")
    ]


def test_the_machine_is_looked_at(tmp_path: Path) -> None:
    took = probe(tmp_path, times=3)
    found = look(tmp_path, (took,))

    assert took > 0 and found.sync_ms == (took,)
    assert found.cores >= 1 and found.memory_gib > 0 and found.cpu
    assert list(tmp_path.iterdir()) == []


def test_the_nearest_mount_tells_the_file_system(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\n/dev/b {tmp_path} xfs rw 0 0\n")

    assert file_system(tmp_path / "deep", mounts) == "xfs"
    assert file_system(Path("/"), mounts) == "ext4"
    assert file_system(tmp_path, tmp_path / "none") == "unknown"


def test_machines_are_named_by_their_kind() -> None:
    xeon = Machine("Intel(R) Xeon(R) CPU @ 2.80GHz", 2, 8.0, "Linux 6", "ext4", (1.0,))

    assert xeon.label == "intel-xeon-2-cores"
    assert not xeon.same_kind(MACHINE)
    assert MACHINE.same_kind(replace(MACHINE, kernel="Linux 7", sync_ms=(5.0,)))
