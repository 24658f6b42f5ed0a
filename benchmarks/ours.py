"""All that the benchmarks use of this repository: the kit, its command, and a generated project."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[1]
KIT = TEMPLATE / "kit" / "src"
PACKAGE = "benchmarked"
sys.path.insert(0, str(KIT))

from gradlab.store.datasets import open_store  # noqa: E402
from gradlab.train.checkpoint import Checkpoints  # noqa: E402

__all__ = ["Checkpoints", "open_store"]


def environment(project: Path | None = None) -> dict[str, str]:
    """Give the environment of a program that uses the kit as it lies here, and a project's code."""
    path = [*([str(project / "src")] if project else []), str(KIT)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_WAIT_POLICY": "PASSIVE"}


def generated(template: Path, place: Path, *answers: str) -> Path:
    """Run cookiecutter as a user does, without its questions; give the project."""
    options = ["--no-input", "--default-config", "--output-dir", str(place)]
    command = [sys.executable, "-m", "cookiecutter", str(template), *options, *answers]
    subprocess.run(command, check=True)
    return next(place.iterdir())


def with_workflow(project: Path, text: str, **env: str) -> Callable[..., None]:
    """Make a folder with the workflow `job`; give what runs `gradlab` there."""
    specs = project / ".gradient" / "workflows"
    specs.mkdir(parents=True)
    (specs / "job.yaml").write_text(text)
    (project / "pyproject.toml").write_text('[project]\nname = "bench"\n')

    def run(*arguments: str) -> None:
        command = [sys.executable, "-m", "gradlab", *arguments]
        done = subprocess.run(
            command, cwd=project, env=environment() | env, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")

    return run
