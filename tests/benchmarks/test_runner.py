"""Measurements come in the order of the plan, and one that fails is told of, and no more."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import plan as plans
from bench.plan import SCENARIOS, Scenario, Subject
from bench.runner import Run, label, measured, plan, run_process

LENGTH = Scenario(
    "length",
    "As it grows",
    ("turnlog", "langgraph"),
    full={"turns": 3},
    quick={"turns": 1},
    rounds=2,
    over="items",
    values=(10, 1000),
    quick_values=(10,),
    few={"langgraph": (10,)},
)


def order(runs: Sequence[Run]) -> list[tuple[int, int | str, str]]:
    return [(run.round, run.parameters["items"], run.subject) for run in runs]


def test_subjects_take_turns_at_each_value_in_each_round() -> None:
    found = list(plan(LENGTH, quick=False))

    each = [(10, "turnlog"), (10, "langgraph"), (1000, "turnlog")]
    assert order(found) == [(round, *one) for round in (0, 1) for one in each]
    assert {run.parameters["turns"] for run in found} == {3}


def test_a_quick_run_has_one_round_of_the_quick_values() -> None:
    """Of the floors and the fastest peers only, unless others are asked for."""
    assert order(list(plan(LENGTH, quick=True))) == [(0, 10, "turnlog")]
    both = ["turnlog", "langgraph"]
    found = list(plan(LENGTH, quick=True, only=both))
    assert order(found) == [(0, 10, "turnlog"), (0, 10, "langgraph")]


def test_only_those_that_are_named_are_measured() -> None:
    found = list(plan(LENGTH, quick=False, only=["langgraph"], rounds=1))

    assert order(found) == [(0, 10, "langgraph")]
    assert label(found[0]) == "langgraph, turns=3, items=10"


def test_a_length_of_a_run_that_leaves_a_scenario_out() -> None:
    assert list(plan(replace(LENGTH, quick=None), quick=True)) == []


def test_every_subject_of_the_plan_has_a_module_with_its_scenarios() -> None:
    folder = Path(plans.__file__).parent / "subjects"
    for scenario in SCENARIOS:
        for name in scenario.subjects:
            module = (folder / f"{plans.SUBJECTS[name].module}.py").read_text()
            assert scenario.name in module, f"{name} does not say {scenario.name}"


def test_a_subject_that_fails_gives_its_last_line(tmp_path: Path) -> None:
    nobody = Subject("nobody", "unheard_of", "")
    run = Run("turns", "nobody", {"turns": 1}, 0, pinned=False)

    found = measured(run, nobody, Path(sys.executable), {}, tmp_path, timeout=60)

    failure = "ModuleNotFoundError: No module named 'bench.subjects.unheard_of'"
    assert found == replace(run, failure=failure)


def test_a_process_whose_time_runs_out_is_ended(tmp_path: Path) -> None:
    program = "import time; print('here', flush=True); time.sleep(60)"

    ended = run_process([sys.executable, "-c", program], tmp_path, timeout=0.3)

    assert ended.code is None
