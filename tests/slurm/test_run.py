"""`gradlab run NAME --engine slurm` as a user meets it, on a real Slurm with two nodes."""

from __future__ import annotations

import re
import shutil
import signal
import stat
from pathlib import Path

from ..workflow.conftest import Project, wait_for
from .cluster import Cluster, until
from .conftest import counted, counting, ended, is_counted, job, run, started, submitted

CODE = """
      checkout:
        outputs: {repo: {type: volume}}
        uses: git-checkout@v1
        with: {url: context.event.github.url}"""
READS = "needs: [checkout]\n        inputs: {repo: checkout.outputs.repo}\n        "
WAIT = "while [ ! -e HERE/go ]; do sleep 0.1; done\n"


def waits(project: Project) -> str:
    return WAIT.replace("HERE", str(project.root))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


SECRET = "a-very-long-secret-that-nobody-may-see"


def test_jobs_read_what_was_submitted_and_no_secret_lies_about(
    project: Project, cluster: Cluster
) -> None:
    project.env.update(TOKEN=SECRET, ANOTHER_SECRET="of-the-users-own-shell")
    (project.root / "code.txt").write_text("as submitted")
    script = waits(project) + "cat /inputs/repo/code.txt > /outputs/out/x\necho it is $TOKEN."
    first = job(script, "first", READS + 'env: {TOKEN: "secret:TOKEN"}')
    second = job(
        "cat /inputs/x/x > /outputs/out/x",
        "second",
        "needs: [first]\n        inputs: {x: first.outputs.out}",
    )
    project.workflow(f"    jobs:{CODE}{first}{second}\n")
    runner = started(project, lambda: cluster.processes()[1], "the first job")
    (project.root / "code.txt").write_text("edited since")
    (project.root / ".gradient/workflows/train.yaml").write_text("jobs: {}\n")
    (kept,) = project.storage.glob("workflows/train/submissions/*/secrets.json")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    told = [
        cluster.ask("scontrol", "show", "jobs"),
        *(path.read_bytes().decode("utf-8", "replace") for path in files(cluster.top)),
        *(
            path.read_bytes().decode("utf-8", "replace")
            for path in files(project.storage)
            if path != kept
        ),
        *(
            cmdline.read_bytes().decode("utf-8", "replace")
            for cmdline in Path("/proc").glob("[0-9]*/cmdline")
        ),
    ]
    for text in told:
        assert SECRET not in text and "of-the-users-own-shell" not in text
    (project.root / "go").touch()
    output = ended(runner)
    assert project.states(output) == {"first": "ran", "second": "ran"}
    assert "[first] it is ***." in output
    assert (project.versions("second")[0] / "data/x").read_text() == "as submitted"
    assert not kept.exists()
    assert not any(SECRET.encode() in path.read_bytes() for path in files(project.storage))


def test_a_failed_job_ends_what_needs_it_and_the_same_command_carries_on(project: Project) -> None:
    marker = project.root / "mended"
    needs = "needs: [fails]\n        inputs: {x: fails.outputs.out}"
    jobs = [
        job("echo x > /outputs/out/x", "fine"),
        job(f"echo because; [ -e {marker} ] && echo y > /outputs/out/x", "fails"),
        job("cp /inputs/x/x /outputs/out/x", "needs-it", needs),
    ]
    project.workflow(f"    jobs:{''.join(jobs)}\n")
    output = run(project, code=1)
    states = project.states(output.partition("\n\nfails failed")[0])
    assert states == {"fine": "ran", "fails": "failed", "needs-it": "skipped"}
    assert "it needs fails" in output and "\nbecause" in output
    assert not list(project.storage.glob("workflows/train/submissions/*/secrets.json"))
    assert re.search(r"fails +not done", project.fails(75, "status", "train"))
    marker.touch()
    output = run(project)
    assert submitted(output) == 2 and ", 1 done" in output
    assert len(project.versions("fine")) == len(project.versions("needs-it")) == 1


def test_the_command_given_again_follows_what_lives(project: Project, cluster: Cluster) -> None:
    project.workflow(f"    jobs:{job(waits(project) + 'echo x > /outputs/out/x')}\n")
    output = run(project, "--detach")
    assert submitted(output) == 1 and "gradlab stop train" in output
    assert "[job] " not in output
    until(lambda: cluster.processes()[1], "the job")
    assert re.search(r"job +running", project.fails(75, "status", "train"))
    text = project.fails(2, "run", "train", "--engine", "paths")
    assert "is under way on a cluster" in text
    assert "--fresh would end" in project.fails(2, "run", "train", "--engine", "slurm", "--fresh")
    runner = project.start("run", "train", "--engine", "slurm")
    wait_for(runner, "0 jobs submitted, 1 adopted")
    wait_for(runner, "[job] running")
    # Ctrl-C leaves the job alone.
    runner.send_signal(signal.SIGINT)
    assert "The jobs go on by themselves" in ended(runner, 128 + signal.SIGINT)
    assert len(cluster.queue()) == 1
    runner = project.start("run", "train", "--engine", "slurm")
    wait_for(runner, "0 jobs submitted, 1 adopted")
    (project.root / "go").touch()
    assert project.states(ended(runner)) == {"job": "ran"}
    assert len(project.versions("job")) == 1
    assert re.search(r"job +succeeded", project.ok("status", "train"))


def test_a_run_that_is_stopped_saves_and_is_carried_on(project: Project, cluster: Cluster) -> None:
    counting(project, 60)
    runner = started(project, lambda: len(counted(project)) > 5, "the first numbers")
    assert "stopped: the run" in project.ok("stop", "train")
    output = ended(runner, 75)
    states = project.states(output.partition("What was done")[0])
    assert states == {"job": "stopped", "last": "skipped"}, output
    assert not cluster.queue() and not cluster.processes()[1]
    done = len(counted(project))
    run(project)
    is_counted(project, 60)
    assert len(counted(project)) == 60 and done < 60


def test_logs_are_followed_to_the_end(project: Project) -> None:
    project.workflow(f"    jobs:{job('echo one; sleep 2; echo two; echo x > /outputs/out/x')}\n")
    run(project, "--detach")
    until((project.storage / "workflows/train/logs/job.log").exists, "the log")
    assert project.ok("logs", "train", "job", "--follow").split() == ["one", "two"]
    assert project.ok("logs", "train") == "[job] one\n[job] two\n"


def test_the_table_is_checked_with_its_places(project: Project) -> None:
    project.workflow(f"    jobs:{job('echo x > /outputs/out/x')}\n")
    table = project.root / "slurm.yaml"

    def refused(text: str) -> str:
        table.write_text(text)
        return project.fails(2, "run", "train", "--engine", "slurm", "--dry-run")

    assert "Add to it, with your values:\nC5: {partition: NAME" in refused("P4000: {cpus: 1}\n")
    assert "train.yaml:2: job 'job' runs on 'C5'" in refused("# nothing\nP4000: {cpus: 1}\n")
    assert (
        "slurm.yaml:2:3: error [slurm] there is no key `partiton`; did you mean `partition`?"
        in (refused("C5:\n  partiton: low\n"))
    )
    assert "slurm.yaml:1:6: error [slurm] `a day` is not a time limit" in refused(
        "C5: {time: a day}"
    )
    assert "what a machine is has to be a mapping" in refused("C5: low\n")
    assert "slurm.yaml:1:1: error" in refused("- C5\n")
    table.unlink()
    assert "there is no" in project.fails(2, "run", "train", "--engine", "slurm")


def test_slurms_own_refusal_names_job_and_row(project: Project) -> None:
    project.workflow(f"    jobs:{job('echo x > /outputs/out/x')}\n")
    (project.root / "slurm.yaml").write_text("C5: {partition: none}\n")
    text = project.fails(1, "run", "train", "--engine", "slurm")
    assert "job 'job', row 'C5' of slurm.yaml: Slurm refuses it" in text
    assert "invalid partition" in text


def test_what_makes_nothing_twice_is_given_up(project: Project) -> None:
    project.workflow(f"    jobs:{job(f'echo x >> {project.root}/tries; exit 75')}\n")
    output = run(project, code=1)
    assert (project.root / "tries").read_text() == "x\nx\n"
    assert "has made nothing in 2 attempts in a row" in (
        next(project.storage.glob("workflows/train/submissions/*/job.out")).read_text()
    )
    assert "job failed" in output


LOSES_ITS_ANSWER = """\
#!/bin/sh
{real} "$@" || exit
[ -e {once} ] && exit
touch {once}
echo "sbatch: error: Batch job submission failed: Unable to contact slurm controller" >&2
exit 1
"""


def test_an_answer_of_slurm_that_is_lost_submits_nothing_twice(
    project: Project, tmp_path: Path
) -> None:
    programs, runs = tmp_path / "programs", project.root / "runs"
    programs.mkdir()
    text = LOSES_ITS_ANSWER.format(real=shutil.which("sbatch"), once=tmp_path / "once")
    (programs / "sbatch").write_text(text)
    (programs / "sbatch").chmod(0o755)
    project.env["PATH"] = f"{programs}:{project.env['PATH']}"
    project.workflow(f"    jobs:{job(f'echo x >> {runs}; sleep 3; echo x > /outputs/out/x')}\n")
    run(project)
    assert (tmp_path / "once").exists()
    assert runs.read_text() == "x\n"
