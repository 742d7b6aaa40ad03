"""When a response is given up because nothing came, or not enough (W-23).

The one rule: pure. Time is an argument, and it counts from when frames arrive, not from when
somebody takes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from turnlog.ports import Timeouts


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a response is given up, and what is said then; `silent`: because nothing came."""

    at: float
    why: str
    silent: bool


def deadline(
    timeouts: Timeouts, *, begun: float, last: float | None, behind: bool = False
) -> Deadline | None:
    """The next deadline of a response, or None where it has none (W-23).

    `begun` is when it was asked for, `last` when its last frame arrived. While its reader is
    `behind`, with frames to take, silence does not count.
    """
    silence = timeouts.first_frame if last is None else timeouts.idle
    found: list[Deadline] = []
    if silence is not None and not behind:
        since = begun if last is None else last
        why = f"the provider said nothing for {silence:g} seconds"
        found.append(Deadline(since + silence, why, silent=True))
    if timeouts.total is not None:
        why = f"the response was not over within {timeouts.total:g} seconds"
        found.append(Deadline(begun + timeouts.total, why, silent=False))
    return min(found, key=lambda each: each.at, default=None)
