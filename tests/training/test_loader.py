"""Whatever happens to an example or a loader's worker, the training ends at once and says what."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from gradlab.train.keyed import KeyedDataset
from gradlab.train.loader import Loader, LoaderError
from gradlab.train.torch import loader

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


def error_of(act: Callable[[], Any], workers: int, **how: Any) -> str:
    """Load all examples and give what the loader says; it must say so soon and leave nobody."""
    begun = time.monotonic()
    batches = loader(KeyedDataset(Data(act), 0), "training", BATCHES, workers, **how)
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
    memory = {"SIGKILL": "more memory than there is", "SIGBUS": "mapped into memory was cut short"}
    assert all(said in text for name, said in memory.items() if name in words)


def test_a_keyboard_interrupt_of_a_worker_is_told_too() -> None:
    assert f"Example {BAD}" in error_of(fail(KeyboardInterrupt()), 2)


def test_a_batch_that_cannot_be_sent_is_told() -> None:
    nameless = namedtuple("nameless", "x")  # found by pickle under no name
    told = error_of(lambda: 0, 2, collate=nameless)
    assert "A batch can't be sent by its worker: PicklingError" in told


def test_workers_in_a_long_example_do_not_hold_up_the_end() -> None:
    begun = time.monotonic()
    data = KeyedDataset(Data(lambda: time.sleep(60)), 0)
    with loader(data, "training", BATCHES, 2) as batches:
        next(batches)
        time.sleep(1)
    assert not multiprocessing.active_children()
    assert time.monotonic() - begun < 20


def test_signals_to_every_worker_are_left_to_the_parent() -> None:
    with loader(KeyedDataset(Data(lambda: torch.zeros(3)), 0), "training", BATCHES, 2) as batches:
        for child in multiprocessing.active_children():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(child.pid or 0, number)
        assert len(list(batches)) == len(BATCHES)


SHARED = """
import sys
import torch
from gradlab.train.torch import loader
class Data:
    def __getitem__(self, place):
        return eval(sys.argv[1])
with loader(Data(), "training", [[(0, 0), (0, 1)]] * 9, 2) as batches:
    print(sum(1 for _ in batches), "batches")
"""


@pytest.mark.parametrize("example", ["torch.ones(1 << 20)", "[torch.ones(1 << 19)] * 2"])
def test_batches_need_no_shared_memory_of_the_container(example: str) -> None:
    if os.getuid():
        pytest.skip("mounting a file system needs root")
    inside = 'mount -t tmpfs -o size=4k tmpfs /dev/shm && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", inside, "sh", sys.executable, "-c", SHARED, example],
        env={**os.environ, "PYTHONPATH": paths()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "9 batches\n", done.stdout + done.stderr


def test_shared_memory_that_a_dataset_lacks_is_named() -> None:
    text = error_of(fail(RuntimeError("unable to write to file </torch_1>: No space left")), 2)
    assert "No space left" in text and "(/dev/shm: " in text and "--shm-size" in text


class Ones(Data):
    """Examples of arrays as large as `size` says, and a text."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __getitem__(self, index: int) -> Any:
        halves = np.full(self.size, index, np.float16)
        return {"x": (torch.full((self.size,), float(index)), halves), "name": f"number {index}"}


def held(size: int) -> list[Any]:
    """Load all batches, hold them, and give them."""
    with loader(KeyedDataset(Ones(size), 0), "training", BATCHES, 2) as batches:
        return list(batches)


def test_all_batches_can_be_held_and_written_with_few_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 12, hard))
    try:
        batches = held(1 << 15)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for batch in batches:
        batch["x"][0].add_(1)
    firsts = [batch["x"][0][:, -1].tolist() for batch in batches]
    assert firsts == [[index + 1 for _, index in places] for places in BATCHES]
    assert batches[3]["name"] == [f"number {index}" for _, index in BATCHES[3]]


@pytest.mark.parametrize("size", [0, 1, 1 << 15])
def test_batches_come_also_where_there_are_no_files_in_memory(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = held(size)

    def refuse(_: str) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse)
    for one, other in zip(usual, held(size), strict=True):
        assert torch.equal(one["x"][0], other["x"][0]) and torch.equal(one["x"][1], other["x"][1])


@pytest.mark.parametrize(
    "value",
    [
        torch.eye(3).to_sparse(),
        torch.ones(2, 3).T,
        torch.ones(2, requires_grad=True),
        torch.tensor([1 + 2j]).conj(),
        torch.ones(2).bfloat16(),
        torch.tensor(True),
        torch.nn.Parameter(torch.ones(2)),
    ],
    ids=str,
)
def test_a_tensor_of_any_kind_comes_as_it_was_made(value: torch.Tensor) -> None:
    batches = Loader(KeyedDataset(Data(lambda: value), 0), "training", [[(0, BAD)]], 1, tuple)
    with batches:
        ((got,),) = batches
    assert (type(got), got.dtype, got.requires_grad) == (
        type(value),
        value.dtype,
        value.requires_grad,
    )
    assert torch.equal(got.to_dense(), value.to_dense())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_is_pinned_meanwhile_and_moved_when_it_is_wanted(workers: int) -> None:
    done: list[tuple[str, bool]] = []

    def note(word: str) -> Callable[[Any], Any]:
        def act(batch: Any) -> Any:
            done.append((word, threading.current_thread() is threading.main_thread()))
            return batch

        return act

    ways = (note("pinned"), note("moved"))
    data = KeyedDataset(Data(lambda: torch.zeros(3)), 0)
    with Loader(data, "training", BATCHES, workers, pin=ways[0], move=ways[1]) as batches:
        assert len(list(batches)) == len(BATCHES)
    in_thread = ("pinned", not workers)
    assert done.count(in_thread) == done.count(("moved", True)) == len(BATCHES)


Pair = namedtuple("Pair", "first second")


@pytest.mark.parametrize("workers", [0, 1])
def test_tensors_are_moved_to_the_device_whatever_they_are_nested_in(workers: int) -> None:
    example = Pair({"x": torch.ones(2), "name": "a"}, [1, (2.5,)])
    places, data = [[(0, BAD), (0, BAD)]], KeyedDataset(Data(lambda: example), 0)
    with loader(data, "training", places, workers, torch.device("meta")) as batches:
        (batch,) = batches
    assert type(batch).__name__ == "Pair" and batch.first["name"] == ["a", "a"]
    moved = [batch.first["x"], batch.second[0], batch.second[1][0]]
    assert [tensor.device.type for tensor in moved] == ["meta"] * 3
    assert [tuple(tensor.shape) for tensor in moved] == [(2, 2), (2,), (2,)]


def test_a_failure_while_a_batch_is_pinned_is_told_and_leaves_nobody() -> None:
    data = KeyedDataset(Data(die(signal.SIGKILL)), 0)
    with (
        pytest.raises(LoaderError, match="SIGKILL"),
        Loader(data, "training", BATCHES, 2, pin=lambda batch: batch) as batches,
    ):
        list(batches)
    assert not multiprocessing.active_children()


def test_a_worker_that_is_stopped_is_told_once_patience_is_over() -> None:
    data = KeyedDataset(Data(die(signal.SIGSTOP)), 0)
    with (
        pytest.raises(LoaderError, match="no batch within 1 s"),
        Loader(data, "training", BATCHES, 1, patience=1.0) as batches,
    ):
        list(batches)
    assert not multiprocessing.active_children()


def test_a_worker_makes_few_batches_before_they_are_taken(tmp_path: Path) -> None:
    def leave_a_mark() -> float:
        (tmp_path / str(time.monotonic_ns())).touch()
        return 0.0

    each = [[(0, BAD)]] * 20
    with Loader(KeyedDataset(Data(leave_a_mark), 0), "training", each, 2) as batches:
        next(batches)
        time.sleep(1)
        assert len(list(tmp_path.iterdir())) <= 1 + 2 * 2
        assert len(list(batches)) == 19


@pytest.fixture(scope="module")
def breakable(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data does what the variable BAD says, and that judges with workers, too."""
    copy = tmp_path_factory.mktemp("breakable") / project.name
    shutil.copytree(project, copy)
    data, task = (copy / "src" / project.name / name for name in ("data.py", "task.py"))
    text, line = data.read_text(), "        image = self.images[index]\n"
    assert line in text
    bad = "        import os, signal\n        exec(os.environ.get('BAD', ''))\n"
    data.write_text(text.replace(line, bad + line))
    task.write_text(task.read_text().replace("BATCH = 256", "BATCH = 16"))
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
    saved = int(lab.checkpoints()[-1].name[:10])
    assert saved - len(lab.steps()) == ("validation" in FAULTS[fault])  # judged when carried on
    if fault != list(FAULTS)[-1]:
        return
    lab.env.clear()
    assert f"carrying on at step {saved} of 66" in lab.train(*options)
