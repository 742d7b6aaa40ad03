"""A thousand conversations at once for a while, over connections that rotate and are cut.

The client and the provider are processes of their own (`client`, `provider`), so that what they
hold is their own. TURNLOG_SOAK_SECONDS says for how long (18; `make soak` says 600), and
TURNLOG_SOAK_SEED what is drawn.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass

import pytest

from .client import CONVERSATIONS
from .home import CONNECTIONS, ROTATE_SECONDS
from .memory import Sample, growth
from .run import soak

SECONDS = float(os.environ.get("TURNLOG_SOAK_SECONDS", "18"))
SEED = os.environ.get("TURNLOG_SOAK_SEED", "1")
LONG = SECONDS >= 300
"""Whether there is time enough to say how memory grows, and to verify every conversation."""

LOAD = "long" if LONG else "short"
VERIFIED = CONVERSATIONS if LONG else 50
PATIENCE = 2 * SECONDS + 240
WARM_UP = SECONDS / 3

SHARE_A_MINUTE = 0.01
"""By how much resident memory may grow."""

MIB_AT_MOST = 12.0
"""By how much it may grow in a short run between a warm-up that was too short and the end."""

pytestmark = pytest.mark.timeout(PATIENCE + 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the two processes found; the figures are for whoever reads them."""

    wrong: list[str]
    client: Counter[str]
    log: Counter[str]
    provider: Counter[str]
    turns: int
    connections_most: int
    connections_total: int
    connections_left: int
    cuts: int
    samples: list[Sample]
    tasks_left: list[str]
    sockets_left: list[str] | None


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """One run, which all tests here look at."""
    path = tmp_path_factory.mktemp("soak") / "soak.db"
    said = soak(SEED, LOAD, SECONDS, path, VERIFIED, patience=PATIENCE)
    ours, theirs = (json.loads(each) for each in said)
    rows = ours.pop("samples")
    samples = [(row["seconds"], row["resident"]) for row in rows if "resident" in row]
    del ours["windows"], ours["closed"]
    print(
        f"\nseed {SEED}, load {LOAD}, {SECONDS:g} seconds, {path.stat().st_size >> 20} MiB of log"
    )
    for who, said in (("client", ours), ("provider", theirs)):
        print(*(f"{who} {name}: {json.dumps(value)}" for name, value in said.items()), sep="\n")
    if samples:
        print("memory:", *(f"{size:.1f}" for _, size in samples[:: max(1, len(samples) // 30)]))
        print("memory, behind the warm-up:", growth(samples, after=WARM_UP))
    return Found(
        wrong=ours["wrong"] + ours["wrong_in_log"] + theirs["wrong"],
        client=Counter(ours["counts"]),
        log=Counter(ours["log"]),
        provider=Counter(theirs["counts"]),
        turns=ours["turns"],
        connections_most=theirs["connections_most"],
        connections_total=theirs["connections_total"],
        connections_left=theirs["connections_left"],
        cuts=theirs["cuts"],
        samples=samples,
        tasks_left=ours["tasks_left"],
        sockets_left=ours["sockets_left"],
    )


def test_nothing_is_lost_and_nothing_is_mixed(found: Found) -> None:
    """Neither the talkers, nor the record, nor the provider saw anything that must not be."""
    assert found.wrong == []
    assert found.turns == found.log["turn.started"] == found.log["turn.ended"]


def test_everything_that_was_to_happen_happened(found: Found) -> None:
    """The faults struck, and the paths around them were taken: the run is worth something."""
    assert found.turns >= CONVERSATIONS / 4
    for way in ("watch", "run", "send", "reload", "leave", "cancel", "after_request"):
        assert found.client[f"{way} completed"], way
    for end in ("leave", "cancel", "timeout"):
        assert found.client[f"{end} cancelled"], end
    for fault in ("failed", "429", "500"):
        assert found.provider[fault], fault
    assert found.provider["cut"] + found.provider["no terminal"]
    for tag in ("response.interrupted", "response.failed", "response.rejected", "call.answered"):
        assert found.log[tag], tag
    assert found.client["retracted"] and found.client["deltas"]
    assert found.log["requests delta"] and found.log["requests from memory"]
    assert found.log["late_response"]
    assert found.cuts > SECONDS / 10


def test_connections_are_bounded_and_rotate(found: Found) -> None:
    """There are never more than were allowed, and many more over time."""
    assert found.connections_most <= CONNECTIONS
    struck = found.cuts + found.provider["cut"] + found.provider["no terminal"]
    assert found.connections_total - struck > SECONDS / ROTATE_SECONDS
    assert not LONG or found.connections_total > 10 * CONNECTIONS


def test_memory_does_not_grow(found: Found) -> None:
    """Once everything is warm, it stays as it is; a short run is never quite warm."""
    if not found.samples:
        pytest.skip("this system has no /proc to read resident memory from")
    line = growth(found.samples, after=WARM_UP)
    assert LONG or found.samples[-1][1] - line.begins <= MIB_AT_MOST, line
    assert not LONG or line.share < SHARE_A_MINUTE, line


def test_nothing_is_left(found: Found) -> None:
    """No task, no socket on our side, no connection on the provider's."""
    assert found.tasks_left == []
    assert not found.sockets_left
    assert found.connections_left == 0
