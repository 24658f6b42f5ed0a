"""What things may be called: check, dry run, run and the commands agree, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradlab.base.errors import GradlabError
from gradlab.check.check import check, load
from gradlab.store import models
from gradlab.store.folder import Folder
from gradlab.store.versions import Reference

from .conftest import Project

# A place for each kind of name; `NAME` is the name, on a line of its own.
PLACES = {
    "job": """\
jobs:
  NAME:
    uses: script@v1
    with: {image: bash:5, script: "true"}
""",
    "input": """\
jobs:
  train:
    inputs:
      NAME: {type: dataset, with: {ref: digits}}
    uses: script@v1
    with: {image: bash:5, script: ls /inputs}
""",
    "output": """\
jobs:
  train:
    outputs:
      NAME: {type: volume}
    uses: script@v1
    with: {image: bash:5, script: ls /outputs}
""",
    "workflow's input": """\
inputs:
  NAME: {type: string, with: {value: x}}
jobs:
  train:
    uses: script@v1
    with: {image: bash:5, script: "true"}
""",
    "dataset that is read": """\
jobs:
  train:
    inputs:
      data:
        type: dataset
        with:
          ref: NAME
    uses: script@v1
    with: {image: bash:5, script: ls /inputs}
""",
    "dataset that is written": """\
jobs:
  train:
    outputs:
      data:
        type: dataset
        with:
          ref: NAME
    uses: script@v1
    with: {image: bash:5, script: ls /outputs}
""",
    "dataset by its old key": """\
jobs:
  train:
    outputs:
      data:
        type: dataset
        with:
          id: NAME
    uses: script@v1
    with: {image: bash:5, script: ls /outputs}
""",
    "dataset of the workflow": """\
inputs:
  data:
    type: dataset
    with:
      ref: NAME
jobs:
  train:
    inputs: {data: workflow.inputs.data}
    uses: script@v1
    with: {image: bash:5, script: ls /inputs}
""",
    "model": """\
jobs:
  train:
    inputs: {model: {type: dataset, with: {ref: digits}}}
    uses: create-model@v1
    with:
      type: Custom
      name: NAME
""",
}
JOBS = ["train", "CloneRepo", "step-2", "2-clean", "a", "x" * 100]
NO_JOBS = ["clone_repo", "clone repo", "a.b", "-a", "_a", "a/b", "é", "a\\n", "", "x" * 101, "a:b"]
PORTS = ["data", "model-id", "my_data", "v1.2", "_x", "2"]
NO_PORTS = ["my data", "a/b", "../x", ".", "..", "", "a:b", "é", "a\\n", "$A", "x" * 101, "a\\\\b"]
DATASETS = [
    *("data", "my_data", "dsr8k5qzn401lb5", "data:latest", "data:v1-abc123", "data:best"),
    *("team/data", "gradient/mnist", "team/data:klfoyy9", "a.b-c"),
]
NO_DATASETS = [
    *(
        "my data",
        "a/b/c",
        "x:y:z",
        "",
        "/data",
        "data/",
        "data:",
        ":v1",
        "../data",
        ".",
        "s3://b/x",
    ),
    *(
        "$DATA",
        "data@v1",
        " data",
        "data\\n",
        "/inputs/data",
        "https://a.example/b",
    ),
]
MODELS = ["digits", "my_model", "My model (large)", "résumé-ranker", "v1.2"]
NO_MODELS = ["a/b", "..", ".", "", "a\\\\b", "a\\nb", "x" * 101]
NAMES = {
    **dict.fromkeys(["job"], (JOBS, NO_JOBS)),
    **dict.fromkeys(["input", "output", "workflow's input"], (PORTS, NO_PORTS)),
    **{place: (DATASETS, NO_DATASETS) for place in PLACES if place.startswith("dataset")},
    "model": (MODELS, NO_MODELS),
}


def written(tmp_path: Path, place: str, name: str) -> tuple[Path, int]:
    """Write a workflow that has the name in a place; give the file and the name's line."""
    path = tmp_path / "train.yaml"
    before, _, after = PLACES[place].partition("NAME")
    path.write_text(f'{before}"{name}"{after}')
    return path, before.count("\n") + 1


@pytest.mark.parametrize("place", PLACES)
def test_a_name_that_cannot_work_is_an_error_with_its_line(tmp_path: Path, place: str) -> None:
    for name in NAMES[place][1]:
        path, line = written(tmp_path, place, name)
        errors = [each for each in check(path) if each.severity == "error"]
        assert [(each.rule, each.line) for each in errors] == [("name", line)], name
        with pytest.raises(GradlabError, match=rf"train\.yaml:{line}:\d+: error \[name\]"):
            load(path)


@pytest.mark.parametrize("place", PLACES)
def test_a_name_that_works_is_no_finding(tmp_path: Path, place: str) -> None:
    for name in NAMES[place][0]:
        path, _ = written(tmp_path, place, name)
        assert [each.rule for each in check(path) if each.rule != "old-id"] == [], name


def test_what_check_takes_the_datasets_and_the_models_take(tmp_path: Path) -> None:
    for name in DATASETS:
        Reference.parse(name)
    for name in MODELS:
        models.create(Folder(tmp_path), name, "Custom", "dataset digits:v1", {}, "run")
    names = [name.encode().decode("unicode_escape") for name in NO_DATASETS]
    for name in names:
        with pytest.raises(GradlabError, match="can't be a reference to a dataset"):
            Reference.parse(name)
    for name in NO_MODELS:
        with pytest.raises(GradlabError, match="can't be the name of a model"):
            plain = name.encode().decode("unicode_escape")
            models.create(Folder(tmp_path), plain, "ONNX", "x", {}, "run")


def test_a_run_and_its_dry_run_say_what_check_says_and_do_nothing(project: Project) -> None:
    project.workflow(
        """\
        jobs:
          train_model:
            outputs:
              data: {type: dataset, with: {ref: my data}}
            uses: script@v1
            with: {image: bash:5, script: touch /outputs/data/x}
        """,
        "my training",
    )
    said = project.fails(1, "check").splitlines()[:2]
    assert [line.split(":")[1] for line in said] == ["2", "4"]
    for arguments in (["--dry-run"], []):
        output = project.fails(2, "run", "my training", "--engine", "paths", *arguments)
        assert all(line.partition("train.yaml")[2] in output for line in said)
    assert not project.storage.exists()
    # The file itself may be called as the service's users call theirs.
    text = "jobs: {train: {uses: script@v1, with: {image: bash:5, script: 'true'}}}"
    project.workflow(text, "my training")
    project.ok("run", "my training", "--engine", "paths")
