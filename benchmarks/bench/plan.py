"""What is measured of whom: scenarios, subjects, and how much of each.

The one rule: this is a table. What a scenario does stands in the subjects' modules, in the
function of the same name; how it is judged, in `targets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Parameters = Mapping[str, int | str]


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that is measured: a module of `bench.subjects`, and the environment it runs in.

    `environment` names a file of `benchmarks/requirements`; "" is the project's own `.venv`.
    """

    name: str
    module: str
    environment: str
    parameters: Parameters = field(default_factory=dict[str, "int | str"])


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that is measured of several subjects, `rounds` times, one after the other.

    `quick` and `full` are parameters for the two lengths of a run; one that is None leaves the
    scenario out. `over` are parameters of which each value is measured (a plot's x axis). `few`
    names subjects, with those values of `over` that are all they are asked for.
    """

    name: str
    title: str
    subjects: tuple[str, ...]
    full: Parameters | None
    quick: Parameters | None
    rounds: int = 3
    over: str = ""
    values: tuple[int, ...] = ()
    quick_values: tuple[int, ...] = ()
    few: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    pinned: bool = True
    provider: bool = False
    counted: bool = False


SUBJECTS: dict[str, Subject] = {
    one.name: one
    for one in (
        Subject("turnlog", "ours", ""),
        Subject("turnlog chat.add", "ours_add", ""),
        Subject("raw sqlite3", "raw_sqlite", "floors"),
        Subject("raw sqlite3, group commit", "group_commit", "floors"),
        Subject("aiosqlite", "aio", "floors"),
        Subject("SQLAlchemy Core async", "core", "floors"),
        Subject("eventsourcing recorder", "eventsourcing_recorder", "eventsourcing"),
        Subject("eventsourcing application", "eventsourcing_application", "eventsourcing"),
        Subject("openai-agents SQLiteSession", "agents_sqlite", "openai-agents"),
        Subject("openai-agents SQLAlchemySession", "agents_sqlalchemy", "openai-agents"),
        Subject("openai-agents AdvancedSQLiteSession", "agents_advanced", "openai-agents"),
        Subject("google-adk", "adk", "google-adk"),
        Subject("langgraph", "langgraph_saver", "langgraph"),
        Subject("turnlog WebSocket", "ours_wire", "", {"transport": "websocket"}),
        Subject("turnlog SSE", "ours_wire", "", {"transport": "http"}),
        Subject("raw websockets + orjson", "raw_websocket", "floors"),
        Subject("raw httpx2 SSE + orjson", "raw_sse", "floors"),
        Subject("openai SDK WebSocket", "openai_websocket", "openai"),
        Subject("openai SDK SSE", "openai_sse", "openai"),
        Subject("openai-agents WebSocket", "agents_websocket", "openai-agents"),
        Subject("pydantic-ai WebSocket", "pydantic_ai_websocket", "pydantic-ai"),
        Subject("livekit WebSocket", "livekit_websocket", "livekit"),
    )
}

FLOORS = (
    "raw sqlite3",
    "raw sqlite3, group commit",
    "aiosqlite",
    "SQLAlchemy Core async",
    "eventsourcing recorder",
    "eventsourcing application",
)
SESSIONS = (
    "openai-agents SQLiteSession",
    "openai-agents SQLAlchemySession",
    "openai-agents AdvancedSQLiteSession",
    "google-adk",
    "langgraph",
)
OURS = ("turnlog", "turnlog chat.add")
OVER_WEBSOCKET = (
    "turnlog WebSocket",
    "raw websockets + orjson",
    "openai SDK WebSocket",
    "openai-agents WebSocket",
    "pydantic-ai WebSocket",
    "livekit WebSocket",
)
OVER_SSE = ("turnlog SSE", "raw httpx2 SSE + orjson", "openai SDK SSE")

QUICK = frozenset(
    {
        *OURS,
        "raw sqlite3",
        "raw sqlite3, group commit",
        "aiosqlite",
        "openai-agents SQLiteSession",
        "turnlog WebSocket",
        "turnlog SSE",
        "raw websockets + orjson",
        "raw httpx2 SSE + orjson",
        "livekit WebSocket",
        "openai SDK SSE",
    }
)
"""Who takes part in a quick run: the floors that targets name, and the fastest peers."""

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "turns",
        "One conversation, a turn's four items in one append",
        OURS + FLOORS + SESSIONS,
        full={"turns": 200},
        quick={"turns": 60},
        rounds=7,
        counted=True,
    ),
    Scenario(
        "items",
        "One conversation, each item its own durable append",
        OURS + FLOORS + SESSIONS,
        full={"turns": 50},
        quick={"turns": 20},
        rounds=7,
        counted=True,
    ),
    Scenario(
        "many",
        "Conversations at once in one process, a turn in one append",
        OURS + FLOORS + SESSIONS,
        full={"turns": 3000},
        quick={"turns": 600},
        over="conversations",
        values=(100, 1000),
        quick_values=(100,),
        few={name: (100,) for name in SESSIONS if "SQLiteSession" not in name},
    ),
    Scenario(
        "length",
        "One more turn onto a conversation of so many items",
        ("turnlog", "raw sqlite3", *SESSIONS),
        full={"turns": 300, "beside": 100_000},
        quick={"turns": 20, "beside": 1000},
        over="items",
        values=(10, 1000, 10_000, 100_000),
        quick_values=(10, 1000),
        few={
            "openai-agents SQLAlchemySession": (10, 1000, 10_000),
            "openai-agents AdvancedSQLiteSession": (10, 1000, 10_000),
            "google-adk": (10, 1000),
            "langgraph": (10, 1000, 10_000),
        },
        rounds=2,
    ),
    Scenario(
        "growth",
        "Bytes that a turn adds to the file, and writes to the write-ahead log",
        ("turnlog", "raw sqlite3", "openai-agents SQLiteSession"),
        full={"turns": 2000},
        quick={"turns": 300},
    ),
    Scenario(
        "opening",
        "A conversation of so many items, in an open log, ready to send the next delta",
        ("turnlog", "aiosqlite"),
        full={"times": 3000},
        quick={"times": 100},
        over="items",
        values=(10, 1000, 10_000, 100_000),
        quick_values=(10, 1000),
        rounds=5,
    ),
    Scenario(
        "last",
        "The last 50 items of so many",
        ("turnlog", "aiosqlite", *SESSIONS),
        full={"times": 100},
        quick={"times": 30},
        over="items",
        values=(100_000,),
        quick_values=(1000,),
        few={name: () for name in SESSIONS if "SQLiteSession" not in name},
        rounds=2,
    ),
    Scenario(
        "load",
        "All of so many items",
        ("turnlog", "raw sqlite3", *SESSIONS),
        full={"times": 10},
        quick={"times": 5},
        over="items",
        values=(10_000,),
        quick_values=(1000,),
    ),
    Scenario(
        "among",
        "Opening one of so many conversations in a file",
        ("turnlog", "aiosqlite"),
        full={"times": 3000},
        quick={"times": 100},
        over="conversations",
        values=(10, 100_000),
        quick_values=(10, 1000),
        rounds=2,
    ),
    Scenario(
        "idle",
        "Memory for each idle conversation of an open log",
        ("turnlog",),
        full={"conversations": 10_000},
        quick={"conversations": 2000},
    ),
    Scenario(
        "diff",
        "The difference of a list of so many items from the log",
        ("turnlog",),
        full={"items": 10_000, "times": 20},
        quick={"items": 10_000, "times": 5},
    ),
    Scenario(
        "startup",
        "`import turnlog`, and `turnlog --help`",
        ("turnlog",),
        full={"times": 15},
        quick={"times": 5},
    ),
    Scenario(
        "deltas",
        "Deltas a second, from the socket to the watcher's loop",
        OVER_WEBSOCKET + OVER_SSE,
        full={"deltas": 30_000, "repeat": 1},
        quick={"deltas": 5000, "repeat": 1},
        rounds=5,
        provider=True,
    ),
    Scenario(
        "first",
        "A call to the request on the wire, and the first delta to whoever watches",
        OVER_WEBSOCKET + OVER_SSE,
        full={"times": 200},
        quick={"times": 40},
        provider=True,
    ),
    Scenario(
        "full_request",
        "A request with a whole context of so many items: call to wire",
        OVER_WEBSOCKET + OVER_SSE,
        full={"times": 10, "items": 1000},
        quick={"times": 3, "items": 1000},
        provider=True,
    ),
    Scenario(
        "streams",
        "Conversations that stream 50 deltas a second each, through one process",
        ("turnlog WebSocket", "turnlog SSE", "raw websockets + orjson", "raw httpx2 SSE + orjson"),
        full={"seconds": 20, "rate": 50},
        quick={"seconds": 2, "rate": 50},
        over="conversations",
        values=(100, 1000),
        quick_values=(100,),
        rounds=1,
        pinned=False,
        provider=True,
    ),
)
