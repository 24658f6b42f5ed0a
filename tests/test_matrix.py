"""Every choice of every question, and choices together: which files, and the project's own checks.

Only the package's name and the framework alter Python files, as a test says, so types and tests run
for the longest name and in tests/frameworks, not for all the choices; test_github.py runs them for
the default one. `pytest -m slow
tests/test_matrix.py` is all of it.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.metadata import Metadata

from .conftest import TEMPLATE, Bake, generate
from .kit import cache_of_types, environment, install_kit, requirements
from .lab import Lab, call
from .sound import assert_sound
from .test_template import ANSWERS, CHOICES, FILES, files, run

Answers = dict[str, str]
LONG = "x" * 50
COMBINATIONS: dict[str, Answers] = {
    "defaults": {},
    "without a GPU anywhere": {"gradient_machine": "C5"},
    "the largest of all": {"gradient_machine": "H100"},
    "nothing to say": {"description": "", "license": "none", "github_owner": "a"},
    "the shortest names": {"project_name": "A", "project_slug": "a", "author": "B"},
    "the longest names": {
        "project_name": "N" * 200,
        "project_slug": LONG,
        "description": "d" * 200,
        "author": "A" * 200,
        "github_owner": "o" * 39,
    },
    "a name that sorts last": {"project_slug": "zz_top", "license": "BSD-3-Clause"},
    "not in English": {"project_name": "Größe", "author": "Zoë O'Neill 山田", "description": "é"},
}
SINGLE = {f"{name}: {c}": {name: c} for name, c in CHOICES if c != ANSWERS[name][0]}
MATRIX = SINGLE | COMBINATIONS
# Machines stand in no metadata.
PACKAGES = {key: a for key, a in MATRIX.items() if not a.keys() <= {"gradient_machine"}}
CONSTRAINTS = TEMPLATE / "requirements" / "constraints.txt"
WORKFLOWS = list((TEMPLATE / "workflows").glob("*.yaml"))


@pytest.fixture(scope="module", params=MATRIX.values(), ids=MATRIX)
def choice(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Answers]:
    """A project and the answers that it was made of."""
    answers: Answers = request.param
    return generate(tmp_path_factory.mktemp("choice"), answers), answers


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a package of the longest name."""
    return generate(tmp_path_factory.mktemp("long"), {"project_slug": LONG})


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python in which the kit is installed, from the wheel that projects carry."""
    programs = environment(tmp_path_factory.mktemp("python") / "environment")
    install_kit(programs)
    return str(programs / "python")


def test_a_choice_gives_exactly_its_files_and_each_can_be_read(
    choice: tuple[Path, Answers],
) -> None:
    project, answers = choice
    expected = {name.replace("src/my_model/", f"src/{project.name}/") for name in FILES}
    assert files(project) == expected - ({"LICENSE"} if answers.get("license") == "none" else set())
    assert_sound(project)


def test_what_was_chosen_stands_where_it_counts(choice: tuple[Path, Answers]) -> None:
    project, answers = choice
    chosen = {name: value[0] for name, value in ANSWERS.items() if isinstance(value, list)}
    chosen |= answers
    metadata = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    assert metadata.get("license", "none") == chosen["license"]
    spec = yaml.safe_load((project / ".gradient/workflows/train.yaml").read_text("utf-8"))
    assert spec["defaults"]["resources"]["instance-type"] == chosen["gradient_machine"]
    kit = next(requirements(project / "requirements.txt"))
    assert kit.extras == {chosen["framework"]}


def test_a_choice_changes_no_python_file_but_the_framework_its_own_ones(
    choice: tuple[Path, Answers], project: Path
) -> None:
    other, answers = choice
    own = TEMPLATE / "frameworks" / answers.get("framework", "pytorch")
    for path in other.rglob("*.py"):
        name = str(path.relative_to(other)).replace(f"src/{other.name}/", "src/my_model/")
        of_framework = own / path.name
        same = of_framework if of_framework.exists() else project / name
        assert path.read_bytes() == same.read_bytes(), name


def test_a_choice_passes_its_own_lint_and_format(choice: tuple[Path, Answers]) -> None:
    project, _ = choice
    run(project, "ruff", "check", "--no-cache")
    run(project, "ruff", "format", "--check", "--no-cache")


@pytest.mark.slow
def test_the_workflows_of_a_choice_pass_their_own_check(
    choice: tuple[Path, Answers], tmp_path: Path
) -> None:
    project, _ = choice
    shown = Lab(project, tmp_path).run("gradlab", "check")
    assert f"{len(WORKFLOWS)} files: 0 errors, 0 warnings" in shown


@pytest.mark.slow
@pytest.mark.parametrize("answers", PACKAGES.values(), ids=PACKAGES)
def test_a_choice_can_be_packaged_as_what_was_answered(bake: Bake, answers: Answers) -> None:
    project = bake(**answers)
    code = "import setuptools.build_meta as build; build.prepare_metadata_for_build_wheel('.')"
    call(project, sys.executable, "-c", code)
    (path,) = project.glob("*.dist-info/METADATA")
    metadata = Metadata.from_email(path.read_bytes())
    assert metadata.name == project.name
    assert metadata.author == answers.get("author", ANSWERS["author"])
    assert (metadata.summary or "") == answers.get("description", ANSWERS["description"])


@pytest.mark.slow
def test_a_project_of_the_longest_name_passes_its_own_type_check(
    long: Path, python: str, shared: Path
) -> None:
    with cache_of_types(long, shared) as cache:
        assert "Success" in call(long, python, "-m", "mypy", "--cache-dir", str(cache))


@pytest.mark.slow
def test_a_project_of_the_longest_name_passes_its_own_tests(long: Path, python: str) -> None:
    assert " passed" in call(long, python, "-m", "pytest", "-q", "-p", "no:cacheprovider")


@pytest.mark.slow
def test_a_project_of_the_longest_name_trains_and_is_judged(long: Path, tmp_path: Path) -> None:
    lab = Lab(long, tmp_path / "storage")
    lab.train("--epochs", "1")
    assert "on 360 test examples" in lab.run(LONG, "evaluate")


def test_the_checks_run_with_the_tools_that_are_pinned() -> None:
    lines = CONSTRAINTS.read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    for tool in ("ruff", "mypy", "pytest"):
        assert version(tool) == pinned[tool], f"{tool}: run the tests in the environment of make"
