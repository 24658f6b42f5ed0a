"""What befalls jobs of a cluster, and who submits them: nothing is lost, and nothing done twice."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from ..lab import descendants
from ..workflow.conftest import HAS_BUBBLEWRAP, Project, wait_for
from .cluster import Cluster, until
from .conftest import counted, counting, ended, is_counted, job, run, started, submitted, tell
from .ways import WAYS, where

# Many more of them: CUTS=60
CUTS = int(os.environ.get("CUTS", "4"))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["paths", "bubblewrap"])
@pytest.mark.parametrize("way", WAYS)
def test_whatever_ends_a_job_it_is_carried_on_by_itself(
    project: Project, cluster: Cluster, way: str, engine: str
) -> None:
    if engine == "bubblewrap" and not HAS_BUBBLEWRAP:
        pytest.skip("bubblewrap is not installed")
    (project.root / "slurm.yaml").write_text(f"C5: {{cpus: 1, engine: {engine}}}\n")
    counting(project, 60)
    runner = started(project, lambda: len(counted(project)) > 10, "the first numbers")
    WAYS[way](cluster)
    assert project.states(ended(runner)) == {"job": "ran", "last": "ran"}
    is_counted(project, 60)
    # Told in time it saves, and does nothing again; a lost node has the last number's moment.
    assert len(counted(project)) <= 60 + (way == "lost")


@pytest.mark.slow
def test_a_time_limit_is_met_as_often_as_it_takes(project: Project, cluster: Cluster) -> None:
    (project.root / "slurm.yaml").write_text(
        "C5: {partition: short, cpus: 1, engine: paths, time: 1:00}"
    )
    counting(project, 500)
    run(project)
    is_counted(project, 500)
    assert len(counted(project)) == 500
    attempts = list(project.storage.glob("workflows/train/attempts/job/*.json"))
    assert len(attempts) >= 2


def test_a_machine_that_was_taken_for_dead_harms_nothing(
    project: Project, cluster: Cluster
) -> None:
    """It goes on to write, and to its end, after another one has done its job."""
    counting(project, 40)
    runner = started(project, lambda: len(counted(project)) > 10, "the first numbers")
    node = where(cluster)
    steps, jobs = cluster.processes(node)
    family = sorted({*steps, *jobs, *every(project)})
    tell(family, signal.SIGSTOP)
    try:
        cluster.end(node)
        cluster.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=silent")
        until(lambda: where(cluster) not in ("", node), "the other node", 40)
        before = len(counted(project))
        until(lambda: len(counted(project)) > before + 5, "the other node at work", 40)
        # Not slurmstepd, which would end the job: nobody tells it that it is not wanted.
        tell([pid for pid in family if pid not in steps], signal.SIGCONT)
        assert project.states(ended(runner)) == {"job": "ran", "last": "ran"}
        is_counted(project, 40)
        until(lambda: not {*family} & {*every(project)}, "the end of the silent node's job", 40)
    finally:
        tell([*steps, *family], signal.SIGKILL)
        cluster.start_node_again(node)
    is_counted(project, 40)
    assert len(project.versions("job")) == 1


def every(project: Project) -> list[int]:
    """List the processes of the project's jobs."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"GRADLAB_JOB={project.root}".encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def chain(project: Project, length: int) -> None:
    """Write a workflow of jobs that need each the one before; each counts how often it is done."""
    jobs = []
    for number in range(length):
        script = f"while [ ! -e {project.root}/go ]; do sleep 0.1; done\n"
        script += f"echo {number} >> {project.root}/done; echo x > /outputs/out/x"
        needs = f"needs: [j{number - 1}]" * (number > 0)
        jobs.append(job(script, f"j{number}", needs))
    project.workflow(f"    jobs:{''.join(jobs)}\n")


def test_a_submission_that_is_killed_half_way_is_completed_by_the_same_command(
    project: Project, cluster: Cluster
) -> None:
    seed = random.randrange(1_000_000)
    print(f"The moments of the kills are those of seed {seed}.")
    moment, length = random.Random(seed), 8
    chain(project, length)
    for _ in range(CUTS):
        process = project.start("run", "train", "--engine", "slurm", "--detach")
        time.sleep(moment.uniform(0, 1.5))
        tell([process.pid, *descendants(process.pid)], signal.SIGKILL)
        process.communicate()
    runner = project.start("run", "train", "--engine", "slurm")
    wait_for(runner, "jobs submitted")
    (project.root / "go").touch()
    assert set(project.states(ended(runner)).values()) == {"ran"}
    assert sorted((project.root / "done").read_text().split()) == sorted(map(str, range(length)))
    for number in range(length):
        assert len(project.versions(f"j{number}")) == 1


@pytest.mark.slow
def test_a_thousand_jobs_are_submitted_within_a_minute(project: Project, cluster: Cluster) -> None:
    jobs = [job("echo x > /outputs/out/x", f"j{number}") for number in range(1000)]
    project.workflow(f"    jobs:{''.join(jobs)}\n")
    for node in cluster.nodes:
        cluster.ask("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    try:
        began = time.monotonic()
        assert submitted(run(project, "--detach")) == 1000
        took = time.monotonic() - began
        print(f"1,000 jobs in {took:.1f} s")
        assert took < 60
        assert submitted(run(project, "--detach")) == 0
    finally:
        cluster.ask("scancel", "--me")
        for node in cluster.nodes:
            cluster.ask("scontrol", "update", f"NodeName={node}", "State=RESUME")
