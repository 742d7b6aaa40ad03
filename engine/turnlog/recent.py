"""The newest heads that this process wrote or read, so that what follows need not read them again.

The one rule: what is remembered is a hint, since others write too. It is trusted only where what
was decided on it is then written behind the version and the epoch that it names; whatever comes to
nothing, or is refused, is decided once more on what is stored.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from . import events as ev
from .state import State

KEPT = 256
"""How many conversations are remembered: those that were written or read last."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A conversation as this process saw it last, and its newest epoch where that is known."""

    state: State
    epoch: int | None = None
    config: ev.ConversationConfigured | None = None


@dataclass(slots=True)
class Recent:
    """What is remembered, the longest ago first."""

    _known: OrderedDict[str, Remembered] = field(default_factory=OrderedDict[str, Remembered])

    def get(self, conversation: str) -> Remembered | None:
        """What this process saw last, if that is remembered."""
        return self._known.get(conversation)

    def put(self, state: State, epoch: int | None = None) -> None:
        """Remember a head that was read or written; an epoch that is left out has not changed."""
        before = self._known.pop(state.id, Remembered(state))
        if before.state.version > state.version:
            state = before.state  # it was read before that was written
        epochs = [one for one in (before.epoch, epoch) if one is not None]
        config = before.config if before.state.config == state.config else None
        self._known[state.id] = Remembered(state, max(epochs, default=None), config)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)

    def put_config(self, state: State, config: ev.ConversationConfigured) -> None:
        """Remember the configuration that is in force at a state, where that is remembered."""
        known = self._known.get(state.id)
        if known is not None and known.state.config == state.config:
            self._known[state.id] = replace(known, config=config)

    def config(self, state: State) -> ev.ConversationConfigured | None:
        """The configuration that is in force at a state, if it is remembered."""
        known = self._known.get(state.id)
        return known.config if known is not None and known.state.config == state.config else None

    def forget(self, conversation: str) -> None:
        """It turned out to be old."""
        self._known.pop(conversation, None)
