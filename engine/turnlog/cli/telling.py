"""A turn as it happens, told on a terminal.

The one rule: the answer goes to stdout as it streams, everything else to stderr; where stdout is no
terminal, the answer is printed once, when it is final, since what was printed cannot be retracted.
"""

from __future__ import annotations

from rich.status import Status
from rich.text import Text

from ..result import TurnResult, Usage
from ..updates import CallUpdate, Cursor, Delta, HostedUpdate, Retracted, UnknownUpdate, Update
from .screen import Screen, one_line, safe
from .words import call_words, output_words

_SIGNS = {
    "call.requested": ("→", "cyan"),
    "call.approved": ("✓", "green"),
    "call.rejected": ("✗", "red"),
    "call.started": ("▸", "dim"),
    "call.progressed": ("…", "dim"),
    "call.answered": ("←", "green"),
    "call.deferred": ("…", "yellow"),
    "call.uncertain": ("?", "yellow"),
    "call.abandoned": ("✗", "yellow"),
}


class Telling:
    """Tells updates, one after the other. `cursor` is the place behind the last one."""

    def __init__(self, screen: Screen) -> None:
        self.cursor: Cursor | None = None
        self._screen = screen
        self._part: str | None = None
        self._said: str | None = None
        self._status: Status | None = None

    def wait(self) -> None:
        """Show that something is under way, until it is."""
        if self._screen.pretty and self._status is None:
            self._status = self._screen.err.status("")
            self._status.start()

    def over(self) -> None:
        """Nothing is under way any more: leave the terminal at the start of a line."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        self._end_line()

    def update(self, update: Update) -> None:
        """Tell one update."""
        self.cursor = update.cursor
        if self._screen.as_json:
            self._screen.data(update)
            return
        match update:
            case Delta():
                self._delta(update)
            case CallUpdate():
                self._call(update)
            case HostedUpdate():
                self._once(f"· {_in_words(update.event)}")
            case Retracted():
                self._once(f"(discard what stands above: {update.reason})", "yellow")
            case UnknownUpdate():
                self._once(f"· unknown to this turnlog: {update.event}")
            case _:
                pass

    def result(self, result: TurnResult[str]) -> None:
        """Tell what the turn came to, and the answer, where it did not stream."""
        self.over()
        if self._screen.as_json:
            self._screen.data(result, type="result")
            return
        if not self._screen.pretty and result.output_text:
            self._screen.say(result.output_text.rstrip("\n"))
        if result.refusal and not self._screen.pretty:
            self._screen.note(f"refused: {result.refusal}", "yellow")
        if result.status == "failed":
            self._screen.note(f"error: the turn failed: {result.reason}", "red")
        elif result.status != "completed" or self._screen.pretty:
            because = f": {result.reason}" if result.reason else ""
            self._screen.note(f"{result.status}{because}{_used(result.usage)}")

    # -- inside ----------------------------------------------------------------------------

    def _delta(self, delta: Delta) -> None:
        if not self._screen.pretty:
            return
        if delta.part != self._part:
            self.over()
        self._part = delta.part
        thought = delta.type == "reasoning.delta"
        console = self._screen.err if thought else self._screen.out
        style = {"reasoning.delta": "dim italic", "refusal.delta": "yellow"}.get(delta.type, "")
        console.print(Text(safe(delta.delta), style=style), end="", soft_wrap=True)

    def _call(self, update: CallUpdate) -> None:
        self.over()
        sign, style = _SIGNS[update.type]
        name = update.name or update.kind or update.call
        match update.type:
            case "call.requested":
                said = call_words(update.name, update.kind, update.arguments)
            case "call.started":
                self.wait()
                return
            case "call.progressed":
                said = f"{name}: {_progress(update)}"
            case "call.answered":
                said = f"{name}: {output_words(update.output or {})}"
            case _:
                verb = update.type.removeprefix("call.")
                said = f"{name} {verb}" + (f": {update.reason}" if update.reason else "")
        self._screen.err.print(
            Text.assemble((f"{sign} ", style), one_line(said, 400)), soft_wrap=True
        )
        self._said = None
        self.wait()

    def _once(self, said: str, style: str = "dim") -> None:
        """A line, unless it is the one before again."""
        self.over()
        if said != self._said:
            self._screen.note(one_line(said, 400), style)
        self._said = said
        self.wait()

    def _end_line(self) -> None:
        if self._part is not None:
            self._screen.out.print()
        self._part = None


def _progress(update: CallUpdate) -> str:
    return ", ".join(f"{key}={value}" for key, value in (update.data or {}).items())


def _in_words(event: str) -> str:
    return event.removeprefix("response.").replace(".", ": ").replace("_", " ")


def _used(usage: Usage) -> str:
    if not usage.responses:
        return ""
    cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
    return f" · {usage.input_tokens} tokens in{cached}, {usage.output_tokens} out"
