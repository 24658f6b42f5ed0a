"""An exported workflow is run: its pods in real containers, killed and tried again."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..conftest import generate
from ..kit import wheel
from ..lab import SMALL, Lab, call
from ..services.gitserver import TOKEN, Repository, Server
from ..workflow.conftest import IMAGE, Project
from .cluster import Cluster, Kill, Pod
from .manifests import refused

needs_image = pytest.mark.skipif(not IMAGE, reason="no image (tests/image.py makes one)")
pytestmark = needs_image
SECRET = "not-a-real-secret-0987654321"

WORKFLOW = """
inputs:
  word: {type: string, with: {value: hello}}
jobs:
  checkout:
    uses: git-checkout@v1
    with: {url: context.event.github.url, ref: context.event.github.ref}
    outputs: {repo: {type: volume}}
  in-time:
    needs: [checkout]
    inputs: {word: workflow.inputs.word, repo: checkout.outputs.repo}
    outputs: {out: {type: dataset, with: {ref: word}}, kept: {type: volume}}
    env: {TOKEN: "secret:my-token"}
    uses: script@v1
    with:
      image: bash:5
      script: |
        set -e
        echo x >> /outputs/kept/tries
        if [ $(wc -l < /outputs/kept/tries) -lt 2 ]; then
          echo "stops in time, of $TOKEN"
          exit 75
        fi
        cp /inputs/word /inputs/repo/code /outputs/out
        printf '%s' "$TOKEN" | wc -c > /outputs/out/length
  last:
    needs: [in-time]
    inputs: {word: in-time.outputs.out, kept: in-time.outputs.kept}
    outputs: {all: {type: dataset, with: {ref: all}}}
    uses: script@v1
    with:
      image: bash:5
      script: |
        cat /inputs/word/* /inputs/kept/tries > /outputs/all/all
  broken:
    uses: script@v1
    with: {image: bash:5, script: "echo tried; exit 3"}
  after-it:
    needs: [broken]
    uses: script@v1
    with: {image: bash:5, script: "true"}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A git server with a private door."""
    with Server(tmp_path_factory.mktemp("git")) as server:
        yield server


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """A namespace with a claim and a secret."""
    storage = tmp_path / "claim"
    storage.mkdir()
    env = {"PIP_NO_INDEX": "1", "OMP_NUM_THREADS": "1", "GRADLAB_NETWORK": "off"}
    secrets = {"gradlab": {"my-token": SECRET, "git-token": TOKEN}}
    return Cluster(tmp_path / "cluster", IMAGE, {"shared": storage}, secrets, env)


@pytest.fixture
def made(make_project: Callable[[str], Project], server: Server, tmp_path: Path) -> Any:
    """Give a function that puts a workflow into the repository, and exports it."""

    def make(text: str, **files: str) -> tuple[Project, Repository]:
        project = make_project("demo")
        project.workflow(text)
        (project.root / "vendor").mkdir()
        subprocess.run(["cp", wheel(), project.root / "vendor"], check=True)
        (project.root / "code").write_text("v1\n")
        repository = server.add(project.root, tmp_path.name)
        return Project(repository.work, project.storage, project.env), repository

    return make


def exported(project: Project, repository: Repository, *options: str) -> str:
    address = ("--repository", repository.private_url, "--token", "git-token")
    text = project.ok("export", "train", "--to", "argo", "--claim", "shared", *address, *options)
    assert refused(yaml.safe_load(text)) == []
    return text


def content(cluster: Cluster, name: str) -> list[bytes]:
    """Give the files of a dataset's newest version, by name."""
    versions = (cluster.claims["shared"] / "demo" / "datasets" / name).glob("v*-*")
    newest = max(versions, key=lambda path: int(path.name.split("-")[0][1:]))
    return [path.read_bytes() for path in sorted((newest / "data").rglob("*")) if path.is_file()]


@pytest.mark.slow
def test_what_stops_in_time_is_taken_up_again_and_what_fails_is_not(
    made: Any, cluster: Cluster
) -> None:
    project, repository = made(WORKFLOW)
    run = cluster.submit(exported(project, repository), word="bye")
    assert run.states == {
        "checkout": "Succeeded",
        "in-time": "Succeeded",
        "last": "Succeeded",
        "broken": "Failed",
        "after-it": "Omitted",
    }, run.said()
    assert run.codes("in-time") == [75, 0]
    assert run.codes("broken") == [1] and run.said().count("[broken] tried") == 1
    assert content(cluster, "all") == [b"v1\n" + b"28\n" + b"bye" + b"x\nx\n"], run.said()
    assert run.most > 1  # what needs nothing of each other runs at once
    assert SECRET not in run.said() and TOKEN not in run.said()
    for path in cluster.claims["shared"].rglob("*"):
        text = path.read_bytes() if path.is_file() else b""
        assert SECRET.encode() not in text and TOKEN.encode() not in text, path


RUN = (sys.executable, "-m", "gradlab")
TRAIN = 'train --name "$RUN" --max-minutes 300'


def began(pod: Pod, storage: Path, waits: bool) -> None:
    """Wait until a pod's training has written a checkpoint more, or not at all."""
    drafts = storage / "drafts" / "train" / "train"
    before = {path.name for path in drafts.rglob("*.safetensors")}
    while waits and pod.status == "Running":
        if {path.name for path in drafts.rglob("*.safetensors")} - before:
            return
        time.sleep(0.05)


def models(storage: Path) -> dict[str, str]:
    """Give the SHA-256 of the models in all versions of datasets."""
    found = {}
    for version in (storage / "datasets").glob("*/v*-*"):
        for path in version.rglob("*.safetensors"):
            if path.parent.name != "checkpoints":
                name = f"{version.parent.name}/{path.relative_to(version)}"
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.mark.slow
def test_a_training_whose_pods_are_killed_gives_the_bytes_of_one_that_never_was(
    server: Server, cluster: Cluster, tmp_path: Path
) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    moments = random.Random(seed)
    ways = iter(moments.sample(["KILL", "TERM", "DELETE"], 2))
    repository = server.add(generate(tmp_path, {}), tmp_path.name)
    path = repository.work / ".gradient/workflows/train.yaml"
    text = (
        path.read_text().partition("\n  evaluate:")[0].replace(TRAIN, f"{TRAIN} {' '.join(SMALL)}")
    )
    assert text.count(" ".join(SMALL)) == 1
    row = f"{text.partition('instance-type:')[2].split()[0]}: {{}}\n"
    repository.commit({str(path.relative_to(repository.work)): text, "argo.yaml": row})

    def watch(pod: Pod, kill: Kill) -> None:
        if pod.task == "train" and (how := next(ways, "")):
            # Mostly in the middle of training, at times before it has begun.
            began(pod, storage, moments.random() < 0.8)
            time.sleep(moments.uniform(0, 2))
            kill(how)

    lab = Lab(repository.work, tmp_path / "plain")
    storage = cluster.claims["shared"] / lab.package
    command = [*RUN, "export", "train", "--to", "argo", "--claim", "shared"]
    address = ["--repository", repository.private_url, "--token", "git-token"]
    manifest = call(repository.work, *command, *address, **lab.environment())
    run = cluster.submit(manifest, watch)
    assert run.succeeded, run.said()
    assert len(run.codes("train")) > 1, run.said()
    call(repository.work, *RUN, "run", "train", "--engine", "paths", **lab.environment())
    assert len(models(storage)) == 2  # the best and the last
    assert models(storage) == models(lab.storage)
