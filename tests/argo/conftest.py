"""A project with a workflow in a repository of its own, and what is exported of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from ..kit import wheel
from ..services.gitserver import git
from ..workflow.conftest import Project
from ..workflow.conftest import make_project as make_project

WORKFLOW = """
inputs:
  data: {type: dataset, with: {ref: digits}}
  rate.of.it: {type: string}
jobs:
  checkout:
    uses: git-checkout@v1
    with: {url: context.event.github.url, ref: context.event.github.ref}
    outputs: {repo: {type: volume}}
  3d:
    needs: [checkout]
    inputs: {repo: checkout.outputs.repo, data: workflow.inputs.data}
    outputs: {run: {type: dataset, with: {ref: run}}}
    resources: {instance-type: P4000}
    env: {TOKEN: "secret:HUB_TOKEN", OTHER: "secret:other-one"}
    uses: script@v1
    with: {image: bash:5, script: "true"}
  rated:
    needs: [checkout]
    inputs: {rate: workflow.inputs.rate.of.it}
    uses: script@v1
    with: {image: bash:4, script: "true"}
  last:
    needs: [3d, rated]
    inputs: {model: 3d.outputs.run}
    outputs: {id: {type: string}}
    uses: create-model@v1
    with: {name: m, type: Custom}
"""
TABLE = """
P4000:
  nodeSelector: {node.kubernetes.io/instance-type: g4dn.xlarge, gpu: true}
  resources: {requests: {cpu: 4, memory: 14Gi}, limits: {nvidia.com/gpu: 1}}
  tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
"""


def commit(project: Project) -> None:
    """Commit all of a project."""
    git(project.root, "add", "--all")
    git(project.root, "commit", "--quiet", "--message", "A change")


@pytest.fixture
def untracked(make_project: Callable[[str], Project]) -> Project:
    """Give a project that is in no repository yet."""
    made = make_project("demo")
    made.workflow(WORKFLOW)
    (made.root / "argo.yaml").write_text(TABLE)
    return made


@pytest.fixture
def project(untracked: Project) -> Project:
    """Give a project that can be exported."""
    made = untracked
    (made.root / ".gitignore").write_text("storage\n")
    (made.root / "vendor").mkdir()
    subprocess.run(["cp", wheel(), made.root / "vendor"], check=True)
    git(made.root, "init", "--quiet", "--initial-branch=main")
    git(made.root, "remote", "add", "origin", "git@example.org:ann/demo.git")
    commit(made)
    return made
