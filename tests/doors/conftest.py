"""The real clients, each in its own environment, the services on loopback, and a project."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from gradlab.__main__ import commands
from gradlab.cli import main
from gradlab.remote.clients.environment import Client, newer_python
from gradlab.remote.doors import bootstrap
from gradlab.remote.doors.doors import KINDS
from gradlab.run.record import Run
from gradlab.store import sealed

from ..kit import KIT
from ..lab import Judged
from ..services.bucket import NAME, Bucket
from ..services.cloud import Cloud
from ..services.conftest import cloud, machines
from ..services.gitserver import Server, git
from ..services.machines import Machines
from .colab_service import Colab, Jupyter
from .huggingface_service import HuggingFace, Job
from .kaggle_service import TOKEN, Kaggle, Kernel

__all__ = ["cloud", "machines"]
REDIRECT = Path(__file__).with_name("redirect.py")
SECRETS = {"AWS_SECRET_ACCESS_KEY": "the-s3cret-key", "HUB_TOKEN": "hub-secret-value-1234"}
SPEC = """
jobs:
  train:
    env: {TOKEN: secret:HUB_TOKEN}
    outputs: {run: {type: dataset, with: {ref: made}}}
    uses: script@v1
    with: {image: "bash:5", script: "echo good > /outputs/run/file"}
"""
Install = Callable[[str], Path]


@pytest.fixture(scope="session")
def install(pytestconfig: pytest.Config) -> Install:
    """Install a door's client, once for each set of pins; give its program."""
    assert pytestconfig.cache
    cache = Path(pytestconfig.cache.mkdir("clients"))

    def run(door: str) -> Path:
        return installed(KINDS[door].client, cache)

    return run


def installed(client: Client, cache: Path) -> Path:
    content = client.requirements.read_bytes() + REDIRECT.read_bytes()
    home = cache / hashlib.sha256(content).hexdigest()[:12]
    home.mkdir(exist_ok=True)
    with open(home / f"{client.id}.lock", "w") as lock, patch.dict(os.environ):
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers wait for the first
        os.environ["XDG_CACHE_HOME"] = str(home)
        if not (client.home / "ready").exists():
            for step in by_uv(client):
                done = subprocess.run(step, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stderr
            (site,) = client.home.glob("lib/python*/site-packages")
            (site / "redirect.pth").write_text(
                f"import os; exec(open({str(REDIRECT)!r}).read(), {{}})"
            )
            (client.home / "ready").touch()
        return client.home / "bin" / client.program


def by_uv(client: Client) -> list[list[str]]:
    """Give commands that install a client's pins there, and fail where these lack something."""
    uv = str(Path(sys.executable).with_name("uv"))
    python = sys.executable
    if sys.version_info < client.oldest:
        python = newer_python(client.oldest)
    there = ["--quiet", "--python", str(client.home / "bin" / "python")]
    pins = ["--no-deps", "--requirement", str(client.requirements)]
    return [
        [uv, "venv", "--quiet", "--python", python, str(client.home)],
        [uv, "pip", "install", *there, *pins],
        [uv, "pip", "check", *there],
    ]


@dataclass
class Desk(Judged):
    """A project that is pushed, and `gradlab` as its user runs it; its storage is a bucket."""

    root: Path
    home: Path
    bucket: Bucket
    prefix: str
    env: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)  # all that was printed

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `gradlab` in this process, which needs no start."""
        output, errors = io.StringIO(), io.StringIO()
        given = {name: value for name, value in (self.env | env).items() if value}
        with (
            chdir(self.root),
            patch.dict(os.environ, given, clear=True),
            redirect_stdout(output),
            redirect_stderr(errors),
        ):
            code = main("gradlab", commands(arguments), arguments)
        self.said += [output.getvalue(), errors.getvalue()]
        return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())

    @property
    def url(self) -> str:
        return f"s3://{NAME}/{self.prefix.rstrip('/')}"

    def fresh(self) -> None:
        """Take another, empty storage."""
        self.prefix = f"{uuid.uuid4().hex}/"
        self.env["GRADLAB_STORAGE"] = self.url

    def finish(self, hop: str, code: int = 0, finished: bool = True, log: str = "done\n") -> None:
        """Note in the storage what the other side notes when it has done its part.

        From a thread of a server: nothing of this process may change.
        """
        top = f"{self.prefix}workflows/train"
        texts = {
            f"{top}/run-00000001.json": sealed.to_text(asdict(Run("01234567", finished=finished))),
            f"{top}/hops/{hop}.log": log,
            f"{top}/hops/{hop}.json": sealed.to_text({"code": code}),
        }
        for key, text in texts.items():
            self.bucket.client.put_object(Bucket=NAME, Key=key, Body=text.encode())

    def step(self, number: int) -> None:
        """Put a checkpoint into the storage."""
        name = f"{self.prefix}drafts/train/train/{number:010}-{'0' * 16}.safetensors"
        self.bucket.client.put_object(Bucket=NAME, Key=name, Body=b"")

    def hops(self) -> list[dict[str, Any]]:
        """Read the hops as they are noted."""
        keys = sorted(self.bucket.keys(f"{self.prefix}workflows/train/door-"))
        data = self.bucket.client.get_object(
            Bucket=NAME, Key=f"{self.prefix}workflows/train/door-{keys[-1]}"
        )
        found: list[dict[str, Any]] = json.loads(data["Body"].read())["hops"]
        return found

    def spills(self) -> list[str]:
        """Name where a secret lies that should not: what was printed, kept or left on the disk."""
        wanted = [*SECRETS.values(), TOKEN]
        found = [text for text in self.said if any(each in text for each in wanted)]
        kept = self.bucket.bring(self.prefix, self.home.parent / f"kept-{uuid.uuid4().hex}")
        for top in (kept, self.home, self.root):
            for path in top.rglob("*"):
                if path.is_file() and any(each.encode() in path.read_bytes() for each in wanted):
                    found.append(str(path))
        return found


@pytest.fixture(scope="session")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A project whose commit is at a git server; gives its folder and the server's name."""
    folder = tmp_path_factory.mktemp("pushed")
    with Server(folder / "git") as server:
        source = folder / "demo"
        (source / ".gradient" / "workflows").mkdir(parents=True)
        (source / "pyproject.toml").write_text('[project]\nname = "demo"\n')
        (source / ".gradient" / "workflows" / "train.yaml").write_text(SPEC)
        repository = server.add(source)
        git(repository.work, "remote", "set-url", "origin", f"https://{repository.host}/project")
        yield repository.work, repository.host


@pytest.fixture
def desk(pushed: tuple[Path, str], bucket: Bucket, tmp_path: Path) -> Desk:
    """A project that knows the doors; GitHub is the git server here."""
    root, host = pushed
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[url "http://{host}/"]\n\tinsteadOf = https://{host}/\n')
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(KIT)}
    env |= bucket.env | SECRETS | {"GRADLAB_SCRATCH": str(tmp_path / "scratch")}
    env |= {"GRADLAB_CLIENT_TIMEOUT": "2", "TMPDIR": str(home)}
    made = Desk(root, home, bucket, "", env)
    made.fresh()
    return made


def done_at_once(desk: Desk) -> Callable[[Any, Kernel], None]:
    """Give what runs a notebook at Kaggle that has finished as soon as it is looked at."""

    def run(service: Kaggle, kernel: Kernel) -> None:
        compile(kernel.text, kernel.slug, "exec")
        kernel.status = "COMPLETE"
        desk.finish(kernel.slug)

    return run


@pytest.fixture
def kaggle(desk: Desk, install: Install) -> Iterator[Kaggle]:
    """Kaggle, where a run has finished as soon as it is looked at."""
    with Kaggle(done_at_once(desk)).running() as service:
        desk.env |= service.env | {"GRADLAB_KAGGLE": str(install("kaggle"))}
        yield service
    assert service.unexpected == []


@pytest.fixture
def jupyter(machines: Machines, cloud: Cloud, tmp_path: Path) -> Iterator[Jupyter]:
    """A machine of Colab's with its Jupyter server, on which a hop does nothing but end well."""
    machine = machines.colab(cloud)
    made = Jupyter(machine, tmp_path / "jupyter")
    made.wait()
    yield made
    made.end()


@pytest.fixture
def colab(desk: Desk, install: Install, jupyter: Jupyter) -> Iterator[Colab]:
    """Colab, whose machines are one: it is what it was before when it is given again."""
    with Colab(lambda: jupyter).running() as service:
        desk.env |= service.env | {"GRADLAB_COLAB": str(install("colab"))}
        # A kernel takes its time to start.
        desk.env |= {"GRADLAB_COLAB_AUTH": "adc", "GRADLAB_CLIENT_TIMEOUT": "15"}
        yield service
    assert service.unexpected == []


@pytest.fixture
def huggingface(desk: Desk, install: Install) -> Iterator[HuggingFace]:
    """Hugging Face, where a run has finished as soon as it is looked at."""

    def run(service: HuggingFace, job: Job) -> None:
        job.stage = "COMPLETED"
        desk.finish(job.name)

    with HuggingFace(run).running() as service:
        desk.env |= service.env | {"GRADLAB_HUGGINGFACE": str(install("huggingface"))}
        yield service
    assert service.unexpected == []


# What a hop does here: it reads its secrets as the true one does, and ends.
FAR_SIDE = """
import glob, json, os, sys, time
CONFIG: Any = {}  # filled in by bootstrap.py
(path,) = glob.glob(CONFIG["bag"])
print(sorted(json.load(open(path))["env"]))
os.unlink(path)
while not os.path.exists("/content/go"):
    time.sleep(0.05)
sys.exit(0)
"""


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[None]:
    """Let a hop at Colab end as soon as the test lets it."""
    path = tmp_path / "far_side.py"
    path.write_text(f"from typing import Any\n{FAR_SIDE}")
    with patch.object(bootstrap, "FAR_SIDE", path):
        yield
