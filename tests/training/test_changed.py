"""Code or data that have changed: a run is never taken for one that they trained."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors import safe_open

from gradlab.base.errors import GradlabError
from gradlab.store import source

from ..conftest import Bake
from ..kit import KIT, paths
from ..lab import Lab

# Two steps' worth: what counts is what comes after.
SHORT = ["--epochs", "1", "--model.width", "4", "--batch-size", "256", "--workers", "1"]
LONGER = ["--epochs", "9", *SHORT[2:], "--save-seconds", "0"]
# Imports torch once, then does each case in a child of its own.
DRIVER = '''
import json, os, sys
import torch, torch._dynamo, torch._inductor, sklearn.datasets, scipy.ndimage, numpy
import safetensors.torch, matplotlib.pyplot
def die_once_saved():
    """Die as by a kill, once a checkpoint is there."""
    import signal
    from gradlab.train import runs
    save = runs.Run.save
    def saved(run, step, *rest):
        save(run, step, *rest)
        if run.wait():  # the first: on a slow disk the next may be the last
            os.kill(os.getpid(), signal.SIGKILL)
    runs.Run.save = saved
for line in sys.stdin:
    case = json.loads(line)
    if not (pid := os.fork()):
        os.chdir(case["folder"])
        sys.path[:0] = [case["folder"] + "/src", case["folder"] + "/kit"]
        os.environ.update(case["env"])
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1); os.dup2(log, 2)
        import runpy
        if case["dies"]:
            die_once_saved()
        sys.argv = case["arguments"]
        try:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 70
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code or 0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
'''


class Edit(NamedTuple):
    """A change of one file of the project: `old` becomes `new`; without `old`, the file is new."""

    file: str
    old: str
    new: str
    says: str = ""


AUGMENTATION = Edit("PKG/data.py", "uniform(-12, 12)", "uniform(-40, 40)", "data.py has changed")
MODEL = Edit("PKG/model.py", "nn.ReLU(inplace=True)", "nn.GELU()", "model.py has changed")
CHANGES = {
    "augmentation": [AUGMENTATION],
    "model": [MODEL],
    "loss": [
        Edit(
            "PKG/task.py",
            '{"loss": cross_entropy(',
            '{"loss": 2 * cross_entropy(',
            "task.py has changed",
        )
    ],
    "what is best": [
        Edit(
            "PKG/task.py",
            'split["predicted"] == split["true"]',
            '(split["predicted"] == split["true"]) & (split["true"] < 5)',
            "task.py has changed",
        )
    ],
    "a default": [
        Edit("PKG/config.py", "FREE = {", "EXTRA = 1\nFREE = {", "config.py has changed")
    ],
    "a new module": [
        Edit(
            "PKG/model.py",
            "from torch import",
            "from .extra import x\nfrom torch import",
            "src/PKG/extra.py is new",
        ),
        Edit("PKG/extra.py", "", "x = 1\n"),
    ],
    "a module beside the package": [
        Edit(
            "PKG/data.py",
            "import numpy",
            "import beside.deep\nimport numpy",
            "src/beside/deep.py is new",
        ),
        Edit("beside/__init__.py", "", ""),
        Edit("beside/deep.py", "", "x = 1\n"),
    ],
    "a table in the package": [Edit("PKG/labels.json", "", "[1]", "labels.json is new")],
    "order": [
        Edit(
            "gradlab/train/keyed.py",
            '"order", epoch',
            '"order", epoch + 1',
            "gradlab/train/keyed.py has changed",
        )
    ],
}
NO_CHANGES = {
    "a comment": [Edit("PKG/data.py", "LABELS =", "# The labels.\nLABELS =")],
    "a docstring": [Edit("PKG/model.py", "Give the logits.", "Give logits,\n\nnine.")],
    "a setting's docstring": [Edit("PKG/config.py", "Weight decay of AdamW.", "Decay.")],
    "formatting": [Edit("PKG/data.py", "centre + np.random", "(\n  centre\n  ) + np.random"),
                   Edit("PKG/data.py", "float32)", "float32, )")],
    "the export": [Edit("PKG/export.py", "TOLERANCE = 1e-4", "TOLERANCE = 1e-3")],
    "the commands": [Edit("PKG/__main__.py", 'name=""', "name=str()")],
    "a page in the package": [Edit("PKG/NOTES.md", "", "# Notes\n")],
    "what editors leave": [Edit("PKG/.ipynb_checkpoints/data-checkpoint.py", "", "x = 1\n"),
                           Edit("PKG/data.py~", "", "x"), Edit("PKG/Untitled.ipynb", "", "{}")],
    "the kit's messages": [Edit("gradlab/train/runs.py", "Stopped at step", "Ended at step")],
    "a test": [Edit("../tests/test_new.py", "", "def test_nothing(): pass\n")],
}  # fmt: skip


class Copies:
    """Copies of a project with a run that is finished, each edited and then used."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder, self.count = lab, folder, 0
        self.driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths(), "OMP_NUM_THREADS": "1"},
        )

    def edited(self, *edits: Edit) -> Path:
        self.count += 1
        root = self.folder / str(self.count)
        shutil.copytree(self.lab.project, root, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(self.lab.storage, root / "storage")
        for edit in edits:
            of_the_kit = edit.file.startswith("gradlab/")
            if of_the_kit and not (root / "kit").exists():
                shutil.copytree(KIT, root / "kit", ignore=shutil.ignore_patterns("__pycache__"))
                shutil.rmtree(root / "vendor")  # which holds the kit as it was
            top = root / ("kit" if of_the_kit else "src")
            path = top / edit.file.replace("PKG", self.lab.package)
            text = path.read_text() if edit.old else ""
            assert edit.old in text
            path.parent.mkdir(exist_ok=True)
            path.write_text(text.replace(edit.old, edit.new) if edit.old else edit.new)
        return root

    def run(self, root: Path, *arguments: str, dies: bool = False, **env: str) -> tuple[int, str]:
        env = {"GRADLAB_STORAGE": str(root / "storage"), **env}
        case = {"folder": str(root), "arguments": arguments, "env": env, "dies": dies}
        assert self.driver.stdin and self.driver.stdout
        print(json.dumps(case), file=self.driver.stdin, flush=True)
        code = int(self.driver.stdout.readline())
        return code, (root / "log").read_text()

    def train(self, root: Path, *options: str, **env: str) -> tuple[int, str]:
        return self.run(root, self.lab.package, "train", *SHORT, *options, **env)

    def killed(self, *edits: Edit) -> Path:
        """Give a copy with a run that was killed after some steps."""
        root = self.edited(*edits)
        shutil.rmtree(root / "storage")
        code, output = self.run(root, self.lab.package, "train", *LONGER, dies=True)
        assert code == -signal.SIGKILL, output
        return root

    def carry_on(self, root: Path, *options: str) -> tuple[int, str]:
        return self.run(root, self.lab.package, "train", *LONGER, *options)


def edit(root: Path, *edits: Edit) -> None:
    """Edit a copy of the project once more."""
    for file, old, new, _ in edits:
        path = root / "src" / file.replace("PKG", root_package(root))
        assert old in path.read_text()
        later = path.stat().st_mtime + 2
        path.write_text(path.read_text().replace(old, new))
        # Else two edits within a second that leave its size alike would share their bytecode.
        os.utime(path, (later, later))


def root_package(root: Path) -> str:
    return next((root / "src").glob("*/train.py")).parent.name


def model(root: Path, run: str = "default") -> dict[str, Any]:
    """Read the settings that a run's model holds."""
    with safe_open(root / "storage/runs" / run / "best.safetensors", "np") as file:
        settings: dict[str, Any] = json.loads(file.metadata()["settings"])
        return settings


def results(root: Path, run: str = "default") -> list[bytes]:
    names = ("best.safetensors", "model.safetensors", "metrics.jsonl")
    return [(root / "storage/runs" / run / name).read_bytes() for name in names]


def steps(root: Path) -> list[int]:
    lines = (root / "storage/runs/default/metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


@pytest.fixture(scope="module")
def copies(project: Path) -> Iterator[Copies]:
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(project, Path(folder) / "storage")
        made = Copies(lab, Path(folder))
        lab.storage.mkdir()
        root = made.edited()
        code, output = made.train(root)
        assert code == 0 and "Finished" in output, output
        shutil.rmtree(lab.storage)
        shutil.copytree(root / "storage", lab.storage)
        yield made
        made.driver.kill()
        made.driver.wait()


def test_a_run_that_other_code_has_finished_is_trained_anew_and_kept(copies: Copies) -> None:
    root = copies.edited(*(edit for edits in CHANGES.values() for edit in edits))
    before, trained = results(root), model(root)["learned_from"]
    code, output = copies.train(root)
    assert code == 0 and "trained anew" in output and "starting at step 0" in output, output
    for name, edits in CHANGES.items():
        assert edits[0].says.replace("PKG", copies.lab.package) in output, name
    assert results(root, "default~") == before and results(root)[0] != before[0]
    (now,) = model(root)["learned_from"]
    assert now["after_step"] == 0 and now["code"] != trained[0]["code"]
    code, output = copies.train(root)
    assert code == 0 and "finished at step" in output and "changed" not in output, output


def test_no_run_is_lost_however_often_the_code_changes(copies: Copies) -> None:
    root, before = copies.edited(), list[list[bytes]]()
    for degrees in (30, 35, 40):
        before.append(results(root))
        edit(root, Edit("PKG/data.py", "ndimage.affine", f"{degrees} and ndimage.affine"))
        assert copies.train(root)[0] == 0
    asides = (root / "storage/runs").glob("default~*")
    kept = {path.name: (path / "best.safetensors").read_bytes() for path in asides}
    assert len(kept) == 3 and set(kept.values()) == {each[0] for each in before}


@pytest.mark.parametrize("options", [[], ["--accept-changes"]])
def test_strict_refuses_what_other_code_has_trained(copies: Copies, options: list[str]) -> None:
    root = copies.edited(AUGMENTATION)
    before = results(root)
    code, output = copies.train(root, "--strict", *options)
    assert code == 2 and "data.py has changed" in output and "--strict" in output, output
    assert "--name" in output and "--fresh" in output
    assert results(root) == before and not (root / "storage/runs/default~").exists()


def test_an_edited_default_is_no_setting_that_was_given(copies: Copies) -> None:
    rate = Edit("PKG/config.py", "learning_rate: float = 4e-3", "learning_rate: float = 2e-3")
    code, output = copies.train(copies.edited(rate))
    assert code == 0 and "starting at step 0" in output, output
    assert "the default of learning_rate is 0.002, 0.004 before" in output
    code, output = copies.train(copies.edited(), "--learning-rate", "2e-3")
    assert code == 2 and "begun with other settings" in output and "learning_rate" in output


RATE = Edit(
    "PKG/config.py",
    "learning_rate: float = 4e-3",
    "learning_rate: float = 2e-3",
    "the default of learning_rate is 0.002, 0.004 before",
)
BEST = Edit("PKG/task.py", '"val_accuracy", "highest"', '"val_loss", "lowest"', "task.py has")
PIXEL = Edit(
    "PKG/data.py",
    "    kinds =",
    "    images[train[0], 3, 3] += 0.5\n    kinds =",
    "examples looked at differ",
)


@pytest.mark.parametrize("change", [AUGMENTATION, PIXEL, RATE, BEST])
def test_a_run_under_way_carries_on_and_its_model_tells_which_code_made_what(
    copies: Copies, change: Edit
) -> None:
    root = copies.killed()
    edit(root, change)
    code, output = copies.carry_on(root)
    assert code == 0 and "Finished" in output, output
    assert "carrying on at step" in output, output
    told = output.index(change.says.replace("PKG", copies.lab.package))
    assert told < output.index("carrying on at step")
    settings = model(root)
    first, second = settings["learned_from"]
    assert first["after_step"] == 0 and second["after_step"] > 0
    assert f"goes on from step {second['after_step']}" in output
    assert first["code"] != second["code"]
    assert settings["learning_rate"] == 0.004 and settings["best"] == ["val_accuracy", "highest"]
    assert steps(root) == list(range(1, 37))
    code, output = copies.carry_on(root)
    assert code == 0 and "finished at step" in output, output
    assert len(model(root)["learned_from"]) == 2
    code, output = copies.run(root, copies.lab.package, "evaluate")
    assert code == 0 and f"up to step {second['after_step']} by other code" in output, output


BLOCK, TAKES = "_block(width, width),", 'state["best"], state["unjudged"]'
UNFIT = {
    "optimizer": (Edit("PKG/learner.py", "optim.AdamW(", "optim.SGD("), "another optimizer"),
    "state": (Edit("PKG/train.py", TAKES, TAKES.replace("best", "good")), "does not fit the code"),
    "network": (Edit("PKG/model.py", BLOCK, f"{BLOCK} {BLOCK}"), "other weights"),
    "fewer examples": (Edit("PKG/data.py", "part(train,", "part(train[9:],"), "another order"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_run_under_way_that_the_code_no_longer_fits_is_refused_and_kept(
    copies: Copies, kind: str
) -> None:
    change, says = UNFIT[kind]
    root = copies.killed()
    kept = sorted((root / "storage/runs/default/checkpoints").glob("0*"))
    edit(root, change)
    code, output = copies.carry_on(root)
    assert code == 2 and says in output and "Traceback" not in output, output
    assert "--fresh" in output
    assert sorted((root / "storage/runs/default/checkpoints").glob("0*")) == kept
    edit(root, Edit(change.file, change.new, change.old))
    code, output = copies.carry_on(root)
    assert code == 0 and len(model(root)["learned_from"]) == 1, output


def test_code_that_was_put_back_leaves_the_run_as_it_was(copies: Copies) -> None:
    root = copies.killed()
    edit(root, AUGMENTATION)
    assert copies.carry_on(root, "--strict")[0] == 2
    edit(root, Edit(AUGMENTATION.file, AUGMENTATION.new, AUGMENTATION.old))
    assert copies.carry_on(root)[0] == 0
    whole = copies.edited()
    assert copies.carry_on(whole, "--fresh")[0] == 0
    assert results(root) == results(whole)


def test_a_fresh_run_of_a_workflow_starts_its_trainings_over_once(copies: Copies) -> None:
    root = copies.edited()
    for run in ("first", "second"):
        code, output = copies.train(root, GRADLAB_FRESH=run)
        assert code == 0 and "starting at step 0" in output, output
        code, output = copies.train(root, GRADLAB_FRESH=run)
        assert code == 0 and "finished at step" in output, output
    assert "finished at step" in copies.train(root)[1]


def test_edits_that_cannot_alter_the_result_are_no_other_code(copies: Copies) -> None:
    root = copies.edited(*(edit for edits in NO_CHANGES.values() for edit in edits))
    code, output = copies.train(root)
    assert code == 0 and "finished at step" in output, output


# How data differ while code, sizes and names are the same: a file beside the project.
TARGETS = "classes = [int(digit) for digit in data.target]"
READS = Edit("PKG/data.py", TARGETS, f"{TARGETS}\n    exec(open('change.txt').read())")
DATA = {
    "images[0, 3, 3] += 0.5": "examples looked at differ",
    "classes[0] = (classes[0] + 1) % 10": "examples looked at differ",
    "images *= 1.01": "examples looked at differ",
    "del classes[1500:]": "examples",
}
SAME = ("# nothing", "images[:] = np.nextafter(images, np.float32(2))")


@pytest.fixture(scope="module")
def reader(copies: Copies) -> Path:
    root = copies.edited(READS)
    (root / "change.txt").write_text("")
    assert copies.train(root, "--name", "a")[0] == 0
    return root


@pytest.mark.parametrize("change", DATA)
def test_a_run_is_not_taken_for_one_of_other_data(
    copies: Copies, reader: Path, change: str
) -> None:
    (reader / "change.txt").write_text(change)
    code, output = copies.train(reader, "--name", "a", "--strict")
    assert code == 2 and DATA[change] in output, output


@pytest.mark.parametrize("change", SAME)
def test_rounding_as_of_another_processor_is_no_other_data(
    copies: Copies, reader: Path, change: str
) -> None:
    (reader / "change.txt").write_text(change)
    code, output = copies.train(reader, "--name", "a")
    assert code == 0 and "finished at step" in output, output


def test_a_run_that_other_data_have_finished_is_trained_anew(copies: Copies) -> None:
    root = copies.edited(READS)
    for change in ("", *DATA):
        (root / "change.txt").write_text(change)
        code, output = copies.train(root, "--name", "a")
        assert code == 0 and "starting at step 0" in output, output
        assert not change or DATA[change] in output


def test_another_version_of_a_dataset_is_other_data_whatever_examples_show(copies: Copies) -> None:
    imports = "from gradlab.train import inputs\n\nLABELS"
    factor = '(inputs.folder("factor") / "value").read_text()'
    root = copies.edited(
        Edit("PKG/data.py", "\nLABELS", f"\n{imports}"),
        Edit("PKG/data.py", "data.images / 16", f"data.images / 16 * float({factor})"),
    )
    code, output = copies.train(root, "--name", "a")
    assert code == 2 and "gradlab datasets add factor FOLDER" in output, output
    for value in ("1.0", "1.00"):
        (root / "added").mkdir(exist_ok=True)
        (root / "added/value").write_text(value)
        assert copies.run(root, "gradlab", "datasets", "add", "factor", "added")[0] == 0
        code, output = copies.train(root, "--name", "a")
        assert code == 0 and "starting at step 0" in output, output
        assert ("the dataset factor is another one" in output) == (value == "1.00"), output
    assert len(model(root, "a")["learned_from"][0]["data"]) == 1
    (root / "inputs").mkdir()
    shutil.copytree(root / "added", root / "inputs/factor")
    told = {"GRADLAB_INPUTS": str(root / "inputs"), "GRADLAB_DATA": '{"factor": "abc"}'}
    code, output = copies.train(root, "--name", "a", "--strict", **told)
    assert code == 2 and "the dataset factor is another one" in output, output


def test_examples_that_differ_each_time_stop_nothing(copies: Copies) -> None:
    image = "image = np.float32(np.random.default_rng().normal()) + self.images"
    root = copies.edited(Edit("PKG/data.py", "image = self.images", image))
    assert copies.train(root, "--name", "a")[0] == 0
    code, output = copies.train(root, "--name", "a")
    assert code == 0 and "finished at step" in output, output


def test_a_finished_run_is_taken_as_it_is_where_that_is_asked_for(copies: Copies) -> None:
    root = copies.edited(MODEL)
    before = results(root)
    code, output = copies.train(root, "--accept-changes")
    assert code == 0 and "model.py has changed" in output and "finished at step" in output
    assert results(root) == before and "damaged" not in output
    code, output = copies.train(root, "--fresh")
    assert code == 0 and "starting at step 0" in output
    code, output = copies.train(root)
    assert code == 0 and "finished at step" in output


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_a_model_is_not_judged_or_exported_by_other_code(copies: Copies, command: str) -> None:
    root = copies.edited(MODEL)
    code, output = copies.run(root, copies.lab.package, command)
    assert code == 2 and "model.py has changed" in output, output
    assert not (root / "storage/runs/default/evaluation.json").exists()
    code, output = copies.run(root, copies.lab.package, command, "--accept-changes")
    assert code == 0, output


def test_a_model_is_judged_after_the_rest_has_changed_and_that_is_told(copies: Copies) -> None:
    root = copies.edited(AUGMENTATION)
    code, output = copies.run(root, copies.lab.package, "evaluate")
    assert code == 0 and "data.py has changed" in output


def test_the_ways_on_are_those_of_the_workflow_in_a_job(copies: Copies) -> None:
    root = copies.edited(AUGMENTATION)
    place = ".gradient/workflows/train.yaml:31 (job train)"
    job = {"GRADLAB_WORKFLOW": "train", "GRADLAB_JOB_AT": place}
    code, output = copies.train(root, "--strict", **job)
    assert code == 2
    assert f"another RUN (or --name) in {place}" in output
    assert "gradlab run train --fresh" in output
    code, output = copies.train(root, "--batch-size", "100000", "--name", "b", **job)
    assert code == 2 and "--batch-size" in output
    assert f"Its options are given in {place}." in output
    code, output = copies.train(root, **job)
    assert code == 0 and "gradlab run train --accept-changes" in output


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_code_that_cannot_be_read_is_named_and_not_taken_for_absent(
    kind: str, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = lab.project / "src" / lab.package
    real = {"file": Path.read_bytes, "folder": os.scandir}[kind]

    def refuse(path: object, *rest: object) -> object:
        if Path(str(path)) in (package / "model.py", package):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *rest)  # type: ignore[operator]

    monkeypatch.setattr(*((Path, "read_bytes") if kind == "file" else (os, "scandir")), refuse)
    with pytest.raises(GradlabError, match="can't be read"):
        source.code(package)


@pytest.mark.parametrize(
    "framework, own", [("pytorch", "torch"), ("jax", "jax"), ("keras", "keras")]
)
def test_the_kits_files_that_count_are_those_of_the_framework_that_is_used(
    framework: str, own: str, bake: Bake
) -> None:
    [package] = (path.parent for path in bake(framework=framework).glob("src/*/train.py"))
    names = [Path(name) for name in source.code(package) if name.startswith("gradlab/train/")]
    shared = {path.name for path in names if path.parent.name == "train"}
    assert shared == {"keyed.py", "streams.py", "devices.py"}
    of_framework = {path.parent.name for path in names} - {"train"}
    assert of_framework == {own} and Path(f"gradlab/train/{own}/__init__.py") in names
