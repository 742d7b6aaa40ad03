"""Owners: a lock file lives as long as its process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from turnlog.errors import InvalidInput
from turnlog.store import open_store
from turnlog.store.owners import LockFile, Owners, after_fork
from turnlog.testing.store_contract import Author, begun

from .files import behind, opened

HOLDER = """
import sys
from pathlib import Path
from turnlog.store.owners import Owners

lock = Owners(Path(sys.argv[1])).enter("other")
print("held", flush=True)
sys.stdin.read()
"""


def test_an_owner_lives_while_it_holds_its_lock(tmp_path: Path) -> None:
    owners = Owners(tmp_path / "owners")
    assert not owners.alive("me")
    assert list(owners.known()) == []
    lock = owners.enter("me")
    assert owners.alive("me")
    assert list(owners.known()) == ["me"]
    with pytest.raises(InvalidInput, match="open already"):
        owners.enter("me")
    owners.bury("me")
    assert owners.alive("me")
    lock.release()
    lock.release()
    assert not owners.alive("me")
    assert list(owners.known()) == ["me"]
    owners.bury("me")
    assert list(owners.known()) == []


@pytest.mark.parametrize("name", ["", "a/b", "..", "opening", "é", "a" * 129])
def test_an_owners_name_is_a_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        Owners(tmp_path / "owners").enter(name)


def test_an_owner_in_another_process_dies_with_it(tmp_path: Path) -> None:
    owners = Owners(tmp_path)
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert owners.alive("other")
        process.kill()
    assert not owners.alive("other")


def test_an_owner_whose_lock_cannot_be_read_may_live(tmp_path: Path) -> None:
    (tmp_path / "odd.lock").mkdir()
    assert Owners(tmp_path).alive("odd")


def test_a_forked_child_lets_go(tmp_path: Path) -> None:
    lock = LockFile.take(tmp_path / "a.lock")
    assert lock is not None
    after_fork()
    after_fork()
    again = LockFile.take(tmp_path / "a.lock")
    assert again is not None
    again.release(remove=True)
    lock.release()


async def test_the_dead_are_forgotten_once_they_hold_nothing(path: Path) -> None:
    author = Author("c")
    dying = await open_store(path, owner="dying")
    await dying.append(author.begin())
    await dying.append(author.write(begun(), turn="t", lease="acquire", epoch=1))
    await dying.close()
    (path.with_name("log.db-owners") / "stale.lock").touch()

    def owners() -> list[str]:
        with behind(path) as connection:
            return [row[0] for row in connection.execute("SELECT owner FROM owners")]

    store = await opened(path)
    assert owners() == ["dying"]
    locks = [one.name for one in path.with_name("log.db-owners").iterdir()]
    assert sorted(locks) == sorted([f"{store.owner}.lock", "opening.lock"])
    await store.append(author.write(lease="acquire", epoch=2))
    later = await opened(path)
    assert owners() == [store.owner]
    await later.close()
    await store.close()


async def test_the_same_owner_is_open_once(path: Path) -> None:
    store = await open_store(path, owner="me")
    with pytest.raises(InvalidInput):
        await open_store(path, owner="me")
    await store.close()
