"""A table, for a terminal and for a page.

The one rule: cells are text; whoever makes a table has rounded its numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from textwrap import wrap

WIDE = 38
"""How wide a column of words is on a terminal at most."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under names of columns; the first `words` columns are words, not numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: int = 1


def as_text(table: Table) -> str:
    """A table for a terminal; long words are broken into lines."""
    heights = [_wrapped(table, line) for line in (table.columns, *table.rows)]
    widths = [
        max(len(line[place]) for lines in heights for line in lines)
        for place, _ in enumerate(table.columns)
    ]

    def shown(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if place < table.words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    apart = any(len(lines) > 1 for lines in heights[1:])
    told = [table.title, *([table.note] if table.note else []), ""]
    told += [*map(shown, heights[0]), "  ".join("-" * width for width in widths)]
    for lines in heights[1:]:
        told += [*map(shown, lines), *([""] if apart else [])]
    return "\n".join([*told, *([] if apart else [""])])


def _wrapped(table: Table, cells: Sequence[str]) -> list[tuple[str, ...]]:
    """The lines that a row of a table takes."""
    broken = [
        wrap(cell, WIDE) or [""] if place < table.words else [cell]
        for place, cell in enumerate(cells)
    ]
    return list(zip_longest(*broken, fillvalue=""))


def as_markdown(table: Table) -> str:
    """A table for a page, without its title."""
    rule = ["---" if place < table.words else "---:" for place in range(len(table.columns))]
    lines = [table.columns, rule, *table.rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
