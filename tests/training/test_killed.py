"""A run that is killed, at any moment and any number of times, ends like one that never was."""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ..failing import flip_a_bit
from ..lab import PER_EPOCH, STEPS, Lab
from ..services.bucket import NAME, Bucket, Fault

KILLS = 6
MOST = 12  # steps until a kill, or an epoch and two: six of them all fall before the run's end
# A step leaves a byte in a file as it begins, and beyond a limit waits to be killed: so a kill
# falls where it should, however fast the machine is.
COUNT = """
import os, time
def count():
    with open(os.environ["COUNT"], "ab") as file:
        file.write(b"x")
        begun = file.tell()
    while begun > float(os.environ.get("LIMIT", "inf")):
        time.sleep(0.01)
"""


BACKENDS = ("folder", "slow mount", "bucket")


def on(backend: str, lab: Lab, bucket: Bucket) -> None:
    if backend == "slow mount":
        lab.on_slow_storage()
    if backend == "bucket":
        lab.in_a_bucket(bucket)


@pytest.fixture(params=BACKENDS)
def lab(request: pytest.FixtureRequest, lab: Lab, bucket: Bucket) -> Lab:
    on(request.param, lab, bucket)
    return lab


class Counted(Lab):
    """A lab whose steps are counted as they begin, also those that are never saved."""

    @property
    def faults(self) -> list[Fault]:
        """What goes wrong on the way to its bucket, if it has one."""
        return self.bucket.faults if self.bucket else []

    def count(self) -> int:
        path = Path(self.env["COUNT"])
        return path.stat().st_size if path.exists() else 0

    def limited(self, reached: Callable[[], object], steps: int) -> Callable[[], object]:
        """Let it go on for some steps at most; tell when something or that is reached."""
        limit = self.count() + steps
        self.env["LIMIT"] = str(limit)
        return lambda: reached() or self.count() > limit


@pytest.fixture(scope="module")
def counted_project(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("counted") / project.name
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("__pycache__"))
    model = copy / "src" / project.name / "model.py"
    (model.parent / "count.py").write_text(COUNT)
    before = "        logits: Tensor"
    call = "        from .count import count\n        self.training and count()\n"
    assert before in model.read_text()
    model.write_text(model.read_text().replace(before, call + before))
    return copy


@pytest.fixture(params=BACKENDS)
def counted(
    request: pytest.FixtureRequest, counted_project: Path, tmp_path: Path, bucket: Bucket
) -> Counted:
    lab = Counted(counted_project, tmp_path / "storage", {"COUNT": str(tmp_path / "count")})
    on(request.param, lab, bucket)
    return lab


@pytest.fixture(scope="module")
def counted_whole(counted_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Counted:
    folder = tmp_path_factory.mktemp("whole")
    lab = Counted(counted_project, folder / "storage", {"COUNT": str(folder / "count")})
    lab.train("--save-seconds", "0")
    return lab


def at_random(lab: Counted, moment: random.Random) -> Callable[[], object]:
    step, rest = lab.count() + moment.randint(1, MOST), moment.uniform(0, 0.05)

    def reached() -> bool:
        if lab.count() < step:
            return False
        time.sleep(rest)  # into a step, not always at its beginning
        return True

    return reached


def at_the_start(lab: Counted, moment: random.Random) -> Callable[[], object]:
    end = time.monotonic() + moment.uniform(0, 1.5)
    return lambda: time.monotonic() > end


def during_a_save(lab: Counted, moment: random.Random) -> Callable[[], object]:
    return lambda: any((lab.work() / "checkpoints").glob(".*.tmp"))


def on_an_epochs_last_batch(lab: Counted, moment: random.Random) -> Callable[[], object]:
    before = lab.recorded()

    def reached() -> bool:
        now = lab.recorded()
        return now > before and now % PER_EPOCH == 0

    return reached


# What meets each session on its way to a bucket, besides being killed.
ON_THE_WAY = (
    Fault(method="PUT", path="leases/", cut="answer", times=1),  # of a write under a condition
    Fault(status=503, code="SlowDown", times=3),
    Fault(method="PUT", cut="request", times=2),
    Fault(status=400, code="ExpiredToken"),  # once it is under way, to the end of the session
    Fault(seconds=0.2),
    Fault(status=500, code="InternalError", times=3),
)


@contextmanager
def on_the_way(
    lab: Counted, number: int, reached: Callable[[], object]
) -> Iterator[Callable[[], object]]:
    """Let a session meet a fault; give what tells that it is to be killed."""
    fault, faults = replace(ON_THE_WAY[number % len(ON_THE_WAY)]), lab.faults
    first = lab.count()
    if fault.code != "ExpiredToken":
        faults.append(fault)

    def once_under_way() -> object:
        if not faults and lab.count() > first:
            faults.append(fault)
        return reached()

    yield once_under_way
    faults.clear()


def flip_in_the_bucket(lab: Counted) -> str:
    """Flip a bit of the newest checkpoint there, for a machine without it; give what is told."""
    shutil.rmtree(lab.disk, ignore_errors=True)
    newest = lab.checkpoints()[-1]
    flip_a_bit(newest, random.Random(0))
    assert lab.bucket
    key = f"{lab.prefix}runs/default/checkpoints/{newest.name}"
    lab.bucket.client.put_object(Bucket=NAME, Key=key, Body=newest.read_bytes())
    return f"{newest.name} is damaged"


@pytest.mark.slow
def test_kills_at_random_moments_leave_the_bytes_of_an_uninterrupted_run(
    counted: Counted, counted_whole: Counted
) -> None:
    lab, whole = counted, counted_whole
    moment = random.Random(lab.env.get("GRADLAB_STORAGE_SLOW", "2" if lab.bucket else "0"))
    kinds = [at_random, during_a_save, on_an_epochs_last_batch, at_the_start] * KILLS
    for number, kind in enumerate(kinds[:KILLS]):
        reached = kind(lab, moment)
        # The loader's workers sometimes outlive their parent, as after a real crash.
        reached = lab.limited(reached, PER_EPOCH + 2 if kind == on_an_epochs_last_batch else MOST)
        group = moment.random() < 0.5
        with on_the_way(lab, number, reached) as reached:
            output = lab.train_until(reached, "--save-seconds", "0", whole_group=group)
        assert "Finished" not in output
        if moment.random() < 0.5:  # with its machine, or without
            shutil.rmtree(lab.disk, ignore_errors=True)
    del lab.env["LIMIT"]
    damaged = flip_in_the_bucket(lab) if lab.bucket else ""
    assert damaged in lab.train("--save-seconds", "0")
    assert lab.sha() == whole.sha()
    assert lab.sha(file="best.safetensors") == whole.sha(file="best.safetensors")
    assert lab.steps() == list(range(1, STEPS + 1))
    assert lab.sha(file="metrics.jsonl") == whole.sha(file="metrics.jsonl")
    assert tensorboard_steps(lab.folder()) == lab.steps()


def tensorboard_steps(folder: Path) -> list[int]:
    # Without purging, so that a step recorded twice would show.
    events = EventAccumulator(
        str(folder / "tensorboard"), {"scalars": 0}, purge_orphaned_data=False
    )
    return [event.step for event in events.Reload().Scalars("loss")]


def test_a_run_goes_on_from_its_last_save_not_from_the_start(interrupted: Lab) -> None:
    step = int(interrupted.checkpoints()[-1].name[:10])
    assert f"carrying on at step {step:,} of {STEPS:,}" in interrupted.train("--max-minutes", "0")


def test_workers_and_minutes_may_change_and_do_not_change_the_result(
    interrupted: Lab, whole: Lab
) -> None:
    interrupted.train("--workers", "0", "--max-minutes", "60", "--save-seconds", "100")
    assert interrupted.sha() == whole.sha()


def test_the_end_of_the_time_saves_and_stops_cleanly(lab: Lab, whole: Lab) -> None:
    output = lab.train("--max-minutes", "0.005")
    assert "The same command carries on." in output
    assert 0 < len(lab.steps()) < STEPS
    lab.train()
    assert lab.sha() == whole.sha()


def test_the_end_of_the_session_saves_and_stops_cleanly(lab: Lab) -> None:
    # The session is over two minutes after its machine started: no time left at all.
    lab.env["GRADLAB_SESSION_MINUTES"] = "0.1"
    output = lab.train()
    assert "Stopped at step 1 of" in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("whole_group", [True, False])
def test_a_signal_saves_and_stops_with_the_shells_exit_code(
    lab: Lab, number: signal.Signals, whole_group: bool
) -> None:
    long = ("--epochs", "999")
    output = lab.train_until(
        lambda: lab.recorded() > 40, *long, number=number, whole_group=whole_group
    )
    assert "saved. The same command carries on." in output
    (done,) = (int(number) for number in re.findall(r"Stopped at step (\d+) of", output))
    # The step whose evaluation the signal ended is recorded once that is done.
    assert len(lab.steps()) in (done, done - (done % PER_EPOCH == 0)) and done >= 40
    assert f"carrying on at step {done} of" in lab.train(*long, "--max-minutes", "0"), output


def test_a_finished_run_says_so_and_restores_a_lost_model(lab: Lab, whole: Lab) -> None:
    lab.take(whole.storage)
    lab.lose("model.safetensors")
    assert f"finished at step {STEPS:,} of {STEPS:,}" in lab.train()
    assert lab.sha() == whole.sha()


def test_other_settings_are_refused_with_the_difference(interrupted: Lab) -> None:
    kept = interrupted.checkpoints()
    output = interrupted.train("--learning-rate", "0.5", "--model.dropout", "0.3", code=2)
    table = [line.split() for line in output.splitlines() if line.startswith("    ")]
    assert ["learning_rate", "0.004", "0.5"] in table
    assert ["model.dropout", "0.2", "0.3"] in table
    assert "--fresh" in output and "--name" in output
    assert interrupted.checkpoints() == kept


def test_fresh_starts_over_and_keeps_the_earlier_run(interrupted: Lab, whole: Lab) -> None:
    kept = [path.name for path in interrupted.checkpoints()]
    assert "starting at step 0" in interrupted.train("--fresh")
    assert interrupted.sha() == whole.sha()
    assert [path.name for path in interrupted.checkpoints("default~")] == kept


def test_a_second_process_is_refused_and_the_first_one_named(lab: Lab) -> None:
    first = lab.start(lab.package, "train", "--epochs", "1000")
    try:
        while not lab.recorded():
            assert first.poll() is None
            time.sleep(0.05)
        output = lab.run(lab.package, "train", "--epochs", "1000", code=2)
        assert f"The run 'default' is being trained by process {first.pid} on " in output
        assert "--name" in output
    finally:
        first.kill()
        first.communicate()
