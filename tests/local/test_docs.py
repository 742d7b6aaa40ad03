"""The program in docs/local.md, run as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from .given import Small

PAGE = Path(__file__).resolve().parents[2] / "docs" / "local.md"


def test_the_program_runs(llamacpp: Path, tiny: Small, tmp_path: Path) -> None:
    (source,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    tiny.model().rename(tmp_path / "model.gguf")
    command = [sys.executable, "-c", source]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "local was told 1 things.\n"
