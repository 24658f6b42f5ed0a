"""A training without a framework, whose values are functions of the step.

    python training.py train

The environment says how: TRACKER, STEPS. After LIMIT steps of a session it waits to be killed,
while what it has kept is sent; or parts, if it is to STOP.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradlab import cli
from gradlab.train import runs

EVERY = 20  # steps from one checkpoint to the next


@dataclass
class Options:
    """What a run is opened by."""

    name: str = "default"
    fresh: bool = False
    strict: bool = False
    save_seconds: float = 0.0
    seed: int = 0
    accept_changes: bool = False
    tracker: Any = "tensorboard"

    def settings(self) -> dict[str, Any]:
        return {"rate": 0.1, "model": {"width": 8}}


def values(step: int) -> dict[str, float]:
    other = float(os.environ.get("OTHER", 0))  # as another machine's last bits
    return {"loss": 1 / step + other} | ({"val_loss": 2 / step} if step % 50 == 0 else {})


def train() -> int:
    """Train."""
    steps, pause, limit = int(os.environ["STEPS"]), 0.002, int(os.environ.get("LIMIT", 1 << 30))
    run = runs.open_run(
        Options(tracker=os.environ["TRACKER"], fresh="FRESH" in os.environ),
        {"best": ["loss", "lowest"]},
        Path(__file__).parent,
    )
    run.announce(steps, "here", 0)
    step = first = run.step
    while step < steps and step < first + limit:
        step += 1
        run.record.add(step, step // 100 + 1, values(step))
        run.record.flush()
        time.sleep(pause)
        if step % EVERY == 0 or step == steps:
            run.save(step, {"unjudged": [], "where": "here"}, step == steps)
    if os.environ.get("FAIL"):
        raise runs.GradlabError(f"no more, {os.environ['FAIL']}", exit_code=1)
    if step < steps:
        time.sleep(60 if "LIMIT" in os.environ and "STOP" not in os.environ else 0)
    files = None if step < steps else {"model.safetensors": b"1"}
    run.leave(step, steps, 100, files, {"value": 0.0, "step": step})
    return 0


if __name__ == "__main__":
    sys.exit(cli.main("training", [train]))
