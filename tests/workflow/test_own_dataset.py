"""A job that goes on with its own dataset, and what `--fresh` means for it."""

from __future__ import annotations

import json
import re

import pytest

from .conftest import Project

COUNTS = """
    inputs:
      log: {type: dataset, optional: true, with: {ref: log}}
    jobs:
      count:
        inputs: {log: FROM}
        outputs: {log: {type: dataset, with: {ref: log}}}
        uses: script@v1
        with:
          image: bash:5
          script: |
            set -e
            [ -e /outputs/log/lines ] || cp /inputs/log/lines /outputs/log/ || true
            echo line >> /outputs/log/lines
            test ! -e STOP
      reads:
        inputs: {log: {type: dataset, optional: true, with: {ref: log}}}
        uses: script@v1
        with: {image: "bash:5", script: "cat /inputs/log/lines | wc -l; env | grep GRADLAB_"}
"""
OWN = "{type: dataset, with: {ref: log}}"


def lines(project: Project) -> list[int]:
    """Count the lines in each version, the oldest first."""
    return [len((v / "data/lines").read_text().split()) for v in project.versions("log")]


def run(project: Project, *options: str, code: int = 0) -> str:
    done = project.run("run", "train", "--engine", "paths", *options)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("source", [OWN, "workflow.inputs.log"])
def test_fresh_forgets_what_the_job_itself_has_made_once_and_nothing_else(
    project: Project, source: str
) -> None:
    stop = project.root / "stop"
    project.workflow(COUNTS.replace("FROM", source).replace("STOP", str(stop)))
    run(project)
    run(project)
    assert lines(project) == [1, 2]
    stop.touch()
    output = run(project, "--fresh", code=1)
    assert "nothing yet: job 'count' finds an empty folder" in output
    assert "[reads] 2\n" in output, "the other job reads the newest version"
    run(project, code=1)  # carries on with its draft, and does not begin again
    stop.unlink()
    run(project)
    assert lines(project) == [1, 2, 3], "1 line of the fresh beginning, 2 of what carried on"
    run(project)
    assert lines(project) == [1, 2, 3, 4], "the next run goes on with the newest"
    run(project, "--fresh")
    assert lines(project) == [1, 2, 3, 4, 1]


def test_fresh_finds_what_was_added_by_hand(project: Project) -> None:
    project.workflow(COUNTS.replace("FROM", OWN).replace("STOP", "/nowhere/stop"))
    (project.root / "files").mkdir()
    (project.root / "files/lines").write_text("a\nb\nc\n")
    project.ok("datasets", "add", "log", "files")
    run(project)
    run(project, "--fresh")
    run(project)
    assert lines(project) == [3, 4, 4, 5]


def test_a_job_is_told_what_data_it_reads_but_not_what_it_goes_on_with(project: Project) -> None:
    text = COUNTS.replace("FROM", OWN).replace("STOP", "/nowhere/stop")
    project.workflow(text.replace("echo line", "env | grep GRADLAB_DATA; echo line"))
    run(project)
    output = run(project)
    (digest,) = {
        json.loads(path.with_name("manifest.json").read_text())["sha256"]
        for path in [project.versions("log")[0] / "data"]
    }
    assert f'[reads] GRADLAB_DATA={{"log": "{digest}"}}\n' in output
    assert "[count] GRADLAB_DATA={}\n" in output


def test_a_fresh_run_tells_its_jobs_so_however_often_it_is_cut_off(project: Project) -> None:
    stop = project.root / "stop"
    project.workflow(COUNTS.replace("FROM", OWN).replace("STOP", str(stop)))
    assert "GRADLAB_FRESH" not in run(project)
    stop.touch()
    first = re.search(r"GRADLAB_FRESH=(\w+)", run(project, "--fresh", code=1))
    stop.unlink()
    project.workflow(COUNTS.replace("FROM", OWN).replace("STOP", str(stop)).replace("wc -l", "cat"))
    again = re.search(r"GRADLAB_FRESH=(\w+)", run(project))
    assert first and again and first[1] == again[1]
    assert "GRADLAB_FRESH" not in run(project)


def test_a_job_is_told_its_workflow_and_what_is_accepted(project: Project) -> None:
    project.workflow(COUNTS.replace("FROM", OWN).replace("STOP", "/nowhere/stop"))
    output = run(project)
    assert "[reads] GRADLAB_WORKFLOW=train\n" in output and "GRADLAB_ACCEPT" not in output
    assert "[reads] GRADLAB_JOB_AT=.gradient/workflows/train.yaml:16 (job reads)\n" in output
    assert "[reads] GRADLAB_ACCEPT_CHANGES=1\n" in run(project, "--accept-changes")
