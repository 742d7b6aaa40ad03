"""`turnlog resolve` settles what is uncertain or waits, and `turnlog show` says how."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from turnlog.canonical import Json, JsonObject, objects, text

from .given import AGENTS, COMMAND, Desk

PAY: Json = {"call": "pay", "arguments": {"amount": 3.5, "to": "Ana"}}
LATER: Json = {"call": "later", "arguments": {"what": "x"}}


@pytest.fixture(scope="session")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that a process left in which a tool died, settled; to be copied."""
    path = tmp_path_factory.mktemp("left")
    (path / "desk.py").write_text(AGENTS)
    desk = Desk(path)
    told = ("chat", desk.db, "c1", "Die.", "--script", desk.script({"call": "die"}))
    done = subprocess.run(
        [*COMMAND, *told, "--agents", "desk:support"], check=False, capture_output=True, cwd=path
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert desk.run("recover", desk.db, "--script", desk.script()).code == 0
    return Path(desk.db)


@pytest.fixture
def uncertain(desk: Desk, left: Path) -> Desk:
    """A desk on whose database a call of `c1` is uncertain."""
    shutil.copy(left, desk.db)
    return desk


def the_call(desk: Desk, id: str = "c1") -> JsonObject:
    """The one call that waits, as `show --json` has it."""
    (call,) = objects(desk.run("show", desk.db, id, "--json").json[0], "pending")
    return call


def outputs(desk: Desk, id: str = "c1") -> list[JsonObject]:
    """What the model is told, or will be."""
    lines = desk.run("show", desk.db, id, "--json").json[1:]
    items = [line["item"] for line in lines if isinstance(line.get("item"), dict)]
    raws = [item["raw"] for item in items if isinstance(item, dict)]
    return [raw for raw in raws if isinstance(raw, dict) and "output" in raw]


def test_show_says_what_is_uncertain_why_and_what_can_be_done(uncertain: Desk) -> None:
    call = the_call(uncertain)
    assert (call["status"], call["waits_for"], call["runs"]) == ("uncertain", "uncertain", 1)
    assert call["can"] == ["rerun", "answer", "abandon"]
    assert "nobody knows" in (text(call, "why") or "")
    shown = uncertain.run("show", uncertain.db, "c1").lines
    place = shown.index("? die()  waits: uncertain")
    assert shown[place + 1].startswith("  its tool had started when the process stopped")
    command = f"  turnlog resolve {uncertain.db} c1 {text(call, 'id')}"
    assert [line.removeprefix(command) for line in shown[place + 2 : place + 5]] == [
        " --rerun  runs it again, with the same key",
        " --answer TEXT  gives it this output",
        " --abandon  gives it up",
    ]


def test_an_uncertain_call_is_answered_and_the_turn_goes_on(uncertain: Desk) -> None:
    script = uncertain.script({"text": "Fine."})
    ran = uncertain.run(
        *("resolve", uncertain.db, "c1", "--answer", "it had happened", "--by", "ana"),
        *("--resume", "--script", script, "--agents", "desk:support"),
    )
    assert (ran.code, ran.out) == (0, "Fine.\n")
    assert "answered die()" in ran.err
    (answered,) = [
        line for line in uncertain.run("log", uncertain.db, "c1").lines if "call.answered" in line
    ]
    assert "ana" in answered and "it had happened" in answered


def test_an_uncertain_call_may_run_again_as_the_same_call(uncertain: Desk) -> None:
    ran = uncertain.run("resolve", uncertain.db, "c1", "die", "--rerun", "--reason", "it had not")
    assert (ran.code, ran.err) == (0, "may run again: die()\n")
    told = uncertain.run("log", uncertain.db, "c1").out
    assert "call.approved" in told and "it had not" in told
    assert the_call(uncertain)["status"] == "approved"


def test_an_uncertain_call_is_abandoned_with_the_truth(uncertain: Desk) -> None:
    (done,) = uncertain.run("resolve", uncertain.db, "c1", "--abandon", "--json").json
    assert (done["decision"], done["by"]) == ("abandoned", "user")
    (output,) = outputs(uncertain)
    assert "its outcome is unknown" in (text(output, "output") or "")


@pytest.mark.parametrize("verb", ["--approve", "--reject"])
def test_what_cannot_be_done_names_what_can(uncertain: Desk, verb: str) -> None:
    ran = uncertain.run("resolve", uncertain.db, "c1", verb)
    assert ran.code == 4
    assert f"is uncertain, so no {verb}" in ran.err
    assert "what can be done: --rerun, --answer, --abandon" in ran.err


@pytest.mark.parametrize(
    ("given", "output", "failed"),
    [
        (("--answer", ""), "", False),
        (("--answer-json", '{"lead":0.002}'), '{"lead":0.002}', False),
        (("--answer-json", "null"), "null", False),
        (
            ("--answer-json", '{"type":"function_call_output","output":"whole"}'),
            "whole",
            False,
        ),
        (("--answer", "no lab", "--failed"), "no lab", True),
    ],
)
def test_an_answer_that_comes_later(
    desk: Desk, given: tuple[str, ...], output: str, failed: bool
) -> None:
    desk.chat("c1", "Later.", LATER)
    assert desk.run("resolve", desk.db, "c1", *given).code == 0
    (found,) = outputs(desk)
    assert found["output"] == output
    (event,) = [
        line for line in desk.run("log", desk.db, "c1", "--json").json if "answered" in str(line)
    ]
    body = event["body"]
    assert isinstance(body, dict) and body.get("failed", False) is failed


def test_a_late_answer_replaces_an_abandonment_that_was_not_sent(desk: Desk) -> None:
    desk.chat("c1", "Later.", LATER)
    call = text(the_call(desk), "id") or ""
    assert desk.run("resolve", desk.db, "c1", "--abandon", "--reason", "nobody").code == 0
    none = desk.run("resolve", desk.db, "c1", "--answer", "x")
    assert (none.code, "there are none" in none.err) == (3, True)
    again = desk.run("resolve", desk.db, "c1", call, "--rerun")
    assert (again.code, "what can be done: --answer" in again.err) == (4, True)
    assert desk.run("resolve", desk.db, "c1", call, "--answer", "after all").code == 0
    assert outputs(desk)[0]["output"] == "after all"
    over = desk.run("resolve", desk.db, "c1", call, "--answer", "once more")
    assert (over.code, "nothing can be done about it" in over.err) == (4, True)
    script = desk.script({"text": "Fine."})
    more = ("--script", script, "--agents", "desk:support")
    assert desk.run("resume", desk.db, "c1", *more).code == 0
    gone = desk.run("resolve", desk.db, "c1", call, "--answer", "too late")
    assert (gone.code, gone.err) == (4, f"error: call '{call}' was answered already, by user\n")
    none = desk.run("resolve", desk.db, "c1", "call_9", "--answer", "x")
    assert (none.code, "no call call_9" in none.err) == (3, True)


@pytest.mark.parametrize(
    ("verb", "tag"), [("--approve", "call.approved"), ("--reject", "call.rejected")]
)
def test_a_call_that_waits_for_approval(desk: Desk, verb: str, tag: str) -> None:
    desk.chat("c1", "Pay.", PAY)
    shown = desk.run("show", desk.db, "c1").out
    assert "  lets it run" in shown and "  refuses it" in shown
    assert desk.run("resolve", desk.db, "c1", "pay", verb, "--reason", "so").code == 0
    assert tag in desk.run("log", desk.db, "c1").out


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ((), "exactly one of .* (none given)"),
        (("--rerun", "--abandon"), "(2 given)"),
        (("--answer", "x", "--answer-json", "1"), "(2 given)"),
        (("--abandon", "--failed"), "--failed goes with an answer, not with --abandon"),
        (("--answer", "x", "--reason", "y"), "--reason does not go with an answer"),
        (("--answer-json", "{"), "not readable as JSON"),
    ],
)
def test_what_is_asked_for_has_to_be_one_thing(
    desk: Desk, given: tuple[str, ...], wrong: str
) -> None:
    desk.chat("c1", "Later.", LATER)
    ran = desk.run("resolve", desk.db, "c1", *given)
    assert ran.code == 2
    assert all(part in ran.err for part in wrong.split(" .* "))
    assert the_call(desk)["status"] == "deferred"
