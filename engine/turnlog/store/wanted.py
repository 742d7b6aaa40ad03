"""What a caller asks for, checked once for every store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..canonical import JsonObject
from ..errors import InvalidInput
from ..state import State, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which conversations to list; None and empty ask for all."""

    status: Status | None
    metadata: Mapping[str, str]
    since: int | None
    until: int | None

    def fits(self, state: State) -> bool:
        """Whether a conversation in this state is asked for."""
        return (
            self.status in (None, state.status)
            and (self.since is None or state.updated >= self.since)
            and (self.until is None or state.updated <= self.until)
            and self.has_metadata(state.metadata)
        )

    def has_metadata(self, metadata: JsonObject) -> bool:
        """Whether a conversation has all the entries that are asked for."""
        return all(metadata.get(name) == value for name, value in self.metadata.items())


def the_one(given: Mapping[str, str | None]) -> tuple[str, str]:
    """The name and value of the only argument that is given; raises InvalidInput."""
    found = [(name, value) for name, value in given.items() if value is not None]
    if len(found) != 1:
        raise InvalidInput(f"give exactly one of {', '.join(given)}")
    return found[0]
