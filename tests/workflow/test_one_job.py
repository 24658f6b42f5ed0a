"""What concerns one job stays with that job, and what decides its result is in its key."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from ..failing import environment
from .conftest import Project

TWO = """
    jobs:
      checkout:
        outputs: {repo: {type: volume}}
        uses: git-checkout@v1
        with: {url: context.event.github.url}
      needs-it:
        needs: [checkout]
        uses: script@v1
        with: {image: "bash:5", script: "echo never"}
      other:
        uses: script@v1
        with: {image: "bash:5", script: "echo fine"}
"""


def run(project: Project, unreadable: Path | None = None) -> tuple[str, int]:
    """Run the workflow while one file can't be opened, for the first time that it is tried."""
    env, log = dict(project.env), project.root / "calls"
    if unreadable:
        log.touch()
        env |= environment([unreadable], log, at=1, error="EACCES", only="open *")
        env["PYTHONPATH"] = f"{env['PYTHONPATH']}:{project.env['PYTHONPATH']}"
    done = subprocess.run(
        project.command("run", "train", "--engine", "paths"),
        cwd=project.root,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout, done.returncode


def states(project: Project, output: str) -> dict[str, str]:
    return project.states(re.split(r"\n\n[\w-]+ failed: ", output)[0])


def test_a_source_that_cannot_be_read_fails_its_job_and_no_other(project: Project) -> None:
    project.workflow(TWO)
    (project.root / "code.py").write_text("x = 1\n")
    output, code = run(project, project.root / "code.py")
    expected = {"checkout": "failed", "needs-it": "skipped", "other": "ran"}
    assert states(project, output) == expected and code == 1, output
    assert "Permission denied" in output and "code.py" in output
    output, code = run(project)
    assert code == 0, output
    assert project.states(output)["other"] == "reused"


def test_a_volume_that_cannot_be_read_again_fails_its_job_and_no_other(project: Project) -> None:
    text = TWO.replace("echo never", "exit 1").replace("git-checkout@v1", "script@v1")
    makes = "image: a, script: 'echo > /outputs/repo/x'"
    project.workflow(text.replace("url: context.event.github.url", makes))
    assert run(project)[1] == 1
    output, code = run(project, project.storage / "volumes/train/checkout/repo/x")
    expected = {"checkout": "failed", "needs-it": "skipped", "other": "reused"}
    assert states(project, output) == expected and code == 1, output
    assert states(project, run(project)[0])["checkout"] == "reused"


SECRET = """
    jobs:
      first:
        outputs: {made: {type: dataset, with: {ref: made}}}
        env: {WORD: "secret:WORD"}
        uses: script@v1
        with: {image: "bash:5", script: "echo ${#WORD} > /outputs/made/x"}
      second:
        needs: [first]
        inputs: {made: first.outputs.made}
        uses: script@v1
        with: {image: "bash:5", script: "echo has $(cat /inputs/made/x); exit 1"}
"""


def test_a_result_is_not_reused_for_another_value_of_a_secret(project: Project) -> None:
    project.workflow(SECRET)

    def fails(word: str) -> str:
        return project.fails(1, "run", "train", "--engine", "paths", WORD=word)

    assert "[second] has 13\n" in fails("a-long-secret")
    output = fails("a-long-secret").partition("\n\nsecond failed")[0]
    assert project.states(output)["first"] == "reused"
    output = fails("a-longer-secret")
    assert "[second] has 15\n" in output
    for path in project.storage.rglob("*"):
        assert not path.is_file() or b"-secret" not in path.read_bytes(), path
