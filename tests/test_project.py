"""The repository's own promises: one version everywhere, and no file tied to one machine."""

import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Written so that neither pattern matches its own line: this file is scanned too.
REGISTRY_HOST = re.compile(
    r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|yarnpkg\.com|debian\.org)\b"
)
MACHINE_PATH = re.compile(r"(?<![\w.:/-])(?:file://)?/(?:home|root|Users|work|opt)/\w")

PIN_OR_HASH = re.compile(
    r"[a-z0-9-]+==[\w.]+(?: ; [^/\\]+)? \\"  # name==version ; marker \
    r"|    --hash=sha256:[0-9a-f]{64}(?: \\)?"
)


def tracked_files() -> list[Path]:
    """Every file git tracks that is still on disk; skips the test outside a checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no list of tracked files")
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, encoding="utf-8"
    )
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def matching_lines(pattern: re.Pattern[str]) -> list[str]:
    """`path:number: line` for every line of a tracked text file that the pattern is found in."""
    found: list[str] = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        lines = content.decode("utf-8", errors="replace").splitlines()
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
            for number, line in enumerate(lines, start=1)
            if pattern.search(line)
        ]
    return found


def test_installed_version_is_pyprojects() -> None:
    # A difference means an editable install from before the version changed: `make setup`.
    assert version("turnlog") == PYPROJECT["project"]["version"]


def test_changelog_starts_unreleased_and_its_newest_version_is_the_packages() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", changelog, flags=re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    newest = re.fullmatch(r"\[(.+)\] - \d{4}-\d{2}-\d{2}", headings[1])
    assert newest is not None, headings[1]
    assert newest[1] == PYPROJECT["project"]["version"]


def test_requirements_are_only_pins_and_hashes() -> None:
    # Anything else, an option that names an index among them, would tie it to one machine.
    text = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    assert lines
    assert [line for line in lines if not PIN_OR_HASH.fullmatch(line)] == []


def test_no_tracked_file_names_a_package_registry() -> None:
    assert matching_lines(REGISTRY_HOST) == []


def test_no_tracked_file_holds_a_path_of_one_machine() -> None:
    assert matching_lines(MACHINE_PATH) == []


@pytest.mark.parametrize("folder", ["home", "root", "Users", "work", "opt"])
def test_a_path_of_one_machine_is_recognised(folder: str) -> None:
    for line in ("/{}/a", "cd /{}/a/b", "open('/{}/a')", "url = file:///{}/a"):
        assert MACHINE_PATH.search(line.format(folder)), line


@pytest.mark.parametrize("line", ["docs/home/a.md", "https://example.com/home/a", "/tmp/a.db"])
def test_other_paths_are_left_alone(line: str) -> None:
    assert not MACHINE_PATH.search(line)
