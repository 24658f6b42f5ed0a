"""A training that stops in time, with more to do, and somebody who wants to know."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ..lab import STEPS, Lab


def asked(lab: Lab, tmp_path: Path) -> Path:
    """Ask as a supervisor does; give the folder in which trainings leave what they say."""
    folder = tmp_path / "unfinished"
    lab.env["GRADLAB_UNFINISHED"] = str(folder)
    return folder


@pytest.mark.parametrize("limit", ["--max-minutes", "the session", "a signal"])
def test_a_training_that_stopped_in_time_says_so_to_who_asks(
    lab: Lab, tmp_path: Path, limit: str
) -> None:
    folder = asked(lab, tmp_path)
    if limit == "a signal":
        process = lab.start(lab.package, "train", *lab.small, "--epochs", "999")
        while process.poll() is None and lab.recorded() < 10:
            pass
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 75, output
        assert len(list(folder.iterdir())) == 1
        return
    if limit == "the session":
        lab.env["GRADLAB_SESSION_MINUTES"] = "0.1"
        lab.train(code=75)
        del lab.env["GRADLAB_SESSION_MINUTES"]
    else:
        lab.train("--max-minutes", "0", code=75)
    assert len(list(folder.iterdir())) == 1
    assert f"of {STEPS:,}" in lab.train("--max-minutes", "60")
    assert not list(folder.iterdir())
