"""Write docs/providers.md from the profiles of turnlog_transports.

python scripts/providers_md.py            writes it
python scripts/providers_md.py --check    ends with status 1 where it is not current
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import cast

from turnlog.ports import Profile
from turnlog_transports.profiles import PROFILES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "providers.md"

HEAD = """\
# Providers

<!-- Written by scripts/providers_md.py from the profiles in turnlog_transports/profiles.py. -->

What a provider can do is a *profile*: a value with a name. The address suggests one
(`https://api.x.ai/v1` is `xai`), `profile=` names another, and a host that nobody knows is
`generic`: full requests by HTTP, which every server of the protocol takes.

```python
from dataclasses import replace

import turnlog
from turnlog_transports.profiles import OPENAI

turnlog.open("agent.db")  # OpenAI, with the key in OPENAI_API_KEY
turnlog.open("agent.db", base_url="https://openrouter.ai/api/v1")  # by its address
turnlog.open("agent.db", base_url="https://llm.acme.example/v1", profile="openai")  # by name
turnlog.open("agent.db", profile=replace(OPENAI, lanes=False))  # a value, changed
```

To an address on this machine (`localhost`, `127.0.0.1`) the key of the environment is not sent;
pass `api_key=`: [transports.md](transports.md#keys).

None of this was tried against the live services. Where a value comes from stands below, and
`claim:` stands before what nobody could check; a claim that could cost money or a failed turn is
off. `turnlog doctor --base-url URL --model MODEL` tries an endpoint, and says where it differs from
its profile.

## A client that you have already

`client=` takes an `AsyncOpenAI`, an `OpenAI` or one of the two for Azure, and is lent its address,
its key, its organization, project, headers and query, and its timeouts where you set them. An
argument of `turnlog.open` is stronger than what the client says.

```python
from openai import AsyncOpenAI

turnlog.open("agent.db", client=AsyncOpenAI(api_key="sk-...", project="proj_support"))
```

- A key that is a callable stays one, and is asked anew for each request and connection.
- `timeout`: `connect` bounds the handshake, and `read` the wait for each frame. openai's own
  defaults (5 and 600 seconds) count as not set.
- `max_retries` is ignored: turnlog retries, and records each attempt.
- The client's `http_client` is not used: pass `proxy=` and `tls=`.
- A client that signs its requests, exchanges its identity for tokens or keeps its WebSocket
  elsewhere cannot be lent. That is a `ConfigurationError`, which says what to pass instead.

## Azure

A client for Azure leads to the v1 address of its resource, `https://NAME.openai.azure.com/openai/v1`,
since that is where the WebSocket and the newer fields are. That has three consequences:

- The model is the name of the deployment, `Agent(model="my-deployment")`. What `azure_deployment=`
  put into the client's address is taken out of it again, and is not the model of anything.
- `api_version=` is left out: the v1 address refuses it.
- A key goes out as `api-key`, as the client sends it. An Entra token, or a callable that returns
  one, goes out as `Authorization: Bearer`, and so does a key that is a callable.

Without a client, `base_url="https://NAME.openai.azure.com/openai/v1"` and a key in
`AZURE_OPENAI_API_KEY`, or `api_key=` with a key, a token or a callable, come to the same.

## What each can do

"""

COLUMNS = {
    "WebSocket": "websocket",
    "lanes": "lanes",
    "stored ids": "stored_ids",
    "asks again": "retrieve",
    "background": "background",
    "compact": "compact",
    "reasoning": "reasoning_replay",
}
FOOT = """\

*Lanes*: several responses at once over one WebSocket. *Stored ids*: a conversation continues by the
id of a stored response, from any connection. *Asks again*: after a crash, the provider is asked
what became of a response. *Compact*: `POST /responses/compact`. *Reasoning*: encrypted reasoning is
asked for and sent back.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD + "\n".join(_table()), FOOT, *_profiles()])


def _table() -> Iterator[str]:
    yield "| profile | " + " | ".join(COLUMNS) + " | key |"
    yield "|---" * (len(COLUMNS) + 2) + "|"
    for profile in PROFILES.values():
        can = ("yes" if getattr(profile, field) else "no" for field in COLUMNS.values())
        key = f"`{profile.key_env}`" if profile.key_env else "none"
        yield f"| `{profile.name}` | " + " | ".join(can) + f" | {key} |"


def _profiles() -> Iterator[str]:
    yield "## Where that comes from\n"
    for profile in PROFILES.values():
        yield f"### `{profile.name}`\n"
        yield "| field | value | source |\n|---|---|---|"
        for one in fields(Profile):
            if one.name in profile.sources:
                value = _shown(getattr(profile, one.name))
                yield f"| `{one.name}` | {value} | {_cell(profile.sources[one.name])} |"
        yield ""


def _shown(value: object) -> str:
    if isinstance(value, (tuple, frozenset)):
        names = sorted(map(str, cast("Iterable[object]", value)))
        return ", ".join(f"`{_cell(name)}`" for name in names) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        days = value / 86400
        return f"{days:g} days" if days >= 1 else f"{value / 60:g} minutes"
    return f"`{_cell(str(value))}`" if value else "none"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def main(check: bool) -> None:
    """Write the page, or compare it."""
    if not check:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/providers.md is not current: run `python scripts/providers_md.py`")


if __name__ == "__main__":
    main("--check" in sys.argv[1:])
