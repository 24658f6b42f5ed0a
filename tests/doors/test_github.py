"""The project's workflow that trains on a push: its steps as they stand, against Kaggle here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..environments import lend
from .conftest import Desk, Kaggle, Kernel

FILE = Path(".github/workflows/train.yaml")
VARIABLES = {"DOORS": "kaggle"}
KEYS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "KAGGLE_API_TOKEN"}
LEFT_EMPTY = {"HF_TOKEN", "GRADLAB_GIT_TOKEN"}  # as GitHub gives a secret that is not set


@pytest.fixture(scope="module")
def job(project: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((project / FILE).read_text())["jobs"]["submit"]
    return found


@pytest.fixture(scope="module")
def machine(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GitHub's machine, which has what the kit asks for, but not the kit."""
    environment = tmp_path_factory.mktemp("machine") / "environment"
    lend(environment, ["gradlab[s3]"], but="gradlab")
    return environment


def run(step: dict[str, Any], job: dict[str, Any], desk: Desk, machine: Path) -> Any:
    """Run a step in GitHub's shell, with the secrets that it names and no others."""
    named = job["env"] | step.get("env", {})
    given = {name: (VARIABLES | desk.env).get(name, "") for name in named}
    own = {name: value for name, value in desk.env.items() if name not in KEYS | {"PYTHONPATH"}}
    path = os.pathsep.join([str(machine / "bin"), "/usr/bin", "/bin"])
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    env = own | given | {"PATH": path, "PIP_NO_COMPILE": "1"}
    done = subprocess.run(command, cwd=desk.root, env=env, capture_output=True, text=True)
    desk.said += [done.stdout, done.stderr]
    return done


@pytest.mark.slow
def test_a_push_trains_at_a_door_and_is_red_where_the_training_fails(
    desk: Desk, kaggle: Kaggle, project: Path, job: dict[str, Any], machine: Path
) -> None:
    assert job["env"].keys() | job["steps"][-1]["env"].keys() > LEFT_EMPTY | KEYS
    if not (desk.root / "vendor").exists():
        (desk.root / "vendor").symlink_to(project / "vendor")
    *others, submit = [step for step in job["steps"] if "run" in step]
    for step in others:
        done = run(step, job, desk, machine)
        assert done.returncode == 0, done.stdout + done.stderr
    for code, state in ((0, "done"), (1, "failed")):

        def ends(service: Kaggle, kernel: Kernel, code: int = code) -> None:
            kernel.status = "COMPLETE"  # whatever has happened
            desk.finish(kernel.slug, code, finished=not code)

        kaggle.runs = ends
        done = run(submit, job, desk, machine)
        assert done.returncode == code and f"train: {state}" in done.stderr, done.stderr
        assert [hop["state"] for hop in desk.hops()] == [state]
        desk.fresh()
    assert len(kaggle.pushed) == 2 and desk.spills() == []
