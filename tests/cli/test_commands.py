"""Each command as somebody uses it: what it prints, what it exits with, what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoints
from pathlib import Path

import pytest
from rich.text import Text

import turnlog
from turnlog.canonical import Json, array, obj, objects, text
from turnlog.cli.app import in_a_line
from turnlog.cli.hints import waiting as show_waiting
from turnlog.cli.looking import was_left
from turnlog.cli.opening import Nowhere
from turnlog.cli.serving import simulator
from turnlog.errors import (
    ConfigurationError,
    NotSupported,
    StoreUnavailable,
    TurnlogError,
    Waiting,
)
from turnlog.ports import Create
from turnlog.state import Parent
from turnlog.testing import call, scripted
from turnlog.testing import text as said
from turnlog_transports.simulator import Simulator

from .given import ADD_AND_PAY, COMMAND, Desk

PAY: Json = {"call": "pay", "arguments": {"amount": 3.5, "to": "Ana"}}


@pytest.fixture
def waiting(desk: Desk) -> Desk:
    """A conversation `c1` whose turn waits for the approval of `pay`."""
    assert desk.chat("c1", "Add, then pay.", ADD_AND_PAY).code == 4
    return desk


# -- chat, once ----------------------------------------------------------------------------


def test_the_answer_goes_to_stdout_and_everything_else_to_stderr(desk: Desk) -> None:
    calls: Json = {"call": "add", "arguments": {"a": 1, "b": 2}}
    ran = desk.chat("c1", "Add 1 and 2.", calls, {"text": "It is 3."})
    assert (ran.code, ran.out) == (0, "It is 3.\n")
    assert ran.err.splitlines() == ["→ add(a=1, b=2)", "← add: 3"]


def test_a_message_comes_from_stdin_where_it_is_no_terminal(desk: Desk) -> None:
    script = desk.script({"text": "Hello."})
    ran = desk.run("chat", desk.db, "c1", "--script", script, input="Hi there\n")
    assert (ran.code, ran.out) == (0, "Hello.\n")
    assert "user: Hi there" in desk.run("show", desk.db, "c1").out


def test_no_model_is_needed_for_a_script_and_a_recorded_one_stays(desk: Desk) -> None:
    script = desk.script({"text": "Hello."})
    desk.run("chat", desk.db, "c1", "Hi", "--script", script)
    assert obj({"s": desk.run("show", desk.db, "c1", "--json").json[0]}, "s")["model"] == "scripted"
    desk.run("chat", desk.db, "c2", "Hi", "--script", script, "--model", "gpt-5.5")
    desk.run("chat", desk.db, "c2", "Hi", "--script", script)
    assert desk.run("show", desk.db, "c2", "--json").json[0]["model"] == "gpt-5.5"


def test_a_transcript_answers_too(desk: Desk) -> None:
    response: Json = {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "output": [
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Recorded.", "annotations": []}],
            }
        ],
    }
    exchange: Json = {
        "request": {"method": "POST", "path": "/v1/responses"},
        "response": {"status": 200, "body": response},
    }
    path = desk.path / "transcript.json"
    path.write_text(json.dumps([exchange]))
    ran = desk.run("chat", desk.db, "c1", "Hi", "--transcript", str(path))
    assert (ran.code, ran.out) == (0, "Recorded.\n")


def test_json_prints_every_update_and_then_the_result(desk: Desk) -> None:
    ran = desk.chat("c1", "Hi", {"text": "Hello."}, more=["--json"])
    assert (ran.code, ran.err) == (0, "")
    *updates, result = ran.json
    deltas = (text(update, "delta") or "" for update in updates if update["type"] == "text.delta")
    assert "".join(deltas) == "Hello."
    assert (updates[-1]["type"], updates[-1]["status"]) == ("turn.done", "completed")
    assert (result["type"], result["output_text"]) == ("result", "Hello.")
    assert obj(result, "usage")["responses"] == 1


def test_what_waits_is_told_with_what_can_be_done(desk: Desk) -> None:
    ran = desk.chat("c1", "Pay.", ADD_AND_PAY)
    assert ran.code == 4
    assert '? pay(amount=3.5, to="Ana")  waits: approval' in ran.err
    assert f"turnlog approve {desk.db} c1 call_" in ran.err
    again = desk.chat("c1", "Hello?", {"text": "Never asked."})
    assert again.code == 4
    told, hint = again.err.splitlines()
    assert told.startswith("error: turn turn_")
    assert told.endswith(" waits (approval): answer or resume it")
    assert hint == f"  turnlog show {desk.db} c1 says what can be done"


def test_waiting_with_json_says_no_more_than_json(desk: Desk) -> None:
    ran = desk.chat("c1", "Pay.", ADD_AND_PAY, more=["--json"])
    assert (ran.code, ran.err) == (4, "")
    assert ran.json[-1]["status"] == "waiting"


def test_a_turn_that_fails_is_exit_code_1(desk: Desk) -> None:
    ran = desk.chat("c1", "Hi", {"error": 401, "message": "bad key"})
    assert (ran.code, ran.err) == (1, "error: the turn failed: bad key\n")


def test_a_turn_that_stops_early_says_why(desk: Desk) -> None:
    ran = desk.chat("c1", "Hi", {"incomplete": "max_output_tokens", "text": "So f"})
    assert (ran.code, ran.out) == (1, "So f\n")
    assert ran.err.startswith("incomplete: max_output_tokens · ")


def test_a_refusal_is_told(desk: Desk) -> None:
    ran = desk.chat("c1", "Hi", {"refusal": "I cannot."})
    assert (ran.code, ran.err) == (0, "refused: I cannot.\n")


def test_ctrl_c_cancels_the_turn(desk: Desk) -> None:
    ran = desk.chat("c1", "Press it.", {"call": "interrupt"}, {"text": "Never asked."})
    assert ran.code == 130
    assert desk.run("show", desk.db, "c1", "--json").json[0]["status"] == "idle"
    assert desk.run("log", desk.db, "c1").lines[-1].endswith("turn.ended              cancelled")
    assert desk.chat("c1", "Go on.", {"text": "Yes."}).out == "Yes.\n"


def test_the_agent_is_the_one_that_is_recorded_or_named_or_the_first(desk: Desk) -> None:
    script = desk.script({"text": "Yes."}, {"text": "Yes."})

    def agent(id: str, *more: str) -> object:
        desk.run("chat", desk.db, id, "Hi", "--script", script, "--agents", "desk:both", *more)
        return desk.run("show", desk.db, id, "--json").json[0]["agent"]

    assert agent("c1") == "support"
    assert agent("c2", "--agent", "other") == "other"
    assert agent("c2") == "other"
    ran = desk.run("chat", desk.db, "c1", "Hi", "--script", script, "--agent", "nobody")
    assert (ran.code, "no agent 'nobody'" in ran.err) == (2, True)


def test_options_reach_the_transport(desk: Desk) -> None:
    script = desk.script({"text": "Yes."})
    more = ["--option", "checks=true", "--option", "seed=abc", "--transport", "replay"]
    ran = desk.run("chat", desk.db, "c1", "Hi", "--script", script, *more)
    assert ran.code == 0
    continues = desk.run("show", desk.db, "c1", "--json").json[0]["parent"]
    assert "abc" in str(continues)


# -- ls ------------------------------------------------------------------------------------


def test_ls_lists_pages_and_filters(desk: Desk, waiting: Desk) -> None:
    assert desk.chat("c2", "Hi", {"text": "Hello."}).code == 0
    heading, *rows = desk.run("ls", desk.db).lines
    assert heading.split() == "ID STATUS TURNS ITEMS AGENT MODEL CHANGED FORKED FROM".split()
    assert [row.split()[:2] for row in rows] == [["c1", "waiting"], ["c2", "idle"]]
    page = desk.run("ls", desk.db, "--limit", "1")
    assert (len(page.lines), page.err) == (2, "perhaps more: add --after c1\n")
    assert [row["id"] for row in desk.run("ls", desk.db, "--after", "c1", "--json").json] == ["c2"]
    idle = desk.run("ls", desk.db, "--status", "idle", "--since", "1h", "--json").json
    assert [row["id"] for row in idle] == ["c2"]
    for more in (("--metadata", "customer=7"), ("--since", "2126-01-31")):
        assert desk.run("ls", desk.db, *more).err == "no conversations\n"


def test_ls_says_whose_process_died(desk: Desk) -> None:
    kill(desk)
    (row,) = desk.run("ls", desk.db).lines[1:]
    assert "busy (left: recover)" in row


def test_show_says_that_the_process_of_a_turn_is_gone_and_what_to_do(desk: Desk) -> None:
    kill(desk)
    shown = desk.run("show", desk.db, "c1").out
    assert "busy (left: recover)" in shown
    assert f"turnlog recover {desk.db}  settles the turn" in shown
    assert desk.run("show", desk.db, "c1", "--json").json[0]["orphaned"] is True
    ran = desk.run("chat", desk.db, "c1", "More.", "--script", desk.script())
    assert (ran.code, f"turnlog show {desk.db} c1" in ran.err) == (4, True)


def test_show_says_how_a_turn_goes_on_for_which_nobody_has_to_decide(waiting: Desk) -> None:
    assert waiting.run("reject", waiting.db, "c1").code == 0
    assert f"turnlog resume {waiting.db} c1" in waiting.run("show", waiting.db, "c1").out


async def test_show_finds_a_busy_turn_among_many() -> None:
    go_on = asyncio.Event()

    async def hold() -> str:
        await go_on.wait()
        return "Done."

    bot = turnlog.Agent("bot", model="m", tools=[turnlog.tool(hold)])
    replies = scripted([*[call("hold")] * 3, *[said("Done.")] * 4])
    async with turnlog.open(":memory:", agents=[bot], transport=replies) as log:
        chats = [await log.conversation(id, agent=bot) for id in ("aa", "ab", "ac")]
        turns = [await chat.send("Hold.") for chat in chats]
        behind = await chats[2].send("And then?", if_busy="queue")
        state = await chats[2].state()
        assert not await was_left(log, state, page=1)
        lines: list[Text] = []
        show_waiting(lines.append, "a.db", state)
        assert not any("turnlog resume" in line.plain for line in lines)
        go_on.set()
        for turn in (*turns, behind):
            await turn.result()
        assert not await was_left(log, await chats[2].state())


# -- show ----------------------------------------------------------------------------------


def test_show_tells_the_state_what_waits_turns_and_items(waiting: Desk) -> None:
    ran = waiting.run("show", waiting.db, "c1")
    assert ran.code == 0
    assert "status       waiting" in ran.lines
    assert '? pay(amount=3.5, to="Ana")  waits: approval' in ran.lines
    assert any(line.split()[:2] == ["0", "user:"] for line in ran.lines)
    assert any(line.startswith("turn_") and " open " in line for line in ran.lines)
    state, turn, *items = waiting.run("show", waiting.db, "c1", "--json", "--last", "2").json
    (call,) = objects(state, "pending")
    assert (call["name"], call["status"], call["arguments"]) == (
        "pay",
        "requested",
        {"amount": 3.5, "to": "Ana"},
    )
    assert obj(turn, "turn")["outcome"] is None
    assert len(items) == 2
    assert "_engine" not in ran.out and "head" not in state


def test_show_says_what_each_call_waits_for(desk: Desk) -> None:
    assert desk.chat("c1", "Later.", {"call": "later", "arguments": {"what": "x"}}).code == 4
    shown = desk.run("show", desk.db, "c1").out
    assert "waits: deferred" in shown and "gives it up" in shown
    assert desk.chat("c2", "Pay.", PAY).code == 4
    assert desk.run("approve", desk.db, "c2").code == 0
    shown = desk.run("show", desk.db, "c2").out
    assert "waits: to be resumed with its tool" in shown and "turnlog resume" in shown


def test_show_names_the_source_of_a_fork_and_its_metadata(desk: Desk) -> None:
    desk.chat("c1", "Hi", {"text": "Hello."})
    assert desk.run("fork", desk.db, "c1", "c2").out == "c2\n"
    assert "forked from  c1 at 9" in desk.run("show", desk.db, "c2").lines


def test_show_of_a_conversation_without_items_or_turns(desk: Desk) -> None:
    desk.chat("c1", "Hi", {"text": "Hello."})
    assert desk.run("fork", desk.db, "c1", "c2", "--at", "2").code == 0
    shown = desk.run("show", desk.db, "c2").out
    assert "\nturns\n" not in shown and "\nitems\n" not in shown


# -- log -----------------------------------------------------------------------------------


def test_log_tells_every_event_in_words(waiting: Desk) -> None:
    assert waiting.run("approve", waiting.db, "c1", "--by", "ana", "--reason", "ok").code == 0
    ran = waiting.run("log", waiting.db, "c1")
    told = [line.split("  ", 3)[-1].strip() for line in ran.lines]
    assert len(ran.lines) == int(str(waiting.run("ls", waiting.db, "--json").json[0]["version"]))
    assert "full: 1 item, by replay (first)" in ran.out
    assert any("pay(amount=3.5" in line and "call.requested" in line for line in told)
    assert any("ana" in line and line.endswith("pay: ok") for line in ran.lines)
    assert ran.lines[0].split()[1].endswith("Z")


def test_log_of_one_turn_from_a_version_and_as_json(answered: Desk) -> None:
    answered.chat("c1", "Two", {"text": "2"})
    events = answered.run("log", answered.db, "c1", "--json").json
    turn = text(events[-1], "turn") or ""
    of_turn = answered.run("log", answered.db, "c1", "--turn", turn, "--json").json
    assert {text(event, "turn") for event in of_turn} == {turn}
    assert (
        answered.run("log", answered.db, "c1", "--after", str(len(events) - 1))
        .lines[0]
        .endswith("completed")
    )
    assert obj(events[0], "body")["id"] == "c1"


def test_log_of_all_conversations_names_each(answered: Desk) -> None:
    answered.chat("c2", "Two", {"text": "2"})
    names = [line.split()[0] for line in answered.run("log", answered.db).lines]
    assert names == sorted(names) and set(names) == {"c1", "c2"}


# -- diff ----------------------------------------------------------------------------------


def test_diff_between_versions_and_turns(answered: Desk) -> None:
    first = text(answered.run("log", answered.db, "c1", "--json").json[-1], "turn") or ""
    answered.chat("c1", "Two", {"text": "2"})
    ran = answered.run("diff", answered.db, "c1", first)
    assert (ran.lines, ran.err) == (
        ["+    2  user: Two", "+    3  assistant: 2"],
        "2 kept, 2 added\n",
    )
    back = answered.run("diff", answered.db, "c1", "19", first)
    assert [line[0] for line in back.lines] == ["-", "-"] or back.code == 3
    types = [one["type"] for one in answered.run("diff", answered.db, "c1", first, "--json").json]
    assert types == ["kept", "added", "added"]
    assert answered.run("diff", answered.db, "c1", "1", "1").err == "both are empty\n"


async def test_diff_shows_an_edited_item_as_it_was_and_is(desk: Desk) -> None:
    calls: Json = {"call": "add", "arguments": {"a": 1, "b": 2}}
    await asyncio.to_thread(desk.chat, "c1", "Add.", calls, {"text": "3."})
    async with turnlog.open(desk.db, transport=scripted([])) as log:
        chat = await log.get("c1")
        before = (await chat.state()).version
        output = (await chat.items())[2]
        await chat.edit(output, {**output.raw, "output": "four"})
        await chat.remove((await chat.items())[3])
    ran = await desk.aside("diff", desk.db, "c1", str(before))
    assert ran.lines == [
        "~    2  function call output: 3",
        "     2  function call output: four",
        "-    3  assistant: 3.",
    ]


# -- fork ----------------------------------------------------------------------------------


def test_fork_before_a_turn_makes_up_an_id(answered: Desk) -> None:
    turn = text(answered.run("log", answered.db, "c1", "--json").json[-1], "turn") or ""
    ran = answered.run("fork", answered.db, "c1", "--before", turn, "--json", "--by", "ana")
    (made,) = ran.json
    assert str(made["id"]).startswith("c1~")
    assert answered.run("log", answered.db, str(made["id"]), "--json").json[0]["actor"] == "ana"


# -- approve, reject, resume ---------------------------------------------------------------


def test_approve_and_then_resume(waiting: Desk) -> None:
    ran = waiting.run("approve", waiting.db, "c1", "pay", "--by", "ana")
    assert (ran.code, ran.out, ran.err) == (0, "", 'approved pay(amount=3.5, to="Ana")\n')
    script = waiting.script({"text": "Paid."})
    ran = waiting.run("resume", waiting.db, "c1", "--script", script, "--agents", "desk:support")
    assert (ran.code, ran.out) == (0, "Paid.\n")
    assert ran.err.splitlines() == ["… pay: step=paying", "← pay: paid 3.5"]
    again = waiting.run("resume", waiting.db, "c1", "--script", script)
    assert (again.code, again.err) == (0, "no turn of c1 is open\n")


@pytest.mark.parametrize(("verb", "told"), [("approve", "paid 3.5"), ("reject", "too much")])
def test_decide_and_resume_in_one(waiting: Desk, verb: str, told: str) -> None:
    script = waiting.script({"text": "Done."})
    ran = waiting.run(
        verb,
        waiting.db,
        "c1",
        *("--reason", "too much", "--resume", "--script", script, "--agents", "desk:support"),
    )
    assert (ran.code, ran.out) == (0, "Done.\n")
    items = waiting.run("show", waiting.db, "c1").out
    assert told in items


def test_decisions_as_json(waiting: Desk) -> None:
    (found,) = waiting.run("reject", waiting.db, "c1", "--by", "ana", "--json").json
    assert (found["decision"], found["by"]) == ("rejected", "ana")


def test_which_call_is_meant(desk: Desk) -> None:
    desk.chat(
        "c1",
        "Pay twice.",
        {"reply": [PAY, {"call": "pay", "arguments": {"amount": 1, "to": "Bo"}}]},
    )
    calls = array(desk.run("show", desk.db, "c1", "--json").json[0], "pending")
    several = desk.run("approve", desk.db, "c1")
    assert (several.code, "several calls of 'c1' wait" in several.err) == (2, True)
    assert desk.run("approve", desk.db, "c1", "pay").code == 2
    none = desk.run("approve", desk.db, "c1", "nothing")
    assert (none.code, none.err.startswith("error: no call nothing of 'c1' waits")) == (3, True)
    first, second = (text(call, "id") or "" for call in calls if isinstance(call, dict))
    assert desk.run("approve", desk.db, "c1", first).code == 0
    # The other one is the only one that is still to be decided.
    assert desk.run("reject", desk.db, "c1", "pay").code == 0
    assert desk.run("approve", desk.db, "c1", second).code in (3, 4)


def test_reject_gives_up_a_call_whose_answer_was_to_come_later(desk: Desk) -> None:
    desk.chat("c1", "Later.", {"call": "later", "arguments": {"what": "x"}})
    assert desk.run("reject", desk.db, "c1", "later", "--reason", "too late").code == 0
    assert "call.abandoned" in desk.run("log", desk.db, "c1").out
    assert desk.run("approve", desk.db, "c1").err.endswith("there are none\n")


def test_resume_of_a_conversation_that_is_not_there(desk: Desk) -> None:
    desk.chat("c1", "Hi", {"text": "Hello."})
    ran = desk.run("resume", desk.db, "c9", "--script", desk.script())
    assert (ran.code, "no conversation 'c9'" in ran.err) == (3, True)


# -- recover -------------------------------------------------------------------------------


def kill(desk: Desk) -> None:
    """A process that dies inside a tool."""
    script = desk.script({"call": "die"})
    command = [*COMMAND, "chat", desk.db, "c1", "Die.", "--script", script]
    done = subprocess.run(
        [*command, "--agents", "desk:support"], check=False, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_recover_reports_what_it_did_and_an_uncertain_call_may_run_again(desk: Desk) -> None:
    kill(desk)
    script = desk.script()
    ran = desk.run("recover", desk.db, "--script", script)
    assert ran.code == 0
    assert "marked 1 started call(s) as uncertain" in ran.out
    assert "left the turn to be resumed" in ran.out
    assert desk.run("recover", desk.db, "--script", script).out == "nothing was left behind\n"
    shown = desk.run("show", desk.db, "c1").out
    assert "runs it again" in shown
    assert f"turnlog resume {desk.db} c1 --agents MODULE:NAME  does what on_crash" in shown
    assert desk.run("approve", desk.db, "c1").code == 0


def test_recover_as_json(desk: Desk) -> None:
    kill(desk)
    actions = desk.run("recover", desk.db, "--script", desk.script(), "--json").json
    assert [action["conversation"] for action in actions] == ["c1", "c1"]


# -- verify, export, import, migrate -------------------------------------------------------


def test_a_backup_verifies_and_replaces_nothing(answered: Desk, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy.db")
    done = answered.run("backup", answered.db, copy)
    assert (done.code, done.out) == (0, "")
    assert done.err == f"{answered.db} is copied to {copy}\n"
    assert answered.run("verify", copy).out == "1 conversation, 9 events: all of it verifies\n"
    again = answered.run("backup", answered.db, copy)
    assert again.code == 2
    assert "is there already" in again.err


def test_verify_counts_and_finds(answered: Desk) -> None:
    assert (
        answered.run("verify", answered.db).out == "1 conversation, 9 events: all of it verifies\n"
    )
    assert answered.run("verify", answered.db, "c1", "--json").json == [
        {"conversations": 1, "events": 9, "ok": True}
    ]
    assert answered.run("verify", answered.db, "c9").code == 3
    with sqlite3.connect(answered.db) as connection:
        connection.execute("UPDATE events SET actor = 'mallory' WHERE version = 5")
    connection.close()
    ran = answered.run("verify", answered.db)
    assert ran.code == 1
    assert ran.lines[0].startswith("c1: version 5: ")
    assert ran.lines[-1] == "1 conversation, 9 events: 1 finding"
    finding, total = answered.run("verify", answered.db, "--json").json
    assert (finding["version"], total["ok"]) == (5, False)
    assert answered.run("export", answered.db).code == 5


def test_verify_finds_what_is_wrong_beside_the_log(answered: Desk) -> None:
    with sqlite3.connect(answered.db) as connection:
        connection.execute("DELETE FROM context")
    connection.close()
    ran = answered.run("verify", answered.db)
    assert (ran.code, ran.lines[0].startswith("c1: ")) == (1, True)


def test_export_and_import(answered: Desk) -> None:
    answered.run("fork", answered.db, "c1", "c2")
    whole = answered.run("export", answered.db)
    assert (whole.code, len(whole.lines)) == (0, 1 + 9 + 2)
    file, other = str(answered.path / "c.jsonl"), str(answered.path / "other.db")
    ran = answered.run("export", answered.db, "c2", "-o", file)
    assert (ran.out, ran.err) == ("", f"11 events in {file}\n")
    assert answered.run("import", other, file).out == "2 conversations, 11 events written\n"
    assert answered.run("import", other, file).out.endswith("(11 were there)\n")
    assert answered.run("export", other).out == whole.out
    again = answered.run("import", other, "-", "--json", input=whole.out)
    assert again.json == [{"conversations": ["c1", "c2"], "written": 0, "already": 11}]


def test_a_damaged_file_is_named_by_its_line_and_changes_nothing(answered: Desk) -> None:
    lines = answered.run("export", answered.db).lines
    lines[4] = lines[4].replace("One", "Two")
    file, other = answered.path / "c.jsonl", str(answered.path / "other.db")
    file.write_text("\n".join(lines))
    ran = answered.run("import", other, str(file))
    assert (ran.code, ran.err.startswith("error: line 5: ")) == (1, True)
    assert answered.run("ls", other, "--json").out == ""


def test_files_that_cannot_be_read_or_written(answered: Desk) -> None:
    missing = str(answered.path / "no" / "file")
    ran = answered.run("export", answered.db, "-o", missing)
    assert (ran.code, "cannot be written" in ran.err) == (2, True)
    ran = answered.run("import", answered.db, missing)
    assert (ran.code, "cannot be read" in ran.err) == (2, True)


@pytest.mark.parametrize("name", ["agent.db", "./agent.db", "link", "agent.db-wal", "other.db"])
def test_an_export_replaces_no_database(answered: Desk, name: str) -> None:
    other = answered.path / "other.db"
    other.write_bytes(Path(answered.db).read_bytes())
    (answered.path / "link").symlink_to("agent.db")
    ran = answered.run("export", "agent.db", "-o", name)
    assert (ran.code, ran.err) == (
        2,
        f"error: {name} is a database, or belongs to one: name another file for the export\n",
    )
    for db in (answered.db, str(other)):
        assert answered.run("verify", db).code == 0


def test_an_export_goes_where_a_link_leads_and_takes_nothing_else(answered: Desk) -> None:
    part, there, link, gone = (answered.path / name for name in ("c.part", "c", "link", "gone"))
    part.write_text("mine")
    there.write_text("an older export")
    link.symlink_to("c")
    gone.symlink_to("d")
    usual = there.stat().st_mode
    for output, file in ((there, there), (link, there), (gone, answered.path / "d")):
        assert answered.run("export", answered.db, "-o", str(output)).code == 0
        assert len(file.read_text().splitlines()) == 10
        assert (file.stat().st_mode, file.is_symlink()) == (usual, False)
    assert (part.read_text(), link.is_symlink(), gone.is_symlink()) == ("mine", True, True)
    assert not list(answered.path.glob(".turnlog-*"))


def test_an_export_to_a_device(answered: Desk) -> None:
    pipe = answered.path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        assert answered.run("export", answered.db, "-o", str(pipe)).code == 0
        assert len(read.result(20).splitlines()) == 10
    assert pipe.is_fifo()
    assert len(answered.run("export", answered.db, "-o", "/dev/stdout").lines) == 10


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("desk.py/x", "Not a directory"),
        ("x" * 300, "File name too long"),
        (".", "Is a directory"),
    ],
)
def test_an_export_that_cannot_be_written_is_one_line(answered: Desk, name: str, why: str) -> None:
    ran = answered.run("export", answered.db, "-o", name)
    assert (ran.code, ran.err) == (2, f"error: {name} cannot be written: {why}\n")


def test_an_export_that_fails_leaves_no_file(answered: Desk) -> None:
    file = answered.path / "c.jsonl"
    assert answered.run("export", answered.db, "c1", "c9", "-o", str(file)).code == 3
    assert not [*answered.path.glob("c.jsonl*"), *answered.path.glob(".turnlog-*")]


def test_export_of_an_empty_database(desk: Desk) -> None:
    desk.run("import", desk.db, "-", input="")
    ran = desk.run("export", desk.db)
    assert (ran.code, "holds no conversation" in ran.err) == (2, True)


def test_migrate(desk: Desk) -> None:
    db = str(desk.path / "new.db")
    assert desk.run("migrate", db).code == 3
    Path(db).touch()
    first = desk.run("migrate", db)
    assert first.out.endswith(" now\n") and "was at schema none" in first.out
    assert desk.run("migrate", db).out.endswith("the newest\n")
    (found,) = desk.run("migrate", db, "--json").json
    assert found["before"] == found["after"]


# -- the provider --------------------------------------------------------------------------


async def test_a_provider_at_an_address(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    async with Simulator([said("Over HTTP.")]) as provider:
        ran = await desk.aside(
            *("chat", desk.db, "c1", "Hi", "--model", "gpt-5.5"),
            *("--base-url", provider.base_url, "--transport", "http"),
        )
    assert (ran.code, ran.out) == (0, "Over HTTP.\n")


async def test_a_command_that_only_looks_has_no_way_to_a_provider() -> None:
    nowhere = Nowhere()
    parent = Parent(response="r", end=0, version=1, time=0, store=True, transport="http")
    assert not nowhere.remembers(parent, via=nowhere.choose(), conversation="")
    with pytest.raises(NotSupported, match="asks no provider"):
        nowhere.check()
    with pytest.raises(NotSupported, match="asks no provider"):
        await anext(nowhere.send(Create(body={})))


NO_KEY = "error: no key for openai: set OPENAI_API_KEY\n"
CLEAR = ("--base-url", "http://example.com/v1", "--profile", "openai")


def test_a_missing_key_is_named_before_a_database_is_made(waiting: Desk) -> None:
    new = str(waiting.path / "new.db")
    for more in ((), CLEAR, ("--transport", "http"), ("--transport", "websocket")):
        for db in (waiting.db, new):
            ran = waiting.run("chat", db, "c1", "Hi", "--model", "gpt-5.5", *more)
            assert (ran.code, ran.err) == (2, NO_KEY)
    for command in (("resume", waiting.db, "c1"), ("work", waiting.db)):
        ran = waiting.run(*command)
        assert (ran.code, ran.err.splitlines(keepends=True)[-1]) == (2, NO_KEY)
    assert not list(waiting.path.glob("new.db*"))


def test_what_is_wrong_with_an_address_is_no_missing_key(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    ran = desk.run("chat", desk.db, "c1", "Hi", "--model", "gpt-5.5", *CLEAR)
    assert (ran.code, "would get the key in the clear" in ran.err) == (2, True)


def test_a_missing_model_is_asked_for_before_a_database_is_made(answered: Desk) -> None:
    for db, id in ((str(answered.path / "new.db"), "c1"), (answered.db, "c2")):
        ran = answered.run("chat", db, id, "Hi", "--base-url", "http://127.0.0.1:9/v1")
        assert (ran.code, ran.err) == (
            2,
            "error: say which model: --model, TURNLOG_MODEL or --agents\n",
        )
    assert not list(answered.path.glob("new.db*"))
    assert [row["id"] for row in answered.run("ls", answered.db, "--json").json] == ["c1"]


# -- a database that fails -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (StoreUnavailable("the disk is full"), 5, "error: the disk is full"),
        (Waiting("await turn.resume()"), 4, "has no process any more"),
    ],
)
def test_a_turn_that_stopped_says_how_it_goes_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, error: TurnlogError, code: int, told: str
) -> None:
    async def peek(turn: object) -> None:
        raise error

    monkeypatch.setattr(turnlog.Turn, "peek", peek)
    ran = desk.chat("c1", "Hi", {"text": "Hello."})
    assert ran.code == code
    first, second, *_ = ran.err.splitlines()
    assert told in first and "await" not in ran.err
    assert second == f"  turnlog resume {desk.db} c1 --agents MODULE:NAME goes on"


FULL = """
import atexit, resource, turnlog

def limit(size):
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    )

@turnlog.tool
def fill() -> str:
    limit(0)
    return "Nothing can be written any more."

atexit.register(limit, resource.getrlimit(resource.RLIMIT_FSIZE)[0])
agent = turnlog.Agent("full", model="gpt-5.5", tools=[fill])
"""


def test_a_disk_that_fills_is_told_without_a_traceback(desk: Desk) -> None:
    (desk.path / "full.py").write_text(FULL)
    script = desk.script({"call": "fill"}, {"text": "Never asked."})
    command = ["chat", desk.db, "c1", "Fill it.", "--script", script, "--agents", "full:agent"]
    done = subprocess.run([*COMMAND, *command], check=False, capture_output=True, text=True)
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    assert f"turnlog resume {desk.db} c1 " in done.stderr.splitlines()[-1]


def test_what_a_user_s_code_raised_is_logged_with_its_place() -> None:
    for error, shown in ((ValueError("theirs"), True), (StoreUnavailable("ours"), False)):
        logged = logging.makeLogRecord({"exc_info": (type(error), error, None)})
        assert in_a_line(logged)
        assert (logged.exc_info is not None) is shown
    assert in_a_line(logging.makeLogRecord({}))


# -- output that cannot be written ---------------------------------------------------------


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["ls", "verify", "export"])
def test_a_full_stdout_is_one_line(
    answered: Desk, monkeypatch: pytest.MonkeyPatch, command: str, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, command, answered.db], check=False, stdout=full, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (
        1,
        b"error: nothing more can be written: No space left on device\n",
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_left_is_not_told(
    answered: Desk, monkeypatch: pytest.MonkeyPatch, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reader, writer = os.pipe()
    os.close(reader)
    command = [*COMMAND, "ls", answered.db]
    done = subprocess.run(command, check=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_serve_simulator_announces_its_address_and_stops(desk: Desk) -> None:
    command = [*COMMAND, "serve-simulator"]
    with subprocess.Popen(
        [*command, "--script", desk.script({"text": "Hi"})],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_a_simulator_that_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match="no simulator is installed"):
        simulator(EntryPoints())


def test_a_script_of_the_simulator_that_cannot_be_read(desk: Desk) -> None:
    ran = desk.run("serve-simulator", "--script", "no.json")
    assert (ran.code, "cannot be read" in ran.err) == (2, True)


CHAT = ("chat", "agent.db", "c1", "x")


# -- usage ---------------------------------------------------------------------------------


def test_the_database_may_be_named_once_for_all(
    answered: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answered.run("--db", answered.db, "show", "c1").code == 0
    monkeypatch.setenv("TURNLOG_DB", answered.db)
    assert answered.run("ls").lines[1].startswith("c1")
    assert answered.run("show", "c1").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("chat", "{db}", "Hi", "--script", "script.json"),
        ("chat", "--script", "script.json", "{db}", "Hi"),
        ("chat", "other.db", "c1", "Hi", "--script", "script.json"),
        ("show", "{db}", "c1"),
        ("show", "./agent.db"),
        ("verify", "{db}"),
        ("verify", "c1", "{db}"),
        ("ls", "{db}"),
        ("backup", "{db}", "copy.db"),
    ],
)
def test_a_database_that_is_named_twice_is_no_conversation(
    answered: Desk, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    answered.script({"text": "Never asked."})
    Path("other.db").write_bytes(Path(answered.db).read_bytes())
    given = [one.format(db=answered.db) for one in arguments]
    told = f" names the database already, {answered.db}: leave DB out ("
    ran = answered.run("--db", answered.db, *given)
    assert (ran.code, ran.err.startswith(f"error: --db{told}")) == (2, True), ran.err
    monkeypatch.setenv("TURNLOG_DB", answered.db)
    ran = answered.run(*given)
    assert (ran.code, ran.err.startswith(f"error: TURNLOG_DB{told}")) == (2, True), ran.err
    assert [row["id"] for row in answered.run("ls", "--json").json] == ["c1"]


def test_files_of_other_kinds_are_no_database_named_twice(answered: Desk) -> None:
    (answered.path / "c2").mkdir()
    assert answered.chat("c2", "Hi", {"text": "Hello."}).code == 0
    assert answered.run("--db", answered.db, "show", "c2").code == 0
    other = str(answered.path / "other.db")
    assert answered.run("--db", answered.db, "backup", other).code == 0
    again = answered.run("--db", answered.db, "backup", other)
    assert "is there already" in again.err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("show", "no.db", "c1"), 3, "no.db"),
        (("approve", "no.db", "c1"), 3, "no database no.db"),
        (("show", "agent.db", "c9"), 3, "no conversation 'c9'"),
        (("show", "desk.py", "c1"), 5, "desk.py"),
        (("diff", "agent.db", "c1", "99"), 3, "no version 99"),
        (("diff", "agent.db", "c1", "turn_9"), 3, "no turn 'turn_9'"),
        (("fork", "agent.db", "c1", "c1"), 2, "there is a conversation 'c1' already"),
        (("ls", "agent.db", "--since", "yesterday"), 2, "'yesterday' is no time"),
        (("ls", "agent.db", "--metadata", "x"), 2, "takes NAME=VALUE"),
        (("ls", "agent.db", "--status", "asleep"), 2, "error: --status is one of idle, busy"),
        (("chat", "agent.db", "c1", "", "--script", "script.json"), 2, "empty"),
        ((*CHAT, "--script", "no.json"), 2, "error: no.json cannot be read: No such file"),
        ((*CHAT, "--transcript", "no.json"), 2, "error: no.json cannot be read: No such file"),
        ((*CHAT, "--script", "desk.py"), 2, "error: desk.py: not readable as JSON"),
        ((*CHAT, "--transcript", "script.json"), 2, "error: script.json: exchange 1 has no"),
        (("serve-simulator", "--script", "desk.py"), 2, "error: desk.py: not readable as JSON"),
        (("log", "agent.db", "c1", "--turn", "turn_9"), 3, "no turn 'turn_9'"),
        (("log", "agent.db", "c1", "--turn", "turn_9", "-f"), 3, "no turn 'turn_9'"),
        (("log", "agent.db", "--turn", "turn_9"), 3, "no turn 'turn_9' in agent.db"),
        (
            (*CHAT, "--script", "script.json", "--transport", "http"),
            2,
            "replay",
        ),
        ((*CHAT, "--transport", "pigeon"), 2, "no transport 'pigeon'"),
        ((*CHAT, "--option", "=x"), 2, "takes NAME=VALUE"),
        ((*CHAT, "--agents", "desk"), 2, "takes MODULE:NAME"),
        ((*CHAT, "--agents", "nowhere:a"), 2, "no module 'nowhere'"),
        ((*CHAT, "--agents", "desk:nobody"), 2, "desk has no 'nobody'"),
        ((*CHAT, "--agents", "desk:not_agents"), 2, "is no Agent"),
        ((*CHAT, "--agents", "desk:empty"), 2, "is no Agent"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_what_a_user_gets_wrong(
    answered: Desk, arguments: tuple[str, ...], code: int, told: str
) -> None:
    answered.script({"text": "Never asked."})
    ran = answered.run(*arguments)
    assert (ran.code, told in ran.err) == (code, True), ran.err
    assert "Traceback" not in ran.err


def test_an_error_inside_a_module_of_agents_shows_where(desk: Desk) -> None:
    (desk.path / "broken.py").write_text("import no_such_module")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        desk.run("chat", desk.db, "c1", "x", "--agents", "broken:a")


def test_version_and_help(desk: Desk) -> None:
    assert desk.run("--version").out.startswith("turnlog 0.")
    assert "Exit codes:" in desk.run("--help").out
    assert desk.run().code == 2
