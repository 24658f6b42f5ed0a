"""The kit as a package: one wheel, made of kit/, which works beside any repository."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from scripts.wheel import build

from .kit import environment, wheel
from .lab import call

# Written by the tool that builds it, which may be of another version.
OF_THE_TOOL = ("WHEEL", "RECORD")
SPEC = """
jobs:
  greet:
    outputs: {words: {type: dataset, with: {ref: words}}}
    uses: script@v1
    with: {image: "bash:5", script: echo hello > /outputs/words/file}
"""


def content(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {n: archive.read(n) for n in archive.namelist() if not n.endswith(OF_THE_TOOL)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("built"))


def test_projects_carry_the_kit_as_it_is_in_its_folder(built: Path) -> None:
    assert wheel().name == built.name, "make wheel"
    assert content(wheel()) == content(built), "make wheel"


def test_the_same_files_give_the_same_bytes(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert build(tmp_path).read_bytes() == built.read_bytes()


@pytest.mark.slow
def test_the_wheel_alone_runs_the_workflows_of_any_repository_without_torch(
    tmp_path: Path,
) -> None:
    programs = environment(tmp_path / "environment", "torch", "functorch")
    call(tmp_path, str(programs / "python"), "-c", "import torch", code=1)
    pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--no-index"]
    call(tmp_path, *pip, str(wheel()))
    repository, gradlab = tmp_path / "theirs", str(programs / "gradlab")
    (repository / ".gradient/workflows").mkdir(parents=True)
    (repository / ".gradient/workflows/greet.yaml").write_text(SPEC)
    call(repository, "git", "init", "--quiet")
    assert "1 file: 0 errors" in call(repository, gradlab, "check")
    assert "greet" in call(repository, gradlab, "show", "greet")
    assert "would be" in call(repository, gradlab, "run", "greet", "--dry-run")
    assert "words:v1-" in call(repository, gradlab, "run", "greet", "--engine", "paths")
    assert "words:v1-" in call(repository, gradlab, "datasets")
