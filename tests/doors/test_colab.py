"""`gradlab submit --to colab`: Google's real client against Colab on loopback."""

from __future__ import annotations

import time

import pytest

from .colab_service import PROXY, TOKEN, Colab
from .conftest import SECRETS, Desk


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
