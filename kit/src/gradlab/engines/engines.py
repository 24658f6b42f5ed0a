"""Where a job's script runs: each engine gives it /inputs and /outputs in its own way.

    container    docker or podman, in the job's image
    bubblewrap   Linux namespaces: this machine's system under a root of the job's own
    machine      this machine itself, where it is thrown away afterwards and the user is root
    paths        anywhere: the folders' real paths in the place of /inputs and /outputs

`auto` takes the first that works; a container only where the images are on this machine already,
for they are large. Everywhere but in a container the job sees this machine's Python, the one that
runs gradlab, and its image is not used.

The network is on, as at the service; with the environment variable GRADLAB_NETWORK=off a
container and bubblewrap have none.

Promises: a job finds a /tmp, a HOME and a Python of its own, and folders of its own where it makes
them at the root; what it leaves or installs there is gone with it.
"""

from __future__ import annotations

import functools
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

from ..base import processes
from ..base.errors import GradlabError
from ..base.locks import Lock
from ..services import machine, session
from ..services.table import here
from . import mapping, own_root
from .own_root import OWN, ROOT

PLACES = ("inputs", "outputs")
DRAFTS = "drafts"  # part of the path of every task's folder
PASSED_ON = re.compile(
    # The storage is the runner's; what a job keeps are its outputs.
    r"TERM|TZ|(?i:https?|no|all)_(?i:proxy)|CUDA_VISIBLE_DEVICES|GRADLAB_(?!STORAGE|SCRATCH)\w+"
)
PASSED_ON_HERE = re.compile(  # with values that hold on this machine's system only
    # But not where to install: that is the job's own Python.
    r"LANG|LC_\w+|PIP_(?!TARGET|PREFIX|USER|ROOT$|PYTHON|REQUIRE_VIRTUALENV)\w+"
    r"|UV_(?!SYSTEM_PYTHON|PYTHON|PROJECT|TARGET|PREFIX|BREAK)\w+|SSL_CERT_\w+|REQUESTS_CA_BUNDLE"
    r"|NVIDIA_\w+|OMP_NUM_THREADS|LD_LIBRARY_PATH"  # where Colab has its GPU's driver
)
STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PLAIN = re.compile(r"[\w./+-]+", re.ASCII)
LONGEST = 60  # characters of a job's folder
# What docker and podman heed themselves. HOME is where the user's logins and images are.
CLIENTS_OWN = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|XDG_\w+|(DOCKER|CONTAINERS?|PODMAN|BUILDAH|STORAGE)_\w+"
    r"|REGISTR\w+|LD_\w+|GO\w+|SSL_CERT_\w+|DBUS_\w+|NOTIFY_SOCKET|LISTEN_\w+|SSH_\w+|_\w+"
    r"|(?i:\w*_proxy)|MALLOC_\w+|GCONV_PATH|LOCPATH"
)


# The first process of a container takes no signal that it doesn't catch: the script would go on
# with its next command. As its child it ends; who catches the signal has time to save, and who
# reads from a pipe to pass on what is in it.
START = """\
set -m
trap told=1 HUP INT TERM
bash {own}/job.sh &
job=$!
while :; do wait $job; status=$?; kill -0 $job || break; done 2>/dev/null
others() { set -- /proc/[0-9]*; [ $# -gt 1 ]; }
readers() {
  for each in /proc/[0-9]*; do
    case $(readlink $each/fd/0) in pipe:*) return 0;; esac
  done
  return 1
}
for each in {1..100}; do
  if [ "$told" ]; then others; else readers; fi || break
  sleep 0.1
done 2>/dev/null
exit $status
"""


@dataclass(frozen=True)
class Task:
    """What to run: a script for bash, or a program with arguments (none: the image's own)."""

    folder: Path  # holds `inputs`, `outputs`, `tmp`, and the job's `root`
    inputs: Mapping[str, Path]
    env: Mapping[str, str]
    image: str
    script: str | None = None
    program: tuple[str, ...] = ()
    args: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """What the task's processes are known by."""
        return self.env[processes.MARK]

    def command(self, own: str) -> tuple[str, ...]:
        """Give the command line, with the script written to a file that is seen in `own`."""
        if self.script is None:
            return (*self.program, *self.args)
        (self.folder / ROOT / OWN).mkdir(parents=True, exist_ok=True)
        (self.folder / ROOT / OWN / "job.sh").write_text(self.script, "utf-8")
        return ("bash", f"{own}/job.sh")


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
        self.program = shutil.which(program) or program

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
        own_root.discard(task.folder)
        program = _started(task)
        env = {"HOME": "/tmp/home", **_common(time.time()), **task.env}
        if "PATH" in env:  # bash is to be found all the same
            env["PATH"] += f":{STANDARD_PATH}"
        given, client = _apart(env)
        options = [f"--name={name}", "--workdir=/tmp", *(f"--env={name}" for name in client)]
        command = (self.program, "run", "--rm", *options, *self._options(), *_mounts(task))
        if task.script is not None or task.program:
            command += (f"--entrypoint={program[0]}",)
            program = program[1:]

        def tell(number: int) -> None:
            # All processes: a shell that waits for its child would not pass the signal on.
            kill = ["exec", name, "sh", "-c", f"kill -{number} 1 -1"]
            subprocess.run([self.program, *kill], capture_output=True)

        try:
            with _env_file(given) as file:
                command += (f"--env-file={file}", task.image, *program)
                yield Launch(command, {**os.environ, **client}, tell)
        finally:
            subprocess.run(remove, capture_output=True)
            own_root.discard(task.folder)

    def _options(self) -> list[str]:
        options = ["--security-opt=label=disable", "--security-opt=no-new-privileges"]
        options += ["--cap-drop=ALL", *(f"--cap-add={name}" for name in own_root.CAPABILITIES)]
        # A loader's workers hand on what they read in shared memory; 64 MiB are the default.
        options += [f"--shm-size={_half_of_memory()}"] + ["--network=none"] * _offline()
        if os.getuid():  # outputs are to belong to the user, not to root
            user = f"--user={os.getuid()}:{os.getgid()}"
            options.append(
                "--userns=keep-id" if os.path.basename(self.program) == "podman" else user
            )
        if shutil.which("nvidia-smi"):
            podman = os.path.basename(self.program) == "podman"
            options.append("--device=nvidia.com/gpu=all" if podman else "--gpus=all")
        return options


def _mounts(task: Task) -> Iterator[str]:
    if task.script is not None:
        own = task.folder / ROOT / OWN
        yield f"--mount=type=bind,source={own},target=/{OWN},readonly"
    for place in ("tmp", "outputs"):
        yield f"--mount=type=bind,source={task.folder / place},target=/{place}"
    for name, source in task.inputs.items():
        yield f"--mount=type=bind,source={source},target=/inputs/{name},readonly"


def _started(task: Task) -> tuple[str, ...]:
    """Give the command line of a task in a container."""
    program = task.command(f"/{OWN}")
    if task.script is None:
        return program
    start = START.replace("{own}", f"/{OWN}")
    (task.folder / ROOT / OWN / "start.sh").write_text(start, "utf-8")
    return ("bash", f"/{OWN}/start.sh")


def _apart(env: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Part a job's environment into what would change the client's own work, and the rest."""
    given = {name: value for name, value in env.items() if CLIENTS_OWN.fullmatch(name)}
    for name, value in given.items():
        if "\n" in value:
            raise GradlabError(f"the variable {name} has several lines, which no container takes")
    return given, {name: value for name, value in env.items() if name not in given}


@contextmanager
def _env_file(env: Mapping[str, str]) -> Iterator[str]:
    """Give a file of variables that is on no disk, for values may be secrets."""
    text = "".join(f"{name}={value}\n" for name, value in env.items())
    if not hasattr(os, "memfd_create"):  # a Mac
        with tempfile.NamedTemporaryFile("w", prefix="gradlab-") as named:
            named.write(text)
            named.flush()
            yield named.name
        return
    with os.fdopen(os.memfd_create("env"), "w") as file:
        file.write(text)
        file.flush()
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class Bubblewrap:
    """A view of this machine in which what is written is the job's own, and gone with it."""

    name, parallel, read_only = "bubblewrap", True, True
    caveat = "jobs run on this machine's system, not in their images, and leave it as it was"

    @classmethod
    def find(cls) -> Bubblewrap | str:
        """Give a working engine, or what is wrong."""
        if not shutil.which("bwrap"):
            return "bubblewrap is not installed (apt-get install bubblewrap)"
        return _try([*_view(), "--", "/bin/sh", "-c", "exit 0"]) or cls()

    @contextmanager
    def launch(self, task: Task) -> Iterator[Launch]:
        with own_root.made(task.folder, f"/{OWN}"):
            layers = own_root.layered(task.folder)
            command = [*_view(task.folder, layers), "--bind", str(task.folder / "tmp"), "/tmp"]
            for path in own_root.needed_below_tmp():
                command += ["--ro-bind", path, path]
            command += ["--bind", str(task.folder / "outputs"), "/outputs", "--tmpfs", "/inputs"]
            for name, source in task.inputs.items():
                command += ["--ro-bind", str(source), f"/inputs/{name}"]
            command += ["--remount-ro", "/inputs", "--chdir", "/tmp"]
            command += ["--", *processes.supervised(task.command(f"/{OWN}"))]
            command = own_root.with_layers(task.folder, layers, command)
            env = _host_env(task, "/tmp", f"/{OWN}", began=time.time())
            yield Launch(processes.shielded(command), env)


def _view(folder: Path | None = None, layers: Sequence[str] = ()) -> list[str]:
    return [*own_root.system(folder, layers), *["--unshare-net"] * _offline()]


class Machine:
    """This machine itself: /inputs and /outputs are made at its root, for one job at a time."""

    name, parallel, read_only = "machine", False, False
    caveat = "jobs run on this machine, not in their images, and can change it; /inputs are copies"
    LOCK = Path(tempfile.gettempdir(), "gradlab-machine.lock")

    @classmethod
    def find(cls, asked: bool) -> Machine | str:
        """Give a working engine, or what is wrong; unless asked, only on a throw-away machine."""
        if not asked and not here().is_thrown_away:
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
        with Lock(self.LOCK) as lock, _plain(task.folder) as folder:
            lock.wait()
            try:
                for place in PLACES:
                    Path("/", place).unlink(missing_ok=True)
                    Path("/", place).symlink_to(task.folder / place)
                with own_root.made(task.folder, f"{folder}/{ROOT}/{OWN}"):
                    yield self._launch(task, folder)
            finally:
                for place in PLACES:
                    Path("/", place).unlink(missing_ok=True)

    def _launch(self, task: Task, folder: Path) -> Launch:
        """Give the job a /tmp of its own by a mount, or by its text where none can be made."""
        if not _mounts_work():
            return _mapped(task, folder, ("tmp",))
        here = _mapped(task, folder, ())
        needed = own_root.needed_below_tmp(task.folder, folder)
        command = own_root.own_tmp(task.folder / "tmp", needed, here.command)
        return replace(here, command=processes.shielded(command))


@functools.cache
def _mounts_work() -> bool:
    return not _try([*own_root.private_mounts(), "mount", "-i", "--bind", "/tmp", "/tmp"])


class Paths:
    """Real folders in the place of those at the root, in the script and its environment."""

    name, parallel, read_only = "paths", True, False
    caveat = (
        "jobs run on this machine, not in their images, and can change it; /inputs (copies) and "
        "/outputs are replaced by real folders in scripts, not in the programs that they call"
    )

    @contextmanager
    def launch(self, task: Task) -> Iterator[Launch]:
        with (
            _plain(task.folder) as folder,
            own_root.made(task.folder, f"{folder}/{ROOT}/{OWN}"),
        ):
            launch = _mapped(task, folder, (*PLACES, "tmp"))
            own = {"GRADLAB_INPUTS": f"{folder}/inputs", "GRADLAB_OUTPUTS": f"{folder}/outputs"}
            yield replace(launch, env={**launch.env, **own})


def _mapped(task: Task, folder: Path, names: Sequence[str]) -> Launch:
    """Give a task's command with its own folders in the place of some at the root.

    These are `names`, and those that its script makes there.
    """
    kept = (str(session.project_root()), str(task.folder), sys.prefix, sys.base_prefix)
    places = {name: f"{folder}/{name}" for name in names}
    root = task.folder / ROOT
    for name in mapping.made_at_root(task.script or "", task.env, kept):
        places[name] = f"{folder}/{ROOT}/{name}"
    for name in set(os.listdir("/")) - {*places, OWN}:
        (root / name).symlink_to(f"/{name}")
    for name in names:
        (root / name).symlink_to(task.folder / name)
    below = own_root.needed_below_tmp(task.folder, folder)
    tops = {Path(path).parts[2] for path in below if len(Path(path).parts) > 2}
    real = mapping.replacer(places, f"{folder}/{ROOT}", tops)
    here = replace(
        task,
        env={key: real(value) for key, value in task.env.items()} | {processes.MARK: task.mark},
        script=task.script and real(task.script),
        program=tuple(map(real, task.program)),
        args=tuple(map(real, task.args)),
    )
    own = f"{folder}/{ROOT}/{OWN}"
    env = _host_env(here, f"{folder}/tmp", own, began=machine.started())
    return Launch(processes.supervised(here.command(own)), env)


@contextmanager
def _plain(folder: Path) -> Iterator[Path]:
    """Give a short path to a folder without a space or quote, for it lands in scripts.

    A socket's path has at most 107 bytes, and programs make theirs in folders of their TMPDIR.
    """
    if PLAIN.fullmatch(str(folder)) and len(str(folder)) <= LONGEST:
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


def _host_env(task: Task, tmp: str, own: str, began: float) -> dict[str, str]:
    """Give a clean environment in which `python` is the one that runs gradlab, for this job."""
    env = {"HOME": f"{tmp}/home", "TMPDIR": tmp, "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
    env["VIRTUAL_ENV"] = f"{own}/python"
    env |= {name: value for name, value in os.environ.items() if PASSED_ON_HERE.fullmatch(name)}
    env |= _common(began) | dict(task.env)
    # A job's PATH is that of its image: here it comes before this machine's, after its Python.
    path = [f"{own}/python/bin", task.env.get("PATH", ""), str(Path(sys.executable).parent)]
    path += [os.environ.get("PATH", ""), os.defpath]
    return env | {"PATH": os.pathsep.join(filter(None, path))}


def on_this_machine(program: str, env: Mapping[str, str]) -> bool:
    """Tell whether a job would find a program on this machine, its own Python's included."""
    path = [env.get("PATH", ""), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return bool(shutil.which(program, path=os.pathsep.join(filter(None, path))))
