"""The command line: `turnlog`, a view of the library for a terminal and for scripts.

    app       the command itself, its options, and where errors become messages
    options   the arguments and options that commands share
    opening   from options to an open log          screen  what is printed, and how
    talking   chat, resume                         looking ls, show, log, diff
    settling  fork, approve, reject, recover       moving  verify, export, import, migrate
    serving   serve-simulator                      words   events and items in human words

The one rule: no logic lives here. A command opens a log, calls one or two of its methods, and
prints what came back; nothing but the command imports this package, and commands import what they
need when they run, so that `turnlog --help` is quick.
"""

from __future__ import annotations


def main() -> None:
    """The command `turnlog`."""
    from .app import app

    app()
