"""What is generated of the default answers; test_matrix.py has all the others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import TEMPLATE, Bake

PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"
ANSWERS = json.loads((TEMPLATE / "cookiecutter.json").read_text())
LISTS = {name: value for name, value in ANSWERS.items() if isinstance(value, list)}
CHOICES = [(name, c) for name, list_ in LISTS.items() for c in list_ if not name.startswith("_")]
JUNK = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
KIT = {
    str(path.relative_to(PROJECT))
    for path in (PROJECT / "src/gradlab").rglob("*")
    if path.is_file() and not JUNK & set(path.parts)
}
PART = ("__init__", "__main__", "config", "data", "evaluate", "export", "model", "train")
FILES = {
    ".dockerignore",
    ".github/workflows/checks.yaml",
    ".gitignore",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "notebooks/train.ipynb",
    "pyproject.toml",
    "requirements.txt",
    "requirements/gradient.txt",
    "tests/__init__.py",
    "tests/conftest.py",
    "tests/test_package.py",
    *(f".gradient/workflows/{path.name}" for path in (TEMPLATE / "workflows").glob("*.yaml")),
    *(f"runtimes/{name}.yaml" for name in ("cpu", "free-cpu", "free-gpu", "gpu", "multi-gpu")),
    *(f"src/my_model/{name}.py" for name in PART),
    *KIT,
}


def files(project: Path) -> set[str]:
    return {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}


def run(project: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_default_answers_give_exactly_these_files(project: Path) -> None:
    assert files(project) == FILES


def test_there_are_at_most_eight_questions_each_with_a_label() -> None:
    asked = [name for name in ANSWERS if not name.startswith("_")]
    assert len(asked) <= 8
    assert list(ANSWERS["__prompts__"]) == asked


def test_a_licence_names_its_holder_and_year(bake: Bake) -> None:
    text = (bake(author="Zoë O'Neill", license="MIT") / "LICENSE").read_text("utf-8")
    assert re.search(r"Copyright \(c\) 20\d\d Zoë O'Neill\n", text)


@pytest.mark.slow
def test_a_fresh_project_installs_and_offers_its_commands(bake: Bake, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    run(tmp_path, "venv", "--system-site-packages", "--without-pip", str(environment))
    shutil.copytree(bake(), tmp_path / "copy")
    python = environment / "bin" / "python"
    # The build backend is the only thing that would have to be downloaded.
    here = Path(next(path for path in sys.path if path.endswith("site-packages")))
    site = next(environment.glob("lib/python*/site-packages"))
    (site / "outer.pth").write_text(str(here))
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "."],
        cwd=tmp_path / "copy",
        check=True,
    )
    shown = subprocess.run(
        [environment / "bin" / "gradlab", "--help"], capture_output=True, text=True, check=True
    )
    assert "doctor" in shown.stdout
    asked = subprocess.run(
        [python, "-m", "my_model", "train", "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "--max-minutes" in asked.stdout


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
