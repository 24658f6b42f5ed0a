"""`gradlab runs`: the last run of each workflow, and the trainings in its jobs."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from .conftest import Project, wait_for

WORKFLOW = """
jobs:
  make:
    outputs: {made: {type: dataset, with: {ref: made}}}
    uses: script@v1
    with: {image: "bash:5", script: "echo good > /outputs/made/file"}
  judge:
    needs: [make]
    inputs: {made: make.outputs.made}
    outputs: {out: {type: dataset, with: {ref: judged}}}
    uses: script@v1
    with:
      image: bash:5
      script: |
        mkdir -p /outputs/out/runs/r/checkpoints
        echo half > /outputs/out/runs/r/checkpoints/0000000007-0123456789abcdef.safetensors
        echo waits
        if [ "$WAITS" ]; then sleep 60; fi
        exit $CODE
    env: {CODE: "%s", WAITS: "%s"}
"""


def listed(project: Project) -> dict[str, dict[str, Any]]:
    return {row["of"]: row for row in json.loads(project.ok("runs", "--json"))}


def test_a_workflows_run_is_listed_as_it_stands(project: Project) -> None:
    assert "No runs in" in project.ok("runs")
    project.workflow(WORKFLOW % ("3", ""))
    project.fails(1, "run", "train", "--engine", "paths")
    row = listed(project)["workflow train"]
    assert row["state"] == "failed" and row["jobs_done"] == ["make"]
    assert "exit status is 3" in row["jobs_failed"]["judge"]
    inside = listed(project)["train/judge"]
    assert inside["run"] == "r" and inside["steps"] == 7 and "is damaged" in inside["problems"][0]

    project.workflow(WORKFLOW % ("0", "1"))
    runner = project.start("run", "train", "--engine", "paths")
    wait_for(runner, "[judge] waits")
    rows = listed(project)
    assert [rows[of]["state"] for of in ("workflow train", "train/judge")] == ["running"] * 2
    os.killpg(runner.pid, signal.SIGKILL)
    runner.wait()
    assert listed(project)["train/judge"]["state"] == "cut off"

    project.workflow(WORKFLOW % ("0", ""))
    project.ok("run", "train", "--engine", "paths")
    rows = listed(project)
    assert rows["workflow train"]["state"] == "finished" and "train/judge" not in rows
    (of,) = (of for of in rows if of.startswith("judged:v1-"))
    assert rows[of]["run"] == "r" and rows[of]["where"].endswith("/data/runs/r")

    record, older = sorted((project.storage / "workflows/train").glob("run-*.json"))[::-1][:2]
    record.write_text(record.read_text().replace('"finished": true', '"finished": rue'))
    row = listed(project)["workflow train"]
    assert "is damaged" in row["problems"][0] and row["state"] == "cut off", "as before"
    for path in (record, older):
        path.unlink()
        path.mkdir()
    rows = listed(project)
    assert "can't be read" in rows["workflow train"]["problems"][0] and of in rows
