"""What can be asked of learning: each option does what it says, and is exact over kills."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import signal
from pathlib import Path

import pytest

from ..failing import Forks
from .test_kept import TINY, Tiny, tensorboard_steps

KILLS = int(os.environ.get("KILLS", "3"))  # of each option's run; 20 take a while
MOST = 150  # calls of the file system until a kill: a run takes some more
EVERY = ["--evaluate-every", "1"]
OPTIONS = {
    "clip": ["--clip", "0.5"],
    "accumulate": ["--accumulate", "4"],
    "ema": ["--ema", "0.9", *EVERY],
    "label smoothing": ["--label-smoothing", "0.1"],
    "max steps": ["--max-steps", "11"],
    "patience": ["--patience", "1", "--learning-rate", "0", *EVERY],
    "all": ["--clip", "1", "--accumulate", "2", "--ema", "0.9", "--label-smoothing", "0.1", *EVERY],
}


def lab(forks: Forks, folder: Path, **env: str) -> Tiny:
    return Tiny(forks.project, folder / "storage", env, forks)


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_exact_over_kills(forks: Forks, tmp_path: Path, option: str) -> None:
    whole, plain = (lab(forks, tmp_path / name) for name in ("whole", "plain"))
    command = ["train", *TINY, *OPTIONS[option]]
    assert whole.fork(*command).code == 0
    assert plain.fork("train", *TINY).code == 0
    assert whole.results() != plain.results(), "the option does something"
    ends_as(whole, forks, tmp_path / "killed", option, *command)


def ends_as(whole: Tiny, forks: Forks, folder: Path, seed: str, *command: str) -> Tiny:
    """Kill a command at random moments; carried on, it ends as the one that was not killed."""
    moment, kills, runs = random.Random(seed), 0, 1
    killed = lab(forks, folder, **whole.env)
    while kills < KILLS:
        done = killed.fork(*command, at=moment.randrange(1, MOST), error="SIGKILL")
        kills += done.code == -signal.SIGKILL
        if done.code == 0:  # over before the kill
            killed, runs = lab(forks, folder / f"{runs}", **whole.env), runs + 1
    done = killed.fork(*command)
    assert done.code == 0, done.output
    assert killed.results() == whole.results()
    assert tensorboard_steps(killed.folder()) == killed.steps() == whole.steps()
    assert killed.steps() == list(range(1, len(killed.steps()) + 1))
    return killed


def operators(lab: Tiny) -> set[str]:
    """Name the operators in a run's trace, read as a viewer of traces does."""
    with gzip.open(lab.folder() / "trace.json.gz") as file:
        return {event["name"] for event in json.load(file)["traceEvents"] if "name" in event}


@pytest.mark.slow
def test_a_profiled_run_ends_with_the_bytes_of_one_that_is_not(
    forks: Forks, tmp_path: Path
) -> None:
    whole, traced = (lab(forks, tmp_path / name) for name in ("whole", "traced"))
    assert whole.fork("train", *TINY).code == 0
    done = traced.fork("train", *TINY, "--profile")
    assert done.code == 0 and traced.results() == whole.results()
    assert operators(traced) > {"aten::conv2d", "Optimizer.step#AdamW.step"}
    assert re.search(r"(?m)^Optimizer.step#AdamW.step +1 .*%$", done.output), "once a step"
    assert f"Of 10 steps: {traced.folder()}/trace.json.gz" in done.output
    ends_as(whole, forks, tmp_path / "killed", "profile", "train", *TINY, "--profile")


def test_a_trace_that_cannot_be_written_does_not_stop_the_run(forks: Forks, tmp_path: Path) -> None:
    traced = lab(forks, tmp_path)
    full = {"at": 1, "only": "open *trace.json.gz*", "error": "ENOSPC"}
    done = traced.fork("train", *TINY, "--profile", **full)
    assert done.failed and done.code == 0
    assert "trace.json.gz could not be written: [Errno 28]" in done.output
    assert "Finished." in done.output and not (traced.folder() / "trace.json.gz").exists()


def test_a_run_that_ends_too_soon_for_a_trace_says_so(forks: Forks, tmp_path: Path) -> None:
    short = lab(forks, tmp_path)
    assert (
        "Nothing was traced" in short.fork("train", *TINY, "--profile", "--max-steps", "5").output
    )
    longer = lab(forks, tmp_path / "longer")
    done = longer.fork("train", *TINY, "--profile", "--max-steps", "8")
    assert "Of 3 steps:" in done.output and "aten::conv2d" in operators(longer)


@pytest.mark.parametrize("parts", [3, 32], ids=["parts of several sizes", "empty parts"])
def test_parts_that_would_count_unequally_are_refused(
    forks: Forks, tmp_path: Path, parts: int
) -> None:
    done = lab(forks, tmp_path).fork("train", *TINY, "--accumulate", str(parts))
    assert done.code == 2
    assert f"A batch of 16 can't be shared in {parts} parts: take a --batch-size" in done.output
    assert f"{parts} divides, or another --accumulate" in done.output


def test_a_tracker_whose_library_is_missing_is_refused(forks: Forks, tmp_path: Path) -> None:
    done = lab(forks, tmp_path).fork("train", *TINY, "--tracker", "wandb")
    assert done.code == 2
    assert "--tracker wandb needs W&B's library: pip install" in done.output
