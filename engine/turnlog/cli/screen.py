"""What is printed, and how: for eyes on a terminal, plain in a pipe, JSON lines for programs.

The one rule: whatever comes from a log or a provider is neutralised before it is shown, so that no
content can command the terminal. Answers and data go to stdout, everything about them to stderr.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import cast

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ..canonical import Json, JsonObject, loads
from ..exchange_lines import json_line
from ..record import Recorded
from ..state import State
from ..updates import Cursor

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ufeff\ud800-\udfff]"
)


def safe(text: str) -> str:
    """Text without anything that commands a terminal: control characters stand as escapes."""
    return _CONTROL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    if found[0] == "\r":
        return ""
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def one_line(text: str, width: int = 160) -> str:
    """Safe text on one line, cut where it is longer than `width`."""
    short = " ".join(safe(text[: 4 * width]).split())
    return short if len(short) <= width else short[: width - 1] + "…"


def plain(value: object) -> Json:
    """A value of the library as JSON: the fields of a dataclass under their names.

    What only the library can use (engines, heads) is left out; an event has its body as JSON.
    """
    match value:
        case Cursor():
            return str(value)
        case Recorded():
            return _event(value)
        case bytes():
            return value.hex()
        case _ if is_dataclass(value):
            return {
                one.name: plain(getattr(value, one.name))
                for one in fields(value)
                if not one.name.startswith("_") and not isinstance(getattr(value, one.name), State)
            }
        case Mapping():
            found = cast("Mapping[str, object]", value)
            return {key: plain(part) for key, part in found.items()}
        case list() | tuple():
            return [plain(part) for part in cast("Sequence[object]", value)]
        case _:
            return cast(Json, value)


def _event(one: Recorded) -> JsonObject:
    return {
        "conversation": one.conversation,
        "version": one.version,
        "id": one.id,
        "tag": one.tag,
        "schema": one.schema,
        "time": one.time,
        "actor": one.actor,
        "turn": one.turn,
        "epoch": one.epoch,
        "hash": one.hash.hex(),
        "body": loads(one.body),
    }


class Screen:
    """Where a command prints. With `as_json`, data goes out as JSON lines and nothing else."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.out = Console(markup=False, highlight=False, emoji=False)
        self.err = Console(markup=False, highlight=False, emoji=False, stderr=True)

    @property
    def pretty(self) -> bool:
        """Whether somebody looks at stdout, and not a program."""
        return self.out.is_terminal and not self.as_json

    @property
    def asks(self) -> bool:
        """Whether somebody is there to be asked."""
        return sys.stdin.isatty() and self.pretty

    def data(self, value: object, **more: object) -> None:
        """One line of JSON."""
        line = plain(value)
        assert isinstance(line, Mapping)
        print(json_line({**line, **{key: plain(part) for key, part in more.items()}}), flush=True)

    def show(self, what: RenderableType) -> None:
        """Something for eyes; plain text is never cut or wrapped in a pipe."""
        if self.out.is_terminal:
            self.out.print(what)
        else:
            self.out.print(what, soft_wrap=True)

    def remark(self, what: RenderableType) -> None:
        """Something for eyes, on stderr."""
        self.err.print(what, soft_wrap=True)

    def row(self, text: Text) -> None:
        """One line for eyes, cut to the width of a terminal."""
        if self.out.is_terminal:
            self.out.print(text, no_wrap=True, overflow="ellipsis")
        else:
            self.out.print(text, soft_wrap=True)

    def say(self, text: str, style: str = "") -> None:
        """A result in words."""
        self.out.print(Text(safe(text), style=style), soft_wrap=True)

    def note(self, text: str, style: str = "dim") -> None:
        """A word about the result, on stderr."""
        self.err.print(Text(safe(text), style=style), soft_wrap=True)

    def error(self, error: Exception) -> None:
        """What went wrong, and what can be done about it."""
        self.note(f"error: {one_line(str(error), 1000)}", style="red")
        for hint in getattr(error, "__notes__", ()):
            self.note(f"  {one_line(hint, 1000)}", style="dim")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
        """A table on a terminal; aligned columns, whole, in a pipe."""
        cells = [[_cell(cell) for cell in row] for row in rows]
        if self.out.is_terminal:
            table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
            for column in columns:
                table.add_column(column)
            for row in cells:
                table.add_row(*row)
            self.out.print(table)
            return
        texts = [
            [column.upper() for column in columns],
            *([cell.plain for cell in row] for row in cells),
        ]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        for line in texts:
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            print("  ".join(padded).rstrip())


def _cell(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(safe(cell))


def arguments(given: str | None) -> str:
    """The arguments of a call as in code: `order="7", amount=3.5`; as they are, where no object."""
    try:
        found = loads(given or "{}")
    except ValueError:
        return one_line(given or "")
    if not isinstance(found, dict):
        return one_line(given or "")
    return one_line(", ".join(f"{key}={_literal(value)}" for key, value in found.items()))


def _literal(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)
