"""Loader workers of a framework that may not be forked: they come from a server without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from gradlab.train import frameworks
from gradlab.train.keyed import KeyedDataset
from gradlab.train.loader import Loader, LoaderError

from ..kit import TEMPLATE, paths

BATCHES = [[(0, index) for index in range(start, start + 4)] for start in range(0, 80, 4)]
DEADLY = 41
# Loads, and goes on until it is killed; a signal is taken as training takes it.
ENDLESS = f"""
from itertools import cycle
from gradlab.base import signals
from tests.training.test_served import BATCHES, Noise, serve
from gradlab.train.keyed import KeyedDataset
from gradlab.train.loader import Loader
serve()
stop = signals.take()
stop.unsaved = True
with Loader(KeyedDataset(Noise(), 0), "training", cycle(BATCHES), 2) as batches:
    for number, batch in enumerate(batches):
        if number == {len(BATCHES)}:
            print("under way", flush=True)
        if stop.asked:
            print("saved", next(batches).sum(), flush=True)
            break
"""


class Noise:
    """Eighty examples at random; none is loaded where a framework is."""

    def __init__(self, kept: Any = None, deadly: bool = False) -> None:
        self.kept, self.deadly = kept, deadly

    def __len__(self) -> int:
        return 80

    def __getitem__(self, index: int) -> Any:
        if self.deadly and index == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.random.normal(size=1_000).astype(np.float32)


def serve() -> None:
    """Load a framework that may not be forked."""
    known = frameworks.Framework("test 1", lambda _: None, lambda: None, lambda _: NotImplemented)
    frameworks._loaded["test"] = replace(known, forks=False)


@pytest.fixture(autouse=True)
def served() -> Iterator[None]:
    serve()
    yield
    del frameworks._loaded["test"]


def loader(dataset: Any, workers: int) -> Loader:
    return Loader(KeyedDataset(dataset, 0), "training", BATCHES, workers)


def test_the_batches_are_those_of_the_training_process_and_of_any_number_of_workers() -> None:
    found = []
    for workers in (0, 1, 3):
        with loader(Noise(), workers) as batches:
            found.append([batch.tobytes() for batch in batches])
    assert found[0] == found[1] == found[2] and len(found[0]) == len(BATCHES)


def test_a_worker_that_dies_is_told_with_the_example_it_was_at() -> None:
    with pytest.raises(LoaderError) as caught, loader(Noise(deadly=True), 2) as batches:
        list(batches)
    assert "was ended by SIGKILL" in str(caught.value)
    assert f"Example {DEADLY} of the training data (epoch 1)" in str(caught.value)


def test_data_that_cannot_be_sent_to_a_worker_are_named_with_what_would_do() -> None:
    with pytest.raises(LoaderError) as caught, loader(Noise(kept=lambda: None), 2):
        pass
    assert "The training data can't be sent to the loader's workers" in str(caught.value)
    assert "--workers 0" in str(caught.value)


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that loads for ever, with two workers and their server."""
    env = {**os.environ, "PYTHONPATH": paths(TEMPLATE)}
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout and process.stdout.readline() == "under way\n"
        yield process
        process.kill()


def test_a_signal_to_all_processes_leaves_the_workers_to_the_end_of_the_training(
    endless: subprocess.Popen[str],
) -> None:
    os.killpg(endless.pid, signal.SIGTERM)
    output, errors = endless.communicate(timeout=60)
    assert output.startswith("saved ") and endless.returncode == 0, errors


def test_no_worker_and_no_server_outlives_a_training_that_is_killed(
    endless: subprocess.Popen[str],
) -> None:
    below = psutil.Process(endless.pid).children(recursive=True)
    assert len(below) >= 3
    endless.kill()
    endless.wait()
    ends = time.monotonic() + 20
    while any(each.is_running() and each.status() != "zombie" for each in below):
        assert time.monotonic() < ends, below
        time.sleep(0.05)
