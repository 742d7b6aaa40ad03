"""What may be found on a disk after a crash: every image that the operations of a run allow.

The one rule: a fsync is believed, and nothing else. What was done to a file is durable from a sync
of that file on, and what was done to names (created, removed, renamed, linked) from a sync of the
directory on. Before that, all of it may be there, none of it, or any part: each sector of 512
bytes of each write for itself, while names change in the order in which they were changed. A
sector that nobody wrote to stays as it was, and one that was written is old or new, never a
mixture (SQLite calls that "powersafe overwrite").
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, assert_never

from .power_trace import Ack, Create, Link, Operation, Rename, Sync, Truncate, Unlink, Write

SECTOR = 512

Kind = Literal["process", "cut", "torn"]
"""Only the process died; the power went, and nothing was there but what was synced; or some."""

_Change: TypeAlias = Write | Truncate
_Naming: TypeAlias = Create | Unlink | Rename | Link


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The files of a directory as they may be found after so many operations of a run.

    `acked` counts the ids that had been acknowledged by then.
    """

    kind: Kind
    after: int
    acked: int
    files: Mapping[str, bytes]


def acknowledged(operations: Sequence[Operation]) -> list[str]:
    """All ids that a run acknowledged, in order, each once."""
    said = (id for one in operations if isinstance(one, Ack) for id in one.ids)
    return list(dict.fromkeys(said))


def images(
    operations: Sequence[Operation],
    files: Mapping[str, bytes] | None = None,
    *,
    torn: int = 2,
    seed: int = 0,
    at: Collection[int] | None = None,
) -> Iterator[Image]:
    """The images of a run that began with these files: at each prefix of its operations, one of a
    dead process, one of a power cut, and so many where only a part of what was not synced is there.

    `at` says behind how many operations to look; None is behind each, from 0 to all of them.
    `torn` ones are drawn by the seed and the prefix: the same image for the same arguments.
    """
    disk = Disk(files or {})
    acked: set[str] = set()
    for after in range(len(operations) + 1):
        if after:
            one = operations[after - 1]
            disk.apply(after - 1, one)
            acked.update(one.ids if isinstance(one, Ack) else ())
        if at is None or after in at:
            for kind, found in _kinds(disk, torn, seed, after):
                yield Image(kind=kind, after=after, acked=len(acked), files=found)


def _kinds(
    disk: Disk, torn: int, seed: int, after: int
) -> Iterator[tuple[Kind, Mapping[str, bytes]]]:
    yield "process", disk.crashed()
    yield "cut", disk.cut()
    if disk.waiting:
        for number in range(torn):
            yield "torn", disk.torn(random.Random(f"{seed} {after} {number}"))


@dataclass(slots=True, eq=False)
class _File:
    """What is in a file, what of it is durable, and what waits to be."""

    durable: bytes = b""
    live: bytearray = field(default_factory=bytearray)
    waiting: list[tuple[int, _Change]] = field(default_factory=list[tuple[int, _Change]])

    def change(self, number: int, change: _Change) -> None:
        if isinstance(change, Write) and change.offset is None:
            change = Write(change.name, len(self.live), change.data)
        _do(self.live, change)
        self.waiting.append((number, change))

    def sync(self, covers: int) -> None:
        content = bytearray(self.durable)
        for number, change in self.waiting:
            if number < covers:
                _do(content, change)
        self.durable = bytes(content)
        self.waiting = [one for one in self.waiting if one[0] >= covers]

    def torn(self, draw: random.Random) -> bytes:
        """The durable content, and some of what waits."""
        content = bytearray(self.durable)
        likely = draw.choice((0.1, 0.5, 0.9))
        for _, change in self.waiting:
            if draw.random() < likely:
                _do(content, change)
            elif isinstance(change, Write) and draw.random() < likely:
                for part in _sectors(change):
                    if draw.random() < 0.5:
                        _do(content, part)
        return bytes(content)


def _do(content: bytearray, change: _Change) -> None:
    """Change a content; what was never written is zero."""
    if isinstance(change, Truncate):
        del content[change.size :]
        content.extend(bytes(change.size - len(content)))
        return
    offset = change.offset or 0
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(change.data)] = change.data


def _sectors(change: Write) -> Iterator[Write]:
    """A write in parts, none of which crosses the border of a sector."""
    offset, end = change.offset or 0, (change.offset or 0) + len(change.data)
    start = offset
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        yield Write(change.name, start, change.data[start - offset : stop - offset])
        start = stop


class Disk:
    """The files of one directory while operations are done to them."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._names = {name: _File(data, bytearray(data)) for name, data in files.items()}
        self._durable = dict(self._names)
        self._renaming: list[tuple[int, _Naming, _File | None]] = []

    def apply(self, number: int, operation: Operation) -> None:
        """Do an operation, which has this number among all of them."""
        match operation:
            case Ack():
                pass
            case Sync(name, covers):
                self._sync(name, number if covers is None else covers)
            case Write() | Truncate():
                self._names[operation.name].change(number, operation)
            case Create() | Unlink() | Rename() | Link():
                made = _File() if isinstance(operation, Create) else None
                self._renaming.append((number, operation, made))
                _rename(self._names, operation, made)
            case _:
                assert_never(operation)

    def _sync(self, name: str, covers: int) -> None:
        if name:
            self._names[name].sync(covers)
            return
        for number, naming, made in self._renaming:
            if number < covers:
                _rename(self._durable, naming, made)
        self._renaming = [one for one in self._renaming if one[0] >= covers]

    @property
    def waiting(self) -> bool:
        """Whether anything is not durable yet."""
        known = {*self._names.values(), *self._durable.values()}
        return bool(self._renaming) or any(one.waiting for one in known)

    def crashed(self) -> dict[str, bytes]:
        """What is found when the process dies: all of it, since the system lives on."""
        return {name: bytes(one.live) for name, one in self._names.items()}

    def cut(self) -> dict[str, bytes]:
        """What is found after a power cut at the worst: what was synced, and nothing else."""
        return {name: one.durable for name, one in self._durable.items()}

    def torn(self, draw: random.Random) -> dict[str, bytes]:
        """What may be found after a power cut: some of what was not synced."""
        names = dict(self._durable)
        for _, naming, made in self._renaming[: draw.randint(0, len(self._renaming))]:
            _rename(names, naming, made)
        found = {one: one.torn(draw) for one in names.values()}
        return {name: found[one] for name, one in names.items()}


def _rename(names: dict[str, _File], naming: _Naming, made: _File | None) -> None:
    """Give a name to a file, another or one more, or take its name away."""
    if isinstance(naming, Rename):
        names[naming.to] = names.pop(naming.name)
    elif isinstance(naming, Link):
        names[naming.to] = names[naming.name]
    elif made is not None:
        names[naming.name] = made
    else:
        del names[naming.name]
