"""A project that takes up later versions of the template with cruft, and tells which it has."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from .conftest import TEMPLATE
from .kit import CHOSEN, KIT, PROJECT, REQUIREMENTS, wheel
from .lab import call
from .test_use import UNWANTED, commit, copy_template

SLUG = "{{cookiecutter.project_slug}}"
YOURS = "src/my_model/config.py"
# Where the kit was part of the project, and torch the first line of its requirements.
REQUIREMENTS_OF_0_1 = """\
# Lower bounds only: what a service brings must not be moved.
torch>=2.1
numpy>=1.26
scipy>=1.11
scikit-learn>=1.3
tyro>=1.0
"""
SETTINGS_OF_0_1 = """\
[tool.setuptools.dynamic]
dependencies = { file = ["requirements.txt"] }

[tool.setuptools.package-data]
gradlab = ["py.typed", "**/*.json"]

"""


class Updates:
    """A template in git, a project made of it by cruft, and a user who edits the project."""

    def __init__(self, folder: Path, of_0_1: bool = False) -> None:
        self.folder = folder
        self.template = copy_template(folder / "template")
        if of_0_1:
            as_of_0_1(self.template / SLUG)
        commit(self.template, "first")
        self.cruft("create", str(self.template), "--no-input", "--output-dir", str(folder))
        self.project = folder / "my_model"
        commit(self.project, "made")

    def cruft(self, *arguments: str, cwd: Path | None = None, code: int = 0) -> str:
        command = [sys.executable, "-m", "cruft", *arguments]
        return call(cwd or self.folder, *command, code=code, HOME=str(self.folder))

    def publish(self, file: str, old: str, new: str) -> None:
        """Change a file of the template, as a later version does."""
        edit(self.template / SLUG / file.replace("my_model", SLUG), old, new)
        commit(self.template, "later")

    def publish_kit(self, old: str, new: str) -> Path:
        """Change the kit, as a later version does; give the wheel in which it lies then."""
        edit(self.template / "kit/src/gradlab/__init__.py", old, new)
        call(self.template, sys.executable, "scripts/wheel.py")
        commit(self.template, "a later kit")
        return wheel(self.template / SLUG)

    def update(self) -> str:
        return self.cruft("update", "--skip-apply-ask", cwd=self.project)

    def version(self) -> str:
        return gradlab(self.project, "--version")


@pytest.fixture
def updates(tmp_path: Path) -> Updates:
    return Updates(tmp_path)


def gradlab(project: Path, *arguments: str, folder: Path | None = None) -> str:
    """Run the kit that a project carries, in its folder or in another."""
    command = [sys.executable, "-m", "gradlab", *arguments]
    return call(folder or project, *command, PYTHONPATH=str(wheel(project)))


def as_of_0_1(project: Path) -> None:
    """Give the template of a project the layout of version 0.1: the kit was part of the project."""
    shutil.rmtree(project / "vendor")
    # Of a checkout that was of 0.1 itself, folders without files may be left.
    shutil.copytree(KIT / "gradlab", project / "src/gradlab", ignore=UNWANTED, dirs_exist_ok=True)
    (project / REQUIREMENTS.name).unlink()
    (project / "requirements.txt").write_text(REQUIREMENTS_OF_0_1)
    edit(project / ".dockerignore", "!vendor\n", "")
    edit(project / "Dockerfile", "COPY vendor vendor\n", "")
    text = (project / "pyproject.toml").read_text()
    lists = re.compile(r"# The same as.*?\n\]\n", re.DOTALL)
    text = lists.sub('dynamic = ["dependencies"]\n', text)
    text = re.sub(r"# Where the kit lies.*?\n\n", SETTINGS_OF_0_1, text, flags=re.DOTALL)
    (project / "pyproject.toml").write_text(text)


def as_today(template: Path) -> None:
    """Publish the template of today after an earlier layout of it."""
    shutil.rmtree(template / SLUG)
    shutil.copytree(PROJECT, template / SLUG, ignore=UNWANTED)
    commit(template, "today's")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new, 1), "utf-8")


def test_an_update_keeps_your_edits_and_takes_up_those_of_the_kit(updates: Updates) -> None:
    project = updates.project
    edit(project / YOURS, "epochs: int = 60", "epochs: int = 90")
    (project / "src/my_model/mine.py").write_text("MINE = True\n")
    commit(project, "mine")
    updates.cruft("check", cwd=project)
    kit = updates.publish_kit('"""', '"""Later: ')
    updates.publish(YOURS, '"""', '"""Later: ')
    assert "out of date" in updates.cruft("check", cwd=project, code=1)
    updates.update()
    updates.cruft("check", cwd=project)
    assert wheel(project).read_bytes() == kit.read_bytes()
    assert (project / YOURS).read_text().startswith('"""Later: ')
    assert "epochs: int = 90" in (project / YOURS).read_text()
    assert (project / "src/my_model/mine.py").is_file()
    assert not list(project.rglob("*.rej"))


def test_an_update_from_0_1_takes_the_kit_out_of_the_project_and_keeps_your_edits(
    tmp_path: Path,
) -> None:
    updates = Updates(tmp_path, of_0_1=True)
    project = updates.project
    assert (project / "src/gradlab/train/keyed.py").exists() and not (project / "vendor").exists()
    edit(project / YOURS, "epochs: int = 60", "epochs: int = 90")
    (project / "src/my_model/mine.py").write_text("MINE = True\n")
    commit(project, "mine")
    as_today(updates.template)
    updates.update()
    assert not (project / "src/gradlab").exists()
    requirements = (project / "requirements.txt").read_text()
    assert requirements == REQUIREMENTS.read_text().replace(CHOSEN, "pytorch")
    assert 'find-links = ["vendor"]' in (project / "pyproject.toml").read_text()
    assert "epochs: int = 90" in (project / YOURS).read_text()
    assert (project / "src/my_model/mine.py").is_file()
    assert not list(project.rglob("*.rej"))
    assert "0 errors" in gradlab(project, "check")


def test_an_update_against_your_edit_of_the_same_line_leaves_both(updates: Updates) -> None:
    project = updates.project
    edit(project / YOURS, "epochs: int = 60", "epochs: int = 90")
    commit(project, "mine")
    updates.publish(YOURS, "epochs: int = 60", "epochs: int = 30")
    updates.update()
    text = (project / YOURS).read_text()
    rejected = project / f"{YOURS}.rej"
    assert "epochs: int = 90" in text
    assert "epochs: int = 30" in (rejected.read_text() if rejected.exists() else text)


def test_an_update_adds_the_files_of_a_new_workflow(updates: Updates) -> None:
    folder = updates.template / SLUG / ".gradient/workflows"
    (folder / "again.yaml").write_text('{{ workflow("again") }}\n')
    (updates.template / "workflows/again.yaml").write_text("jobs: {}\n")
    commit(updates.template, "another workflow")
    updates.update()
    assert (updates.project / ".gradient/workflows/again.yaml").read_text() == "jobs: {}\n"


def test_an_update_asks_nothing_and_keeps_odd_answers(tmp_path: Path) -> None:
    updates = Updates(tmp_path)
    answers = {
        "author": '{{ 7 * 7 }} "O\'Neill" {#',
        "description": "a\\b ${{ c }}",
        "license": "none",
    }
    updates.cruft(
        *("create", str(updates.template), "--no-input", "--output-dir", str(tmp_path / "odd")),
        *("--extra-context", json.dumps(answers)),
    )
    project = tmp_path / "odd" / "my_model"
    commit(project, "made")
    before = (project / "pyproject.toml").read_text()
    kit = updates.publish_kit('"""', '"""Later: ')
    updates.cruft("update", "--skip-apply-ask", cwd=project)
    assert wheel(project).read_bytes() == kit.read_bytes()
    assert (project / "pyproject.toml").read_text() == before
    assert not (project / "LICENSE").exists()


def test_a_project_tells_the_version_of_the_template_also_after_an_update(
    updates: Updates,
) -> None:
    first = updates.version()
    assert re.fullmatch(
        rf"cookiecutter-gradient-colab {newest()} \(commit [0-9a-f]{{7}}\)\n", first
    )
    kit = updates.publish_kit(f'"{newest()}"', '"9.8.7"')
    updates.update()
    assert wheel(updates.project).name == kit.name == "gradlab-9.8.7-py3-none-any.whl"
    assert updates.version().startswith("cookiecutter-gradient-colab 9.8.7 (commit ")
    assert updates.version().split()[-1] != first.split()[-1]


@pytest.mark.parametrize("command", ["--version", "doctor"])
def test_a_project_made_without_cruft_tells_the_version_too(project: Path, command: str) -> None:
    lines = gradlab(project, command).splitlines()
    assert any(line.endswith(f"cookiecutter-gradient-colab {newest()}") for line in lines)


@pytest.mark.parametrize("record", ["", "[]", "{}", "<<<<<<< ours", '{"commit": null}'])
def test_a_record_of_cruft_that_is_damaged_hides_only_the_commit(
    project: Path, tmp_path: Path, record: str
) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    (tmp_path / ".cruft.json").write_text(record)
    shown = gradlab(project, "--version", folder=tmp_path)
    assert shown == f"cookiecutter-gradient-colab {newest()}\n"


def newest() -> str:
    """Read the version of the newest heading in the list of changes."""
    found = re.search(r"^## (\S+)", (TEMPLATE / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert found
    return found[1]
