"""A signal, to whomever and in whatever number, saves after the step that is going on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gradlab.base.signals import MOMENT

from .. import warm
from ..lab import SMALL, Lab, descendants
from ..services.processes import is_running

# Times are of a busy machine: what is heeded takes a second or two.
SOON = 30.0
# Slow wherever a file of that name exists: the data's beginning, a step, an evaluation.
PAUSE = """
import os, time
def pause(name):
    # A step begins with it, so a step that was not begun when the signal came leaves no file.
    if os.path.exists(f"{os.environ['PAUSES']}/{name}"):
        open(f"{os.environ['PAUSES']}/{name}.begun", "a").write("x")
        time.sleep(float(open(f"{os.environ['PAUSES']}/{name}").read()))
"""


class Slowed(Lab):
    """A lab whose data, steps or evaluation take as long as a file says."""

    def pause(self, name: str, seconds: float) -> None:
        (self.pauses / name).write_text(str(seconds))

    def begun(self, name: str) -> int:
        """Count how often something slow was begun."""
        path = self.pauses / f"{name}.begun"
        return len(path.read_text()) if path.exists() else 0

    @property
    def pauses(self) -> Path:
        return Path(self.env["PAUSES"])

    def saved(self) -> int:
        return int(self.checkpoints()[-1].name[:10])


@pytest.fixture(scope="session")
def slowed_project(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("slowed") / project.name
    shutil.copytree(project, copy)
    source = copy / "src" / project.name
    (source / "pause.py").write_text(PAUSE)
    for name, before, pause in [
        ("data.py", "    data = load_digits()\n", "data"),
        ("model.py", "        logits: Tensor", "step' if self.training else 'evaluation"),
    ]:
        path = source / name
        indent = before[: len(before) - len(before.lstrip())]
        call = f"{indent}from .pause import pause\n{indent}pause('{pause}')\n"
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, call + before))
    task = source / "task.py"
    task.write_text(task.read_text().replace("BATCH = 256", "BATCH = 64"))
    return copy


@pytest.fixture
def slowed(slowed_project: Path, tmp_path: Path) -> Slowed:
    (tmp_path / "pauses").mkdir()
    return Slowed(slowed_project, tmp_path / "storage", {"PAUSES": str(tmp_path / "pauses")})


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are killed after the test, whatever it found."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        for pid in (*descendants(process.pid), process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


Processes = list[subprocess.Popen[str]]


def until(reached: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)


def ended(process: subprocess.Popen[str], family: list[int]) -> str:
    """Wait for the end of a process and of all that it had started; give what it printed."""
    output, _ = process.communicate(timeout=SOON)
    end = time.monotonic() + SOON
    while left := [pid for pid in family if Path(f"/proc/{pid}/exe").exists()]:
        assert time.monotonic() < end, left
        time.sleep(0.05)
    return output


def to_the_process(process: subprocess.Popen[str], number: int) -> None:
    process.send_signal(number)


def to_the_group(process: subprocess.Popen[str], number: int) -> None:
    os.killpg(process.pid, number)


def to_every_process(process: subprocess.Popen[str], number: int) -> None:
    for pid in (process.pid, *descendants(process.pid)):
        os.kill(pid, number)


@pytest.mark.parametrize(
    "send, number, times",
    [
        (to_the_process, signal.SIGTERM, 2),
        (to_the_group, signal.SIGINT, 3),
        (to_every_process, signal.SIGHUP, 2),
    ],
)
def test_signals_within_a_moment_are_one_and_heeded_after_one_step_however_slow(
    slowed: Slowed,
    started: Processes,
    send: Callable[..., None],
    number: signal.Signals,
    times: int,
) -> None:
    process = slowed.start(slowed.package, "train", *SMALL, "--epochs", "999")
    started.append(process)
    until(lambda: slowed.recorded() > 30, process)
    # From tens of steps a second to one in two seconds.
    slowed.pause("step", 2)
    until(lambda: slowed.begun("step"), process)
    family = descendants(process.pid)
    for _ in range(times):
        send(process, number)
        time.sleep(0.1)
    output = ended(process, family)
    assert process.returncode == 128 + number, output
    assert "saved. The same command carries on." in output
    assert slowed.begun("step") <= 2
    assert slowed.saved() == len(slowed.steps()) == slowed.steps()[-1]


def test_a_later_second_signal_ends_at_once(slowed: Slowed, started: Processes) -> None:
    process = slowed.start(slowed.package, "train", *SMALL, "--epochs", "999")
    started.append(process)
    until(lambda: slowed.checkpoints(), process)
    slowed.pause("step", 300)
    until(lambda: slowed.begun("step"), process)
    family = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    time.sleep(MOMENT + 1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    ended(process, family)
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("slow, number", [("data", signal.SIGINT), ("step", signal.SIGTERM)])
def test_a_signal_before_there_is_anything_to_save_ends_at_once(
    slowed: Slowed, started: Processes, slow: str, number: int
) -> None:
    slowed.pause(slow, 300)
    process = slowed.start(slowed.package, "train", *SMALL)
    started.append(process)
    until(lambda: slowed.begun(slow), process)
    family = descendants(process.pid)
    process.send_signal(number)
    output = ended(process, family)
    assert process.returncode == 128 + number, output
    assert "Traceback" not in output


def test_a_signal_while_evaluating_saves_and_the_evaluation_is_done_later(
    slowed: Slowed, started: Processes, whole: Lab
) -> None:
    slowed.pause("evaluation", 2)
    process = slowed.start(slowed.package, "train", *SMALL)
    started.append(process)
    until(lambda: slowed.begun("evaluation"), process)
    family = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    ended(process, family)
    assert process.returncode == 128 + signal.SIGTERM
    assert slowed.begun("evaluation") <= 2
    slowed.pause("evaluation", 0)
    slowed.train()
    assert slowed.sha(file="metrics.jsonl") == whole.sha(file="metrics.jsonl")


def test_workers_die_with_a_parent_that_is_killed(slowed: Slowed, started: Processes) -> None:
    process = slowed.start(slowed.package, "train", *SMALL, "--epochs", "999")
    started.append(process)
    until(lambda: slowed.recorded() > 2, process)  # each of the two workers has given a batch
    family = descendants(process.pid)
    for pid in family:
        os.kill(pid, signal.SIGSTOP)  # as one that waits for slow storage notices nothing
    process.kill()
    assert len(family) == 2
    ended(process, family)


def torchrun(lab: Lab) -> subprocess.Popen[str]:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    return lab.start(*launcher, lab.package, "train", *SMALL, "--epochs", "999", "--workers", "1")


@pytest.mark.slow
def test_no_process_waits_for_a_torchrun_that_was_killed_while_they_start(
    lab: Lab, started: Processes
) -> None:
    """They have not looked at who started them yet, and would wait for two hours."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = (*launcher, lab.package, "train", *SMALL, "--workers", "0")
    process = warm.cold(command, lab.project, lab.environment())
    started.append(process)
    until(lambda: len(descendants(process.pid)) >= 2, process)
    family = descendants(process.pid)
    process.kill()
    end = time.monotonic() + 60
    while any(map(is_running, family)):
        assert time.monotonic() < end
        time.sleep(0.1)


def one_rank(process: subprocess.Popen[str], number: int) -> None:
    """Send it to the one of the two processes that does not write."""
    ranks = [pid for pid in descendants(process.pid) if b"RANK=1" in environment(pid)]
    os.kill(ranks[0], number)


def environment(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


@pytest.mark.slow
@pytest.mark.parametrize(
    "send, number",
    [
        (to_every_process, signal.SIGTERM),
        (one_rank, signal.SIGHUP),
        (to_the_process, signal.SIGKILL),
    ],
)
def test_all_processes_of_torchrun_save_and_none_outlives_it(
    slowed: Slowed, started: Processes, send: Callable[..., None], number: signal.Signals
) -> None:
    process = torchrun(slowed)
    started.append(process)
    until(lambda: slowed.recorded() > 5, process)
    slowed.pause("step", 2)
    until(lambda: slowed.begun("step"), process)
    family = descendants(process.pid)
    assert len(family) == 4
    send(process, number)
    output = ended(process, family)
    assert "saved. The same command carries on." in output
    assert slowed.begun("step") <= 6
    assert slowed.saved() == len(slowed.steps())
