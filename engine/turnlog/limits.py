"""How large things may be, and how much may run at once: `turnlog.open(…, limits=Limits(…))`.

The one rule: what is too large is found before it is written or sent (law 13), and the error says
which thing it is, how large it is, by how much it is too large, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

from . import events as ev
from .canonical import JsonObject, dumps, text
from .errors import ConfigurationError, TooLarge, TooMany
from .items import type_of
from .record import Recorded

MIB = 1024 * 1024

LEAST_ITEM = 1024
"""The least that an item may be held to: what turnlog itself tells the model has to fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is accepted. None switches a limit off; what a provider says is never cut.

    `item_bytes` is the canonical JSON of one item that a caller or a tool gives: 32 MiB, a file of
    24 MB in base64, and well below what one row of SQLite holds (1 GB). `request_items` counts the
    items of one request: 131,072 is what OpenAI's published description of `responses/compact`
    and `responses/input_tokens` allows (`maxItems`). `request_bytes` is the canonical JSON of a
    request's whole body: 512 MiB, far more than any context holds, so that only a mistake is
    stopped; a proxy may take less. `open_turns` is how many turns this process runs at once, each
    with its connection or its tools under way: 10,000.

    The size of what a provider sends in one piece is the transport's to limit:
    `turnlog.open(…, options={"max_frame_bytes": …})`, 64 MiB unless it is given. How long a context
    may be is the provider's (`TurnResult.error` says by how much it was too long).
    """

    item_bytes: int | None = 32 * MIB
    request_items: int | None = 131_072
    request_bytes: int | None = 512 * MIB
    open_turns: int | None = 10_000

    def __post_init__(self) -> None:
        for each in fields(self):
            least = LEAST_ITEM if each.name == "item_bytes" else 1
            value: object = getattr(self, each.name)
            if value is not None and (type(value) is not int or value < least):
                raise ConfigurationError(
                    f"Limits({each.name}=…) is a whole number, {least} or more, or None for no"
                    f" limit, not {value!r:.40}"
                )

    def check_items(self, conversation: str, events: Sequence[Recorded]) -> None:
        """Raise TooLarge where one of these events brings an item that is too large.

        Items count that a caller gives; not what a provider or turnlog itself says.
        """
        limit, place = self.item_bytes, 0
        if limit is None or any(isinstance(one.event, ev.ContextCompacted) for one in events):
            return
        for one in events:
            for item in _given(one.event):
                place += 1
                # An event is a little larger than its items: most need no closer look.
                if len(one.body) > limit and (size := len(dumps(item))) > limit:
                    raise TooLarge(
                        f"{_named(one.event, item, place)} has {size:,} bytes,"
                        f" {size - limit:,} more than the limit of {limit:,}, in conversation"
                        f" {conversation!r}: make it smaller, give a file by its id or address,"
                        " or raise Limits(item_bytes=…)",
                        setting="item_bytes",
                        limit=limit,
                        size=size,
                    )

    def fitting(self, output: JsonObject) -> JsonObject:
        """What the model is told of a tool's output: itself, or that it is too large.

        The tool has run, so that its turn goes on; what is cut would be no longer what it said.
        """
        limit, size = self.item_bytes, len(dumps(output))
        if limit is None or size <= limit:
            return output
        return {
            **output,
            "output": f"The tool ran, and its result is left out: it has {size:,} bytes, which is"
            f" {size - limit:,} more than the limit of {limit:,}. Ask for less of it.",
        }

    def check_request(self, conversation: str, *, items: int, size: int) -> None:
        """Raise TooLarge where a request would hold too many items, or too many bytes."""
        told = (
            ("request_items", self.request_items, items, "item"),
            ("request_bytes", self.request_bytes, size, "byte"),
        )
        for setting, limit, found, unit in told:
            if limit is not None and found > limit:
                raise TooLarge(
                    f"the next request of conversation {conversation!r} would have"
                    f" {counted(found, unit)}, {found - limit:,} more than the limit of {limit:,}:"
                    " shorten or remove items, go on from an earlier place (chat.fork) and"
                    f" compact there, or raise Limits({setting}=…)",
                    setting=setting,
                    limit=limit,
                    size=found,
                )

    def check_turns(
        self, conversation: str, running: Collection[str], starting: Collection[str]
    ) -> None:
        """Raise TooMany where no turn of a conversation may begin beside those that run here."""
        limit = self.open_turns
        if limit is None or len(running) + len(starting) < limit:
            return
        if len({*running, *starting} - {conversation}) >= limit:
            raise TooMany(
                f"this process runs {counted(limit, 'turn')}, and no more are allowed at once: send"
                f" to {conversation!r} again when one of them is over, let another process do it,"
                " or raise Limits(open_turns=…)",
                limit=limit,
            )


def counted(number: int, unit: str) -> str:
    """So many of something, in words."""
    return f"{number:,} {unit}" + ("" if number == 1 else "s")


def _given(event: ev.Event) -> Sequence[JsonObject]:
    match event:
        case ev.ItemAdded() | ev.ItemEdited() | ev.CallAnswered() | ev.CallRejected():
            return (event.item,)
        case ev.TurnQueued():
            return event.items
        case _:
            return ()


def _named(event: ev.Event, item: JsonObject, place: int) -> str:
    kind, role = type_of(item), text(item, "role")
    said = kind if role is None else f"{kind} of the {role}"
    match event:
        case ev.ItemEdited():
            return f"what is to stand at place {event.ordinal} of the context ({said})"
        case ev.CallAnswered() | ev.CallRejected():
            return f"the output of call {event.call} ({said})"
        case _:
            return f"item {place} of the input ({said})"
