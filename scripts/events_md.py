"""Write docs/events.md from the docstrings and fields of turnlog's events.

python scripts/events_md.py            writes it
python scripts/events_md.py --check    ends with status 1 where it is not current
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from inspect import cleandoc
from pathlib import Path
from typing import Any, get_args

from turnlog import events as ev

PAGE = Path(__file__).resolve().parent.parent / "docs" / "events.md"

HEAD = """\
# Events

<!-- Written by scripts/events_md.py from engine/turnlog/events.py: change the docstrings there. -->

Everything that can be a fact of a conversation, by its tag. From the first stable release on, tags
and fields are for ever; fields may be added, and a reader keeps those that it does not know.

Each event stands in an envelope: `conversation`, `version` (from 1, without gaps), `id`, `tag`,
`schema`, `time` (microseconds since 1970, UTC), `actor`, `turn` and `epoch` where there is one, the
canonical `body` with the fields below, and `hash`, which binds all of it to the event before.
`chat.events()` yields them as `Recorded`, with the fields below in `event`.

An *attempt*, *call* or *key* is turnlog's own id; `call_id`, `response` and `item_id` are the
provider's. A *version* is one of the same conversation, an *ordinal* a place in its context. A
field with a default is left out of the body where it has that value. *Law N* is one of
[the laws](concepts.md#the-laws).
"""

FAMILIES = {
    "The conversation": ev.ConversationEvent,
    "The context": ev.ItemEvent,
    "Turns": ev.TurnEvent,
    "Requests": ev.RequestEvent,
    "Outcomes": ev.OutcomeEvent,
    "Calls": ev.CallEvent,
    "Everything else": ev.NoteEvent,
}
VALUES = (ev.Fork, ev.Origin, ev.Range)


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_families(), *_values()])


def _families() -> Iterator[str]:
    tags = {kind: tag for tag, kind in ev.TAGS.items()}
    for title, family in FAMILIES.items():
        yield f"## {title}\n"
        for kind in sorted(get_args(family), key=list(tags).index):
            yield from _entry(f"`{tags[kind]}`", kind)


def _values() -> Iterator[str]:
    yield "## Values in events\n"
    for kind in VALUES:
        yield from _entry(f"`{kind.__name__}`", kind)


def _entry(title: str, kind: type[Any]) -> Iterator[str]:
    yield f"### {title}\n"
    yield f"{cleandoc(kind.__doc__ or '')}\n"
    found = [one for one in fields(kind) if one.name != "extra"]
    if found:
        yield "| field | type | default |\n|---|---|---|"
        yield from map(_row, found)
        yield ""


def _row(field: Field[Any]) -> str:
    kind = str(field.type).removesuffix(" | None").replace("|", r"\|")
    return f"| `{field.name}` | `{kind}` | {_default(field)} |"


def _default(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        return "empty"
    if field.default is MISSING:
        return ""
    return {None: "absent", (): "empty"}.get(field.default, f"`{field.default}`")


def main(check: bool) -> None:
    """Write the page, or compare it."""
    if not check:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/events.md is not current: run `python scripts/events_md.py`")


if __name__ == "__main__":
    main("--check" in sys.argv[1:])
