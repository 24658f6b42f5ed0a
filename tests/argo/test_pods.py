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

from ..kit import wheel
from ..lab import SMALL, Lab, call
from ..services.gitserver import TOKEN, Repository, Server
from ..workflow.conftest import IMAGE, Project
from .cluster import Cluster, Kill, Pod
from .manifests import refused

needs_image = pytest.mark.skipif(not IMAGE, reason="no image (tests/image.py makes one)")
pytestmark = needs_image
SECRET = "not-a-real-secret-0987654321"
ALL = b"v1\n" * 6 + b"28\n" + b"bye" + b"3\n"

WORKFLOW = """
inputs:
  word: {type: string, with: {value: hello}}
jobs:
  checkout:
    uses: git-checkout@v1
    with: {url: context.event.github.url, ref: context.event.github.ref}
    outputs: {repo: {type: volume}}
  long:
    needs: [checkout]
    inputs: {repo: checkout.outputs.repo}
    outputs: {out: {type: dataset, with: {ref: long}}}
    uses: script@v1
    with:
      image: bash:5
      script: |
        set -e
        for i in 1 2 3 4 5 6; do
          [ ! -e /outputs/out/$i ] || continue
          echo "step $i"; sleep 0.5; cp /inputs/repo/code /outputs/out/$i
        done
  in-time:
    needs: [checkout]
    inputs: {word: workflow.inputs.word}
    outputs: {out: {type: dataset, with: {ref: word}}, kept: {type: volume}}
    env: {TOKEN: "secret:my-token"}
    uses: script@v1
    with:
      image: bash:5
      script: |
        set -e
        echo x >> /outputs/kept/tries
        if [ $(wc -l < /outputs/kept/tries) -lt 3 ]; then
          echo "stops in time, of $TOKEN"
          exit 75
        fi
        cp /inputs/word /outputs/out/word
        printf '%s' "$TOKEN" | wc -c > /outputs/out/length
  last:
    needs: [long, in-time]
    inputs: {long: long.outputs.out, word: in-time.outputs.out, kept: in-time.outputs.kept}
    outputs: {all: {type: dataset, with: {ref: all}}}
    uses: script@v1
    with:
      image: bash:5
      script: |
        set -e
        cat /inputs/long/* /inputs/word/* > /outputs/all/all
        wc -l < /inputs/kept/tries >> /outputs/all/all
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
def test_pods_that_are_killed_or_stop_in_time_carry_on_and_do_the_same(
    made: Any, cluster: Cluster
) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    moments = random.Random(seed)
    ways = iter(moments.sample(["KILL", "TERM", "DELETE"], 3))

    def watch(pod: Pod, kill: Kill) -> None:
        if pod.task == "long" and (how := next(ways, "")):
            time.sleep(moments.uniform(2, 6))
            kill(how)

    project, repository = made(WORKFLOW)
    run = cluster.submit(exported(project, repository), watch, word="bye")
    assert run.succeeded, run.said()
    assert content(cluster, "all") == [ALL], run.said()
    assert run.codes("in-time") == [75, 75, 0]
    assert 1 <= len(run.codes("long")) <= 4 and set(run.codes("long")) <= {0, -1, 137, 143}
    assert run.codes("checkout") == run.codes("last") == [0]
    assert run.most == 2  # what needs nothing of each other runs at once
    assert SECRET not in run.said() and TOKEN not in run.said()
    steps = [run.said().count(f"step {number}\n") for number in range(1, 7)]
    assert all(1 <= count <= 2 for count in steps) and sum(steps) <= 6 + 3, run.said()
    for path in cluster.claims["shared"].rglob("*"):
        text = path.read_bytes() if path.is_file() else b""
        assert SECRET.encode() not in text and TOKEN.encode() not in text, path
    # The same again: nothing has changed, and a new run does its own.
    again = cluster.submit(exported(project, repository), word="bye")
    assert again.succeeded, again.said()
    assert content(cluster, "all") == [ALL]


FAILING = """
jobs:
  a:
    uses: script@v1
    with: {image: bash:5, script: "echo tried; exit 3"}
  b:
    needs: [a]
    uses: script@v1
    with: {image: bash:5, script: "true"}
"""


def test_what_fails_by_itself_is_not_tried_again(made: Any, cluster: Cluster) -> None:
    project, repository = made(FAILING)
    run = cluster.submit(exported(project, repository))
    assert run.states == {"a": "Failed", "b": "Omitted"}, run.said()
    assert run.codes("a") == [1]
    assert run.said().count("[a] tried") == 1


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
    """Give the SHA-256 of the models in each dataset's newest version."""
    found = {}
    for dataset in (storage / "datasets").iterdir():
        versions = dataset.glob("v*-*")
        newest = max(versions, key=lambda path: int(path.name.split("-")[0][1:]))
        for path in newest.rglob("*.safetensors"):
            if path.parent.name != "checkpoints":
                name = f"{dataset.name}/{path.relative_to(newest)}"
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.mark.slow
def test_a_training_whose_pods_are_killed_gives_the_bytes_of_one_that_never_was(
    project: Path, server: Server, cluster: Cluster, tmp_path: Path
) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    moments = random.Random(seed)
    ways = iter(["KILL", "TERM", "DELETE", "TERM", "KILL"])
    repository = server.add(project, f"{tmp_path.name}-training")
    path = repository.work / ".gradient/workflows/train.yaml"
    text = path.read_text().replace(TRAIN, f"{TRAIN} {' '.join(SMALL)}")
    assert text.count(" ".join(SMALL)) == 1
    row = f"{text.partition('instance-type:')[2].split()[0]}: {{}}\n"
    repository.commit({str(path.relative_to(repository.work)): text, "argo.yaml": row})

    def watch(pod: Pod, kill: Kill) -> None:
        if pod.task == "train" and (how := next(ways, "")):
            # The first ones before it has begun to train, some in the middle of it.
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
    assert len(run.codes("train")) > 2, run.said()
    call(repository.work, *RUN, "run", "train", "--engine", "paths", **lab.environment())
    assert len(models(storage)) >= 3
    assert models(storage) == models(lab.storage)
