"""What can be done about a turn that does not go on, as commands to type.

The one rule: each hint is a command that works as it stands, and what it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.text import Text

    from ..call import Call
    from ..conversation import ConversationState

_COMMANDS: dict[str, tuple[str, str]] = {
    "approve": ("turnlog approve {db} {id} {call}", "lets it run"),
    "reject": ("turnlog reject {db} {id} {call}", "refuses it"),
    "rerun": ("turnlog resolve {db} {id} {call} --rerun", "runs it again, with the same key"),
    "answer": ("turnlog resolve {db} {id} {call} --answer TEXT", "gives it this output"),
    "abandon": ("turnlog resolve {db} {id} {call} --abandon", "gives it up"),
}
_SETTLES: dict[str, tuple[str, ...]] = {
    "approval": ("approve", "reject"),
    "uncertain": ("rerun", "answer", "abandon"),
    "deferred": ("answer", "abandon"),
}
_GO_ON = ("turnlog resume {db} {id} --agents MODULE:NAME", "goes on")
_ON_CRASH = (_GO_ON[0], "does what on_crash of the tool says, where it is not `ask`")
_SETTLE = ("turnlog recover {db}", "settles the turn, whose process is gone")


def waiting(
    show: Callable[[Text], None], db: str, state: ConversationState, *, left: bool = False
) -> None:
    """The calls that wait, and what can be done about each, or about a turn that was left."""
    from rich.text import Text

    from .screen import safe
    from .words import call_words, given_to

    for call in state.pending:
        what = waits_for(state, call)
        words = safe(call_words(call.name, call.kind, given_to(call.raw)))
        show(Text.assemble(("? ", "yellow"), (words, "bold"), (f"  waits: {what}", "yellow")))
        if what == "uncertain" and call.why is not None:
            show(Text(safe(f"  {call.why}"), style="dim"))
        for command, does in _hints(what, call):
            said = command.format(db=db, id=call.conversation, call=call.id)
            show(Text(safe(f"  {said}  {does}"), style="dim"))
    for command, does in _turn_hints(state, left=left):
        show(Text(safe(f"  {command.format(db=db, id=state.id)}  {does}"), style="dim"))


def go_on(db: str, id: str) -> str:
    """How the open turn of a conversation goes on."""
    command, does = _GO_ON
    return f"{command.format(db=db, id=id)}  {does}"


def _hints(what: str, call: Call) -> list[tuple[str, str]]:
    """The commands that do something about a call, and what each does."""
    if what == "running":
        return []
    verbs = [verb for verb in _SETTLES.get(what, ()) if verb in call.can]
    return [_COMMANDS[verb] for verb in verbs] or [_GO_ON]


def _turn_hints(state: ConversationState, *, left: bool) -> list[tuple[str, str]]:
    """The commands that do something about the turn itself."""
    if left:
        return [_SETTLE, _GO_ON]
    if state.status != "waiting":
        return []
    if not state.pending:
        return [_GO_ON]
    doubted = any(waits_for(state, call) == "uncertain" for call in state.pending)
    return [_ON_CRASH] if doubted and state.paused != "uncertain" else []


def waits_for(state: ConversationState, call: Call) -> str:
    """What a call waits for, where nobody has bound its tool: what its turn was paused for."""
    if call.waits_for != "unbound":
        return call.waits_for or "to be resumed"
    if call.status == "requested" and "approval" in (state.paused or ""):
        return "approval"
    return "to be resumed with its tool"
