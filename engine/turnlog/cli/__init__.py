"""The command line: `turnlog`, a view of the library for a terminal and for scripts.

    app       the command itself, its options, and where errors become messages
    options   the arguments and options that commands share

    talking   chat, resume                         looking   ls, show
    settling  fork, approve, reject, recover       history   log, diff
    moving    verify, export, import, migrate      serving   serve-simulator
    local     local fetch, local status, and `--provider local`

    opening   from options to an open log          screen    what is printed, and how
    session   a conversation at a terminal         telling   a turn as it happens
    deciding  which call is meant                  background  a loop beside the terminal
    words, timeline   items and events in human words

The one rule: no logic lives here. A command opens a log, calls one or two of its methods, and
prints what came back; nothing but the command imports this package, and commands import what they
need when they run, so that `turnlog --help` is quick.
"""

from __future__ import annotations


def main() -> None:
    """The command `turnlog`."""
    from .app import run

    run()
