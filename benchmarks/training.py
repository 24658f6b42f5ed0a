"""What surviving costs a training: steps against a bare loop and other frameworks, and resuming.

    python benchmarks/training.py [--rounds 7]

The same model and data are trained by the loops in loops/: the project, a bare PyTorch loop,
Lightning's Trainer, Lightning Fabric and Accelerate; with JAX, the project and a bare loop that has
the project's loader, for there is none of JAX; with Keras, on each backend, the project, a loop of
train_on_batch and fit, with the project's loader. But for the bare ones and fit they log loss and
learning rate of each step, and write a checkpoint each second of their own time, five times as
often as the project does by default. In each round each of them gets a new process, for two
processes of the same program differ by up to a fifth, and the processes take turns of two epochs.
A step's cost is the processor time of the loop's process, all that it does in the background
included; what a user waits for, the clock, is shown beside, for a busy machine alters it most.

Resuming is the processor time of a whole command that takes up a run, does one step and saves it.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import ours
from measure import Row, alone, interleaved, processor, ratio, repeated, tell

ROUNDS = 7
TURNS = 6  # in a round, of which the first, with the start, doesn't count
EPOCHS = 2  # of a turn
EVERY = 1.0  # seconds between checkpoints
LATE = 20_000  # steps
LOOPS = Path(__file__).parent / "loops"
PYTHON = ours.TEMPLATE / ".venv" / "bench" / "bin" / "python"
# The file of each kind of loop, and how often it writes checkpoints.
KINDS = {
    "bare": ("bare", 0.0),
    "logging": ("project", 0.0),
    "this project": ("project", EVERY),
    "Lightning's Trainer": ("trainer", EVERY),
    "Lightning Fabric": ("fabric", EVERY),
    "Accelerate": ("accelerated", EVERY),
}
# The same with JAX, whose processes take turns among themselves.
JAX_KINDS = {"bare": ("jax_bare", 0.0), "logging": ("jax_project", 0.0)}
JAX_KINDS["this project"] = ("jax_project", EVERY)
# And with Keras, on each backend, in the environment that has it.
KERAS_KINDS = JAX_KINDS | {"bare": ("keras_bare", 0.0), "fit": ("keras_fit", 0.0)}
BACKENDS = {"JAX": "bench", "TensorFlow": "tensorflow"}
Kinds = dict[str, tuple[str, float]]
Seconds = dict[str, float]


@dataclass(frozen=True)
class Place:
    """A generated project, and the Python that has its framework."""

    project: Path
    python: Path = PYTHON
    env: Mapping[str, str] = field(default_factory=dict)
    epochs: int = EPOCHS  # of a turn: more where a step is short


def rows(rounds: int) -> Iterator[Row]:
    """Measure steps and resuming in a generated project."""
    if not PYTHON.exists():
        sys.exit("The frameworks to compare with are not installed: make bench does it first.")
    with tempfile.TemporaryDirectory() as folder:
        answers = f"project_slug={ours.PACKAGE}"
        project = ours.generated(ours.TEMPLATE, Path(folder, "made"), answers)
        yield from steps(Place(project), rounds)
        made = ours.generated(ours.TEMPLATE, Path(folder, "jax"), answers, "framework=jax")
        yield from jax_steps(Place(made, epochs=8), rounds)
        made = ours.generated(ours.TEMPLATE, Path(folder, "keras"), answers, "framework=keras")
        for backend, name in BACKENDS.items():
            python = PYTHON.parents[2] / name / "bin" / "python"
            env = {"KERAS_BACKEND": backend.lower()}
            yield from keras_steps(backend, Place(made, python, env), rounds)
        yield from resuming(project, Path(folder, "storage"), min(rounds, 5))


class Loop:
    """A loop in a process of its own, which rests after each turn."""

    def __init__(self, kind: str, work: tuple[str, float], place: Place, folder: Path) -> None:
        program, every = work
        self.kind, self.log = kind, (folder / f"{kind}.log").open("w+")
        kept = folder / kind
        kept.mkdir()
        options = {"--turns": TURNS, "--epochs": place.epochs, "--every": every}
        given = [str(text) for option in options.items() for text in option]
        self.process = subprocess.Popen(
            [place.python, LOOPS / f"{program}.py", ours.PACKAGE, kept, *given],
            env=ours.environment(place.project)
            | {**place.env, "GRADLAB_STORAGE": str(kept / "storage")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()
        self.log.close()

    def turn(self) -> Seconds:
        """Let it do a turn; give the seconds that it took, by the clock and of the processor."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            self.log.seek(0)
            sys.exit(f"The loop of {self.kind!r} has ended:\n{self.log.read()}")
        report: Seconds = json.loads(line)
        return report


def one_round(place: Place, kinds: Kinds) -> dict[str, Seconds]:
    """Give what the turns of each kind of loop took together."""
    total: dict[str, Seconds] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        loops = {}
        for kind in random.sample(list(kinds), len(kinds)):
            loops[kind] = stack.enter_context(Loop(kind, kinds[kind], place, Path(folder)))
            loops[kind].turn()
        for _ in range(TURNS - 1):
            for kind, loop in loops.items():
                took, before = loop.turn(), total.get(kind, {})
                total[kind] = {what: took[what] + before.get(what, 0.0) for what in took}
    return total


def measured(name: str, place: Place, kinds: Kinds, rounds: int) -> list[dict[str, list[float]]]:
    """Measure loops; give each kind's times in its own process, by the clock, in its workers."""
    found = repeated(name, lambda: one_round(place, kinds), rounds)
    return [
        {kind: [each[what] for each in times] for kind, times in found.items()}
        for what in ("loop", "wall", "workers")
    ]


def steps(place: Place, rounds: int) -> Iterator[Row]:
    """Compare the steps of all loops."""
    cost, clock, workers = measured("steps", place, KINDS, rounds)
    yield ratio("a step that is logged", "a bare loop's", cost, ("logging", "bare"), 1.03)
    yield ratio("the same by the clock", "a bare loop's", clock, ("logging", "bare"))
    yield ratio("loading for it, in the workers", "a bare loop's", workers, ("logging", "bare"))
    with_checkpoints = ("this project", "logging")
    yield ratio("a step with checkpoints", "without", cost, with_checkpoints, 1.02)
    for kind in list(KINDS)[2:]:
        yield ratio(f"{kind}: a step", "a bare loop's", cost, (kind, "bare"))
        yield ratio(f"{kind}: the same by the clock", "a bare loop's", clock, (kind, "bare"))


def jax_steps(place: Place, rounds: int) -> Iterator[Row]:
    """Compare the steps of the loops with JAX."""
    cost, clock, _ = measured("JAX's steps", place, JAX_KINDS, rounds)
    yield ratio("with JAX, a step that is logged", "a bare loop's", cost, ("logging", "bare"), 1.03)
    yield ratio("the same by the clock", "a bare loop's", clock, ("logging", "bare"))
    with_checkpoints = ("this project", "logging")
    yield ratio("with JAX, a step with checkpoints", "without", cost, with_checkpoints, 1.02)


def keras_steps(backend: str, place: Place, rounds: int) -> Iterator[Row]:
    """Compare the steps of the loops with Keras on a backend."""
    cost, clock, _ = measured(f"Keras' steps on {backend}", place, KERAS_KINDS, rounds)
    what, bare = f"with Keras on {backend}, a step", "a loop of train_on_batch"
    yield ratio(f"{what} that is logged", bare, cost, ("logging", "bare"), 1.03)
    yield ratio("the same by the clock", bare, clock, ("logging", "bare"))
    yield ratio(f"{what} that is logged", "fit's", cost, ("logging", "fit"), 1.03)
    with_checkpoints = ("this project", "logging")
    yield ratio(f"{what} with checkpoints", "without", cost, with_checkpoints, 1.02)


def resuming(project: Path, storage: Path, rounds: int) -> Iterator[Row]:
    """Compare resuming early and late in a run."""
    small = ["--model.width", "4", "--batch-size", "8", "--epochs", "300", "--workers", "0"]
    small += ["--evaluate-every", "300"]
    environment = ours.environment(project) | {"GRADLAB_STORAGE": str(storage)}

    def run(name: str, minutes: float) -> None:
        command = [sys.executable, "-m", ours.PACKAGE, "train", "--name", name, *small]
        command += ["--max-minutes", str(minutes)]
        subprocess.run(command, env=environment, check=True, capture_output=True)

    run("early", 0)
    while recorded(storage, "late") < LATE:
        run("late", 0.2)
        tell(f"resuming: the late run is at step {recorded(storage, 'late'):,}")
    kinds = {
        "early": lambda: processor(lambda: run("early", 0)),
        "late": lambda: processor(lambda: run("late", 0)),
    }
    times = interleaved("resuming", kinds, rounds)
    yield ratio(f"resuming at step {LATE:,}", "at step 1", times, ("late", "early"), 1.05)


def recorded(storage: Path, name: str) -> int:
    """Count the recorded steps of a run."""
    metrics = storage / "runs" / name / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


if __name__ == "__main__":
    alone(__doc__, rows, ROUNDS)
