"""The command itself: what it is called with, and where errors become messages.

The one rule: an error that turnlog raises on purpose is one line that names the thing and the fix,
with an exit code for scripts; any other is a defect, and shows its traceback.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import (
    Conflict,
    InvalidInput,
    NotFound,
    NotPending,
    ProviderError,
    StateError,
    StoreError,
    TurnFailed,
    TurnlogError,
    UsageError,
    Waiting,
)
from . import doctor, history, local, looking, moving, serving, settling, talking, working
from .options import is_database

EPILOG = (
    "Exit codes: 0 ok; 1 something was found, or a turn did not complete; 2 wrong usage; 3 not"
    " found; 4 the conversation is elsewhere (busy, waiting, late); 5 the database; 6 the provider;"
    " 130 interrupted."
)

_CODES: tuple[tuple[type[TurnlogError], int], ...] = (
    (NotFound, 3),
    (UsageError, 2),
    (StateError, 4),
    (Conflict, 4),
    (StoreError, 5),
    (TurnFailed, 1),
    (ProviderError, 6),
)


def exit_code(error: TurnlogError) -> int:
    """What a script is told; 1 for a file that cannot be imported."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), 1)


class Group(TyperGroup):
    """The commands, with errors as messages."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an error of turnlog's becomes a line on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except TurnlogError as error:
            from .screen import Screen

            Screen().error(error)
            raise typer.Exit(exit_code(error)) from error


class OnDatabase(TyperCommand):
    """A command whose first argument is the database, unless `turnlog --db` has named it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the database that the group was given before the other arguments.

        Raises InvalidInput where it is named once more.
        """
        db = ctx.parent.params.get("db") if ctx.parent is not None else None
        if not db or ctx.resilient_parsing:
            return super().parse_args(ctx, [db, *args] if db else args)
        takes_file = any(one.name == "file" for one in self.params)
        _check_once(ctx.parent, db, args[:1], others=not takes_file)
        rest = super().parse_args(ctx, [db, *args])
        _check_once(ctx.parent, db, [ctx.params.get("id"), *(ctx.params.get("ids") or ())])
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run it; where a turn or a call stands in the way, say how to look at that."""
        try:
            return super().invoke(ctx)
        except (Waiting, NotPending) as error:
            of = ctx.params
            error.add_note(f"turnlog show {of['db']} {of.get('id', 'ID')}  says what can be done")
            raise


def _check_once(group: Any, db: str, given: Iterable[str | None], *, others: bool = True) -> None:
    """Raise InvalidInput where an argument is the database, or with `others` any database."""
    for one in given:
        same = one is not None and os.path.realpath(one) == os.path.realpath(db)
        if one and (same or (others and is_database(one))):
            asked = group.get_parameter_source("db").name == "COMMANDLINE"
            source = "--db" if asked else "TURNLOG_DB"
            raise InvalidInput(f"{source} names the database already, {db}: leave DB out ({one})")


app = typer.Typer(
    cls=Group,
    name="turnlog",
    help="Talk to a model, and read, check and mend the durable record of it.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"turnlog {version('turnlog')}")
        raise typer.Exit


@app.callback()
def turnlog(
    db: Annotated[
        str | None,
        typer.Option(
            "--db",
            metavar="FILE",
            envvar="TURNLOG_DB",
            help="The database: commands then take no DB argument.",
            show_default=False,
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Talk to a model, and read, check and mend the durable record of it."""


for _command in (
    talking.chat,
    talking.resume,
    looking.ls,
    looking.show,
    history.log,
    history.diff,
    settling.fork,
    settling.approve,
    settling.reject,
    settling.resolve,
    settling.recover,
    working.work,
    moving.verify,
    moving.export,
    moving.import_,
    moving.backup,
    moving.migrate,
):
    app.command(_command.__name__.rstrip("_"), cls=OnDatabase)(_command)
app.command("serve-simulator")(serving.serve_simulator)
app.add_typer(local.local, name="local")
app.command("doctor")(doctor.doctor)


def run() -> None:
    """Run the command. Raises SystemExit, also where what it printed cannot be written."""
    (logging.lastResort or logging.NullHandler()).addFilter(in_a_line)
    try:
        app()
    except (OSError, SystemExit) as end:
        error = _unwritten(end)
        if error is None:
            raise
        if error.errno != errno.EPIPE:
            typer.echo(f"error: nothing more can be written: {error.strerror}", err=True)
        raise SystemExit(1) from None


def in_a_line(record: logging.LogRecord) -> bool:
    """Have an error of turnlog's that is logged say no more than its message."""
    if record.exc_info is not None and isinstance(record.exc_info[1], TurnlogError):
        record.exc_info = None
    return True


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _unwritten(end: BaseException) -> OSError | None:
    """Why what was printed cannot be written; None where the command ended for another reason."""
    try:
        print(end="", flush=True)
    except OSError as error:
        # What is left is thrown away, or the end of the process would fail to write it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return end if isinstance(end, OSError) and end.errno in _FULL and not end.filename else None
