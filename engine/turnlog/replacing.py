"""Changing a context without a turn: one item at a time, or to equal a list.

The one rule: what is recorded is the difference (law 9). Pure, but for looking an item up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .canonical import JsonObject, text
from .commands import AddItems, Command, EditItem, RemoveItem
from .context import Item
from .diff import Added, Difference, Edited, Removed
from .engine import Engine
from .errors import NotFound
from .items import without_identity
from .ports import Placed


async def place_of(engine: Engine, conversation: str, item: Item | str) -> Placed:
    """Where an item stands: by turnlog's key, or by the provider's id. Raises NotFound."""
    key = item.key if isinstance(item, Item) else item
    found = await engine.store.find(conversation, key=key)
    found = found or await engine.store.find(conversation, item_id=key)
    if not found:
        raise NotFound(f"conversation {conversation!r} has no item {key!r}: see chat.items()")
    return found[-1]  # a compaction may have repeated it, and the window begins there


def edited(before: JsonObject, after: JsonObject) -> JsonObject:
    """The new contents of an item: no longer what the provider made, so without its id."""
    same = text(before, "id") is not None and text(after, "id") == text(before, "id")
    return without_identity(after) if same and before != after else after


def replacement(
    engine: Engine, items: Sequence[Item], differences: Sequence[Difference]
) -> list[Command]:
    """The commands that carry out what differs from a context, in their order."""
    commands: list[Command] = []
    moved = 0
    after = 0
    for difference in differences:
        match difference:
            case Added(item=raw):
                at = items[after].ordinal + moved if after < len(items) else None
                commands.append(AddItems(items=engine.keyed(raw), ordinal=at))
                moved += at is not None
            case Edited(old=old, before=before, item=raw):
                item = items[old]
                new = edited(before, raw)
                commands.append(EditItem(ordinal=item.ordinal + moved, key=item.key, item=new))
                after = old + 1
            case Removed(old=old):
                item = items[old]
                commands.append(RemoveItem(ordinal=item.ordinal + moved, key=item.key))
                after = old + 1
            case _:
                after = difference.old + difference.count
    return commands


def as_raw(items: Sequence[Item | Mapping[str, object] | object]) -> list[object]:
    """A list of items as `to_items` takes it: what `chat.items()` gave may be given back."""
    return [item.raw if isinstance(item, Item) else item for item in items]
