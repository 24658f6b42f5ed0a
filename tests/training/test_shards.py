"""Checkpoints in several files, each of another process: whole with all of them, or none at all."""

from __future__ import annotations

import errno
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gradlab.base.errors import GradlabError
from gradlab.store.copier import Copier
from gradlab.store.folder import Folder, SlowMount
from gradlab.store.shards import is_complete
from gradlab.train.run_copies import RunCopies
from gradlab.train.sharded import Sharded, saver

from .test_weights import equal

SIZE = 3
FILES = SIZE + 1  # of a checkpoint


class Member:
    """One of several that meet: what processes do by messages, threads do by a list."""

    size = SIZE
    folder: Path

    def __init__(self, rank: int, meeting: threading.Barrier, values: list[Any]) -> None:
        self.rank, self.meeting, self.values = rank, meeting, values
        self.left = 999  # meetings until it dies

    def exchange(self, value: Any) -> list[Any]:
        self.left -= 1
        if self.left < 0:
            self.meeting.abort()
        self.values[self.rank] = value
        self.meeting.wait(10)
        found = list(self.values)
        self.meeting.wait(10)
        return found


class Run:
    """A run of some processes that keep their parts in one folder."""

    def __init__(self, work: Path, size: int = SIZE) -> None:
        self.folder = work / "checkpoints"
        self.folder.mkdir(parents=True, exist_ok=True)
        (work / "metrics.jsonl").write_text("")
        meeting, values = threading.Barrier(size), [None] * size
        self.members = [Member(rank, meeting, values) for rank in range(size)]
        for member in self.members:
            member.size = size
        self.stores = [Sharded(self.folder, team=member) for member in self.members]
        self.most, self.first = 0, lambda: None

    def save(self, step: int, numbers: int = 1000) -> bool:
        """Save a part of each; tell whether all of them took it for saved."""
        done: list[int] = []

        def state(rank: int) -> Callable[[], dict[str, Any]]:
            part = {"step": step, "weights": torch.full((numbers,), float(100 * step + rank))}
            return lambda: {"step": step, "state": part}

        for rank, store in enumerate(self.stores):
            first = self.first if rank == 0 else lambda: None
            store.save(step, state(rank), first, lambda: done.append(step))
            self.most = max(self.most, len(self.files()))
        for store in self.stores:
            store.wait()
        return len(done) == len(self.stores)

    def loaded(self) -> int:
        """Load the parts of all; give the step that all of them have, 0 for none."""
        first = self.stores[0].load()
        parts: dict[int, Any] = {}

        def load(rank: int) -> None:
            own = first["state"] if first and rank == 0 else None
            parts[rank] = self.stores[rank].load_own(self.stores[0].shards, own)

        if not first:
            return 0
        threads = [threading.Thread(target=load, args=(r,)) for r in range(len(self.stores))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for rank, part in parts.items():
            assert equal(part["weights"][:1], torch.tensor([100.0 * first["step"] + rank]))
        assert len(parts) == len(self.stores)
        return int(first["step"])

    def files(self, ending: str = "") -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.name.endswith(ending))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "work")


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_each_process_gets_its_own_part_back_and_two_checkpoints_stay(run: Run) -> None:
    for step in range(1, 6):
        assert run.save(step)
        assert len(run.files()) == min(step, 2) * FILES
    assert run.most <= 3 * FILES
    assert run.loaded() == 5
    assert Run(run.folder.parent).loaded() == 5


@pytest.mark.parametrize("harm", [flip_a_byte, Path.unlink], ids=["damaged", "missing"])
@pytest.mark.parametrize("rank", [0, SIZE - 1])
def test_a_checkpoint_without_one_of_its_shards_is_told_and_the_one_before_it_taken(
    run: Run, capsys: pytest.CaptureFixture[str], rank: int, harm: Callable[[Path], None]
) -> None:
    assert run.save(1) and run.save(2)
    assert run.stores[0].load()
    harmed = run.folder / run.stores[0].shards[rank].name
    harm(harmed)
    again = Run(run.folder.parent)
    assert again.loaded() == 1
    (told,) = capsys.readouterr().err.splitlines()
    what = "damaged" if harm is flip_a_byte else "missing"
    assert f"is not whole, for {harmed.name} is {what}: taking the one before it." in told
    assert again.save(2) and again.save(3)
    assert again.loaded() == 3
    assert len(again.files()) == 2 * FILES


@pytest.mark.parametrize("met", [0, 1])
def test_a_process_that_dies_around_the_manifest_leaves_all_with_one_newest_checkpoint(
    run: Run, met: int
) -> None:
    """`met` are the meetings until then: before others know of its shard, or after that."""
    assert run.save(1)
    run.members[1].left = met
    run.save(2)
    written = len(run.files(".manifest"))
    assert len(run.files(".shard")) >= SIZE + (met or SIZE)
    assert written == 1 or met
    again = Run(run.folder.parent)
    assert again.loaded() == written
    assert again.save(3) and again.save(4)
    assert len(again.files()) == 2 * FILES, "what was left of a set that is not whole has gone"


def test_a_part_that_cannot_be_saved_is_told_to_all_and_the_next_one_can(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run.save(1)
    with monkeypatch.context() as patch:
        patch.setattr(run.stores[1], "_snapshots", None)
        assert not run.save(2)
    (told,) = capsys.readouterr().err.splitlines()
    assert "Step 2 could not be saved" in told and "process 1 on " in told
    assert len(run.files()) == FILES
    assert run.save(3) and run.loaded() == 3


def test_what_the_first_writes_beside_its_shard_may_fail(run: Run) -> None:
    """Such as the best model: the others wait for it, and are to know."""
    assert run.save(1)

    def fail() -> None:
        raise MemoryError

    run.first = fail
    assert not run.save(2)
    run.first = lambda: None
    assert run.save(3) and run.loaded() == 3


def test_a_process_that_did_not_begin_to_save_is_waited_for_no_longer_than_to_the_next(
    run: Run,
) -> None:
    assert run.save(1)
    for store in run.stores[1:]:
        store.save(2, lambda: {"step": 2, "state": {}}, lambda: None, lambda: None)
    assert run.save(3) and run.loaded() == 3
    assert len(run.files(".manifest")) == 2


def test_a_full_disk_leaves_the_newest_checkpoint_and_takes_the_next(
    tmp_path: Path, mounts: Callable[..., None]
) -> None:
    (tmp_path / "small").mkdir()
    mounts("-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path / "small"))
    run = Run(tmp_path / "small")
    for step in range(1, 5):  # of three checkpoints there is room for two and a half
        assert run.save(step, numbers=75_000)
    assert run.loaded() == 4
    free = shutil.disk_usage(run.folder).free
    (run.folder / "ballast").write_bytes(bytes(free))
    assert not run.save(5, numbers=200_000)
    assert run.loaded() == 4


@pytest.mark.parametrize("size", [2, 4])
def test_another_number_of_processes_is_refused_with_what_would_do(run: Run, size: int) -> None:
    assert run.save(1)
    with pytest.raises(GradlabError, match=rf"among {SIZE} processes, and {size} can't") as error:
        Run(run.folder.parent, size).loaded()
    assert f"--nproc-per-node {SIZE}" in str(error.value) and "another --name" in str(error.value)


class Far(Member):
    """One on a machine whose folder of the same name is another one."""

    def exchange(self, value: Any) -> list[Any]:
        found = super().exchange(value)
        here = self.folder
        return [(here, each[1]) if type(each) is tuple and each[0] else each for each in found]


def meet(run: Run) -> list[BaseException | None]:
    """Have all processes meet in the first one's folder; give what each of them raised."""
    raised: list[BaseException | None] = [None] * SIZE

    def come(rank: int) -> None:
        opened: Any = SimpleNamespace(checkpoints=run.stores[0]) if rank == 0 else None
        try:
            saver(opened, run.members[rank])
        except GradlabError as error:
            raised[rank] = error

    threads = [threading.Thread(target=come, args=(rank,)) for rank in range(SIZE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_all_processes_have_to_see_one_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradlab.train.sharded.SEEN", 0.2)
    assert meet(run) == [None] * SIZE and not run.files()
    far = Far(1, run.members[1].meeting, run.members[1].values)
    far.folder = tmp_path / "elsewhere"
    run.members[1] = far
    for error in meet(run):
        assert re.search(r"process 1 on \S+: .* is not seen on", str(error))
        assert "set GRADLAB_STORAGE" in str(error) and str(error).count("process ") == 1
    assert not run.files() and not far.folder.exists()


class Broken(SlowMount):
    """A storage that takes some files, then none."""

    left = 999

    def put(self, key: str, source: Path) -> str:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.EROFS, "gone")
        return super().put(key, source)


def copier(run: Run, kept: Folder) -> Copier:
    return Copier(kept, RunCopies(run.folder.parent, kept, "run"))


@pytest.mark.parametrize("arrive", range(FILES))
def test_a_set_that_is_copied_in_part_is_no_checkpoint(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrive: int
) -> None:
    monkeypatch.setattr("gradlab.store.copier.TRIES", (0.0,))
    kept = Broken(tmp_path / "kept")
    copies = copier(run, kept)
    assert run.save(1) and copies.sync()
    kept.left = arrive
    assert run.save(2) and not copies.sync()
    assert not list(kept.path("run/checkpoints").glob("*2-*.manifest"))
    fetched = Run(tmp_path / "another machine")
    RunCopies(fetched.folder.parent, kept, "run").restore()
    assert fetched.loaded() == 1
    kept.left = 999
    assert run.save(3) and copies.flush()
    RunCopies(fetched.folder.parent, kept, "run").restore()
    assert fetched.loaded() == 3


@pytest.mark.parametrize("harm", [flip_a_byte, Path.unlink], ids=["damaged", "missing"])
def test_a_copy_without_one_of_its_shards_is_passed_over(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], None]
) -> None:
    kept = SlowMount(tmp_path / "kept")
    copies = copier(run, kept)
    for step in (1, 2):
        assert run.save(step) and copies.sync()
    assert run.stores[0].load()
    harm(kept.path("run/checkpoints") / run.stores[0].shards[1].name)
    fetched = Run(tmp_path / "another machine")
    RunCopies(fetched.folder.parent, kept, "run").restore()
    assert "damaged or not uploaded whole: passed over" in capsys.readouterr().err
    assert fetched.loaded() == 1
    assert not list(fetched.folder.glob(".*.tmp"))
    assert copies.flush()


def test_two_whole_sets_stay_of_the_copies(run: Run, tmp_path: Path) -> None:
    kept = Folder(tmp_path / "kept")
    copies = copier(run, kept)
    for step in range(1, 5):
        assert run.save(step) and copies.sync()
    assert copies.flush()
    found = kept.path("run/checkpoints")
    manifests = sorted(found.glob("*.manifest"))
    assert len(manifests) == 2 and all(map(is_complete, manifests))
    assert len(list(found.iterdir())) == 2 * (FILES + 1)  # and the metrics of each
