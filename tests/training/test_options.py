"""What can be asked of learning: each option does what it says, and is exact over kills."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from ..failing import Forks
from .test_kept import TINY, Tiny, tensorboard_steps

KILLS = int(os.environ.get("KILLS", "4"))  # of each option's run; 20 take a while
MOST = 150  # calls of the file system until a kill: a run takes some more
EVERY = ["--evaluate-every", "1"]
OPTIONS = {
    "clip": ["--clip", "0.5"],
    "accumulate": ["--accumulate", "3"],
    "ema": ["--ema", "0.9", *EVERY],
    "label smoothing": ["--label-smoothing", "0.1"],
    "max steps": ["--max-steps", "11"],
    "patience": ["--patience", "1", "--learning-rate", "0", *EVERY],
    "all": ["--clip", "1", "--accumulate", "2", "--ema", "0.9", "--label-smoothing", "0.1", *EVERY],
}


def lab(forks: Forks, folder: Path) -> Tiny:
    return Tiny(forks.project, folder / "storage", forks=forks)


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_exact_over_kills(forks: Forks, tmp_path: Path, option: str) -> None:
    whole, plain, killed = (lab(forks, tmp_path / name) for name in ("whole", "plain", "killed"))
    command = ["train", *TINY, *OPTIONS[option]]
    assert whole.fork(*command).code == 0
    assert plain.fork("train", *TINY).code == 0
    assert whole.results() != plain.results(), "the option does something"
    moment, kills = random.Random(option), 0
    while kills < KILLS:
        done = killed.fork(*command, at=moment.randrange(1, MOST), error="SIGKILL")
        kills += done.code == -signal.SIGKILL
        if done.code == 0:  # over before the kill
            killed = lab(forks, tmp_path / f"again{kills}")
    assert killed.fork(*command).code == 0
    assert killed.results() == whole.results()
    assert tensorboard_steps(killed.folder()) == killed.steps() == whole.steps()
    assert killed.steps() == list(range(1, len(killed.steps()) + 1))
