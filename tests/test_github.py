"""The project's workflows for GitHub: safe by its linters, and each command of the checks works.

What trains on a push is tried in tests/doors.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import TEMPLATE
from .environments import lend
from .kit import cache_of_types

PROGRAMS = Path(sys.executable).parent
CONSTRAINTS = TEMPLATE / "requirements" / "constraints.txt"
FILE = Path(".github/workflows/checks.yaml")
FILES = {FILE: 45, FILE.with_name("train.yaml"): 350}  # minutes that a job may take at most
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
# Of the actions' own tags; a pin is good for the release that stands beside it, and no other.
RELEASES = {
    "actions/checkout": ("v7.0.1", "3d3c42e5aac5ba805825da76410c181273ba90b1"),
    "actions/setup-python": ("v7.0.0", "5fda3b95a4ea91299a34e894583c3862153e4b97"),
}


def jobs(project: Path, file: Path = FILE) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((project / file).read_text())["jobs"]
    return found


@every_file
def test_zizmor_finds_nothing_even_when_asked_for_everything(project: Path, file: Path) -> None:
    command = [PROGRAMS / "zizmor", "--offline", "--persona", "auditor", project / file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "No findings to report" in done.stdout


@every_file
def test_the_file_has_the_form_that_github_asks_for(project: Path, file: Path) -> None:
    schema = ["--builtin-schema", "vendor.github-workflows"]
    command = [PROGRAMS / "check-jsonschema", *schema, project / file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@every_file
def test_every_action_is_pinned_by_the_commit_of_a_release(project: Path, file: Path) -> None:
    used = re.findall(r"uses: (\S+)@([0-9a-f]{40}) # (\S+)\n", (project / file).read_text())
    assert len(used) == sum(
        "uses" in step for job in jobs(project, file).values() for step in job["steps"]
    )
    assert {name: (release, commit) for name, commit, release in used} == RELEASES


@every_file
def test_jobs_may_read_the_code_and_nothing_else_and_end_in_time(project: Path, file: Path) -> None:
    assert yaml.safe_load((project / file).read_text())["permissions"] == {}
    for job in jobs(project, file).values():
        assert job["permissions"] == {"contents": "read"}
        assert job["timeout-minutes"] <= FILES[file]
        assert job["steps"][0]["with"]["persist-credentials"] is False


def test_the_checks_run_on_each_python_that_the_services_have(project: Path) -> None:
    assert jobs(project)["checks"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


@pytest.mark.slow
def test_every_command_of_each_job_works_in_a_fresh_project(
    project: Path, tmp_path: Path, shared: Path
) -> None:
    """In the same order and shell, with no package but those that the project asks for."""
    environment = tmp_path / "environment"
    table = tomllib.loads((project / "pyproject.toml").read_text())
    lend(environment, table["project"]["dependencies"], but="gradlab")
    # The second asks for all that the first does.
    for name in ("train", "checks"):
        checkout = Path(shutil.copytree(project, tmp_path / name))
        config = checkout / "src/my_model/config.py"
        config.write_text(config.read_text().replace("epochs: int = 60", "epochs: int = 6"))
        run_commands(jobs(checkout)[name], checkout, environment, shared)
    assert list(tmp_path.glob("train/storage/models/my_model/*.json"))


def run_commands(job: dict[str, Any], checkout: Path, environment: Path, shared: Path) -> None:
    """Run what a job runs, in an environment that its machine would bring."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GRADLAB_", "PYTEST_"))}
    home = str(environment.parent)
    clean |= {"PIP_CONSTRAINT": str(CONSTRAINTS), "HOME": home, "OMP_NUM_THREADS": "1"}

    # Else pip would compile all modules, of which most are never loaded.
    clean |= {"PIP_NO_COMPILE": "1"}
    path = os.pathsep.join([str(environment / "bin"), "/usr/bin", "/bin"])
    # Here the machine began long before the job.
    given = job.get("env", {}) | {"GRADLAB_SESSION_MINUTES": "1000000"}
    env = {**clean, "PATH": path, **given}
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert len(commands) > 1
    for command in commands:
        with cache_of_types(checkout, shared) if command == "mypy" else nullcontext("") as cache:
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],
                cwd=checkout,
                env=env | {"MYPY_CACHE_DIR": str(cache)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        assert done.returncode == 0, f"{shlex.quote(command)}:\n{done.stdout}"
