"""What a project promises in any framework: it learns, and a run that is killed loses nothing."""

from __future__ import annotations

import json
import os
import random
import re
import signal
from pathlib import Path

import pytest

from .. import warm
from ..conftest import generate
from ..lab import Lab
from ..pages import Shell
from ..test_own_workflows import newest, sha
from ..training.test_killed import at_random, at_the_start, during_a_save, tensorboard_steps
from ..workflow.conftest import needs_bubblewrap
from . import ONE_OF_EACH, Entry, on
from .conftest import STEPS, Edited, FrameworkLab, lab_of

pytestmark = pytest.mark.slow
on_one_backend = on(ONE_OF_EACH)
KILLS = int(os.environ.get("KILLS", "3"))
MOST = 30  # steps until a kill
ENOUGH = 0.97
OPTIONS = {
    "bf16": ("--precision", "bf16"),
    "all": ("--clip", "1", "--accumulate", "2", "--ema", "0.9", "--label-smoothing", "0.1"),
}


def test_the_defaults_learn_the_digits(defaults: FrameworkLab, tmp_path: Path) -> None:
    folder = str(tmp_path / "measured")
    defaults.run(defaults.package, "evaluate", "--name", "train", "--output", folder)
    found = json.loads(Path(folder, "evaluation.json").read_text())
    assert found["accuracy"] >= ENOUGH and found["examples"] == 360


def test_random_kills_leave_the_bytes_of_an_uninterrupted_run(
    lab: FrameworkLab, whole: FrameworkLab
) -> None:
    seed = random.randrange(1_000_000)
    print(f"The moments of the kills are those of seed {seed}.")
    moment = random.Random(seed)
    kinds = [at_random, during_a_save, at_the_start] * KILLS
    for kind in kinds[:KILLS]:
        reached = lab.limited(kind(lab, moment), MOST)
        group = moment.random() < 0.5  # else the loader's workers outlive their parent
        options = ("--max-steps", str(STEPS), "--save-seconds", "0", "--workers", "2")
        lab.train_until(reached, *options, whole_group=group)
    del lab.env["LIMIT"]
    lab.train()
    assert lab.results() == whole.results()
    assert lab.steps() == tensorboard_steps(lab.folder()) == list(range(1, STEPS + 1))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_any_number_of_workers_gives_the_same_bytes(
    lab: FrameworkLab, whole: FrameworkLab, workers: str
) -> None:
    lab.train("--workers", workers)
    assert lab.results() == whole.results()


@on_one_backend
def test_to_resume_late_draws_no_more_examples_than_to_resume_early(lab: FrameworkLab) -> None:
    drawn = []
    for step in (5, STEPS - 5):
        lab.kill_at(step - lab.count())
        lab.examples()
        lab.train("--max-minutes", "0")
        drawn.append(lab.examples())
    assert drawn[0] == drawn[1] > 0


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_does_something_and_is_exact_over_a_kill(
    lab: FrameworkLab, whole: FrameworkLab, tmp_path: Path, entry: Entry, option: str
) -> None:
    never_cut_off = lab_of(lab.project, tmp_path / "whole", entry)
    never_cut_off.train(*OPTIONS[option])
    assert never_cut_off.sha() != whole.sha()
    lab.kill_at(50, *OPTIONS[option])
    assert "carrying on at step" in lab.train(*OPTIONS[option])
    assert lab.results() == never_cut_off.results()


@on_one_backend
def test_a_signal_saves_and_stops_and_the_run_ends_with_the_same_bytes(
    lab: FrameworkLab, whole: FrameworkLab
) -> None:
    limit = lab.count() + 40
    options = ("--max-steps", str(STEPS))
    output = lab.train_until(lambda: lab.count() > limit, *options, number=signal.SIGTERM)
    assert "saved. The same command carries on." in output
    assert 40 <= len(lab.steps()) < STEPS, "it stops at once, and loses no step"
    lab.train()
    assert lab.results() == whole.results()


@on_one_backend
def test_patience_ends_a_run_that_does_not_get_better(lab: FrameworkLab) -> None:
    lab.train("--patience", "1", "--learning-rate", "0", "--max-steps", "190")
    assert len(lab.steps()) < 190


@on_one_backend
def test_a_learning_rate_is_found_and_found_again(lab: FrameworkLab) -> None:
    command = (lab.package, "find-rate", "--batch-size", "32", "--workers", "0")
    first, again = lab.run(*command), lab.run(*command)
    found = re.search(r"--learning-rate ([\d.e-]+)", first)
    assert found and 1e-5 < float(found[1]) < 1
    # Before it, a library may say what it is built for, with the time of the day.
    tables = [output[output.index("learning rate") :] for output in (first, again)]
    assert tables[0] == tables[1]


def test_a_profiled_run_ends_with_the_same_bytes_and_a_trace(
    lab: FrameworkLab, whole: FrameworkLab, entry: Entry
) -> None:
    if not entry.traces:
        assert "TensorFlow's profiler gives no trace" in lab.train("--profile", code=2)
        return
    output = lab.train("--profile")
    assert "Of 10 steps:" in output and (lab.folder() / "trace.json.gz").stat().st_size > 1_000
    assert lab.results() == whole.results()


def test_the_exported_model_is_the_model(defaults: FrameworkLab, tmp_path: Path) -> None:
    output = tmp_path / "exported"
    done = defaults.run(
        *(defaults.package, "export", "--name", "train"),
        *("--output", str(output / "model.keras")),
    )
    assert "the same as" in done and "on 16 examples" in done


@on_one_backend
def test_a_network_that_does_not_fit_is_refused_and_nothing_lost(
    lab: FrameworkLab, edited: Edited
) -> None:
    lab.kill_at(40)
    kept = lab.checkpoints()
    output = edited("model", "2 * width", "3 * width").train(code=2)
    assert "has other weights than build() makes now" in output
    assert "(16,), now (24,)" in output and "--fresh" in output
    assert lab.checkpoints() == kept


@on_one_backend
def test_another_optimizer_is_refused_and_nothing_lost(
    lab: FrameworkLab, edited: Edited, entry: Entry
) -> None:
    lab.kill_at(40)
    kept = lab.checkpoints()
    output = edited("learner", *entry.optimizer).train(code=2)
    assert "has another optimizer" in output and "--fresh" in output
    assert lab.checkpoints() == kept


@on_one_backend
def test_a_run_of_another_framework_is_refused_and_nothing_lost(
    lab: FrameworkLab, tmp_path: Path
) -> None:
    lab.kill_at(40)
    kept = lab.checkpoints()
    other = generate(tmp_path, {"framework": "pytorch"})
    output = Lab(other, lab.storage).train(code=2)
    assert "framework" in output and "--fresh" in output
    assert "Traceback" not in output
    assert lab.checkpoints() == kept


@on_one_backend
def test_several_processes_are_refused(lab: FrameworkLab) -> None:
    lab.env["WORLD_SIZE"] = "2"
    assert "give the command without torchrun" in lab.train(code=2)
    del lab.env["WORLD_SIZE"]
    assert "--shard splits a PyTorch model" in lab.train("--shard", code=2)


@on_one_backend
@needs_bubblewrap
def test_a_workflow_under_bubblewrap_ends_with_the_model_of_the_plain_command(
    defaults: FrameworkLab, entry: Entry, tmp_path: Path
) -> None:
    lab = lab_of(defaults.project, tmp_path, entry)
    lab.env |= {"GRADLAB_NETWORK": "off", **warm.for_jobs(entry.modules, lab.environment())}
    lab.run("gradlab", "run", "train", "--engine", "bubblewrap")
    run = newest(lab, f"{lab.package}-run") / "runs" / "train"
    for name in ("model.safetensors", "metrics.jsonl", "best.safetensors"):
        assert sha(run / name) == defaults.sha("train", name)


@on_one_backend
def test_a_fresh_project_passes_its_own_checks(
    fresh: Path, entry: Entry, shared: Path, tmp_path: Path
) -> None:
    shell = Shell(fresh, tmp_path / "tools", entry.modules, entry.env)
    shell.lint()
    shell.check(shared)
