"""The arguments and options that commands share, each written once.

The one rule: a name means the same wherever it stands. Nothing heavy is imported here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import typer

from ..errors import InvalidInput

CONNECTION = "The provider"

Db: TypeAlias = Annotated[
    str, typer.Argument(metavar="DB", help="The database file.", show_default=False)
]
Id: TypeAlias = Annotated[
    str, typer.Argument(metavar="ID", help="The conversation.", show_default=False)
]
CallId: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="CALL",
        help="The call: its id or the start of it, the provider's id, or the name of its tool."
        " Not needed where one call waits.",
        show_default=False,
    ),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print JSON lines with the library's field names.")
]
By: TypeAlias = Annotated[
    str, typer.Option("--by", metavar="WHO", help="Who does it, as the log will say.")
]
Reason: TypeAlias = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why, as the log will say.")
]
Agents: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--agents",
        metavar="MODULE:NAME",
        help="An Agent, or a list of them, to bind their tools.",
        rich_help_panel=CONNECTION,
    ),
]
TransportName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--transport",
        metavar="NAME",
        help="The way to the provider: auto (the default), websocket, http, replay, or another"
        " that is installed.",
        show_default=False,
        rich_help_panel=CONNECTION,
    ),
]
BaseUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        help="The provider's address.",
        rich_help_panel=CONNECTION,
    ),
]
Provider: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--provider",
        metavar="NAME",
        help="local: start a small model on this machine, and talk to it. No key, no network.",
        rich_help_panel=CONNECTION,
    ),
]
WeightsFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="The GGUF file for --provider local, instead of what `turnlog local fetch` got.",
        rich_help_panel=CONNECTION,
    ),
]
ProfileName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME",
        help="What the provider can do: openai (the simulator too), azure, xai, openrouter,"
        " vercel, local or generic. Without it, the address suggests one.",
        show_default=False,
        rich_help_panel=CONNECTION,
    ),
]
ScriptFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--script",
        metavar="FILE",
        help="Answer from this script instead of a provider: no key, no network.",
        rich_help_panel=CONNECTION,
    ),
]
TranscriptFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--transcript",
        metavar="FILE",
        help="Answer from this recording instead of a provider.",
        rich_help_panel=CONNECTION,
    ),
]
TransportOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="An option of the transport; may be repeated.",
        rich_help_panel=CONNECTION,
    ),
]


def is_database(path: str) -> bool:
    """Whether a file is a database of SQLite's; what cannot be read is none."""
    with suppress(OSError), open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"
    return False


def pairs(given: Sequence[str] | None, option: str) -> dict[str, str]:
    """`NAME=VALUE` options as a dict; raises InvalidInput for one without `=`."""
    found: dict[str, str] = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise InvalidInput(f"{option} takes NAME=VALUE, not {one!r}")
        found[name] = value
    return found


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def moment(given: str | None, now: float) -> float | None:
    """A time as Unix seconds, from `2026-01-31`, `2026-01-31T09:00` (UTC) or `2h` ago.

    Raises InvalidInput for anything else.
    """
    if given is None:
        return None
    ago = re.fullmatch(r"([0-9]{1,6})([smhdw])", given)
    if ago is not None:
        return now - int(ago[1]) * _UNITS[ago[2]]
    try:
        found = datetime.fromisoformat(given)
    except ValueError:
        raise InvalidInput(
            f"{given!r} is no time: write 2026-01-31, 2026-01-31T09:00, or 90m, 2h, 7d for ago"
        ) from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
