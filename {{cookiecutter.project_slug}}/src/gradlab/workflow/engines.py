"""Where a job's script runs: each engine gives it /inputs and /outputs in its own way.

    container    docker or podman, in the job's image
    bubblewrap   Linux namespaces: this machine's system, read-only
    machine      this machine itself, where it is thrown away afterwards and the user is root
    paths        anywhere: the folders' real paths in the place of /inputs and /outputs

`auto` takes the first that works; a container only where the images are on this machine already,
for they are large. Everywhere but in a container the job sees this machine's Python, the one that
runs gradlab, and its image is not used. The network is on, as at the service; with the environment
variable GRADLAB_NETWORK=off a container and bubblewrap have none.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from .. import session
from ..errors import GradlabError
from . import process

PLACES = ("inputs", "outputs")
DRAFTS = "drafts"  # part of the path of every task's folder
THROW_AWAY = ("colab", "colab-enterprise", "kaggle", "gradient-notebook")
PASSED_ON = re.compile(
    # The storage is the runner's; what a job keeps are its outputs.
    r"TERM|TZ|(?i:https?|no|all)_(?i:proxy)|CUDA_VISIBLE_DEVICES|GRADLAB_(?!STORAGE|SCRATCH)\w+"
)
PASSED_ON_HERE = re.compile(  # with values that hold on this machine's system only
    r"LANG|LC_\w+|PIP_\w+|UV_\w+|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|NVIDIA_\w+|OMP_NUM_THREADS"
    r"|LD_LIBRARY_PATH"  # where Colab has its GPU's driver
)
# Not within a longer name or path: $ROOT/inputs and /inputs-old are something else.
ROOTS = re.compile(r"(?<![\w./})*~-])/(inputs|outputs)(?![\w.-])")
PLAIN = re.compile(r"[\w./+-]+", re.ASCII)
GPU_DEVICES = ("nvidia*", "dri", "kfd")


@dataclass(frozen=True)
class Task:
    """What to run: a script for bash, or a program with arguments (none: the image's own)."""

    folder: Path  # holds `inputs`, `outputs` and `tmp`
    inputs: Mapping[str, Path]
    env: Mapping[str, str]
    image: str
    script: str | None = None
    program: tuple[str, ...] = ()
    args: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """What the task's processes are known by."""
        return self.env[process.MARK]

    def command(self, tmp: str) -> tuple[str, ...]:
        """Give the command line, with the script written to a file that is seen in `tmp`."""
        if self.script is None:
            return (*self.program, *self.args)
        (self.folder / "tmp" / "job.sh").write_text(self.script, "utf-8")
        return ("bash", f"{tmp}/job.sh")


@dataclass(frozen=True)
class Launch:
    """A command that is ready to start, and how a signal reaches it, if not by its process."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    tell: Callable[[int], None] | None = None


class Engine(Protocol):
    """One way to run a task."""

    name: str
    parallel: bool
    read_only: bool  # keeps jobs from writing to /inputs; elsewhere inputs have to be copies
    caveat: str

    def launch(self, task: Task) -> AbstractContextManager[Launch]:
        """Make what the task needs for as long as it runs."""


class Container:
    """The job's own image, by docker or podman."""

    name, parallel, read_only, caveat = "container", True, True, ""

    def __init__(self, program: str) -> None:
        self.program = program

    @classmethod
    def find(cls, images: Sequence[str], pull: bool) -> Container | str:
        """Give a working engine that has the images, or may pull them; else what is wrong."""
        problem = "neither docker nor podman is installed"
        for program in filter(shutil.which, ("docker", "podman")):
            engine = cls(program)
            problem = _try([program, "info"]) or ("" if pull else engine._lacks(images))
            if not problem:
                return engine
        return problem

    def _lacks(self, images: Sequence[str]) -> str:
        """Say which image is not here or can't be run, or nothing."""
        for image in images:
            if _try([self.program, "image", "inspect", image]):
                return f"{image} isn't on this machine (--engine container pulls it)"
        probe = [self.program, "run", "--rm", *self._options(), "--entrypoint=sh"]
        return _try([*probe, images[0], "-c", "exit 0"]) if images else ""

    @contextmanager
    def launch(self, task: Task) -> Iterator[Launch]:
        name = "gradlab-" + hashlib.sha256(task.mark.encode()).hexdigest()[:16]
        remove = [self.program, "rm", "--force", name]
        subprocess.run(remove, capture_output=True)
        # By name only: values in arguments could be read by everybody on this machine.
        env = {"HOME": "/tmp/home", **_common(time.time()), **task.env}
        options = [f"--name={name}", "--workdir=/tmp", *(f"--env={name}" for name in env)]
        command = (self.program, "run", "--rm", *options, *self._options(), *_mounts(task))
        program = task.command("/tmp")
        if task.script is not None or task.program:
            command += (f"--entrypoint={program[0]}",)
            program = program[1:]

        def tell(number: int) -> None:
            # All processes: a shell that waits for its child would not pass the signal on.
            kill = ["exec", name, "sh", "-c", f"kill -{number} 1 -1"]
            subprocess.run([self.program, *kill], capture_output=True)

        try:
            yield Launch((*command, task.image, *program), {**os.environ, **env}, tell)
        finally:
            subprocess.run(remove, capture_output=True)

    def _options(self) -> list[str]:
        options = ["--security-opt=label=disable"] + ["--network=none"] * _offline()
        if os.getuid():  # outputs are to belong to the user, not to root
            user = f"--user={os.getuid()}:{os.getgid()}"
            options.append("--userns=keep-id" if self.program == "podman" else user)
        if shutil.which("nvidia-smi"):
            podman = self.program == "podman"
            options.append("--device=nvidia.com/gpu=all" if podman else "--gpus=all")
        return options


def _mounts(task: Task) -> Iterator[str]:
    for place in ("tmp", "outputs"):
        yield f"--mount=type=bind,source={task.folder / place},target=/{place}"
    for name, source in task.inputs.items():
        yield f"--mount=type=bind,source={source},target=/inputs/{name},readonly"


class Bubblewrap:
    """A view of this machine in which nothing but /outputs and /tmp can be written."""

    name, parallel, read_only = "bubblewrap", True, True
    caveat = "jobs run on this machine's system, read-only, not in their images"

    @classmethod
    def find(cls) -> Bubblewrap | str:
        """Give a working engine, or what is wrong."""
        if not shutil.which("bwrap"):
            return "bubblewrap is not installed (apt-get install bubblewrap)"
        return _try([*_system(), "--", "/bin/sh", "-c", "exit 0"]) or cls()

    @contextmanager
    def launch(self, task: Task) -> Iterator[Launch]:
        command = [*_system(), "--bind", str(task.folder / "tmp"), "/tmp"]
        for path in _needed_below_tmp():
            command += ["--ro-bind", path, path]
        command += ["--bind", str(task.folder / "outputs"), "/outputs", "--dir", "/inputs"]
        for name, source in task.inputs.items():
            command += ["--ro-bind", str(source), f"/inputs/{name}"]
        command += ["--chdir", "/tmp", "--remount-ro", "/"]
        command += ["--", *process.supervised(task.command("/tmp"))]
        yield Launch(process.shielded(command), _host_env(task, "/tmp/home", began=time.time()))


def _system() -> list[str]:
    """Give bubblewrap's arguments for this machine's system, read-only, with its GPUs."""
    command = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-net"] * _offline()
    for name in sorted(set(os.listdir("/")) - {"proc", "dev", "tmp", *PLACES}):
        if os.path.islink(f"/{name}"):
            command += ["--symlink", os.readlink(f"/{name}"), f"/{name}"]
        elif os.path.isdir(f"/{name}"):
            command += ["--ro-bind-try", f"/{name}", f"/{name}"]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for device in (path for pattern in GPU_DEVICES for path in Path("/dev").glob(pattern)):
        command += ["--dev-bind", str(device), str(device)]
    return command


def _needed_below_tmp() -> list[str]:
    """Give the folders of Python and the project that the job's own /tmp would hide."""
    found = {sys.prefix, sys.base_prefix, str(session.project_root())}
    found.add(str(process.SUPERVISOR.parent))
    found |= {os.path.realpath(path) for path in found}
    return sorted(path for path in found if Path(path).is_relative_to("/tmp"))


class Machine:
    """This machine itself: /inputs and /outputs are made at its root, for one job at a time."""

    name, parallel, read_only = "machine", False, False
    caveat = "jobs run on this machine, not in their images, and can change it; /inputs are copies"
    LOCK = Path(tempfile.gettempdir(), "gradlab-machine.lock")

    @classmethod
    def find(cls, asked: bool) -> Machine | str:
        """Give a working engine, or what is wrong; unless asked, only on a throw-away machine."""
        if not asked and session.service() not in THROW_AWAY:
            return "this is not a machine to throw away"
        if os.getuid():
            return "it needs the user root"
        taken = [f"/{place}" for place in PLACES if not cls._is_free(Path("/", place))]
        return f"{taken[0]} exists and is not gradlab's" if taken else cls()

    @staticmethod
    def _is_free(place: Path) -> bool:
        ours = place.is_symlink() and DRAFTS in Path(os.readlink(place)).parts
        return ours or not os.path.lexists(place)

    @contextmanager
    def launch(self, task: Task) -> Iterator[Launch]:
        with open(self.LOCK, "w") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            try:
                for place in PLACES:
                    Path("/", place).unlink(missing_ok=True)
                    Path("/", place).symlink_to(task.folder / place)
                tmp = str(task.folder / "tmp")
                env = _host_env(task, f"{tmp}/home", began=session.started())
                yield Launch(process.supervised(task.command(tmp)), env)
            finally:
                for place in PLACES:
                    Path("/", place).unlink(missing_ok=True)


class Paths:
    """Real folders in the place of /inputs and /outputs, in the script and its environment."""

    name, parallel, read_only = "paths", True, False
    caveat = (
        "jobs run on this machine, not in their images, and can change it; /inputs (copies) and "
        "/outputs are replaced by real folders in scripts, not in the programs that they call"
    )

    @contextmanager
    def launch(self, task: Task) -> Iterator[Launch]:
        with _plain(task.folder) as folder:

            def real(text: str) -> str:
                return ROOTS.sub(rf"{folder}/\1", text)

            env = {key: real(value) for key, value in task.env.items()} | {
                process.MARK: task.mark,
                "GRADLAB_INPUTS": f"{folder}/inputs",
                "GRADLAB_OUTPUTS": f"{folder}/outputs",
            }
            here = replace(
                task,
                env=env,
                script=task.script and real(task.script),
                program=tuple(map(real, task.program)),
                args=tuple(map(real, task.args)),
            )
            env = _host_env(here, f"{folder}/tmp/home", began=session.started())
            yield Launch(process.supervised(here.command(f"{folder}/tmp")), env)


@contextmanager
def _plain(folder: Path) -> Iterator[Path]:
    """Give a path to a folder without a space or quote, for it lands in the middle of scripts."""
    if PLAIN.fullmatch(str(folder)):
        yield folder
        return
    temporary = tempfile.gettempdir() if PLAIN.fullmatch(tempfile.gettempdir()) else "/tmp"
    with tempfile.TemporaryDirectory(prefix="gradlab-", dir=temporary) as top:
        link = Path(top, "job")
        link.symlink_to(folder)
        yield link


def choose(asked: str, images: Sequence[str]) -> tuple[Engine, list[str]]:
    """Give the engine asked for, or the first that works, and what kept others from working.

    Raises GradlabError where the one asked for doesn't work.
    """
    candidates: dict[str, Callable[[], Engine | str]] = {
        "container": lambda: Container.find(images, pull=asked == "container"),
        "bubblewrap": Bubblewrap.find,
        "machine": lambda: Machine.find(asked == "machine"),
        "paths": Paths,
    }
    problems: list[str] = []
    for name in candidates if asked == "auto" else [asked]:
        engine = candidates[name]()
        if not isinstance(engine, str):
            return engine, problems
        problems.append(f"{name}: {engine}")
    raise GradlabError(f"the engine {problems[0]}; --engine auto takes one that works")


def _try(command: list[str]) -> str:
    """Run a command; give the last line of what went wrong, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.strip().splitlines() or [f"{command[0]} gave exit status {done.returncode}"]
    return lines[-1] if done.returncode else ""


def passed_on() -> dict[str, str]:
    """Give the variables of this machine that a job may get."""
    wanted = re.compile(f"{PASSED_ON_HERE.pattern}|{PASSED_ON.pattern}")
    return {name: value for name, value in os.environ.items() if wanted.fullmatch(name)}


def _offline() -> bool:
    return os.environ.get("GRADLAB_NETWORK") == "off"


def _common(began: float) -> dict[str, str]:
    """Give the environment that every job has, the time that is left included.

    `began` is when the job will think that its session began: with process 1 of its own.
    """
    env = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    if end := session.deadline():
        env["GRADLAB_SESSION_MINUTES"] = f"{(end - began) / 60:.2f}"
    return env


def _host_env(task: Task, home: str, began: float) -> dict[str, str]:
    """Give a clean environment in which `python` is the one that runs gradlab."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    env = {"PATH": path, "HOME": home, "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
    if sys.prefix != sys.base_prefix:
        env["VIRTUAL_ENV"] = sys.prefix
    env |= {name: value for name, value in os.environ.items() if PASSED_ON_HERE.fullmatch(name)}
    return env | _common(began) | dict(task.env)
