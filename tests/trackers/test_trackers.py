"""After any kills a tracker has each step once, with the values of metrics.jsonl."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from .conftest import Server, Tracked, free_port

KILLS = int(os.environ.get("KILLS", 2))
STEPS = 100  # in a session at most


def wait_for_a_change(tracked: Tracked) -> None:
    """Wait until the tracker's library begins to work, or for some seconds."""
    end, before = time.monotonic() + 8, mark(tracked)
    while time.monotonic() < end and mark(tracked) == before:
        time.sleep(0.005)


def mark(tracked: Tracked) -> list[tuple[Path, int]]:
    kept = tracked.folder / "trackers"
    found = [*kept.glob(".mlflow"), *tracked.storage.parent.glob("trackio/*.db*")]
    return [(path, path.stat().st_mtime_ns) for path in [*found, *kept.rglob("*.wandb")]]


@pytest.mark.slow
def test_after_kills_each_step_is_there_once(tracked: Tracked) -> None:
    seed = int(os.environ.get("SEED", time.time_ns() % 1000))
    print(f"seed {seed}")
    moment = random.Random(seed)
    steps = (KILLS + 1) * STEPS
    for number in range(KILLS):
        process = tracked.start(LIMIT=moment.randint(STEPS // 4, STEPS), STEPS=steps)
        if number % 2 == 0:
            wait_for_a_change(tracked)
        time.sleep(moment.uniform(0, 0.5 if number % 2 == 0 else 4))
        tracked.kill(process, alone=moment.random() < 0.3)
    output = tracked.train(STEPS=steps, GRADLAB_TRACKER_SECONDS=60)
    assert "!" not in output
    recorded = tracked.recorded()
    assert [line["step"] for line in recorded] == [*range(1, steps + 1)]
    [shown] = tracked.shown()
    assert shown == recorded
