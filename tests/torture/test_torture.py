"""Processes are killed, frozen and trapped until all they had to do is done, and I1 to I9 hold.

TURNLOG_TORTURE_CONVERSATIONS (4) says how many conversations there are, TURNLOG_TORTURE_TURNS (5)
how many turns each takes, TURNLOG_TORTURE_KILLS (10; `all`: until they are done) how many kills,
TURNLOG_TORTURE_LOOK (3) behind how many of them the log is looked at, and TURNLOG_TORTURE_SEED (1)
what is drawn. `make torture` runs the long one.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from turnlog.testing.torture import Torture, torture
from turnlog.testing.torture_worker import Job
from turnlog.testing.victims import model
from turnlog_transports.simulator import Simulator

CONVERSATIONS = int(os.environ.get("TURNLOG_TORTURE_CONVERSATIONS", "4"))
TURNS = int(os.environ.get("TURNLOG_TORTURE_TURNS", "5"))
KILLS = os.environ.get("TURNLOG_TORTURE_KILLS", "10")
LOOK = int(os.environ.get("TURNLOG_TORTURE_LOOK", "3"))
SEED = os.environ.get("TURNLOG_TORTURE_SEED", "1")
HOURS = 4


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find a key in their environment, as anybody's would."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-torture")


@pytest.fixture
async def simulator() -> AsyncGenerator[Simulator]:
    """A provider that never ends."""
    async with Simulator([model()] * 1_000_000) as running:
        yield running


@pytest.mark.timeout(HOURS * 3600)
async def test_everything_is_done_in_the_end(simulator: Simulator, tmp_path: Path) -> None:
    job = Job(
        path=str(tmp_path / "log.db"),
        base_url=simulator.base_url,
        conversations=CONVERSATIONS,
        turns=TURNS,
    )
    plan = Torture(
        job=job, seed=SEED, kills=None if KILLS == "all" else int(KILLS), look_every=LOOK
    )
    report = await torture(plan, lambda: simulator.creates)
    print(f"{report}, seed {SEED}")
    assert report.violations == []
    assert report.problems == []
    assert report.conversations == CONVERSATIONS
    assert report.turns.total() == CONVERSATIONS * TURNS
    assert report.kills + report.traps.total() > 0
