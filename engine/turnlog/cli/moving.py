"""Commands about whole logs: verify, export, import, backup, migrate.

The one rule: a file is put in its place whole or not at all, as is what is read from one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from stat import S_ISREG
from typing import IO, TYPE_CHECKING, Annotated, TextIO

import typer

from ..errors import InvalidInput
from .options import AsJson, Db, is_database

if TYPE_CHECKING:
    from ..log import Log
    from ..verifying import Report
    from .screen import Screen

Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="Conversations; all, where left out."),
]


# -- verify --------------------------------------------------------------------------------


def verify(db: Db, ids: Ids = None, *, as_json: AsJson = False) -> None:
    """Check that nothing was changed.

    Every hash is computed again, and what is cached beside the log compared with the log. Exit code
    1 where something is wrong.
    """
    from .opening import reading, run
    from .screen import Screen
    from .words import counted

    screen = Screen(as_json=as_json)
    conversations = events = findings = 0

    async def work() -> None:
        async with reading(db) as opened:
            with screen.err.status("verifying") as status:

                def told(report: Report) -> None:
                    nonlocal conversations, events, findings
                    conversations += report.conversations
                    events += report.events
                    findings += len(report.findings)
                    status.update(f"verifying: {counted(events, 'event')}")
                    _findings(screen, report)

                if not ids:
                    await opened.verify(told=told)
                for id in ids or ():
                    told(await opened.verify(id))

    run(work())
    if as_json:
        total = {"conversations": conversations, "events": events, "ok": not findings}
        screen.data(total)
    else:
        said = counted(findings, "finding") if findings else "all of it verifies"
        style = "bold red" if findings else "green"
        screen.say(
            f"{counted(conversations, 'conversation')}, {counted(events, 'event')}: {said}",
            style=style,
        )
    if findings:
        raise typer.Exit(1)


async def _chosen(opened: Log, ids: list[str] | None) -> AsyncIterator[str]:
    """The conversations that were named, or all of them."""
    for id in ids or ():
        yield id
    after: str | None = None
    while not ids and (rows := await opened.conversations(after=after, limit=100)):
        for row in rows:
            yield row.id
        after = rows[-1].id


def _findings(screen: Screen, report: Report) -> None:
    for finding in report.findings:
        if screen.as_json:
            screen.data(finding)
        else:
            where = f"version {finding.version}: " if finding.version is not None else ""
            whose = finding.conversation or "the database"
            screen.say(f"{whose}: {where}{finding.problem}", style="red")


# -- export and import ---------------------------------------------------------------------


def export(
    db: Db,
    ids: Ids = None,
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is stdout.")
    ] = "-",
) -> None:
    """Write conversations as JSON lines.

    What they were forked from goes along. Nothing is lost, and `turnlog import` verifies it.
    """
    from .opening import reading, run
    from .screen import Screen
    from .words import counted

    screen = Screen()

    async def work() -> int:
        async with reading(db) as opened:
            chosen = [id async for id in _chosen(opened, ids)]
            if not chosen:
                raise InvalidInput(f"{db} holds no conversation to export")
            with _written(output, db) as file, screen.err.status("exporting"):
                count = -1
                async for line in opened.export(*chosen):
                    file.write(f"{line}\n")
                    count += 1
        return count

    count = run(work())
    if output != "-":
        screen.note(f"{counted(count, 'event')} in {output}")


@contextmanager
def _written(output: str, db: str) -> Generator[TextIO]:
    """Where to write; raises InvalidInput where that cannot be, or would replace a database."""
    if output in ("-", "/dev/stdout"):
        yield sys.stdout
        return
    try:
        mode = _mode(output)
        if mode is not None and not S_ISREG(mode):
            with open(output, "w", encoding="utf-8", newline="\n") as file:
                yield file
            return
        path = os.path.realpath(output)
        if path in _files_of(db) or (mode is not None and is_database(path)):
            raise InvalidInput(
                f"{output} is a database, or belongs to one: name another file for the export"
            )
        with _whole(path) as file:
            yield file
    except OSError as error:
        raise InvalidInput(f"{output} cannot be written: {error.strerror}") from error


def _mode(path: str) -> int | None:
    """What kind of file it is, behind symbolic links; None where there is none."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _files_of(db: str) -> list[str]:
    path = os.path.realpath(db)
    return [f"{path}{suffix}" for suffix in ("", "-wal", "-shm", "-owners")]


@contextmanager
def _whole(path: str) -> Generator[TextIO]:
    """A file that is put in its place when it is whole."""
    part = os.path.join(os.path.dirname(path), f".turnlog-{token_hex(8)}.part")
    try:
        with open(part, "x", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with suppress(OSError):
            os.unlink(part)


def import_(
    db: Db,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="What `turnlog export` wrote; - is stdin.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Read what `turnlog export` wrote.

    All of it verifies, or nothing is written. The database is made where there is none, when the
    file has verified. What is
    there already is left as it is. Exit code 1 where the file is damaged.
    """
    from tempfile import SpooledTemporaryFile

    from ..exchange import SPOOL, check_lines
    from ..limits import Limits
    from ..store import MemoryStore
    from .opening import is_new, making, run
    from .screen import Screen
    from .words import counted

    screen = Screen(as_json=as_json)

    async def work(lines: Iterable[bytes]) -> None:
        with SpooledTemporaryFile[bytes](max_size=SPOOL) as again, screen.err.status("importing"):
            if is_new(db):
                # A file that is refused must not leave an empty database behind.
                await check_lines(MemoryStore(), _kept(lines, again), Limits())
                again.seek(0)
                lines = again
            async with making(db) as opened:
                done = await opened.import_(lines)
        if as_json:
            screen.data(done)
            return
        already = f" ({done.already} were there)" if done.already else ""
        screen.say(
            f"{counted(len(done.conversations), 'conversation')},"
            f" {counted(done.written, 'event')} written{already}",
            style="green",
        )

    with _read(file) as lines:
        run(work(lines))


def _kept(lines: Iterable[bytes], again: IO[bytes]) -> Iterator[bytes]:
    """The lines, which can be read again: stdin cannot."""
    for line in lines:
        again.write(line)
        yield line


@contextmanager
def _read(file: str) -> Generator[Iterable[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as lines:
            yield lines
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from error


# -- backup --------------------------------------------------------------------------------


def backup(
    db: Db,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The copy: a new file.")],
) -> None:
    """Copy a database that is in use.

    The copy is the database as it is at one moment, whoever writes to it; what is in it can be
    checked with `turnlog verify`. A turn that runs now is in the copy as one whose process is gone:
    go on with it in one of the two files, or its tools run twice.
    """
    from .opening import reading, run
    from .screen import Screen

    screen = Screen()

    async def work() -> None:
        async with reading(db) as opened:
            with screen.err.status("copying"):
                await opened.backup(file)

    run(work())
    screen.note(f"{db} is copied to {file}")


# -- migrate -------------------------------------------------------------------------------


def migrate(db: Db, *, as_json: AsJson = False) -> None:
    """Bring a database to the newest schema."""
    from ..store import migrate as bring_up
    from .opening import existing
    from .screen import Screen

    screen = Screen(as_json=as_json)
    before, after = bring_up(existing(db))
    if as_json:
        screen.data({"before": before, "after": after})
    elif before == after:
        screen.say(f"{db} is at schema {after}, the newest")
    else:
        screen.say(f"{db} was at schema {before or 'none'} and is at {after} now")
