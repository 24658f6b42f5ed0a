"""`gradlab run NAME --only JOB`: one job of a run that other processes carry on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import Project, wait_for
from .test_run import steps

# Each job counts its runs; it waits for a file `go-JOB` if there is one `wait-JOB`.
JOBS = """
    inputs:
      data: {type: dataset, with: {ref: data}}
    jobs:
      a:
        inputs: {data: workflow.inputs.data}
        outputs: {out: {type: dataset, with: {ref: a}}}
        %s
      b:
        inputs: {data: workflow.inputs.data}
        outputs: {out: {type: dataset, with: {ref: b}}, kept: {type: volume}}
        %s
      last:
        needs: [a, b]
        inputs: {a: a.outputs.out, b: b.outputs.out, kept: b.outputs.kept}
        outputs: {out: {type: dataset, with: {ref: last}}}
        uses: script@v1
        with:
          image: bash:5
          script: cat /inputs/[ab]/data > /outputs/out/data
"""
JOB = """uses: script@v1
        with:
          image: bash:5
          script: |
            set -e
            echo x >> HERE/runs-%s
            echo started
            cp /inputs/data/x /outputs/out/data
            if [ -e HERE/wait-%s ]; then while [ ! -e HERE/go-%s ]; do sleep 0.05; done; fi"""


@pytest.fixture
def run(project: Project) -> Project:
    """Give a project with two jobs that need nothing and one that needs both."""
    text = JOBS % tuple(JOB.replace("%s", name) for name in "ab")
    project.workflow(text.replace("HERE", str(project.root)))
    add(project, "1")
    return project


def add(project: Project, text: str) -> None:
    """Add a version of the dataset that the jobs read."""
    folder = project.root / "data"
    folder.mkdir(exist_ok=True)
    (folder / "x").write_text(text)
    project.ok("datasets", "add", "data", str(folder))


def runs(project: Project, job: str) -> int:
    """Count how often a job's script was started."""
    path = project.root / f"runs-{job}"
    return len(path.read_text().split()) if path.exists() else 0


def only(project: Project, job: str, *options: str) -> str:
    return project.ok("run", "train", "--engine", "paths", "--only", job, *options)


def refused(project: Project, *options: str) -> str:
    return project.fails(2, "run", "train", "--engine", "paths", *options)


def begun(project: Project, job: str, *options: str) -> subprocess.Popen[str]:
    """Start a job that waits, and see it at work."""
    (project.root / f"wait-{job}").touch()
    runner: subprocess.Popen[str] = project.start("run", "train", "--engine", "paths", *options)
    wait_for(runner, f"[{job}] started")
    return runner


def go(project: Project, job: str) -> None:
    (project.root / f"go-{job}").touch()


def ended(runner: subprocess.Popen[str]) -> str:
    assert runner.stdout
    output = runner.stdout.read()
    assert runner.wait(30) == 0, output
    return output


def records(project: Project) -> list[dict[str, object]]:
    """Read the records of runs, the oldest first."""
    found = sorted((project.storage / "workflows/train").glob("run-*.json"))
    return [json.loads(path.read_text()) for path in found]


def last_run(project: Project) -> dict[str, object]:
    return records(project)[-1]


def test_job_by_job_a_run_is_done_and_finished(run: Project) -> None:
    assert run.states(only(run, "a")) == {"a": "ran"}
    assert not last_run(run)["finished"]
    assert run.states(only(run, "b")) == {"b": "ran"}
    assert (run.storage / "volumes/train").exists()
    assert run.states(only(run, "last")) == {"last": "ran"}
    assert last_run(run)["finished"]
    assert not (run.storage / "volumes/train").exists()
    assert (run.versions("last")[0] / "data/data").read_text() == "11"
    assert len({record["id"] for record in records(run)}) == 1


def test_what_a_job_needs_comes_first_and_is_named(run: Project) -> None:
    text = refused(run, "--only", "last")
    assert "job 'last' needs 'a', which has not succeeded in this run" in text
    assert "First: gradlab run train --only a" in text
    assert not records(run)
    only(run, "a")
    assert "First: gradlab run train --only b" in refused(run, "--only", "last")
    assert "First: gradlab run train --only a --fresh" in refused(run, "--only", "last", "--fresh")
    assert runs(run, "a") == 1
    assert "exclude each other" in refused(run, "--only", "a", "--job", "b")
    assert "has no job 'c'" in refused(run, "--only", "c")


def test_what_is_done_is_not_done_again_whoever_asks(run: Project) -> None:
    only(run, "a")
    assert "[a] reused: neither it nor what it reads has changed" in only(run, "a")
    output = run.ok("run", "train", "--engine", "paths")
    assert run.states(output) == {"a": "reused", "b": "ran", "last": "ran"}
    for job in ("a", "b", "last"):
        assert f"[{job}] is done, in the run {last_run(run)['id']}" in only(run, job)
    assert (runs(run, "a"), runs(run, "b"), len(run.versions("last"))) == (1, 1, 1)


def test_a_run_that_has_finished_is_followed_by_a_new_one_for_what_has_changed(
    run: Project,
) -> None:
    run.ok("run", "train", "--engine", "paths")
    first = last_run(run)["id"]
    add(run, "2")
    assert "First: gradlab run train --only a" in refused(run, "--only", "last")
    assert last_run(run)["id"] == first
    assert run.states(only(run, "a")) == {"a": "ran"}
    assert last_run(run)["id"] != first
    for job in ("b", "last"):
        only(run, job)
    assert (run.versions("last")[-1] / "data/data").read_text() == "22"
    assert run.states(only(run, "a", "--fresh")) == {"a": "ran"}


def test_datasets_are_pinned_once_for_all_jobs_of_a_run(run: Project) -> None:
    only(run, "a")
    add(run, "2")
    assert "as when this run began" in only(run, "b")
    only(run, "last")
    assert (run.versions("last")[0] / "data/data").read_text() == "11"


def test_two_jobs_of_one_run_at_once_do_not_disturb_each_other(run: Project) -> None:
    both = [begun(run, job, "--only", job) for job in "ab"]
    for job in "ba":
        go(run, job)
    for runner, job in zip(both, "ab", strict=True):
        assert run.states(ended(runner)) == {job: "ran"}
    assert len({record["id"] for record in records(run)}) == 1
    assert run.states(only(run, "last")) == {"last": "ran"}
    assert last_run(run)["finished"]


def test_a_job_that_two_ask_for_is_done_once(run: Project) -> None:
    first = begun(run, "a", "--only", "a")
    second = run.start("run", "train", "--engine", "paths", "--only", "a")
    wait_for(second, "[a] another process is doing this job: waiting for it")
    go(run, "a")
    assert run.states(ended(first)) == {"a": "ran"}
    assert run.states(ended(second)) == {"a": "reused"}
    assert (runs(run, "a"), len(run.versions("a"))) == (1, 1)


def test_a_kill_of_one_harms_no_other_and_who_waits_carries_on(run: Project) -> None:
    killed, other = begun(run, "a", "--only", "a"), begun(run, "b", "--only", "b")
    waits = run.start("run", "train", "--engine", "paths", "--only", "a")
    wait_for(waits, "waiting for it")
    os.killpg(killed.pid, signal.SIGKILL)
    go(run, "a")
    assert run.states(ended(waits)) == {"a": "ran"}
    assert runs(run, "a") == 2
    go(run, "b")
    assert run.states(ended(other)) == {"b": "ran"}
    assert run.states(only(run, "last")) == {"last": "ran"}
    assert last_run(run)["finished"]
    assert [len(run.versions(name)) for name in ("a", "b", "last")] == [1, 1, 1]


def test_a_whole_run_takes_what_another_process_does_meanwhile(run: Project) -> None:
    one = begun(run, "a", "--only", "a")
    whole = run.start("run", "train", "--engine", "paths")
    wait_for(whole, "[a] another process is doing this job: waiting for it")
    go(run, "a")
    assert run.states(ended(one)) == {"a": "ran"}
    assert run.states(ended(whole)) == {"a": "reused", "b": "ran", "last": "ran"}
    assert last_run(run)["finished"]
    assert (runs(run, "a"), runs(run, "b"), len(run.versions("last"))) == (1, 1, 1)


def test_jobs_of_another_engines_run_are_one_run_and_the_next_id_is_the_next_one(
    run: Project,
) -> None:
    only(run, "a", "--run-id", "one")
    for job in ("b", "last", "a", "last"):  # an answer that was lost is asked for again
        only(run, job, "--run-id", "one")
    first = last_run(run)
    assert first["finished"] and (runs(run, "a"), runs(run, "b")) == (1, 1)
    # Without an id `a` would be passed over, and `last` would find no run to join.
    for job in ("a", "b", "last"):
        assert run.states(only(run, job, "--run-id", "two")) == {job: "ran"}
    assert last_run(run)["id"] != first["id"] and last_run(run)["finished"]
    assert "--run-id is for --only" in refused(run, "--run-id", "three")


def test_a_run_that_was_interrupted_is_carried_on_under_another_engines_next_id(
    run: Project,
) -> None:
    only(run, "a", "--run-id", "one")
    for job in ("a", "b", "last"):
        only(run, job, "--run-id", "two")
    assert len({record["id"] for record in records(run)}) == 1
    assert runs(run, "a") == 1 and last_run(run)["finished"]
    assert "is done, and so is the run" in only(run, "last", "--run-id", "two")


def test_a_job_of_a_whole_run_that_is_at_work_is_waited_for(run: Project) -> None:
    whole = begun(run, "a")
    assert "which another process is doing" in refused(run, "--only", "last")
    one = run.start("run", "train", "--engine", "paths", "--only", "a")
    wait_for(one, "waiting for it")
    go(run, "a")
    assert "[a] " in ended(one)
    assert run.states(ended(whole)) == {"a": "ran", "b": "ran", "last": "ran"}
    assert last_run(run)["finished"]
    assert (runs(run, "a"), len(run.versions("a"))) == (1, 1)


def test_a_new_run_is_refused_while_a_job_of_the_old_one_is_done(run: Project) -> None:
    one = begun(run, "a", "--only", "a")
    for options in (("--only", "b", "--fresh"), ("--fresh",)):
        assert "another process is doing job 'a' of the run under way" in refused(run, *options)
    go(run, "a")
    assert run.states(ended(one)) == {"a": "ran"}
    assert run.states(only(run, "b", "--fresh")) == {"b": "ran"}
    assert run.states(only(run, "a")) == {"a": "ran"}


def test_a_signal_ends_the_wait_for_another_process(run: Project) -> None:
    one = begun(run, "a", "--only", "a")
    for options in (("--only", "a"), ()):
        other = run.start("run", "train", "--engine", "paths", *options)
        wait_for(other, "waiting for it")
        began = time.monotonic()
        other.send_signal(signal.SIGTERM)
        assert other.wait(20) == 128 + signal.SIGTERM, other.stdout.read()
        assert time.monotonic() - began < 5
    go(run, "a")
    assert run.states(ended(one)) == {"a": "ran"}


def test_dry_run_shows_one_job_and_writes_nothing(run: Project) -> None:
    assert "would be" in only(run, "a", "--dry-run")
    assert not (run.storage / "workflows").exists()


def test_a_record_of_the_earlier_layout_is_carried_on(project: Project, tmp_path: Path) -> None:
    marker = tmp_path / "mended"
    project.workflow(steps(marker))
    project.fails(1, "run", "train", "--engine", "paths")
    folder = project.storage / "workflows/train"
    (path,) = (folder / "jobs").glob("first-*2.json")
    job = json.loads(path.read_text())
    record = last_run(project)
    del record["checksum"]
    record["jobs"] = {"first": {key: job[key] for key in job if key not in ("run", "checksum")}}
    for old in (*folder.glob("run-*"), *(folder / "jobs").glob("*.json")):
        old.unlink()
    (folder / "run-00000007.json").write_text(json.dumps(record))
    output = project.fails(1, "run", "train", "--engine", "paths")
    marker.touch()
    output += project.ok("run", "train", "--engine", "paths")
    assert output.count("done: first\n") == output.count("[first] reused") == 2
    assert len(project.versions("made")) == 1
