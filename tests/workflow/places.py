"""A project whose storage is a folder, a slow mount or a bucket, and all that lies in it."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

from gradlab.__main__ import commands
from gradlab.cli import main
from gradlab.store import location
from gradlab.store.location import Location

from ..services.bucket import NAME, Bucket
from .conftest import Project

KINDS = ("folder", "slow", "bucket")
LOSING = {"os.remove", "os.rename", "os.rmdir", "os.truncate"}
MODEL = """
  register:
    needs: [make]
    inputs: {model: make.outputs.made}
    outputs: {model-id: {type: string}}
    uses: create-model@v1
    with: {name: it, type: Custom}
"""
MAKE = """
jobs:
  make:
    inputs: {data: {type: dataset, with: {ref: data}}}
    outputs: {made: {type: dataset, with: {ref: made}}}
    uses: script@v1
    with: {image: "bash:5", script: "echo good > /outputs/made/file"}
"""
CUT_OFF = """
jobs:
  wait:
    inputs: {made: {type: dataset, with: {ref: made}}}
    outputs: {out: {type: dataset, with: {ref: out}}}
    uses: script@v1
    with:
      image: bash:5
      script: |
        echo half > /outputs/out/half
        echo waits
        sleep 60
"""


@dataclass(frozen=True)
class Place:
    """A project, and its storage of a kind; `prefix` is that of its keys in a bucket."""

    kind: str
    project: Project
    bucket: Bucket | None
    prefix: str = ""

    @property
    def scratch(self) -> Path:
        return self.project.root / "scratch"

    def files(self) -> dict[str, str]:
        """Give the SHA-256 of all that is kept, but for logs, locks and the like, by its path."""
        if self.bucket:
            mirror = self.bucket.bring(self.prefix, self.project.root / "mirror")
        else:
            mirror = self.project.storage
        found = {
            str(path.relative_to(mirror)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in mirror.rglob("*")
            if path.is_file()
        }
        locks = ("leases/", ".clean.lock")
        return {
            key: sha
            for key, sha in found.items()
            if not key.startswith(locks) and not key.endswith(".lock")
        }

    def write(self, key: str, text: str, age: float = 0.0) -> None:
        """Put a file into the storage by hand, as one that was written so many seconds ago."""
        if self.bucket:
            self.bucket.client.put_object(Bucket=NAME, Key=self.prefix + key, Body=text.encode())
            return
        path = self.project.storage / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for each in (path, *path.parents):
            if each == self.project.storage:
                break
            os.utime(each, (each.stat().st_mtime - age,) * 2)

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command of `gradlab` in this process; give its exit code and what it printed."""
        printed = io.StringIO()
        with (
            patch.dict(os.environ, self.project.env),
            chdir(self.project.root),
            redirect_stdout(printed),
            redirect_stderr(printed),
        ):
            code = main("gradlab", commands(arguments), arguments)
        return code, printed.getvalue()

    def ok(self, *arguments: str) -> str:
        """Run what has to succeed, and give what it printed."""
        code, text = self.run(*arguments)
        assert not code, text
        return text

    def fails(self, code: int, *arguments: str) -> str:
        """Run what has to fail, and give what it printed."""
        found, text = self.run(*arguments)
        assert found == code, text
        return text

    @contextmanager
    def opened(self) -> Iterator[Location]:
        """Open the storage in this process."""
        with patch.dict(os.environ, self.project.env):
            yield location.of("demo")


def of(kind: str, project: Project, bucket: Bucket) -> Place:
    scratch = {"GRADLAB_SCRATCH": str(project.root / "scratch")}
    if kind == "bucket":
        name = project.root.parent.name
        place = {"GRADLAB_STORAGE": f"s3://{NAME}/{name}", "GRADLAB_LEASE_SECONDS": "1"}
        env = {**project.env, **bucket.env, **scratch, **place}
        return Place(kind, replace(project, env=env), bucket, f"{name}/")
    slow = {"GRADLAB_STORAGE_SLOW": "1", **scratch} if kind == "slow" else {}
    return Place(kind, replace(project, env={**project.env, **slow}), None)


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Do something in a fork that dies at its so many-th removal; tell whether it died of that."""
    pid = os.fork()
    if not pid:
        counted = [0]

        def hook(event: str, _: object) -> None:
            counted[0] += event in LOSING
            if counted[0] == number:
                os._exit(9)

        sys.addaudithook(hook)
        try:
            work()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9), code
    return code == 9
