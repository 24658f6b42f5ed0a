"""What the notebook shows of the runs that a project keeps."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from pathlib import Path

import pytest

from gradlab.notebook import board, cells
from gradlab.train.record import Record

SPEC = """
jobs:
  job:
    uses: script@v1
    with: {image: bash, script: echo}
"""


@pytest.mark.slow
def test_tensorboard_shows_the_runs_of_any_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "my, project: 2"
    (root / ".gradient/workflows").mkdir(parents=True)
    (root / ".gradient/workflows/train.yaml").write_text(SPEC)
    (root / "pyproject.toml").write_text('[project]\nname = "demo"\n')
    monkeypatch.chdir(root)
    monkeypatch.delenv("GRADLAB_STORAGE", raising=False)
    for name in ("wide", "narrow"):
        record = Record(root / "storage/drafts/train/job/outputs/run/runs" / name)
        record.add(1, 1, {"loss": 1.0})
        record.close()
    ports: list[int] = []
    started = board._start
    monkeypatch.setattr(board, "_start", lambda options: ports.append(started(options)) or ports[0])
    monkeypatch.setattr("tensorboard.notebook.display", lambda **_: None)
    cells.tensorboard("train")
    try:
        assert runs(ports[0]) == ["narrow", "wide"]
    finally:
        from tensorboard import manager

        for info in manager.get_all():
            if info.port == ports[0]:
                os.kill(info.pid, signal.SIGTERM)


def runs(port: int) -> list[str]:
    """Give the runs that a TensorBoard has found, once it has found any."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=10) as answer:
            if found := json.load(answer):
                return sorted(found)
        time.sleep(0.2)
    return []
