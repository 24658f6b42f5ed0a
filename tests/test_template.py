"""What is generated of the default answers; test_matrix.py has all the others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from .conftest import TEMPLATE, Bake
from .kit import PROJECT, environment, metadata, requirements, wheel
from .lab import call

ANSWERS = json.loads((TEMPLATE / "cookiecutter.json").read_text())
LISTS = {name: value for name, value in ANSWERS.items() if isinstance(value, list)}
CHOICES = [(name, c) for name, list_ in LISTS.items() for c in list_ if not name.startswith("_")]
JUNK = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
PART = ("__init__", "__main__", "config", "data", "evaluate", "export", "learner", "model")
PART += ("task", "train")
FILES = {
    ".dockerignore",
    ".github/workflows/checks.yaml",
    ".github/workflows/train.yaml",
    ".gitignore",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "notebooks/train.ipynb",
    "pyproject.toml",
    "requirements.txt",
    "tests/test_package.py",
    *(f".gradient/workflows/{path.name}" for path in (TEMPLATE / "workflows").glob("*.yaml")),
    *(f"runtimes/{name}.yaml" for name in ("cpu", "free-cpu", "free-gpu", "gpu", "multi-gpu")),
    *(f"src/my_model/{name}.py" for name in PART),
    f"vendor/{wheel().name}",
}


def files(project: Path) -> set[str]:
    """List what was generated, without what other tests' commands have left beside it."""
    found = {path.relative_to(project) for path in project.rglob("*") if path.is_file()}
    return {str(path) for path in found if not JUNK & {*path.parts}}


def run(project: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_default_answers_give_exactly_these_files(project: Path) -> None:
    assert files(project) == FILES


def test_a_project_is_small_enough_to_be_read(project: Path) -> None:
    assert len(files(project)) <= 30
    lines = [line for path in project.rglob("*.py") for line in path.read_text().splitlines()]
    assert len(lines) <= 1_000


def test_pip_and_uv_are_told_alike_what_a_project_requires_and_where_its_kit_is(
    project: Path,
) -> None:
    table = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    lines = (project / "requirements.txt").read_text("utf-8").splitlines()
    asked = [line for line in lines if not line.startswith("#")]
    assert asked[0] == f"--find-links {table['tool']['uv']['find-links'][0]}"
    assert table["project"]["dependencies"] == asked[1:]


def test_a_project_requires_the_kit_that_it_carries(project: Path) -> None:
    kit = next(requirements(project / "requirements.txt"))
    assert kit.name == "gradlab" and kit.specifier.contains(metadata().version)


def test_there_are_at_most_eight_questions_each_with_a_label() -> None:
    asked = [name for name in ANSWERS if not name.startswith("_")]
    assert len(asked) <= 8
    assert list(ANSWERS["__prompts__"]) == asked


def test_a_licence_names_its_holder_and_year(bake: Bake) -> None:
    text = (bake(author="Zoë O'Neill", license="MIT") / "LICENSE").read_text("utf-8")
    assert re.search(r"Copyright \(c\) 20\d\d Zoë O'Neill\n", text)


@pytest.mark.slow
def test_a_fresh_project_installs_and_offers_its_commands(bake: Bake, tmp_path: Path) -> None:
    programs = environment(tmp_path / "environment")
    shutil.copytree(bake(), tmp_path / "copy")
    # All but the kit is there, the build backend too: what is installed lies in the project.
    offline = ["--no-index", "--no-build-isolation", "--find-links", "vendor", "."]
    python = str(programs / "python")
    call(tmp_path / "copy", python, "-m", "pip", "install", "--quiet", *offline)
    assert "doctor" in call(tmp_path, str(programs / "gradlab"), "--help")
    assert "--max-minutes" in call(tmp_path, python, "-m", "my_model", "train", "--help")


def test_every_workflow_and_runtime_of_the_catalogue_is_offered() -> None:
    doors = {path.name for path in (PROJECT / ".gradient/workflows").iterdir()}
    assert doors == {path.name for path in (TEMPLATE / "workflows").iterdir()}
    for path in (PROJECT / ".gradient/workflows").iterdir():
        assert path.read_text().strip() == f'{{{{ workflow("{path.stem}") }}}}'


def test_no_python_file_of_the_project_holds_jinja() -> None:
    for path in PROJECT.rglob("*.py"):
        assert not re.search(r"cookiecutter\.\w|\{%[- ]", path.read_text("utf-8")), path


def test_nothing_names_a_registry_or_a_machine(project: Path) -> None:
    hosts = r"p[y]pi\.org|python[h]osted|download\.p[y]torch|registry\.n[p]mjs|d[e]b\.debian"
    named = re.compile(rf"{hosts}|/root/|/home/[a-z]")
    for name in files(project):
        assert not named.search((project / name).read_text("utf-8", "replace")), name
    with zipfile.ZipFile(wheel(project)) as archive:
        for name in archive.namelist():
            assert not named.search(archive.read(name).decode()), name
