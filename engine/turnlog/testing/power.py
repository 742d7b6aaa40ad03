"""Power loss, explored: record what a program does to its files, and open every disk it may leave.

    trace = record([sys.executable, "workload.py", "data/log.db"], "data")
    explored = explore(trace, logged("log.db"), durability="power")
    assert not explored.faults, explored.faults

The program writes a line `ACK <id> <id> …`, in one piece, whenever it was told that something is
done. It is run under strace, once; `power_trace` reads what strace wrote, `power_images` computes
what may be found on the disk after each operation, and `explore` writes each such image into a
directory, has it looked at, and compares what is there with what was acknowledged by then.

The one rule: an image is judged by what was promised. With `power` nothing acknowledged is missing
from any image; with `process` nothing is after the death of the process, and after a power cut
what is there is a beginning of what was committed. None may be damaged, whatever was promised.

`power_looks` has two looks at a database of turnlog's, `logged` and `opened`. For files of another
kind, write a `Look`; they lie in one directory, and are written with `pwrite` or at their ends (not
through `mmap`): `record` refuses a run whose operations do not lead to the files that it left.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from .power_images import Disk, Image, Kind, acknowledged, images
from .power_trace import FLAGS, VOLATILE, Operation, parse

__all__ = ["Explored", "Fault", "Look", "Trace", "explore", "record", "traces"]

Look = Callable[[Path], Sequence[str]]
"""Opens what is in a directory: the ids there, in the order of their commits.

What is wrong with it is raised. It may change the files: they are its own.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a run did to the files of a directory, and the files that it found there."""

    operations: Sequence[Operation]
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with one image."""

    kind: Kind
    after: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """What was looked at, and what is wrong with it.

    `images` were judged, `distinct` of them were different and opened, `empty` had nothing in
    them; `lost` is the most acknowledged ids that were missing from one image.
    """

    durability: Literal["power", "process"]
    operations: int
    acknowledged: int
    images: int
    distinct: int
    empty: int
    lost: int
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return (
            f"{self.durability}: {self.operations} operations, {self.acknowledged} ids"
            f" acknowledged, {self.images} images ({self.distinct} distinct, {self.empty} empty),"
            f" at most {self.lost} acknowledged ids lost, {len(self.faults)} faults"
        )


# -- recording -----------------------------------------------------------------------------


def traces(strace: str = "strace") -> bool:
    """Whether there is an strace here that may trace, and traces what is needed."""
    command = [strace, *FLAGS, "-o", os.devnull, "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def record(
    command: Sequence[str], directory: str | os.PathLike[str], *, strace: str = "strace"
) -> Trace:
    """Run a program that works on the files of a directory, and take down what it does to them.

    Raises OSError (no strace), subprocess.CalledProcessError (the program failed) and ValueError
    (the files were changed in a way that is not understood).
    """
    place = Path(directory).resolve(strict=True)
    before = _files(place)
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / "trace"
        subprocess.run(
            [strace, *FLAGS, "-o", str(written), *command], check=True, stdout=subprocess.DEVNULL
        )
        with written.open(encoding="utf-8", errors="surrogateescape") as lines:
            operations = parse(lines, place, cwd=Path.cwd(), existing=before)
    after, disk = _files(place), Disk(before)
    for number, one in enumerate(operations):
        disk.apply(number, one)
    replayed = disk.crashed()
    if replayed != after:
        names = sorted(n for n in {*replayed, *after} if replayed.get(n) != after.get(n))
        raise ValueError(f"these files were changed in a way that is not understood: {names}")
    return Trace(operations=operations, files=before)


def _files(place: Path) -> dict[str, bytes]:
    found = (one for one in place.iterdir() if one.is_file() and not one.name.endswith(VOLATILE))
    return {one.name: one.read_bytes() for one in found}


# -- exploring -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """What a look said of an image: the ids, or what is wrong."""

    ids: Sequence[str] = ()
    problem: str | None = None


def explore(
    trace: Trace,
    look: Look,
    *,
    durability: Literal["power", "process"],
    torn: int = 2,
    seed: int = 0,
    at: int | Collection[int] | None = None,
) -> Explored:
    """Look at every image that a run may leave behind, each distinct one once.

    `torn`, `seed` and `at` are those of `images`; a number for `at` is that of the places to look
    at, drawn by the seed, and the end. What the whole run leaves is looked at first, and what is
    wrong with it is raised.
    """
    if isinstance(at, int):
        end = len(trace.operations)
        at = {*random.Random(seed).sample(range(end + 1), min(at, end)), end}
    drawn = images(trace.operations, trace.files, torn=torn, seed=seed, at=at)
    with tempfile.TemporaryDirectory() as scratch:
        explorer = _Explorer(trace, look, durability, Path(scratch))
        for image in drawn:
            explorer.judge(image)
    return explorer.explored()


class _Explorer:
    """Judges images, and remembers those that it has seen."""

    def __init__(
        self, trace: Trace, look: Look, durability: Literal["power", "process"], scratch: Path
    ) -> None:
        self._look = look
        self._durability: Literal["power", "process"] = durability
        self._scratch = scratch
        self._operations = len(trace.operations)
        self._acked = acknowledged(trace.operations)
        self._seen: dict[bytes, _Found] = {}
        self._images = 0
        self._lost = 0
        self._faults: list[Fault] = []
        last = images(trace.operations, trace.files, torn=0, at={self._operations})
        self._order = self._ids(next(last))

    def judge(self, image: Image) -> None:
        """Look at an image, unless its like was looked at, and hold it to what was promised."""
        self._images += 1
        digest = _digest(image.files)
        if digest not in self._seen:
            self._seen[digest] = self._found(image)
        problem = self._wrong(image, self._seen[digest])
        if problem is not None:
            self._faults.append(Fault(kind=image.kind, after=image.after, problem=problem))

    def _wrong(self, image: Image, found: _Found) -> str | None:
        if found.problem is not None:
            return found.problem
        if list(found.ids) != list(self._order[: len(found.ids)]):
            return "what is there is not a beginning of what was committed"
        there = set(found.ids)
        lost = [id for id in self._acked[: image.acked] if id not in there]
        self._lost = max(self._lost, len(lost))
        if lost and (self._durability == "power" or image.kind == "process"):
            return f"{len(lost)} acknowledged ids are not there, the first of them {lost[0]}"
        return None

    def _found(self, image: Image) -> _Found:
        try:
            return _Found(ids=self._ids(image))
        except Exception as error:  # whatever a look raises is what is wrong with the image
            return _Found(problem=f"{type(error).__name__}: {error}")

    def _ids(self, image: Image) -> Sequence[str]:
        place = self._scratch / "image"
        place.mkdir()
        try:
            for name, data in image.files.items():
                (place / name).write_bytes(data)
            return self._look(place)
        finally:
            shutil.rmtree(place)

    def explored(self) -> Explored:
        """What came of it."""
        return Explored(
            durability=self._durability,
            operations=self._operations,
            acknowledged=len(self._acked),
            images=self._images,
            distinct=len(self._seen),
            empty=sum(not one.ids for one in self._seen.values() if one.problem is None),
            lost=self._lost,
            faults=tuple(self._faults),
        )


def _digest(files: Mapping[str, bytes]) -> bytes:
    whole = sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{len(files[name])}\0".encode("utf-8", "surrogateescape"))
        whole.update(files[name])
    return whole.digest()
