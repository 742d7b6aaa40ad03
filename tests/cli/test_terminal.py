"""The command line at a terminal: live text, questions, colours, and what an interrupt does."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

import pytest

from turnlog.canonical import Json, text
from turnlog.cli.screen import Screen
from turnlog.cli.telling import Telling
from turnlog.result import TurnResult
from turnlog.updates import Cursor, Delta, HostedUpdate, Retracted, UnknownUpdate

from .given import ADD_AND_PAY, COMMAND, Desk, Terminal, plain

PAY: Json = {"call": "pay", "arguments": {"amount": 3.5, "to": "Ana"}}


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


# -- chat ----------------------------------------------------------------------------------


def test_a_conversation_streams_and_ends_with_the_input(desk: Desk) -> None:
    ran = desk.talk("c1", "Hi", "", "Bye", entries=[{"text": "Hello."}, {"text": "Bye."}])
    assert ran.code == 0
    assert ran.out.split("> ") == ["", "Hello.\n", "", "Bye.\n", "\n"]
    assert ran.err.splitlines()[0] == "c1 is new. Ctrl-C cancels a turn, Ctrl-D leaves."
    assert "completed · " in ran.err


def test_calls_reasoning_and_approval(desk: Desk) -> None:
    ran = desk.talk("c1", "Pay", "y", entries=[ADD_AND_PAY, {"text": "Paid."}])
    assert "I add, and I pay." in ran.err
    told = ["→ add(a=1, b=2)", '→ pay(amount=3.5, to="Ana")', "← add: 3", "✓ pay approved"]
    for line in [*told, "… pay: step=paying", "← pay: paid 3.5"]:
        assert line in ran.err, ran.err
    assert "allow it? y, n, or why not: Paid.\n" in ran.out


@pytest.mark.parametrize(
    ("said", "told"), [("n", "The call was rejected."), ("too much", "too much")]
)
def test_a_rejection_goes_to_the_model(desk: Desk, said: str, told: str) -> None:
    ran = desk.talk("c1", "Pay", said, entries=[PAY, {"text": "I see."}])
    assert "✗ pay rejected" in ran.err
    assert ran.out.endswith("I see.\n> \n")
    assert told in desk.run("show", desk.db, "c1").out


def test_what_is_left_waiting_is_asked_again_when_the_conversation_goes_on(desk: Desk) -> None:
    ran = desk.talk("c1", "Pay", "", "Hello?", entries=[PAY])
    assert "error: " in ran.err
    ran = desk.talk("c1", "y", "Thanks", entries=[{"text": "Paid."}, {"text": "Welcome."}])
    assert "c1 goes on behind 1 turn" in ran.err
    assert "its last turn is open (approval): it goes on" in ran.err
    assert "Paid." in ran.out and "Welcome." in ran.out
    assert desk.talk("c1", entries=[]).err.splitlines()[-1] == "  assistant: Welcome."


def test_an_interrupt_at_a_question_leaves_the_call_waiting(desk: Desk) -> None:
    desk.talk("c1", "Pay", "^C", entries=[PAY])
    assert desk.run("show", desk.db, "c1", "--json").json[0]["status"] == "waiting"


def test_an_interrupt_at_the_prompt_is_nothing(desk: Desk) -> None:
    assert "Hello." in desk.talk("c1", "^C", "Hi", entries=[{"text": "Hello."}]).out


def test_a_deferred_call_is_answered_inline(desk: Desk) -> None:
    later: Json = {"call": "later", "arguments": {"what": "x"}}
    ran = desk.talk("c1", "Later", "It is 7.", entries=[later, {"text": "So it is 7."}])
    assert "… later deferred" in ran.err
    assert "← later: It is 7." in ran.err
    assert "So it is 7." in ran.out


def test_an_uncertain_call_may_run_again(desk: Desk) -> None:
    script = desk.script({"call": "die"})
    command = [*COMMAND, "chat", desk.db, "c1", "Die.", "--script", script]
    done = subprocess.run([*command, "--agents", "desk:support"], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    ran = desk.talk("c1", "n", entries=[{"text": "It is given up."}])
    assert "it may have run already" in ran.out
    assert "✗ die abandoned" in ran.err
    assert "It is given up." in ran.out


def test_an_interrupt_cancels_the_turn_and_the_conversation_goes_on(desk: Desk) -> None:
    ran = desk.talk("c1", "Press it", "Hi", entries=[{"call": "interrupt"}, {"text": "Hello."}])
    assert "cancelled" in ran.err
    assert "Hello." in ran.out


def test_a_turn_that_fails_is_told_and_the_conversation_goes_on(desk: Desk) -> None:
    refused: Json = {"error": 400, "message": "no \x1b[2J such model"}
    ran = desk.talk("c1", "Hi", "Again", entries=[refused, {"text": "Hello."}])
    assert "error: the turn failed: no \\x1b[2J such model" in ran.err
    assert "Hello." in ran.out


def test_what_was_cut_off_does_not_count(desk: Desk) -> None:
    cut: Json = {"text": "Hello there, you.", "cut_after": 6}
    ran = desk.talk("c1", "Hi", entries=[cut, {"text": "Hello."}])
    assert ran.out.endswith("Hello.\n> \n")


def test_parts_and_refusals_stand_on_lines_of_their_own(desk: Desk) -> None:
    two: Json = {"reply": [{"text": "First.", "phase": "commentary"}, {"text": "Second."}]}
    ran = desk.talk("c1", "Hi", "More", entries=[two, {"refusal": "No."}])
    assert "First.\nSecond.\n" in ran.out
    assert ran.out.endswith("No.\n> \n")


def test_what_passes_is_told_as_it_passes() -> None:
    # What a provider's own tool reports is not in the log: who comes late does not see it.
    out, err = Terminal(), Terminal()
    with redirect_stdout(out), redirect_stderr(err):
        telling = Telling(Screen())
        here = Cursor(3, "att")
        searching = HostedUpdate(cursor=here, event="response.web_search_call.in_progress")
        strange = UnknownUpdate(cursor=here, event="response.new_\x1bthing")
        said = Delta(cursor=here, type="text.delta", delta="Hel", part="text:0:0")
        again = Retracted(cursor=here, attempt="att", reason="another attempt follows")
        for update in (searching, searching, strange, strange, said, again, said):
            telling.update(update)
        telling.result(
            TurnResult(conversation="c", turn="t", status="cancelled", output="", output_text="")
        )
    assert (plain(out), telling.cursor) == ("Hel\nHel\n", here)
    told = [line.strip() for line in plain(err).splitlines()]
    assert [line for line in told if len(line) > 1] == [
        "· web search call: in progress",
        "· unknown to this turnlog: response.new_\\x1bthing",
        "(discard what stands above: another attempt follows)",
        "cancelled",
    ]


def test_one_message_at_a_terminal_asks_too(desk: Desk) -> None:
    script = desk.script(PAY, {"text": "Paid."})
    ran = desk.at_terminal(
        *("chat", desk.db, "c1", "Pay", "--script", script, "--agents", "desk:support"),
        typed=["y"],
    )
    assert (ran.code, ran.out) == (0, "  allow it? y, n, or why not: Paid.\n")


# -- looking -------------------------------------------------------------------------------


def test_views_at_a_terminal(desk: Desk) -> None:
    desk.chat("c1", "Pay.", ADD_AND_PAY)
    shown = desk.at_terminal("show", desk.db, "c1").out
    assert shown.startswith("╭─ c1 ─") and "│ status     waiting" in shown
    listed = desk.at_terminal("ls", desk.db).out
    assert listed.split()[:2] == ["id", "status"]
    timeline = desk.at_terminal("log", desk.db, "c1").out.splitlines()
    assert timeline[0].endswith(" (UTC)")
    assert all(len(line) <= 100 for line in timeline)
    assert desk.at_terminal("verify", desk.db).out.endswith("all of it verifies\n")


def test_nothing_in_a_log_commands_the_terminal(desk: Desk) -> None:
    evil = "[bold]x[/] \x1b]0;owned\x07\x9b31m\u202e\x00\r\nend"
    script = desk.script({"text": evil})
    ran = desk.at_terminal("chat", desk.db, "c1", evil, "--script", script)
    shown = [
        desk.at_terminal(*command).out
        for command in (
            ("show", desk.db, "c1"),
            ("log", desk.db, "c1"),
            ("diff", desk.db, "c1", "1"),
        )
    ]
    for out in (ran.out, *shown, desk.run("export", desk.db).out):
        assert not {"\x1b", "\x07", "\x9b", "\u202e", "\x00", "\r"} & set(out)
    assert all("[bold]x[/]" in out for out in (ran.out, *shown))


# -- as it is ------------------------------------------------------------------------------


def at_pty(command: Sequence[str], steps: Sequence[tuple[str, str]]) -> int:
    """Run a command at a real terminal, and type each text once what it answers is shown.

    An interrupt is sent as the signal that a terminal makes of it. The exit code.
    """
    leader, follower = pty.openpty()
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower) as process:
        os.close(follower)
        try:
            for awaited, typed in steps:
                shown = ""
                while awaited not in shown:
                    shown += os.read(leader, 65536).decode(errors="replace")
                if typed == "^C":
                    process.send_signal(signal.SIGINT)
                else:
                    os.write(leader, typed.encode())
            return process.wait(20)
        finally:
            os.close(leader)
            process.kill()


def test_ctrl_c_and_ctrl_d_at_a_real_terminal(desk: Desk) -> None:
    script = desk.script({"text": "Hello there, you.", "stall_after": 6}, {"text": "Back."})
    command = [*COMMAND, "chat", desk.db, "c1", "--script", script, "--transport", "replay"]
    typed = [("> ", "Hi\n"), ("Hello", "^C"), ("> ", "Again\n"), ("Back.", ""), ("> ", "\x04")]
    assert at_pty(command, typed) == 0
    state = desk.run("show", desk.db, "c1", "--json").json[0]
    assert (state["status"], state["turns"]) == ("idle", 2)
    last = desk.run("log", desk.db, "c1", "--json").json[-1]
    assert text(last, "tag") == "turn.ended"


def test_log_follows_what_another_process_writes(desk: Desk) -> None:
    desk.chat("c1", "Hi", {"text": "Hello."})
    for which in (["c1"], []):
        command = [*COMMAND, "log", desk.db, *which, "--follow"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told = iter(process.stdout.readline, "")
            assert any("turn.ended" in line for line in told)
            desk.chat("c1", "And?", {"text": "No more."})
            assert any("assistant: No more." in line for line in told)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
