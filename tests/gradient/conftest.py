"""The real command line in an environment of its own, the stand-in of the API, a project."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import pytest

from gradlab.__main__ import commands
from gradlab.cli import main
from gradlab.remote.gradient.service import CLIENT

from ..kit import KIT
from ..lab import Judged
from ..warm import SERVER
from . import quick
from .api import Api

REQUIREMENTS = CLIENT.requirements
PYTHONS = ("3.11", "3.12", "3.13")
INSTALLED = Path(".cache", "gradlab", "gradient")  # in a home, as the message has it
Install = Callable[[str], Path]

SPEC = """
"on":
  github:
    branches:
      only: main
jobs:
  checkout:
    uses: git-checkout@v1
    with:
      url: context.event.github.url
      ref: context.event.github.ref
    outputs:
      repo: {type: volume}
  train:
    needs: [checkout]
    env:
      TOKEN: secret:HUB_TOKEN
    inputs:
      repo: checkout.outputs.repo
      data: {type: dataset, with: {ref: digits}}
    outputs:
      run: {type: dataset, with: {ref: digits-run}}
    uses: script@v1
    with:
      image: bash:5
      script: ls /inputs/repo /inputs/data > /outputs/run/files
"""


@pytest.fixture(scope="session")
def install(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Give the command line's program, installed once for each Python and each set of pins.

    On the Python of the tests by the very command that a message shows; elsewhere by uv.
    """
    cache = pytestconfig.cache
    assert cache

    def run(version: str) -> Path:
        python = find_python(version)
        if python is None:
            pytest.skip(f"Python {version} is not here")
        command = by_message if python == sys.executable else by_uv
        trial = tmp_path_factory.mktemp("trial")
        text = command(python, trial)
        content = REQUIREMENTS.read_bytes() + text.replace(str(trial), "").encode()
        place = Path(cache.mkdir("gradient-cli")) / hashlib.sha256(content).hexdigest()[:12]
        with open(f"{place}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # other workers wait for the first
            if not (place / "ready").exists():
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                done = subprocess.run(
                    ["bash", "-c", command(python, place)], capture_output=True, text=True
                )
                assert done.returncode == 0, done.stderr
                (place / "ready").touch()
        return place / INSTALLED / "bin" / "gradient"

    return run


def by_message(python: str, home: Path) -> str:
    """Give the command that `gradlab setup` shows in a project of somebody with this home."""
    root = home / "demo"
    root.mkdir(parents=True, exist_ok=True)
    (root / "pyproject.toml").write_text('[project]\nname = "demo"\n')
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(KIT)}
    desk = Desk(root, home, env)
    desk.workflow()
    text = desk.fails(2, "setup")
    (command,) = [line for line in text.splitlines() if line.startswith("  ")]
    return command.strip()


def by_uv(python: str, home: Path) -> str:
    """Give a command that installs the set there, and fails where that lacks something."""
    uv, place = Path(sys.executable).with_name("uv"), home / INSTALLED
    there = ("--quiet", "--python", place / "bin" / "python")
    steps: list[tuple[str | Path, ...]] = [
        (uv, "venv", "--quiet", "--python", python, place),
        (uv, "pip", "install", *there, "--no-deps", "--requirement", REQUIREMENTS),
        (uv, "pip", "check", *there),
    ]
    return " && ".join(shlex.join(map(str, step)) for step in steps)


def find_python(version: str) -> str | None:
    """Give a Python of a version, if one is here."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    places = [sys.executable, shutil.which(f"python{version}"), *map(str, pyenv)]
    for place in filter(None, places):
        asked = [place, "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(asked, capture_output=True, text=True).stdout.strip() == version:
            return place
    return None


@pytest.fixture(scope="session")
def gradient(install: Install) -> Path:
    """The real `gradient` 2.99.4, run by this Python."""
    return install(f"{sys.version_info.major}.{sys.version_info.minor}")


@pytest.fixture(scope="session")
def loaded(gradient: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same, but that its Python becomes the kit's agent by a fork; see quick.py."""
    folder, short = tmp_path_factory.mktemp("loaded"), tempfile.mkdtemp(prefix="agent-")
    real, socket = str(gradient.parent / "python"), f"{short}/socket"
    here = [str(Path(quick.__file__).parent), str(Path(SERVER).parent)]
    call = f"import quick; quick.main({real!r}, {socket!r}, *sys.argv)"
    texts = {
        "python": f"#!{sys.executable} -IS\nimport sys; sys.path += {here!r}; {call}\n",
        "gradient": f"#!{folder}/python\n{gradient.read_text().partition(chr(10))[2]}",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    process = subprocess.Popen(
        [real, *quick.FLAGS, SERVER, socket, *quick.LOADED],
        env={"HOME": short, "PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin and process.stdout
    assert process.stdout.readline() == "ready\n"
    yield folder / "gradient"
    process.stdin.close()
    process.wait()
    shutil.rmtree(short, ignore_errors=True)  # the server may have done it


@pytest.fixture
def api() -> Iterator[Api]:
    """The service, empty; a request that it does not know fails the test."""
    with Api().running() as service:
        yield service
    assert service.unexpected == []


@dataclass
class Desk(Judged):
    """A project on disk, and `gradlab` as a user runs it against the service."""

    root: Path
    home: Path
    env: dict[str, str] = field(default_factory=dict)

    def workflow(self, text: str = SPEC, name: str = "train") -> Path:
        path = self.root / ".gradient" / "workflows" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def start(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `gradlab` as a process to its end; an empty value removes a variable."""
        return subprocess.run(
            [sys.executable, "-m", "gradlab", *arguments],
            cwd=self.root,
            env=self._environment(env),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=120,
        )

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `gradlab` as `start` does, but in this process, which needs no start."""
        output, errors = io.StringIO(), io.StringIO()
        with (
            chdir(self.root),
            patch.dict(os.environ, self._environment(env), clear=True),
            open(os.devnull) as nothing,
            patch.object(sys, "stdin", nothing),
            redirect_stdout(output),
            redirect_stderr(errors),
        ):
            code = main("gradlab", commands(arguments), arguments)
        return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())

    def _environment(self, env: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in (self.env | env).items() if value}


def rows(output: str) -> dict[tuple[str, str], str]:
    """Read the state of each step, by its kind and name, from what `gradlab setup` printed."""
    kinds = ("project", "dataset", "secret", "workflow", "notebook")
    found = {}
    for line in output.splitlines():
        if line.startswith(kinds):
            kind, name, rest = line.split(maxsplit=2)
            states = ("found", "made", "to make", "could not", "not tried")
            found[kind, name] = next(state for state in states if rest.startswith(state))
    return found


@pytest.fixture
def desk(tmp_path: Path, loaded: Path, api: Api) -> Desk:
    """A project with one workflow, which knows the service and the command line."""
    root, home = tmp_path / "demo", tmp_path / "home"
    home.mkdir()
    root.mkdir()
    (root / "pyproject.toml").write_text('[project]\nname = "demo"\n')
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(KIT)}
    env |= api.env | {"GRADLAB_GRADIENT": str(loaded), "GRADLAB_CLIENT_TIMEOUT": "0.5"}
    made = Desk(root, home, env | {"HUB_TOKEN": "hub-secret-value"})
    made.workflow()
    return made
