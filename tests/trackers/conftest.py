"""Trainings that trackers follow, and a server of MLflow with a database."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ..lab import descendants
from . import PYTHON
from .cloud import Cloud

HERE = Path(__file__).parent


@dataclass
class Tracked:
    """A training in a storage of its own."""

    storage: Path
    tracker: str
    env: dict[str, str] = field(default_factory=dict)
    cloud: Cloud | None = None  # in W&B's place

    @property
    def folder(self) -> Path:
        return self.storage / "runs" / "default"

    def start(self, **env: object) -> subprocess.Popen[str]:
        own = {"GRADLAB_STORAGE": str(self.storage), "TRACKER": self.tracker, "STEPS": "400"}
        given = {name: str(value) for name, value in env.items()}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GRADLAB_", "WANDB_"))}
        return subprocess.Popen(
            [PYTHON, HERE / "tracked/training.py", "train"],
            env={**kept, **own, **self.env, **given},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def train(self, code: int = 0, **env: object) -> str:
        process = self.start(**env)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == code, output
        return output

    def kill(self, process: subprocess.Popen[str], alone: bool) -> None:
        """Kill a training, `alone` or with all that it has started."""
        for pid in [] if alone else descendants(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()

    def recorded(self) -> list[dict[str, Any]]:
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def shown(self) -> list[list[dict[str, Any]]]:
        """Give the lines of each run that the tracker has of this one."""
        if self.tracker == "wandb" and self.cloud:
            if "WANDB_API_KEY" not in self.env:
                self.sync()
            return self.cloud.runs()
        command = [PYTHON, "-P", HERE / "reading.py", self.tracker, self.folder]
        env = {**os.environ, **self.env}
        done = subprocess.run(command, env=env, text=True, capture_output=True, check=True)
        return [*json.loads(done.stdout.splitlines()[-1]).values()]

    def sync(self) -> None:
        """Send what lies offline, as the run's end says."""
        assert self.cloud
        parts = self.folder.glob("trackers/wandb/offline-run-*")
        env = {**os.environ, **self.cloud.env()}
        subprocess.run(
            [PYTHON.parent / "wandb", "sync", *parts], cwd=self.storage, env=env, check=True
        )


@pytest.fixture(scope="session")
def clients() -> None:
    if not PYTHON.exists():
        assert not os.environ.get("REQUIRE_ALL_TOOLS"), f"{PYTHON} is missing"
        pytest.skip("The trackers' clients aren't there: make .venv/trackers/.ready")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Server:
    """MLflow's own server, its runs in a database."""

    folder: Path
    port: int = field(default_factory=free_port)

    def __enter__(self) -> Server:
        command = [PYTHON.parent / "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        database = ["--backend-store-uri", f"sqlite:///{self.folder}/runs.db"]
        options = ["--gunicorn-opts", "--threads 2 --no-control-socket"]
        self._process = subprocess.Popen(
            [*command, *database, "--default-artifact-root", self.folder / "artifacts", *options],
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + 120
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < end
            time.sleep(0.2)
        return self

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.url}/health", timeout=5).status == 200
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def env(self) -> dict[str, str]:
        """Give the environment of who logs to it, in an experiment of his own."""
        return {"MLFLOW_TRACKING_URI": self.url, "MLFLOW_EXPERIMENT_NAME": uuid.uuid4().hex}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="session")
def server(clients: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with Cloud() as cloud:
        yield cloud


@pytest.fixture(params=["wandb", "wandb online", "mlflow", "trackio"])
def tracked(request: pytest.FixtureRequest, clients: None, cloud: Cloud, tmp_path: Path) -> Tracked:
    name, _, online = request.param.partition(" ")
    env = {"TRACKIO_DIR": str(tmp_path / "trackio"), "TRACKIO_DISABLE_TELEMETRY": "1"}
    if name == "mlflow":
        env |= request.getfixturevalue("server").env()
    return Tracked(tmp_path / "storage", name, env | (cloud.env() if online else {}), cloud)
