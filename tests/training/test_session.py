"""Where it runs, what that keeps, and what `gradlab doctor` says about it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, get_type_hints

import pytest

from gradlab.base.errors import GradlabError
from gradlab.services import machine, session
from gradlab.services.mounts import filesystem
from gradlab.services.table import here
from gradlab.train import devices
from gradlab.train.torch import World

from ..conftest import Bake
from ..kit import paths
from ..lab import Lab, call

GRADIENT = {"PAPERSPACE_NOTEBOOK_REPO_ID": "r1"}
COLAB = {"COLAB_RELEASE_TAG": "release-colab_20260819", "COLAB_GPU": ""}
KAGGLE = {**COLAB, "KAGGLE_KERNEL_RUN_TYPE": "Interactive"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the variables that tell services apart."""
    for name in os.environ:
        if name.startswith(("GRADLAB_", "COLAB_", "PAPERSPACE_", "KAGGLE_", "VERTEX_")):
            monkeypatch.delenv(name)

    def change(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return change


@pytest.mark.parametrize(
    "variables, name",
    [
        ({}, "local"),
        (COLAB, "colab"),
        ({"COLAB_BACKEND_VERSION": "next"}, "colab"),
        ({**COLAB, "VERTEX_PRODUCT": "COLAB_ENTERPRISE"}, "colab-enterprise"),
        (KAGGLE, "kaggle"),
        (GRADIENT, "gradient-notebook"),
        ({"PAPERSPACE_API_KEY": "the user's own"}, "local"),
    ],
)
def test_services_are_told_apart(
    environment: Callable[..., None], variables: dict[str, str], name: str
) -> None:
    environment(variables)
    assert here().id == name


def test_colab_without_drive_keeps_nothing(environment: Callable[..., None]) -> None:
    environment(COLAB)
    storage = session.storage("demo")
    assert not storage.persistent and "mount Google Drive" in storage.why


def test_a_folder_on_a_drive_that_is_not_mounted_is_refused(
    environment: Callable[..., None],
) -> None:
    environment({**COLAB, "GRADLAB_STORAGE": "/content/drive/MyDrive/demo"})
    with pytest.raises(GradlabError, match="Google Drive is not mounted"):
        session.storage("demo")


def test_a_local_project_keeps_its_storage_in_its_own_folder(
    environment: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment({})
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "demo"\n')
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")
    assert session.storage("demo").path == tmp_path / "storage"
    assert session.project_name(session.project_root()) == "demo"


def test_a_file_system_is_recognised_through_spaces_and_overmounts(
    tmp_path: Path, mounts: Callable[..., None]
) -> None:
    folder = tmp_path / "My Drive"
    folder.mkdir()
    before = filesystem(folder / "file")
    mounts("-t", "tmpfs", "tmpfs", str(folder))
    assert filesystem(folder / "file") == "tmpfs" != before
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "again").symlink_to("link")
    (tmp_path / "circle").symlink_to("circle")
    assert filesystem(tmp_path / "again" / "new" / "file") == "tmpfs"
    assert filesystem(tmp_path / "circle") == before


def test_a_store_behind_a_link_is_the_store_it_leads_to(
    environment: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "storage").symlink_to("disk")
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    for env in ({"GRADLAB_STORAGE": str(tmp_path / "storage")}, {}):
        environment(env)
        assert session.storage("demo").path == tmp_path / "disk"
    environment({**COLAB, "GRADLAB_STORAGE": str(tmp_path / "drive")})
    (tmp_path / "drive").symlink_to("/content/drive/MyDrive")
    with pytest.raises(GradlabError, match="Google Drive is not mounted"):
        session.storage("demo")


def test_the_session_ends_when_the_service_says(environment: Callable[..., None]) -> None:
    environment({})
    assert session.deadline() is None
    environment({"GRADLAB_SESSION_MINUTES": "30"})
    assert session.deadline() == pytest.approx(machine.started() + 1800, abs=1)
    environment({"GRADLAB_SESSION_MINUTES": "soon"})
    with pytest.raises(GradlabError, match="'soon', not a number: for 6 hours set it to 360"):
        session.deadline()


@pytest.mark.parametrize("given", [{}, {"GRADLAB_SCRATCH": "/fast"}])
def test_no_two_storages_or_projects_share_scratch_space(
    environment: Callable[..., None], given: dict[str, str]
) -> None:
    found = set()
    for storage in ("/one", "/two"):
        environment({"GRADLAB_STORAGE": storage, **given})
        found |= {session.scratch(project) for project in ("demo", "other")}
    assert len(found) == 4
    assert all(str(path).startswith("/fast/") for path in found) or not given


@pytest.mark.parametrize(
    "arch, gpu, runs",
    [
        ("sm_75", (7, 5), True),
        ("sm_80", (8, 6), True),
        ("sm_90", (8, 0), False),
        ("sm_50", (5, 2), True),
        ("sm_60", (5, 2), False),
        ("compute_70", (7, 5), True),
        ("sm_75", (6, 1), False),
        ("sm_90a", (9, 0), True),
        ("sm_120", (12, 0), True),
    ],
)
def test_a_gpu_is_matched_with_what_torch_was_built_for(
    arch: str, gpu: tuple[int, int], runs: bool
) -> None:
    assert devices.runs_code(arch, *gpu) is runs


def test_the_doctor_shows_a_healthy_machine_and_exits_with_zero(lab: Lab) -> None:
    output = lab.run("gradlab", "doctor")
    for word in ("service", "device", "memory", "storage", "space", "time left", "torch 2."):
        assert word in output
    assert f"{lab.storage} (persistent: set by GRADLAB_STORAGE)" in output


def test_the_doctor_says_how_to_get_a_gpu_where_one_is_asked_for(lab: Lab) -> None:
    lab.env |= COLAB
    output = lab.run("gradlab", "doctor", "--gpu", code=1)
    assert "Change runtime type" in output
    assert "NOT persistent" in output


def test_the_doctor_warns_of_a_store_that_is_nearly_full(
    lab: Lab, mounts: Callable[..., None]
) -> None:
    lab.storage.mkdir()
    mounts("-t", "tmpfs", "-o", "size=10m", "tmpfs", str(lab.storage))
    assert "delete old runs and datasets" in lab.run("gradlab", "doctor")


def test_the_doctor_warns_when_the_session_is_nearly_over(lab: Lab) -> None:
    lab.env["GRADLAB_SESSION_MINUTES"] = "1"
    assert "will have to carry on in the next session" in lab.run("gradlab", "doctor")


@pytest.mark.parametrize("function", [World.place, World.share])
def test_what_is_handed_back_keeps_its_type(function: Callable[..., object]) -> None:
    # Else a model's own methods are unknown to mypy.
    types = list(get_type_hints(function).values())
    assert isinstance(types[-1], TypeVar) and types[-1] is types[0]


@pytest.mark.parametrize(
    "framework, module, how",
    [
        ("pytorch", "torch", "--find-links vendor --editable ."),
        ("jax", "jax", "--find-links vendor --editable ."),
        ("keras", "tensorflow", '".[tensorflow]"; or ".[jax]", and set KERAS_BACKEND=jax'),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_what_installs_it(
    bake: Bake, tmp_path: Path, framework: str, module: str, how: str
) -> None:
    lab = Lab(bake(framework=framework), tmp_path / "storage")
    hidden = tmp_path / "hidden" / module
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text(f"raise ModuleNotFoundError(name={module!r})")
    env = lab.environment() | {"PYTHONPATH": paths(hidden.parent, "src")}
    output = call(lab.project, sys.executable, "-m", "my_model", "train", code=2, **env)
    assert f"needs {module}, which is not installed here" in output and how in output, output
    assert "Traceback" not in output
    doctor = call(lab.project, sys.executable, "-m", "gradlab", "doctor", code=1, **env)
    assert how in doctor
