"""What the Responses API demands of a request, written from the protocol and not from the engine.

`refusals` lists whatever the provider would refuse in an input that continues a chain. It knows
nothing of `turnlog.items`: two readings of the same text have to agree.
"""

from __future__ import annotations

from collections.abc import Sequence

from turnlog.canonical import JsonObject

PAIRS = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "shell_call": "shell_call_output",
    "local_shell_call": "local_shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "tool_search_call": "tool_search_output",
    "mcp_approval_request": "mcp_approval_response",
}
OUTPUTS = {output: call for call, output in PAIRS.items()}


def kind(item: JsonObject) -> str:
    return str(item.get("type", "message"))


def pair_id(item: JsonObject) -> object:
    match kind(item):
        case "mcp_approval_request":
            return item["id"]
        case "mcp_approval_response":
            return item["approval_request_id"]
        case "local_shell_call_output":
            return item["id"]
        case _:
            return item.get("call_id")


def refusals(chain: Sequence[JsonObject], sent: Sequence[JsonObject]) -> list[str]:
    """Why the provider would refuse this input behind this chain; empty where it would not."""
    return [
        *(["the input is empty"] if not sent else []),
        *_calls(chain, sent),
        *_duplicates([*chain, *sent]),
        *_reasoning(sent),
        *_fields(sent),
    ]


def _calls(chain: Sequence[JsonObject], sent: Sequence[JsonObject]) -> list[str]:
    open_calls: list[tuple[str, object]] = []
    found: list[str] = []
    for item in [*chain, *sent]:
        if kind(item) in PAIRS and not _hosted(item):
            open_calls.append((kind(item), pair_id(item)))
        elif kind(item) in OUTPUTS and item.get("execution") != "server" and not _run_there(item):
            answered = (OUTPUTS[kind(item)], pair_id(item))
            if answered in open_calls:
                open_calls.remove(answered)
            else:
                found.append(f"No tool call found for {answered}")
    return [*found, *(f"No tool output found for {call}" for call in open_calls)]


def _hosted(call: JsonObject) -> bool:
    if kind(call) == "tool_search_call":
        return call.get("execution") != "client"
    environment = call.get("environment")
    return isinstance(environment, dict) and environment.get("type") != "local"


def _run_there(output: JsonObject) -> bool:
    """The provider's own shell answers with an item of its own."""
    return kind(output) == "shell_call_output" and str(output.get("id", "")).startswith("sho_")


def _duplicates(items: Sequence[JsonObject]) -> list[str]:
    ids = [item["id"] for item in items if "id" in item and kind(item) != "local_shell_call_output"]
    return [f"Duplicate item found with id {id}" for id in set(ids) if ids.count(id) > 1]


def _reasoning(sent: Sequence[JsonObject]) -> list[str]:
    lone: list[str] = []
    for place, item in enumerate(sent):
        if kind(item) != "reasoning":
            continue
        rest = [after for after in sent[place:] if kind(after) != "reasoning"]
        if not rest or "id" not in rest[0] or kind(rest[0]) in OUTPUTS:
            lone.append(f"Item {item['id']} was provided without its required following item")
    return lone


def _fields(sent: Sequence[JsonObject]) -> list[str]:
    refused = {"created_by", "parsed_arguments", "async"}
    return [
        f"Unknown parameter {name}"
        for item in sent
        for name, value in item.items()
        if name in refused or (value is None and name != "call_id")
    ]
