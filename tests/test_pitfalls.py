"""Each pitfall that the systems before this one fell into has a test that is named after it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROWS = (
    *range(1, 19),
    *range(20, 27),
    *range(30, 38),
    *range(40, 51),
    *range(60, 68),
)


def test_every_pitfall_has_a_test_named_after_it() -> None:
    names = [
        node.name
        for path in Path(__file__).parent.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and "test_" in node.name
    ]
    covered = {int(row) for name in names for row in re.findall(r"_w(\d\d)(?=_)", name)}
    missing = [f"W-{row:02}" for row in ROWS if row not in covered]
    assert missing == []
