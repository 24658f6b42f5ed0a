"""The template used as templates are: from git, at a tag, from a zip, replayed, generated over."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import TEMPLATE
from .test_template import FILES, JUNK, files

UNWANTED = shutil.ignore_patterns(".git", ".venv", "demo", ".hypothesis", *JUNK)
GIT = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org"]


def generate(home: Path, *arguments: str, code: int = 0) -> str:
    """Run cookiecutter as a user whose home this is, and give what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "cookiecutter", *arguments],
        cwd=home,
        env={**os.environ, "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def git(folder: Path, *arguments: str) -> None:
    subprocess.run([*GIT, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the template that a test may change."""
    return Path(shutil.copytree(TEMPLATE, tmp_path / "template", ignore=UNWANTED))


def test_the_template_is_used_from_git_at_a_tag(copy: Path, tmp_path: Path) -> None:
    git(copy, "init", "--quiet")
    git(copy, "add", ".")
    git(copy, "commit", "--quiet", "--message", "first")
    git(copy, "tag", "v1")
    (copy / "cookiecutter.json").write_text("broken")
    git(copy, "commit", "--quiet", "--all", "--message", "second")
    git(tmp_path, "clone", "--quiet", "--bare", str(copy), "template.git")
    url = f"file://{tmp_path}/template.git"
    generate(tmp_path, url, "--checkout", "v1", "--no-input")
    assert files(tmp_path / "my_model") == FILES


def test_the_template_is_used_from_a_zip(copy: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, copy.name)
    generate(tmp_path, archive, "--no-input")
    assert files(tmp_path / "my_model") == FILES


def test_answers_are_replayed(tmp_path: Path) -> None:
    first = ["--no-input", "-o", "first", "description={{ é", "license=Apache-2.0"]
    generate(tmp_path, str(TEMPLATE), *first)
    generate(tmp_path, str(TEMPLATE), "--replay", "-o", "second")
    for name in FILES:
        old, new = (tmp_path / folder / "my_model" / name for folder in ("first", "second"))
        assert old.read_bytes() == new.read_bytes(), name


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "my_model").mkdir()
    output = generate(tmp_path, str(TEMPLATE), "--no-input", code=1)
    assert 'my_model" directory already exists' in output
    assert not files(tmp_path / "my_model")


def test_generated_over_a_project_what_the_user_added_stays(tmp_path: Path) -> None:
    generate(tmp_path, str(TEMPLATE), "--no-input", "license=MIT")
    project = tmp_path / "my_model"
    added = {"LICENSE.data", "storage/.my_cache/x", ".venv/__pycache__/x", "src/my_model/more.py"}
    for name in added:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("mine")
    generate(tmp_path, str(TEMPLATE), "--no-input", "-f", "license=Apache-2.0")
    assert files(project) == FILES | added
    assert "Apache License" in (project / "LICENSE").read_text()


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("workflows/train.yaml", "jobs:\n  a: {{ cookiecutter.machine }}\n", "2: 'coll"),
        ("workflows/train.yaml", "jobs:\n\n  a: {{ runtime('jax') }}\n", "3: There is no "),
        ("workflows/train.yaml", "jobs: {% fi %}\n", "1: Encountered unknown tag 'fi'"),
        ("runtimes/pytorch.yaml", "gradient:\n  image: a: b\n", "2: mapping values are"),
        ("runtimes/pytorch.yaml", "- gradient\n", "1: a runtime is a mapping"),
    ],
)
def test_a_mistake_in_the_catalogue_is_named_with_file_and_line(
    copy: Path, tmp_path: Path, file: str, text: str, message: str
) -> None:
    (copy / file).write_text(text)
    output = generate(tmp_path, str(copy), "--no-input", code=1)
    assert f"{copy / file}:{message}" in output
    assert "Traceback" not in output
    assert not (tmp_path / "my_model").exists()


def test_a_door_to_no_workflow_is_named_with_those_that_there_are(
    copy: Path, tmp_path: Path
) -> None:
    door = copy / "{{cookiecutter.project_slug}}/.gradient/workflows/train.yaml"
    door.write_text("{{ workflow('tarin') }}\n")
    output = generate(tmp_path, str(copy), "--no-input", code=1)
    known = ", ".join(sorted(path.stem for path in (TEMPLATE / "workflows").iterdir()))
    assert f"workflows/tarin.yaml: workflows/ holds {known}." in output


def test_an_answer_that_looks_like_jinja_stays_the_same_in_an_update(tmp_path: Path) -> None:
    """An update hands the earlier answers over as they were recorded."""
    typed = "{{ 7 * 7 }} {# gone? #}"
    generate(tmp_path, str(TEMPLATE), "--no-input", f"author={typed}")
    (record,) = (tmp_path / ".cookiecutter_replay").glob("*.json")
    recorded = json.loads(record.read_text())["cookiecutter"]
    again = [f"{name}={value}" for name, value in recorded.items() if name[0] != "_"]
    generate(tmp_path, str(TEMPLATE), "--no-input", "-o", "again", *again)
    license = (tmp_path / "again" / "my_model" / "LICENSE").read_text()
    assert typed in license


def test_two_versions_of_the_template_in_one_process_do_not_mix(copy: Path, tmp_path: Path) -> None:
    """As in an update, which generates the project of the earlier version and of the later."""
    source = copy / "catalogue.py"
    source.write_text(source.read_text().replace("quote=quote,", "quote=quote, later=str.upper,"))
    (copy / "workflows" / "train.yaml").write_text("{{ 'taken up' | later }}")
    program = (
        "import sys; from cookiecutter.main import cookiecutter\n"
        "for template, folder in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    cookiecutter(template, no_input=True, output_dir=folder)\n"
    )
    command = [sys.executable, "-c", program, str(TEMPLATE), "earlier", str(copy), "later"]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}, check=True)
    spec = tmp_path / "later" / "my_model" / ".gradient" / "workflows" / "train.yaml"
    assert spec.read_text() == "TAKEN UP\n"
