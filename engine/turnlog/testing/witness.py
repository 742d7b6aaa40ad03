"""Somebody who looks at a store again and again while it is tortured, and forgets nothing.

The one rule: what was seen once must be there for ever. A witness follows the log from where it
stood, holds what is new against what it knows, and checks the conversations that moved.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from ..ports import Store
from ..record import Recorded
from .deeds import Effect, Life, acted
from .invariants import Checked, following
from .rules import Read, Violation, positioned


@dataclass(slots=True)
class Witness:
    """What was seen of a store so far. `again` names the tools that may run again unasked."""

    store: Store
    again: Collection[str] = ()
    log: dict[str, list[Recorded]] = field(default_factory=dict[str, list[Recorded]])
    ids: set[str] = field(default_factory=set[str])
    _starts: dict[str, Life] = field(default_factory=dict[str, Life])
    _read: Read = field(default_factory=Read)

    async def look(
        self,
        acknowledged: Collection[str] = (),
        effects: Iterable[Effect] = (),
        *,
        samples: int = 2,
        repeat: bool = False,
    ) -> list[Violation]:
        """What is wrong with what is new: I1 to I6, I8, and I9 with `repeat`.

        `acknowledged` and `effects` are all that there are so far, taken before this is called.
        """
        places = await following(self.store, self._read.positions)
        found = [*positioned(places, self._read)]
        for _, _, one in places:
            self.log.setdefault(one.conversation, []).append(one)
            self.ids.add(one.id)
        for name in sorted({one.conversation for _, _, one in places}):
            # What was seen of it before must still be there, or I3 is broken.
            checked = Checked(
                self.store, name, self.log, again=self.again, samples=samples, repeat=repeat
            )
            found += await checked.violations()
            self._starts |= checked.starts
        for id in sorted(set(acknowledged) - self.ids):
            what = f"event {id} was acknowledged, and is not there"
            found.append(Violation(rule="I1", conversation=None, what=what))
        return [*found, *acted(effects, self._starts)]
