"""The notebook of a project in another framework than PyTorch, on the services' machines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ..conftest import generate
from ..frameworks import FRAMEWORKS, Entry
from ..frameworks.conftest import edit, lab_of
from .cloud import Cloud
from .gitserver import Server
from .machines import Machines
from .notebook import Notebook
from .test_notebook import CHECK, ENV, KEPT, SHORT, model, only_trains, open_notebook

pytestmark = pytest.mark.slow
# A machine has what Colab has preinstalled, but for TensorFlow.
HERE = [entry for entry in FRAMEWORKS if entry.name != "keras-tensorflow"]


@pytest.mark.parametrize("entry", HERE, ids=[entry.name for entry in HERE])
def test_in_colab_and_on_gradient_the_bytes_of_a_plain_run_come_out(
    server: Server, machines: Machines, cloud: Cloud, tmp_path: Path, entry: Entry
) -> None:
    project = generate(tmp_path, {"framework": entry.framework})
    edit(project, "config", "epochs: int = 60", "epochs: int = 2")
    only_trains(project)
    plain = lab_of(project, tmp_path / "plain", entry)
    plain.run(plain.package, "train", "--name", "train")
    env, machines.frameworks = {**ENV, **entry.env}, ("jax", "keras")
    repository = server.add(project, name=project.name)
    trained(open_notebook(machines.colab(cloud, env=env), repository, workflow=SHORT))
    assert model(cloud.files / KEPT) == plain.sha("train")
    notebooks, storage = tmp_path / "notebooks", tmp_path / "storage"
    shutil.copytree(project, notebooks)
    machine = machines.gradient(notebooks, storage, env=env)
    fields = {"workflow": SHORT, "show_tensorboard": False}
    trained(machine.notebook(notebooks / "notebooks/train.ipynb", **fields))
    assert model(storage / project.name) == plain.sha("train")


def trained(book: Notebook) -> None:
    """Run a notebook that only trains, but for the check of the machine."""
    assert "Safe: " in book.skip(CHECK).run()
