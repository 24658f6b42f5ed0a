"""`gradlab submit --to colab`: Google's real client against Colab on loopback."""

from __future__ import annotations

import time
from pathlib import Path
from unittest.mock import patch

import pytest

from gradlab.remote.doors import bootstrap

from .colab_service import PROXY, TOKEN, Colab
from .conftest import SECRETS, Desk

# What a hop does here: it reads its secrets as the true one does, and ends.
FAR_SIDE = """
import glob, json, os, sys, time
CONFIG: Any = {}  # filled in by bootstrap.py
(path,) = glob.glob(CONFIG["bag"])
print(sorted(json.load(open(path))["env"]))
os.unlink(path)
while not os.path.exists("/content/go"):
    time.sleep(0.05)
sys.exit(0)
"""


@pytest.fixture
def quick(tmp_path: Path) -> None:
    """Let a hop at Colab end as soon as the test lets it."""
    path = tmp_path / "far_side.py"
    path.write_text(f"from typing import Any\n{FAR_SIDE}")
    with patch.object(bootstrap, "FAR_SIDE", path):
        yield


def wait_for_end(colab: Colab, hop: str) -> None:
    (found,) = colab.assigned.values()
    content = found.jupyter.machine.disk / "content"
    (content / "go").touch()
    end = time.monotonic() + 30
    while not (content / f"{hop}.code").exists() or not (content / f"{hop}.code").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.usefixtures("quick")
def test_a_hop_runs_on_one_machine_which_is_given_back(desk: Desk, colab: Colab) -> None:
    text = desk.run("submit", "train", "--to", "colab")
    assert text.returncode == 0, text.stderr
    assert "88.5 units are left" in text.stderr
    (hop,) = [hop["name"] for hop in desk.hops()]
    content = next(iter(colab.assigned.values())).jupyter.machine.disk / "content"
    text = desk.run("submit", "train", "--to", "colab")
    assert text.returncode == 0 and len(colab.given) == 1, "given again it adopts"
    wait_for_end(colab, hop)
    assert "AWS_SECRET_ACCESS_KEY" in (content / f"{hop}.log").read_text()
    assert not (content / f"{hop}.bag").exists()
    desk.finish(hop)
    assert "train: done" in desk.run("submit", "train", "--to", "colab").stderr
    assert colab.assigned == {} and len(colab.given) == 1
    secret = [*SECRETS.values(), TOKEN, PROXY]
    assert desk.spills() == []
    assert not [p for p in content.iterdir() if any(s in p.read_text() for s in secret)]
