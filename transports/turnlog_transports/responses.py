"""Response objects as the service writes them: everything asked echoed, and what was used.

The one rule: pure and repeatable. Ids and times come from a counter, so that the same script gives
the same bytes on every run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from turnlog.canonical import Json, JsonObject, array, dumps, objects, text
from turnlog.items import type_of
from turnlog.testing.scripts import Reply

_EPOCH = 1_790_000_000
_BYTES_PER_TOKEN = 4

_DEFAULTS: JsonObject = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "model": "",
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}

_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "computer_call": "cu",
    "shell_call": "sh",
    "local_shell_call": "lsh",
    "apply_patch_call": "apc",
    "tool_search_call": "tsc",
    "mcp_approval_request": "mcpr",
    "mcp_list_tools": "mcpl",
    "mcp_call": "mcp",
    "web_search_call": "ws",
    "file_search_call": "fs",
    "code_interpreter_call": "ci",
    "image_generation_call": "ig",
    "compaction": "cmp",
}
_WITH_CALL_ID = frozenset(
    {
        "function_call",
        "custom_tool_call",
        "computer_call",
        "shell_call",
        "local_shell_call",
        "apply_patch_call",
        "tool_search_call",
    }
)
_WITHOUT_STATUS = frozenset({"reasoning", "mcp_list_tools", "mcp_approval_request", "compaction"})


class Ids:
    """Makes up ids: `resp_1`, `msg_1`, `call_1` …; never one that a client has named.

    `seed` stands before the number, for a second provider whose ids must differ.
    """

    def __init__(self, seed: str = "") -> None:
        self._seed = seed
        self._made: Counter[str] = Counter()
        self._taken: set[str] = set()

    def next(self, prefix: str) -> str:
        """The next free id with this prefix."""
        while True:
            self._made[prefix] += 1
            made = f"{prefix}_{self._seed}{self._made[prefix]}"
            if made not in self._taken:
                return made

    def take(self, ids: Iterable[str | None]) -> None:
        """Never make up these: they came from another provider, or from a script."""
        self._taken.update(id for id in ids if id is not None)


def item(raw: JsonObject, ids: Ids, *, encrypted: bool) -> JsonObject:
    """An output item with what its script left out: id, call id, status, encrypted reasoning."""
    kind = type_of(raw)
    found = text(raw, "id") or ids.next(_PREFIXES.get(kind, "item"))
    made: dict[str, Json] = {"id": found, **raw}
    if kind in _WITH_CALL_ID and "call_id" not in raw:
        made["call_id"] = ids.next("call")
    if kind not in _WITHOUT_STATUS and "status" not in raw:
        made["status"] = "completed"
    if kind == "reasoning" and encrypted and "encrypted_content" not in raw:
        made["encrypted_content"] = f"gAAAAAB{made['id']}"
    return made


def build(body: JsonObject, reply: Reply, ids: Ids, *, held: int, cached: int) -> JsonObject:
    """The whole response to a request. `held` and `cached` count the tokens of its input."""
    id = ids.next("resp")
    encrypted = "reasoning.encrypted_content" in array(body, "include")
    output = [item(raw, ids, encrypted=encrypted) for raw in reply.items]
    if reply.outcome == "incomplete" and output and "status" in output[-1]:
        output[-1] = {**output[-1], "status": "incomplete"}
    created = _EPOCH + int_of(id)
    return {
        "id": id,
        "object": "response",
        "created_at": created,
        "status": reply.outcome,
        "completed_at": created if reply.outcome == "completed" else None,
        "error": reply.error,
        "incomplete_details": reply.incomplete_details,
        **_echo(body),
        "output": output,
        "usage": _usage(reply, output, held, cached),
    }


def int_of(id: str) -> int:
    """The number at the end of an id; 0 where it has none."""
    digits = id.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else 0


def _echo(body: JsonObject) -> JsonObject:
    asked = {key: body[key] for key in _DEFAULTS if body.get(key) is not None}
    if "tools" in asked:
        asked["tools"] = [_masked(tool) for tool in objects(body, "tools")]
    return {**_DEFAULTS, **asked}


def _masked(tool: JsonObject) -> JsonObject:
    # The service does not say back what would let others in.
    return {
        key: "<redacted>" if key in ("authorization", "headers") else value
        for key, value in tool.items()
    }


def _usage(reply: Reply, output: list[JsonObject], held: int, cached: int) -> JsonObject | None:
    if reply.usage is not None:
        return reply.usage
    if reply.outcome == "failed":
        return None
    said = tokens(output)
    thought = tokens(item for item in output if type_of(item) == "reasoning")
    return {
        "input_tokens": held,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": held + said,
    }


def tokens(values: Iterable[Json]) -> int:
    """An estimate of how many tokens these are: a quarter of their bytes, rounded up."""
    return sum(-(-len(dumps(value)) // _BYTES_PER_TOKEN) for value in values)
