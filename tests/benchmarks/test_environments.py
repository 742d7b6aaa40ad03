"""An environment is there once it was built, and one that cannot be is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import environments
from bench.environments import REQUIREMENTS, Unavailable, interpreter
from bench.plan import SUBJECTS


def test_the_projects_own_needs_no_building(tmp_path: Path) -> None:
    assert interpreter("", root=tmp_path) == Path(sys.executable)


def test_every_environment_of_the_plan_is_pinned() -> None:
    wanted = {subject.environment for subject in SUBJECTS.values()} - {""}

    assert wanted <= set(environments.names())
    for name in wanted:
        for line in (REQUIREMENTS / f"{name}.txt").read_text().splitlines():
            assert "==" in line, f"{name}: {line}"


def test_one_without_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"environment unheard: there is no unheard\.txt"):
        interpreter("unheard", requirements=tmp_path, root=tmp_path)


def test_it_is_built_again_only_when_what_it_pins_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nmkdir -p {tmp_path}/peer\n')
    uv.chmod(0o755)
    monkeypatch.setenv("UV", str(uv))
    file = tmp_path / "peer.txt"
    said: list[str] = []
    for pinned in ("a==1\n", "a==1\n", "a==2\n"):
        file.write_text(pinned)
        interpreter("peer", requirements=tmp_path, root=tmp_path, say=said.append)

    assert said == ["Building .bench/peer from peer.txt"] * 2
    assert (tmp_path / "calls").read_text().count("pip install") == 2


def test_what_an_installer_says_last_of_what_is_wrong_is_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "uv"
    uv.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exit 0\n'
        "echo error: nothing fits >&2; echo because of a >&2; exit 1\n"
    )
    uv.chmod(0o755)
    monkeypatch.setenv("UV", str(uv))
    (tmp_path / "peer.txt").write_text("a==1\n")

    with pytest.raises(Unavailable, match="environment peer: error: nothing fits because of a"):
        interpreter("peer", requirements=tmp_path, root=tmp_path, say=lambda _: None)
