"""Response objects as the service writes them: everything asked echoed, and what was used.

The one rule: pure and repeatable. Ids and times come from a counter, so that the same script gives
the same bytes on every run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

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

    `seed` stands before the number, for a second provider whose ids must differ. Only names that
    it could still come to are kept, so that it does not grow with what was asked.
    """

    def __init__(self, seed: str = "") -> None:
        self._seed = seed
        self._made: Counter[str] = Counter()
        self._taken: set[str] = set()

    def next(self, prefix: str) -> str:
        """The next id of a kind."""
        while True:
            self._made[prefix] += 1
            made = f"{prefix}_{self._seed}{self._made[prefix]}"
            if made not in self._taken:
                return made
            self._taken.discard(made)

    def take(self, ids: Iterable[str | None]) -> None:
        """Never make up these: they came from another provider, or from a script."""
        self._taken.update(id for id in ids if id is not None and self._may_come(id))

    def _may_come(self, id: str) -> bool:
        prefix, _, rest = id.partition("_")
        number = rest.removeprefix(self._seed)
        if not rest.startswith(self._seed) or not number.isdecimal():
            return False
        return int(number) > self._made[prefix]


def item(raw: JsonObject, ids: Ids, *, encrypted: bool) -> JsonObject:
    """An output item with what its script left out: id, call id, status, encrypted reasoning."""
    kind = type_of(raw)
    found = text(raw, "id") or ids.next(_PREFIXES.get(kind, "item"))
    made: dict[str, Json] = {"id": found, **raw}
    if kind in _WITH_CALL_ID and "call_id" not in raw:
        made["call_id"] = ids.next("call")
    if kind not in _WITHOUT_STATUS and "status" not in raw:
        made["status"] = "completed"
    hidden = kind == "compaction" or (kind == "reasoning" and encrypted)
    if hidden and "encrypted_content" not in raw:
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


def compacted(items: Sequence[JsonObject], ids: Ids, *, held: int, cached: int) -> JsonObject:
    """A compacted window: the user's messages among the items, and one opaque item for the rest."""
    id = ids.next("resp")
    said = [_user(found, ids) for found in items if found.get("role") == "user"]
    output = [*said, item({"type": "compaction"}, ids, encrypted=True)]
    return {
        "id": id,
        "object": "response.compaction",
        "created_at": _EPOCH + int_of(id),
        "output": output,
        "usage": usage(output[-1:], held, cached),
    }


def _user(message: JsonObject, ids: Ids) -> JsonObject:
    content = message.get("content")
    parts: Json = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
    found = text(message, "id") or ids.next("msg")
    return {**message, "type": "message", "id": found, "status": "completed", "content": parts}


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


def _usage(reply: Reply, output: Sequence[JsonObject], held: int, cached: int) -> JsonObject | None:
    if reply.usage is not None:
        return reply.usage
    return None if reply.outcome == "failed" else usage(output, held, cached)


def usage(output: Sequence[JsonObject], held: int, cached: int) -> JsonObject:
    """What was used, estimated: `held` tokens of input, `cached` of them known before."""
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
