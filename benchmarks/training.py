"""What surviving costs: ratios of interleaved timings, as medians, printed as a table.

python benchmarks/training.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cookiecutter.main import cookiecutter

TEMPLATE = Path(__file__).resolve().parents[1]
KIT = TEMPLATE / "kit" / "src"
PACKAGE = "benchmarked"
EPOCHS = 20
NEVER = 1e9
Times = dict[str, list[float]]


def main() -> None:
    """Generate a project, time it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="timings of each kind")
    rounds = parser.parse_args().rounds
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the project's commands do
    with tempfile.TemporaryDirectory() as folder:
        answers = {"project_slug": PACKAGE}
        project = cookiecutter(
            str(TEMPLATE), None, True, answers, output_dir=folder, default_config=True
        )
        os.environ["GRADLAB_STORAGE"] = f"{folder}/storage"
        sys.path[:0] = [f"{project}/src", str(KIT)]
        loops = interleaved(
            {
                "bare": bare_loop,
                "project": lambda: project_loop(NEVER),
                "saving": lambda: project_loop(0),
            },
            rounds,
        )
        starts = resumption(Path(project), rounds)
    print(f"{'':<48} ratio    target")
    show("a step, against a bare PyTorch loop", loops, "project", "bare", 1.03)
    show("a step with saves, against one without", loops, "saving", "project", 1.02)
    show("resuming at step 5,000, against at step 10", starts, "late", "early", 1.05)
    print(f"a bare step takes {1000 * statistics.median(loops['bare']):.2f} ms")
    print(f"a resume takes {statistics.median(starts['late']):.2f} s from start to saved step")


def show(name: str, times: Times, kind: str, base: str, target: float) -> None:
    """Print a ratio: the median of the ratios of timings that were taken side by side."""
    ratios = [time / other for time, other in zip(times[kind], times[base], strict=True)]
    print(f"{name:<48} {statistics.median(ratios):.3f}x  <= {target}x")


def interleaved(kinds: dict[str, Callable[[], float]], rounds: int) -> Times:
    """Time the kinds in turn, so that a busy moment of the machine hits all of them."""
    for measure in kinds.values():
        measure()  # once, to fill the caches
    times: Times = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, measure in kinds.items():
            times[kind].append(measure())
    return times


def project_loop(save_seconds: float) -> float:
    """Time a step of the project's own training, in seconds."""
    config = importlib.import_module(f"{PACKAGE}.config")
    module = importlib.import_module(f"{PACKAGE}.train")
    stamps: list[float] = []
    step = module.Trainer._train_step

    def timed(self: Any, inputs: Any, targets: Any) -> None:
        stamps.append(time.perf_counter())
        step(self, inputs, targets)

    module.Trainer._train_step = timed
    settings = {"epochs": EPOCHS, "evaluate_every": EPOCHS, "save_seconds": save_seconds}
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            module.train(config.TrainConfig(name="bench", fresh=True, **settings))
    finally:
        module.Trainer._train_step = step
    return mean(stamps)


def bare_loop() -> float:
    """Time a step of what one would write without this project, in seconds."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))  # as the project does
    config = importlib.import_module(f"{PACKAGE}.config").TrainConfig()
    data = importlib.import_module(f"{PACKAGE}.data").datasets().train
    network = importlib.import_module(f"{PACKAGE}.model").build(config.model)
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate)
    total = EPOCHS * (len(data) // config.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total)
    loader = torch.utils.data.DataLoader(
        data,
        config.batch_size,
        # One sampler for all epochs, so that workers start once, as in the project.
        sampler=torch.utils.data.RandomSampler(data, num_samples=total * config.batch_size),
        num_workers=min(4, max(1, (os.cpu_count() or 2) - 1)),
    )
    stamps: list[float] = []
    for inputs, targets in loader:
        stamps.append(time.perf_counter())
        loss = cross_entropy(network(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
    return mean(stamps)


def mean(stamps: list[float]) -> float:
    """Give the mean time between stamps, without the first steps, which fill caches."""
    return (stamps[-1] - stamps[20]) / (len(stamps) - 21)


def resumption(project: Path, rounds: int) -> Times:
    """Time a resume, from the process's start to its first new step saved, early and late."""
    small = ["--model.width", "4", "--batch-size", "8", "--epochs", "100", "--workers", "0"]
    small += ["--evaluate-every", "100"]

    def run(name: str, minutes: float) -> float:
        begun = time.perf_counter()
        command = [sys.executable, "-m", PACKAGE, "train", "--name", name, *small]
        environment = {**os.environ, "PYTHONPATH": f"src{os.pathsep}{KIT}"}
        subprocess.run(
            [*command, "--max-minutes", str(minutes)],
            cwd=project,
            env=environment,
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - begun

    run("early", 0)
    while steps_of("late") < 5_000:
        run("late", 0.1)
    return interleaved({"early": lambda: run("early", 0), "late": lambda: run("late", 0)}, rounds)


def steps_of(name: str) -> int:
    """Count the recorded steps of a run."""
    metrics = Path(os.environ["GRADLAB_STORAGE"], "runs", name, "metrics.jsonl")
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


if __name__ == "__main__":
    main()
