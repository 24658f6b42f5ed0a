"""Whatever happens to an example or a loader's worker, the training ends at once and says what."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from gradlab.train import loader
from gradlab.train.keyed import KeyedDataset
from gradlab.train.loader import Loader, LoaderError

from ..kit import paths
from ..lab import SMALL, Lab

BATCHES = [[(0, index) for index in range(start, start + 4)] for start in range(0, 40, 4)]
BAD = 21


class Odd(Exception):
    """An exception that can't be made anew from its text, as many can't."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("of two parts")


def fail(error: BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


def die(number: int) -> Callable[[], Any]:
    return lambda: os.kill(os.getpid(), number)


class Data(Dataset[Any]):
    """Forty examples, one of which does something else."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        return self.act() if index == BAD else torch.zeros(3)


def error_of(act: Callable[[], Any], workers: int) -> str:
    """Load all examples and give what the loader says; it must say so soon and leave nobody."""
    begun = time.monotonic()
    batches = Loader(KeyedDataset(Data(act), 0), "training", BATCHES, workers)
    with pytest.raises(LoaderError) as caught, batches:
        list(batches)
    assert time.monotonic() - begun < 20
    assert not multiprocessing.active_children()
    assert caught.value.exit_code == 1
    return str(caught.value)


RAISED = [
    ValueError("bad file"),
    KeyError("bad file"),
    StopIteration("bad file"),
    Odd(1, 2),
    MemoryError("bad file"),
    SystemExit("bad file"),
    OSError(5, "bad file"),
]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_example_that_cannot_be_loaded_is_named(error: BaseException, workers: int) -> None:
    text = error_of(fail(error), workers)
    assert f"Example {BAD} of the training data (epoch 1) can't be loaded: " in text
    assert f"{type(error).__name__}: {error}" in text
    assert "test_loader.py" in text and "in act" in text and "Traceback" not in text


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "example, words",
    [
        (torch.zeros(4), "is Tensor (4,), most others are Tensor (3,)"),
        ((torch.zeros(3), 1), "is (Tensor (3,), int), most others are Tensor (3,)"),
        ({"x": torch.zeros(3)}, "is {x: Tensor (3,)}, most others are Tensor (3,)"),
        (None, "is NoneType, most others are Tensor (3,)"),
    ],
)
def test_an_example_that_fits_no_batch_is_named(example: Any, words: str, workers: int) -> None:
    text = error_of(lambda: example, workers)
    assert f"Example {BAD} of the training data (epoch 1) {words}" in text
    assert "Its batch can't be put together" in text


@pytest.mark.parametrize(
    "act, words",
    [
        (die(signal.SIGKILL), "was ended by SIGKILL"),
        (die(signal.SIGSEGV), "was ended by SIGSEGV"),
        (die(signal.SIGBUS), "was ended by SIGBUS"),
        (lambda: os._exit(3), "ended by itself with exit code 3"),
        (lambda: os._exit(0), "ended by itself with exit code 0"),
    ],
)
def test_a_worker_that_dies_is_told_with_the_example_it_was_at(
    act: Callable[[], Any], words: str
) -> None:
    text = error_of(act, 2)
    assert words in text and f"Example {BAD} of the training data (epoch 1)" in text
    memory = {"SIGKILL": "more memory than there is", "SIGBUS": "shared memory is full"}
    assert all(said in text for name, said in memory.items() if name in words)


def test_a_keyboard_interrupt_of_a_worker_is_told_too() -> None:
    assert f"Example {BAD}" in error_of(fail(KeyboardInterrupt()), 2)


def test_a_batch_that_cannot_be_sent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    nameless = namedtuple("nameless", "x")  # found by pickle under no name
    monkeypatch.setattr(loader, "default_collate", nameless)
    assert "A batch can't be sent by its worker: PicklingError" in error_of(lambda: 0, 2)


def test_workers_in_a_long_example_do_not_hold_up_the_end() -> None:
    begun = time.monotonic()
    data = KeyedDataset(Data(lambda: time.sleep(60)), 0)
    with Loader(data, "training", BATCHES, 2) as batches:
        next(batches)
        time.sleep(1)
    assert not multiprocessing.active_children()
    assert time.monotonic() - begun < 20


def test_signals_to_every_worker_are_left_to_the_parent() -> None:
    with Loader(KeyedDataset(Data(lambda: torch.zeros(3)), 0), "training", BATCHES, 2) as batches:
        for child in multiprocessing.active_children():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(child.pid or 0, number)
        assert len(list(batches)) == len(BATCHES)


SHARED = """
import sys
import torch
from gradlab.train.loader import Loader, LoaderError
class Data(torch.utils.data.Dataset):
    def __getitem__(self, place):
        return eval(sys.argv[1])
try:
    with Loader(Data(), "training", [[(0, 0), (0, 1)]] * 9, 2) as batches:
        for _ in batches:
            pass
except LoaderError as error:
    print(error)
"""


@pytest.mark.parametrize("example", ["torch.ones(1 << 20)", "[torch.ones(1 << 19)] * 2"])
def test_shared_memory_that_is_too_small_is_named(example: str) -> None:
    if os.getuid():
        pytest.skip("mounting a file system needs root")
    inside = 'mount -t tmpfs -o size=2m tmpfs /dev/shm && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", inside, "sh", sys.executable, "-c", SHARED, example],
        env={**os.environ, "PYTHONPATH": paths()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "shared memory is full (/dev/shm: 2 MiB" in done.stdout, done.stdout + done.stderr
    assert "--shm-size" in done.stdout and "--workers" in done.stdout


@pytest.fixture(scope="module")
def breakable(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data does what the variable BAD says, and that judges with workers, too."""
    copy = tmp_path_factory.mktemp("breakable") / project.name
    shutil.copytree(project, copy)
    data, evaluate = (copy / "src" / project.name / name for name in ("data.py", "evaluate.py"))
    text, line = data.read_text(), "        image = self.images[index]\n"
    assert line in text
    bad = "        import os, signal\n        exec(os.environ.get('BAD', ''))\n"
    data.write_text(text.replace(line, bad + line))
    evaluate.write_text(evaluate.read_text().replace("BATCH = 256", "BATCH = 16"))
    return copy


FAULTS = {
    "if self.augmented and index == 700: raise ValueError('bad file')": (
        "Example 700 of the training data (epoch 1) can't be loaded: ValueError: bad file"
    ),
    "if self.augmented and index == 700: os.kill(os.getpid(), signal.SIGKILL)": (
        "was ended by SIGKILL. It was at: Example 700 of the training data (epoch 1)"
    ),
    "if not self.augmented and index == 70: raise ValueError('bad file')": (
        "Example 70 of the validation data (epoch 1) can't be loaded: ValueError: bad file"
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_training_that_cannot_load_an_example_ends_saved_with_nobody_left(
    breakable: Path, tmp_path: Path, fault: str
) -> None:
    lab = Lab(breakable, tmp_path / "storage", {"BAD": fault})
    options = ("--epochs", "2", "--save-seconds", "999")
    process = lab.start(lab.package, "train", *SMALL, *options)
    # Workers hold its output open: this waits for them as well.
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert FAULTS[fault] in output and "Traceback" not in output
    assert lab.steps() == list(range(1, len(lab.steps()) + 1))
    saved = int(lab.saves()[-1].name[:10])
    assert saved - len(lab.steps()) == ("validation" in FAULTS[fault])  # judged when carried on
    if fault != list(FAULTS)[-1]:
        return
    lab.env.clear()
    assert f"carrying on at step {saved} of 66" in lab.train(*options)
