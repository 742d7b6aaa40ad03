"""Write docs/cli.md from the help of the command line; with `--check`, say whether it is current.

python scripts/cli_docs.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

from typer.testing import CliRunner

from turnlog.cli.app import app

DOCS = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
COMMANDS = tuple((command.name or "",) for command in app.registered_commands) + tuple(
    (group.name or "", command.name or "")
    for group in app.registered_groups
    for command in (group.typer_instance.registered_commands if group.typer_instance else ())
)

HEAD = """\
# The command line

Made by `python scripts/cli_docs.py` from the command's own help; a test keeps it current.

    turnlog chat agent.db hello "Hi there" --model gpt-5.5   # one message; answered on stdout
    turnlog chat agent.db hello                       # a conversation, until Ctrl-D
    turnlog chat agent.db hello "Hi" --script replies.json    # no key, no network
    turnlog log agent.db hello                        # what happened, when, and by whom

The database is the first argument of every command, unless `--db` or `TURNLOG_DB` names it once for
all: `turnlog --db agent.db ls`. `--json` prints JSON lines with the field names of the library.
Answers and data go to stdout, everything about them to stderr. `NO_COLOR` is honoured.

A script is a JSON list of replies: `[{"call": "add", "arguments": {"a": 1}}, {"text": "Done."}]`.

| exit code | means |
|---|---|
| 0 | it went as asked |
| 1 | `verify` or `doctor` found something, a file cannot be imported, or a turn did not complete |
| 2 | wrong usage: an argument, an option, an agent, a key |
| 3 | no such database, conversation, turn, call or version |
| 4 | the conversation is elsewhere: busy, waiting for an answer, answered already, too late |
| 5 | the database: locked, read-only, damaged, newer, or not turnlog's |
| 6 | the provider, or the way to it |
| 130 | interrupted |
"""


def helped(*arguments: str) -> str:
    """What `--help` says, at a fixed width."""
    env = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "TURNLOG_DB": None}
    done = CliRunner().invoke(app, [*arguments, "--help"], env=env, prog_name="turnlog")
    assert done.exit_code == 0, done.output
    return "\n".join(line.rstrip() for line in done.output.strip().splitlines())


def document() -> str:
    """The whole document."""
    parts = [HEAD, f"```text\n{helped()}\n```\n"]
    for words in COMMANDS:
        parts.append(f"## {' '.join(words)}\n\n```text\n{helped(*words)}\n```\n")
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write the document, or compare it; the exit code."""
    made = document()
    if "--check" not in arguments:
        DOCS.write_text(made, encoding="utf-8")
        return 0
    return 0 if DOCS.exists() and DOCS.read_text(encoding="utf-8") == made else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
