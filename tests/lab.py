"""A project with a storage of its own, whose commands are run, killed and run again.

And what other tests share to run a command that has to succeed, or to fail.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
import tomllib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import warm
from .kit import paths
from .services.bucket import NAME, Bucket

# A run of a second or two: loader workers, augmentation and dropout as in the default one.
EPOCHS = 6
QUICK = ["--epochs", str(EPOCHS), "--evaluate-every", "1", "--batch-size", "32", "--workers", "2"]
SMALL = [*QUICK, "--model.width", "8"]
PER_EPOCH = 1078 // 32
STEPS = EPOCHS * PER_EPOCH


def call(folder: Path, *command: str, code: int = 0, **env: str | None) -> str:
    """Run a command in a folder and give what it printed; None removes a variable."""
    given = {name: value for name, value in (os.environ | env).items() if value is not None}
    done = subprocess.run(
        command,
        cwd=folder,
        env=given,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


class Judged:
    """Commands whose end is as expected."""

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        raise NotImplementedError

    def ok(self, *arguments: str, **env: str) -> str:
        """Run what has to succeed, and give what it printed."""
        done = self.run(*arguments, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def fails(self, code: int, *arguments: str, **env: str) -> str:
        """Run what has to fail with a message, and give all that it printed."""
        done = self.run(*arguments, **env)
        text = done.stdout + done.stderr
        assert done.returncode == code, text
        assert "Traceback" not in text, text
        return text


@dataclass
class Lab:
    """A generated project, the storage it uses, what the environment adds, and how it trains."""

    project: Path
    storage: Path
    env: dict[str, str] = field(default_factory=dict)
    small: list[str] = field(default_factory=lambda: SMALL, kw_only=True)
    bucket: Bucket | None = field(default=None, kw_only=True)  # instead of the storage
    modules: tuple[str, ...] = field(default=warm.TRAINING, kw_only=True)  # loaded before
    # In jobs too, where nothing but a kill ends them before their time.
    warm_jobs: bool = field(default=False, kw_only=True)

    @property
    def package(self) -> str:
        text = (self.project / "pyproject.toml").read_text("utf-8")
        return str(tomllib.loads(text)["project"]["name"])

    def folder(self, name: str = "default") -> Path:
        """Give the folder of a run as it is kept; of one in a bucket a copy."""
        folder = self.storage / "runs" / name
        if self.bucket:
            folder.mkdir(parents=True, exist_ok=True)
            self.bucket.bring(f"{self.prefix}runs/{name}/", folder)
        return folder

    def take(self, storage: Path) -> None:
        """Let it go on with what another storage, a folder, holds."""
        shutil.copytree(storage, self.storage, dirs_exist_ok=True)
        if self.bucket:
            self.bucket.take(self.prefix, self.storage)

    def lose(self, file: str, name: str = "default") -> None:
        """Remove a file of a run from where it is kept."""
        (self.folder(name) / file).unlink()
        if self.bucket:
            self.bucket.remove(f"{self.prefix}runs/{name}/{file}")

    def on_slow_storage(self) -> None:
        """Let the storage be a slow mount, with the machine's own disk beside it."""
        self.env |= {"GRADLAB_STORAGE_SLOW": "1", "GRADLAB_SCRATCH": str(self.disk)}

    def in_a_bucket(self, bucket: Bucket) -> None:
        """Let the storage be a bucket, with the machine's own disk beside it."""
        self.bucket, self.prefix = bucket, f"{uuid.uuid4().hex}/"
        url = f"s3://{NAME}/{self.prefix.rstrip('/')}"
        self.env |= {**bucket.env, "GRADLAB_STORAGE": url, "GRADLAB_SCRATCH": str(self.disk)}
        self.env["GRADLAB_LEASE_SECONDS"] = "1"

    @property
    def disk(self) -> Path:
        return self.storage.with_name("scratch")

    def work(self, name: str = "default") -> Path:
        """Give the folder in which a run is written."""
        found = next(self.disk.glob(f"*/runs/{name}"), None)
        return found or self.storage / "runs" / name

    def start(self, *arguments: str) -> Any:
        """Start a Python module of the project in a process group of its own."""
        return warm.start(self.modules, arguments, self.project, self.environment())

    def environment(self) -> dict[str, str]:
        """Give the environment of its commands."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("GRADLAB_", "COLAB_"))}
        # Else the project would be compiled again for each command.
        clean.pop("PYTHONDONTWRITEBYTECODE", None)
        # One thread: many tests share the cores, and the number of threads alters the bits.
        clean |= {"PYTHONPATH": paths("src"), "OMP_NUM_THREADS": "1"}
        # A job installs the kit from the project's folder, and nothing from elsewhere.
        clean |= {"PIP_NO_INDEX": "1"}
        if self.warm_jobs:
            clean |= warm.for_jobs(self.modules)
        return {**clean, "GRADLAB_STORAGE": str(self.storage), **self.env}

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a module to its end and give what it printed; the exit code must be as expected."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == code, output
        return output

    def train(self, *options: str, code: int = 0) -> str:
        return self.run(self.package, "train", *self.small, *options, code=code)

    def train_until(
        self,
        reached: Callable[[], object],
        *options: str,
        number: signal.Signals = signal.SIGKILL,
        whole_group: bool = True,
    ) -> str:
        """Train, send a signal once something is reached, and give what was printed."""
        process = self.start(self.package, "train", *self.small, *options)
        while process.poll() is None and not reached():
            time.sleep(0.001)
        for pid in descendants(process.pid) if whole_group else []:
            os.kill(pid, number)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        return output

    def steps(self, name: str = "default") -> list[int]:
        """List the steps in metrics.jsonl."""
        lines = (self.folder(name) / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["step"] for line in lines]

    def recorded(self, name: str = "default") -> int:
        """Count the steps in metrics.jsonl, which may be half written."""
        try:
            return (self.work(name) / "metrics.jsonl").read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def checkpoints(self, name: str = "default") -> list[Path]:
        """List the checkpoints, the oldest first."""
        return sorted((self.folder(name) / "checkpoints").glob("*.safetensors"))

    def sha(self, name: str = "default", file: str = "model.safetensors") -> str:
        return hashlib.sha256((self.folder(name) / file).read_bytes()).hexdigest()


def descendants(pid: int) -> list[int]:
    """List the processes below a process, whichever of its threads has started them."""
    children: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children += map(int, path.read_text().split())
    return [p for child in children for p in (child, *descendants(child))]
