"""The whole notebook on the services' machines: cut off, moved, opened again, with one result."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

from .. import warm
from ..lab import Lab
from .cloud import Cloud
from .gitserver import Repository, Server
from .machine import Machine
from .machines import Machines
from .notebook import CellError, Notebook

pytestmark = pytest.mark.slow
CHECK = "4. Check the machine"
RUN = "5. Run the workflow"
# What decides the bits beside the settings: the number of threads.
ENV = {"OMP_NUM_THREADS": "1", "GRADLAB_MIRROR_MINUTES": "0.01"}
# Builds the project by the setuptools that is there, not by one that pip fetches for each build.
ENV |= {"PIP_NO_BUILD_ISOLATION": "false", "PIP_NO_WARN_CONFLICTS": "false"}
EPOCHS = 10
STEPS = EPOCHS * (1078 // 64)
SMALLER = {
    "epochs: int = 60": f"epochs: int = {EPOCHS}",
    "width: int = 32": "width: int = 8",
    "save_seconds: float = field(default=5.0": "save_seconds: float = field(default=0.3",
}
# On a machine that has this file examples are slow, so that a kill comes before the end.
SLOWLY = "/var/slowly"
EXAMPLE = "        image = self.images[index]\n"
SLOWER = f"{EXAMPLE}        if os.path.exists({SLOWLY!r}):\n            time.sleep(0.01)\n"
KEPT = "MyDrive/gradlab/my_model"
SHORT = "short"  # the workflow train without what follows training


@pytest.fixture(scope="session")
def small(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with settings of a run of some seconds, which is saved often."""
    folder = tmp_path_factory.mktemp("small") / "my_model"
    shutil.copytree(project, folder)
    config = folder / "src/my_model/config.py"
    text = config.read_text()
    for before, after in SMALLER.items():
        assert before in text
        text = text.replace(before, after)
    config.write_text(text)
    data = folder / "src/my_model/data.py"
    text = data.read_text()
    assert EXAMPLE in text
    data.write_text(
        text.replace(EXAMPLE, SLOWER).replace(
            "import numpy", "import os\nimport time\n\nimport numpy"
        )
    )
    only_trains(folder)
    return folder


def only_trains(project: Path) -> None:
    """Give a project a workflow without what follows training."""
    workflows = project / ".gradient/workflows"
    spec = yaml.safe_load((workflows / "train.yaml").read_text())
    spec["jobs"] = {name: spec["jobs"][name] for name in ("checkout", "train")}
    (workflows / f"{SHORT}.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))


@pytest.fixture(scope="session")
def expected(small: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The SHA-256 of the model that a plain run makes, which was never cut off."""
    lab = Lab(small, tmp_path_factory.mktemp("expected"))
    lab.run("my_model", "train", "--name", "train")
    return lab.sha("train")


@pytest.fixture
def machines(machines: Machines) -> Machines:
    """Machines whose jobs need not load PyTorch."""
    machines.loaded = warm.TRAINING
    return machines


@pytest.fixture
def repository(small: Path, server: Server) -> Repository:
    return server.add(small, name="my_model")


def open_notebook(machine: Machine, repository: Repository, **fields: object) -> Notebook:
    path = repository.work / "notebooks/train.ipynb"
    usual = {"repository": repository.url, "show_tensorboard": False}
    return machine.notebook(path, **{**usual, **fields})


def open_shortened(machine: Machine, repository: Repository, **fields: object) -> Notebook:
    """Open the notebook of one who only trains, and passes over the check of the machine."""
    return open_notebook(machine, repository, workflow=SHORT, **fields).skip(CHECK)


def model(storage: Path) -> str:
    """Give the SHA-256 of the model in the newest version of the run's dataset."""
    return hashlib.sha256(newest(storage).read_bytes()).hexdigest()


def newest(storage: Path) -> Path:
    """Give the model in the newest version of the run's dataset."""
    versions = sorted(
        storage.glob("datasets/my_model-run/v*/manifest.json"),
        key=lambda path: int(re.split("[v-]", path.parent.name)[1]),
    )
    return versions[-1].parent / "data/runs/train/model.safetensors"


def a_save_is_in(cloud: Cloud) -> bool:
    """Tell whether Google holds a whole copy of a run that has been saved."""
    for path in (cloud.files / KEPT).glob("drafts/*/train/*.json"):
        draft = path.parent
        try:
            files = json.loads(path.read_text())["files"]
            copies = {
                name: draft / "files" / f["sha256"][:2] / f["sha256"] for name, f in files.items()
            }
            whole = all(copies[name].stat().st_size == f["size"] for name, f in files.items())
        except (OSError, ValueError):
            continue
        if whole and any("checkpoints/" in name for name in files):
            return True
    return False


def training(text: str) -> bool:
    """Tell whether training has gone on for a while: its progress is shown each second."""
    return any(int(step) for step in re.findall(r"(\d+)/\d+ \[", text))


def is_ahead_of_its_save(machine: Machine) -> bool:
    """Tell whether the run that was killed has recorded steps after its last checkpoint."""
    place = "gradlab-*/*/drafts/*/train/outputs/run/runs/train/metrics.jsonl"
    (path,) = machine.path("/tmp").glob(place)
    newest = max((path.parent / "checkpoints").glob("*.safetensors"), key=lambda save: save.name)
    return path.read_bytes().count(b"\n") > int(newest.name[:10])


def kill_in_the_run(
    machine: Machine, book: Notebook, when: Callable[[str], object], children: bool = False
) -> None:
    """Run the workflow and kill the kernel in the middle of the training."""
    machine.run("touch", SLOWLY)
    book.kill_during(RUN, when, children=children)
    machine.run("rm", SLOWLY)


def wait_for_its_end(machine: Machine) -> None:
    """Wait until a run whose kernel has gone has saved and ended."""
    machine.run("sh", "-c", "while pgrep -f '[g]radlab run' > /dev/null; do sleep 0.2; done")


def once(when: Callable[[str], object], do: Callable[[], object]) -> Callable[[str], None]:
    """Give a watcher of a cell's text that does something the first time that it says so."""
    done: list[object] = []

    def watch(text: str) -> None:
        if not done and when(text):
            done.append(do())

    return watch


# A workflow that needs no torch, and one that needs a secret.
TELL = """
jobs:
  job:
    uses: script@v1
    outputs:
      data: {type: dataset, with: {ref: told}}
    with:
      image: bash:5
      script: |-
        echo "${TOKEN:+it has ${#TOKEN} characters and is $TOKEN}"
        echo something > /outputs/data/file
"""
SECRET = TELL.replace("outputs:", "env: {TOKEN: secret:MY_TOKEN}\n    outputs:")

# One result everywhere


def test_in_colab_everything_runs_and_is_on_drive(
    repository: Repository, machines: Machines, cloud: Cloud, expected: str
) -> None:
    # As a user's machine builds, in an environment of its own, and trains.
    machines.loaded = ()
    machine = machines.colab(cloud, env=ENV | {"PIP_NO_BUILD_ISOLATION": "true"})
    before = machine.run("python", "-m", "pip", "freeze")
    book = open_notebook(machine, repository, as_onnx=False, download=True, show_tensorboard=True)
    text = book.run()
    assert set(before.splitlines()) <= set(machine.run("python", "-m", "pip", "freeze").split("\n"))
    assert "engine machine" in text and "360 test examples" in text
    assert [o.data for o in book.outputs("6. Look") if "image/png" in o.get("data", {})][1:]
    assert "[application/javascript]" in book.text("6. TensorBoard")
    assert "Safe: /content/drive/MyDrive/gradlab/my_model" in book.text("7. Leave")
    assert [event["event"] for event in cloud.events()][-1] == "unmount"
    assert model(cloud.files / KEPT) == expected


def test_in_a_gradient_notebook_the_same_bytes_come_out(
    small: Path, machines: Machines, tmp_path: Path, expected: str
) -> None:
    notebooks, storage = tmp_path / "notebooks", tmp_path / "storage"
    shutil.copytree(small, notebooks)
    machines.loaded = ()
    machine = machines.gradient(notebooks, storage, env=ENV)
    book = machine.notebook(notebooks / "notebooks/train.ipynb")
    text = book.run()
    assert "The code is the checkout in which this notebook lies" in text
    assert "Safe: /storage/my_model" in text
    assert model(storage / "my_model") == expected
    assert "TensorBoard: https://tensorboard-" in text
    book.kill()  # TensorBoard lives on, at the only port that there is for it
    book.run(stop=RUN)
    with pytest.raises(CellError, match="from the top"):
        book.run_cell("6. TensorBoard")
    with pytest.raises(CellError, match="Stopped"):
        book.run_cell(RUN, watch=once(lambda text: "[train]" in text, book.interrupt))
    assert "TensorBoard: https://tensorboard-" in book.run_cell("6. TensorBoard")


def test_a_run_that_died_in_colab_ends_on_gradient_with_the_same_bytes(
    repository: Repository,
    small: Path,
    machines: Machines,
    cloud: Cloud,
    tmp_path: Path,
    expected: str,
) -> None:
    colab = machines.colab(cloud, env=ENV)
    book = open_notebook(colab, repository)
    book.run(stop=RUN)
    kill_in_the_run(colab, book, lambda _: a_save_is_in(cloud))
    colab.die()
    notebooks, storage = tmp_path / "notebooks", tmp_path / "storage"
    shutil.copytree(small, notebooks)
    shutil.copytree(cloud.files / KEPT, storage / "my_model")
    machine = machines.gradient(notebooks, storage, env=ENV)
    text = machine.notebook(notebooks / "notebooks/train.ipynb", show_tensorboard=False).run()
    assert re.search(r"carrying on at step [1-9]", text), text
    assert model(storage / "my_model") == expected


def test_code_that_was_edited_before_the_next_machine_is_told_and_the_run_goes_on(
    repository: Repository, small: Path, machines: Machines, cloud: Cloud
) -> None:
    machine = machines.colab(cloud, env=ENV)
    book = open_shortened(machine, repository)
    book.run(stop=RUN)
    kill_in_the_run(machine, book, lambda _: a_save_is_in(cloud))
    machine.die()
    data, config = "src/my_model/data.py", "src/my_model/config.py"
    edited = (small / data).read_text().replace("(-12, 12)", "(-40, 40)")
    edited = edited.replace("    kinds =", "    images += 1\n    kinds =")
    default = (small / config).read_text().replace("float = 4e-3", "float = 2e-3")
    repository.commit({data: edited, config: default})
    text = open_shortened(machines.colab(cloud, env=ENV), repository).run()
    assert "src/my_model/data.py has changed" in text and "examples looked at differ" in text
    assert "the default of learning_rate is 0.002, 0.004 before" in text
    assert re.search(r"goes on from step [1-9]", text), text
    with safe_open(newest(cloud.files / KEPT), "np") as file:
        first, second = json.loads(file.metadata()["settings"])["learned_from"]
    assert first["code"][data[4:]] != second["code"][data[4:]]


# Cut off on one machine


@pytest.mark.parametrize("children", [False, True], ids=["kernel", "all"])
def test_a_kernel_that_is_killed_in_the_run_costs_the_steps_since_the_last_save(
    repository: Repository,
    machines: Machines,
    cloud: Cloud,
    expected: str,
    children: bool,
) -> None:
    machine = machines.colab(cloud, env=ENV)
    book = open_shortened(machine, repository)
    book.run(stop=RUN)
    kill_in_the_run(machine, book, training, children)
    lost = children and is_ahead_of_its_save(machine)
    wait_for_its_end(machine)
    text = book.run()
    assert re.search(r"carrying on at step [1-9]", text), text
    # The kernel alone: the run notices and saves. All of it: the steps since are counted.
    assert ("steps after the last checkpoint were lost and are done again" in text) == lost
    assert model(cloud.files / KEPT) == expected


def test_a_kernel_that_is_killed_in_any_other_cell_costs_nothing(
    repository: Repository, machines: Machines, cloud: Cloud, expected: str
) -> None:
    repository.commit({".gradient/workflows/tell.yaml": TELL})
    book = open_notebook(machines.colab(cloud, env=ENV), repository, workflow="tell")
    others = [number for number in range(len(book.cells)) if number != book.cell(RUN)]
    for number in others:
        book.run(stop=number)
        with contextlib.suppress(AssertionError):  # a cell that was too quick
            book.kill_during(number, lambda _: True, children=True)
        if number == book.cell(CHECK):  # it only looks, and takes as long as all before it
            book.run(stop=RUN)
            book.skip(CHECK)
    book.set(workflow=SHORT)
    assert "Safe" in book.run()
    assert model(cloud.files / KEPT) == expected


def test_a_stop_saves_running_again_carries_on_and_the_model_is_taken_along(
    machines: Machines, expected: str, tmp_path: Path, small: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(small, home)
    machine = machines.jupyter(home, env=ENV)
    book = machine.notebook(home / "notebooks/train.ipynb", as_onnx=True, download=True)
    book.run(stop=RUN)
    machine.run("touch", SLOWLY)
    with pytest.raises(CellError, match="Stopped") as error:
        book.run_cell(RUN, watch=once(training, book.interrupt))
    machine.run("rm", SLOWLY)
    assert error.value.traceback == error.value.evalue
    assert re.search(r"carrying on at step [1-9]", book.run_cell(RUN))
    assert model(home / "storage") == expected
    assert "train.onnx: the same as" in book.run_cell("6. Take")
    assert (home / "exports/train.onnx").stat().st_size > 1_000


# Drive at its worst

FAULTS = {
    "uploads that lag behind": {"upload_seconds": 1.0},
    "nothing is ever uploaded": {"upload_seconds": "never"},
    "no rename, no append, no link, no lock, small folders": {
        "rename": "EIO",
        "append_stays_empty": True,
        "symlink": "EPERM",
        "locks": "ENOSYS",
        "entries": 60,
    },
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_machine_that_is_taken_back_is_followed_by_another(
    repository: Repository, machines: Machines, cloud: Cloud, expected: str, fault: str
) -> None:
    faults = FAULTS[fault]
    cloud.faults(**faults)
    machine = machines.colab(cloud, env=ENV)
    book = open_shortened(machine, repository)
    book.run(stop=RUN)
    lost = faults.get("upload_seconds") == "never"
    kill_in_the_run(machine, book, training if lost else lambda _: a_save_is_in(cloud))
    machine.die()
    # How much had arrived is a matter of luck.
    saved = a_save_is_in(cloud)
    assert not (lost and saved)
    if lost:
        cloud.faults()
    text = open_shortened(machines.colab(cloud, env=ENV), repository).run()
    assert bool(re.search(r"carrying on at step [1-9]", text)) == saved, text
    assert model(cloud.files / KEPT) == expected


def test_a_model_that_was_not_uploaded_in_time_is_made_again_from_the_last_save(
    repository: Repository, machines: Machines, cloud: Cloud, expected: str
) -> None:
    cloud.faults(stuck="*/datasets/*/data/runs/*")
    machine = machines.colab(cloud, env=ENV)
    open_shortened(machine, repository).run("6. Look")
    machine.die()
    cloud.faults()
    text = open_shortened(machines.colab(cloud, env=ENV), repository).run()
    assert "was not uploaded whole" in text, text
    assert f"Run 'train': finished at step {STEPS}" in text, text
    assert "\nSafe: " in text, text
    assert model(cloud.files / KEPT) == expected


def test_a_drive_that_dies_in_the_run_is_mounted_again(
    repository: Repository, machines: Machines, cloud: Cloud, expected: str
) -> None:
    book = open_shortened(machines.colab(cloud, env=ENV), repository)
    book.run(stop=RUN)
    cloud.faults(crash_at_write=30)
    text = book.run_cell(RUN, watch=lambda text: "mounting it again" in text and cloud.faults())
    assert "Google Drive is there again." in text
    book.run()
    assert model(cloud.files / KEPT) == expected


def test_a_drive_that_is_full_ends_the_run_and_loses_nothing(
    repository: Repository, machines: Machines, cloud: Cloud, expected: str
) -> None:
    book = open_shortened(machines.colab(cloud, env=ENV), repository)
    book.run(stop=RUN)
    cloud.faults(quota=20_000, quota_error="EDQUOT")
    with pytest.raises(CellError, match="exit status 1"):
        book.run_cell(RUN)
    assert os.strerror(errno.EDQUOT) in book.text(RUN)
    cloud.faults()
    text = book.run()
    assert re.search(rf"finished at step {STEPS} of {STEPS}|\[train\] reused", text), text
    assert model(cloud.files / KEPT) == expected


def test_a_drive_that_fails_for_a_while_is_waited_for(
    repository: Repository, machines: Machines, cloud: Cloud, expected: str
) -> None:
    book = open_shortened(machines.colab(cloud, env=ENV), repository)
    book.run(stop=RUN)
    fail = once(training, lambda: cloud.faults(eio=[{"until": time.time() + 3}]))
    book.run_cell(RUN, watch=fail)
    book.run()
    assert model(cloud.files / KEPT) == expected


# Beside training

VALUE = "only-in-the-environment"


def test_on_a_newer_python_a_job_gets_the_service_s_secret(
    repository: Repository, machines: Machines, cloud: Cloud
) -> None:
    repository.commit({".gradient/workflows/tell.yaml": SECRET})
    cloud.user(secrets={"MY_TOKEN": VALUE})
    machine = machines.colab(cloud, python="3.13", env=ENV)
    book = open_notebook(machine, repository, workflow="tell")
    assert "As it was: torch 2.11.0" in book.run(stop="4. Check")
    with pytest.raises(CellError, match="gradlab doctor: see above"):
        book.run_cell("4. Check")  # there is no torch on this machine but in name
    assert f"it has {len(VALUE)} characters and is ***" in book.run_cell(RUN)
    assert "told:v1-" in book.run_cell("6. Look")
    assert "Safe" in book.run_cell("7. Leave")
    assert VALUE not in book.text()
    for folder in (cloud.files, machine.path("/content"), machine.path("/tmp")):
        files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        assert not [path for path in files if VALUE.encode() in path.read_bytes()]


def test_what_the_service_brought_is_kept_or_the_requirement_that_forbids_it_named(
    repository: Repository, machines: Machines
) -> None:
    repository.commit({"requirements.txt": "numpy<1.20\n"})
    machine = machines.kaggle()
    before = machine.run("python", "-m", "pip", "freeze")
    book = open_notebook(machine, repository)
    with pytest.raises(CellError, match="Not installed"):
        book.run(stop="4. Check")
    text = book.text("3. Install")
    assert "numpy<1.20" in text and "lower bounds are best" in text
    assert machine.run("python", "-m", "pip", "freeze") == before
