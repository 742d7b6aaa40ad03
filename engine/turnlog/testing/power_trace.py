"""What a program did to the files of a directory, read from what strace wrote down.

The one rule: nothing here runs or opens anything: text in, operations out, so that a trace can be
looked at wherever it was made. What a line says of other files is passed over; the write-ahead
log's index (`-shm`) is one of them, since nobody expects it to outlive a crash.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeAlias

TRACED = (
    "?open,openat,?creat,write,writev,pwrite64,pwritev,?pwritev2,?truncate,ftruncate,"
    "fsync,fdatasync,?unlink,unlinkat,?rename,renameat,?renameat2,?link,linkat"
)
"""The system calls that change files, or make changes last; `?` where not every machine has it."""

FLAGS = ("-f", "--seccomp-bpf", "-y", "-xx", "-s", str(1 << 26), "-e", f"trace={TRACED}")
"""How strace is to be told to write what `parse` reads."""

VOLATILE = "-shm"


@dataclass(frozen=True, slots=True)
class Create:
    """A file came to be, empty."""

    name: str


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes were written at an offset; None is the end of the file."""

    name: str
    offset: int | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """A file was given a length."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """What was done to a file before the first `covers` operations were over is durable now.

    The name `""` is the directory: what was created, removed and renamed in it. None covers all
    that stands before.
    """

    name: str
    covers: int | None = None


@dataclass(frozen=True, slots=True)
class Unlink:
    """A name was removed."""

    name: str


@dataclass(frozen=True, slots=True)
class Rename:
    """A file got another name, in place of what had it."""

    name: str
    to: str


@dataclass(frozen=True, slots=True)
class Link:
    """A file got one more name."""

    name: str
    to: str


@dataclass(frozen=True, slots=True)
class Ack:
    """The program said of these ids that they are done: a line `ACK <id> <id> …`."""

    ids: tuple[str, ...]


Operation: TypeAlias = Create | Write | Truncate | Sync | Unlink | Rename | Link | Ack


def parse(
    lines: Iterable[str],
    directory: PurePath,
    *,
    cwd: PurePath | None = None,
    existing: Iterable[str] = (),
) -> list[Operation]:
    """The operations of a run on the files in a directory, in the order in which they were over.

    `directory` is absolute and without links, as the kernel names it; `existing` are the names of
    the files that the program found there, and `cwd` is where it ran (without it, there too).
    Raises ValueError for a call of which strace left out something.
    """
    reader = _Reader(directory, cwd or directory, existing)
    for line in lines:
        reader.read(line)
    return reader.operations


_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)(.*)", re.DOTALL)
_LINE = re.compile(r"(?:(\d+)\s+)?(.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_PATH = re.compile(r"<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?")
_NUMBER = re.compile(r"(\d+)$")


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that succeeded: its arguments as text, and when it was begun."""

    name: str
    arguments: str
    result: int
    returned: str
    begun: int

    def texts(self) -> list[bytes]:
        """The strings among the arguments; raises ValueError where one is not whole."""
        found = _TEXT.findall(self.arguments)
        if any(cut for _, cut in found):
            raise ValueError(f"strace cut short what was given to {self.name}: use a larger -s")
        return [_unhex(text) for text, _ in found]

    def number(self) -> int:
        """The last argument; only `pwritev2` has flags behind it."""
        arguments, _, _ = self.arguments.rpartition(", ")
        found = _NUMBER.search(arguments if self.name == "pwritev2" else self.arguments)
        assert found is not None, self.arguments
        return int(found[1])


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _unhex_path(text: str) -> PurePath:
    return PurePath(os.fsdecode(_unhex(text)))


def _path(text: str) -> PurePath | None:
    """Where a descriptor stands, as strace's `-y` says; None where its file was removed."""
    found = _PATH.search(text)
    if found is None or found[2]:
        return None
    path = _unhex_path(found[1])
    return None if path.name.endswith(" (deleted)") else path


class _Reader:
    """Puts calls together that were interrupted by others, and knows which names exist."""

    def __init__(self, directory: PurePath, cwd: PurePath, existing: Iterable[str]) -> None:
        self.operations: list[Operation] = []
        self._directory = directory
        self._cwd = cwd
        self._names = set(existing)
        self._unfinished: dict[str, tuple[str, int]] = {}

    def read(self, line: str) -> None:
        """Take one line."""
        found = _LINE.fullmatch(line.rstrip("\n"))
        assert found is not None
        process, text = found[1] or "", found[2]
        begun = len(self.operations)
        if text.endswith(_UNFINISHED):
            self._begin(process, text.removesuffix(_UNFINISHED))
            return
        if resumed := _RESUMED.fullmatch(text):
            before, begun = self._unfinished.pop(process, ("", begun))
            text = before + resumed[1]
        called = _CALL.fullmatch(text)
        if called is not None and (result := int(called[3])) >= 0:
            self._end(_Call(called[1], called[2], result, called[4], begun))

    def _begin(self, process: str, text: str) -> None:
        """An acknowledgement may be heard from when it is begun, and counts from there."""
        name, _, arguments = text.partition("(")
        if name in ("write", "writev"):
            call = _Call(name, arguments, 0, "", 0)
            if acked := self._acked(call):
                self.operations += acked
                return
        self._unfinished[process] = text, len(self.operations)

    def _end(self, call: _Call) -> None:
        handle = _HANDLERS.get(call.name)
        if handle is not None:
            self.operations += handle(self, call)

    # -- names -----------------------------------------------------------------------------

    def _name(self, path: PurePath | None) -> str | None:
        """The name of a file that counts: one in the directory itself."""
        if path is None or path.parent != self._directory or path.name.endswith(VOLATILE):
            return None
        return path.name

    def _named(self, call: _Call) -> list[str | None]:
        """The names among the arguments; a directory before one says where it starts from."""
        places = [_unhex_path(found[0]) for found in _PATH.findall(call.arguments)] or [self._cwd]
        paths = [PurePath(os.fsdecode(one)) for one in call.texts()]
        return [
            self._name(place / path)
            for place, path in zip(places * len(paths), paths, strict=False)
        ]

    # -- calls -----------------------------------------------------------------------------

    def open(self, call: _Call) -> Iterator[Operation]:
        """A file that is opened may be made, or emptied."""
        name = self._name(_path(call.returned))
        if name is None or "O_DIRECTORY" in call.arguments:
            return
        if name not in self._names:
            self._names.add(name)
            yield Create(name)
        elif call.name == "creat" or "O_TRUNC" in call.arguments:
            yield Truncate(name, 0)

    def write(self, call: _Call) -> Iterator[Operation]:
        """Bytes at the end of a file, or an acknowledgement."""
        if self._name(_path(call.arguments)) is None:
            yield from self._acked(call)
        else:
            yield from self._written(call, None)

    def pwrite(self, call: _Call) -> Iterator[Operation]:
        """Bytes at an offset."""
        yield from self._written(call, call.number())

    def _written(self, call: _Call, offset: int | None) -> Iterator[Operation]:
        name = self._name(_path(call.arguments))
        if name is not None:
            yield Write(name, offset, b"".join(call.texts())[: call.result])

    def _acked(self, call: _Call) -> list[Operation]:
        if self._name(_path(call.arguments)) is not None:
            return []
        lines = b"".join(call.texts()).decode("utf-8", "replace").splitlines()
        found = [line.split() for line in lines if line.startswith("ACK ")]
        return [Ack(tuple(ids)) for _, *ids in found]

    def truncate(self, call: _Call) -> Iterator[Operation]:
        """A file by its name or its descriptor gets a length."""
        by_name = call.name == "truncate"
        name = self._named(call)[0] if by_name else self._name(_path(call.arguments))
        if name is not None:
            yield Truncate(name, call.number())

    def sync(self, call: _Call) -> Iterator[Operation]:
        """A file, or the directory, is durable as it was when the call was begun."""
        path = _path(call.arguments)
        name = "" if path == self._directory else self._name(path)
        if name is not None:
            yield Sync(name, call.begun)

    def unlink(self, call: _Call) -> Iterator[Operation]:
        """A name goes."""
        (name,) = self._named(call)
        if name in self._names:
            yield self._gone(name)

    def _gone(self, name: str) -> Unlink:
        self._names.remove(name)
        return Unlink(name)

    def rename(self, call: _Call) -> Iterator[Operation]:
        """A file gets another name; out of the directory, it goes."""
        name, to = self._named(call)
        if name not in self._names:
            return
        if to is None:
            yield self._gone(name)
            return
        self._names.remove(name)
        self._names.add(to)
        yield Rename(name, to)

    def link(self, call: _Call) -> Iterator[Operation]:
        """A file gets one more name; out of the directory, that is of no account."""
        name, to = self._named(call)
        if name in self._names and to is not None:
            self._names.add(to)
            yield Link(name, to)


_HANDLERS: dict[str, Callable[[_Reader, _Call], Iterable[Operation]]] = {
    "open": _Reader.open,
    "openat": _Reader.open,
    "creat": _Reader.open,
    "write": _Reader.write,
    "writev": _Reader.write,
    "pwrite64": _Reader.pwrite,
    "pwritev": _Reader.pwrite,
    "pwritev2": _Reader.pwrite,
    "truncate": _Reader.truncate,
    "ftruncate": _Reader.truncate,
    "fsync": _Reader.sync,
    "fdatasync": _Reader.sync,
    "unlink": _Reader.unlink,
    "unlinkat": _Reader.unlink,
    "rename": _Reader.rename,
    "renameat": _Reader.rename,
    "renameat2": _Reader.rename,
    "link": _Reader.link,
    "linkat": _Reader.link,
}
