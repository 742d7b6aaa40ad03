"""`python -m bench.stages` finds the functions that it looks at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.environments import BENCHMARKS


def test_every_stage_is_seen(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "bench.stages", "2"],
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.count("all of it") == 3
    assert " nan" not in told
