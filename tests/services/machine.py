"""A machine of a service: namespaces in which a kernel and its programs run.

Promises: a machine sees the system of this one read-only, its own disk, what persists beyond it
and nothing else; its user is root, its root folder can be written to, and what it does is over
when it dies, its own disk included. The network is this machine's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from .. import warm
from .kernels import HOST, INSTALLED, Environment, host_packages
from .notebook import Notebook
from .processes import children_of, namespace, until

HERE = Path(__file__).resolve().parent
VENV = Path("/venv")
STAND_INS = Path("/srv/stand-ins")
DRIVE = Path("/srv/drive")
PROGRAM = ("drive.py", "faults.py", "store.py")
PATH = f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The way to a package registry and the certificates that it is trusted by.
PASSED_ON = re.compile(r"PIP_\w+|\w*SSL_\w+|\w*CA_BUNDLE|(?i:https?|no|all)_(?i:proxy)")
SYSTEM = ("usr", "etc", "opt", "bin", "sbin", "lib", "lib32", "lib64")


@dataclass(frozen=True)
class Kind:
    """What the machines of a service have in common."""

    home: str
    cwd: str
    env: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()  # on its own disk, beside its home and where it starts
    stand_ins: str = ""  # the folder here of modules that only this service has
    hidden: tuple[str, ...] = ()  # programs that are not installed there
    loaded: tuple[str, ...] = ()  # modules that its kernel has imported before the first cell


class Machine:
    """A machine that runs from its making until it dies."""

    def __init__(
        self,
        kind: Kind,
        python: Environment,
        kept: Mapping[str, Path],
        env: Mapping[str, str],
        warm_python: Path | None = None,
    ) -> None:
        """Start it; `kept` maps folders of the machine to folders here, which outlive it.

        A Python of `warm.for_jobs` is that of its jobs, with all that this needs to be seen.
        """
        self.kind, self._warm_python = kind, warm_python
        self.python = str(VENV / "bin" / "python")
        # A short name, since the kernels' sockets lie in it.
        self.disk = Path(tempfile.mkdtemp(prefix="m-"))
        self._env = _basic_env(kind) | dict(kind.env) | dict(env)
        self._notebooks: list[Notebook] = []
        self._make_venv(python)
        seen = [*_packages(python), *(_tests() if warm_python else [])]
        command = [*_system(), *self._folders(kept), *seen, *self._peculiarities()]
        self._process, self._info = _boot(command)
        self.pid = int(self._info["child-pid"])

    def _make_venv(self, python: Environment) -> None:
        venv = self.disk / "venv"
        subprocess.run([python.python, "-m", "venv", "--without-pip", venv], check=True)
        (packages,) = venv.glob("lib/python*/site-packages")
        lines = [str(STAND_INS), str(INSTALLED)] if self.kind.stand_ins else [str(INSTALLED)]
        if self._warm_python:
            lines.append(f"import sys; sys._base_executable = {str(self._warm_python)!r}")
        (packages / "preinstalled.pth").write_text("\n".join(lines))

    def _folders(self, kept: Mapping[str, Path]) -> list[str]:
        wires = self.disk / "kernel"
        own = {"/tmp", "/var", str(VENV), self.kind.home, self.kind.cwd, *self.kind.folders}
        places = {place: self.disk / place[1:].replace("/", "-") for place in own}
        places |= {str(wires): wires, **kept}
        for folder in places.values():
            folder.mkdir(parents=True, exist_ok=True)
        return [o for place in sorted(places) for o in ("--bind", str(places[place]), place)]

    def _peculiarities(self) -> list[str]:
        options = []
        if self.kind.stand_ins:
            options += ["--ro-bind", str(HERE / self.kind.stand_ins), str(STAND_INS)]
        # A file that can't be executed is no program.
        nothing = self.disk / "nothing"
        nothing.touch()
        for program in self.kind.hidden:
            if found := shutil.which(program, path=PATH):
                options += ["--ro-bind", str(nothing), os.path.realpath(found)]
        return options

    def command(
        self, *program: str, env: Mapping[str, str] | None = None, cwd: str = ""
    ) -> list[str]:
        """Give the command line by which this machine runs a program in that one."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--ipc", "--root", "--wd"]
        values = [f"{name}={value}" for name, value in (self._env | dict(env or {})).items()]
        return [*enter, "env", "-i", f"--chdir={cwd or self.kind.cwd}", *values, *program]

    def start(self, *program: str, **where: Any) -> subprocess.Popen[str]:
        """Start a program in the machine."""
        return subprocess.Popen(
            self.command(*program, **where),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *program: str, code: int = 0, **where: Any) -> str:
        """Run a program to its end and give what it printed; the exit code must be as expected."""
        process = self.start(*program, **where)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == code, output
        return output

    def notebook(self, source: Path | NotebookNode, **fields: object) -> Notebook:
        """Open a notebook, with values for the fields of its forms; its kernel runs in here."""
        connection = self.disk / "kernel" / f"{len(self._notebooks)}.json"
        book = Notebook(source, self._kernel(), connection)
        book.set(**fields)
        self._notebooks.append(book)
        return book

    def _kernel(self) -> list[str]:
        # As Jupyter starts it; without its parent's number it prints how to connect to it.
        env = {"JPY_PARENT_PID": str(os.getpid()), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        program = (self.python, "-m", "ipykernel_launcher", "-f", "{connection_file}")
        command = self.command(*program, env=env)
        imports = [f"--IPKernelApp.exec_lines=__import__({name!r})" for name in self.kind.loaded]
        return [*command, *imports]

    def path(self, place: str) -> Path:
        """Give the view from here of a place in there, mounts included, while the machine lives."""
        return Path(f"/proc/{self.pid}/root", place.lstrip("/"))

    def pids(self) -> list[int]:
        """List this machine's numbers of all processes of that one."""
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
        return [pid for pid in pids if namespace(pid) == self._info["pid-namespace"]]

    def die(self) -> None:
        """Kill all that runs in it and throw its disk away, as when a session is taken back."""
        if self._process.poll() is None:
            # With the first process of a namespace all others end.
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait(timeout=10)
        for book in self._notebooks:
            book.close()
        shutil.rmtree(self.disk, ignore_errors=True)


def _basic_env(kind: Kind) -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    basic = {"HOME": kind.home, "PATH": PATH, "LANG": "C.UTF-8", "SHELL": "/bin/bash"}
    return passed | basic | {"USER": "root", "TERM": "xterm-color"}


def _system() -> list[str]:
    options = ["--proc", "/proc", "--dev", "/dev", "--dev-bind", "/dev/fuse", "/dev/fuse"]
    options += ["--ro-bind", "/sys", "/sys"]
    for place in (Path("/", name) for name in SYSTEM):
        if place.is_symlink():
            options += ["--symlink", os.readlink(place), str(place)]
        elif place.is_dir():
            options += ["--ro-bind", str(place), str(place)]
    return options


def _packages(python: Environment) -> list[str]:
    seen = [(python.packages, INSTALLED), (host_packages(), HOST)]
    # After the homes: pyenv has its Pythons in one.
    if python.prefix.parts[1] not in SYSTEM:
        seen.append((python.prefix, python.prefix))
    program = [*(HERE / name for name in PROGRAM), host_packages() / "mfusepy.py"]
    seen += [(file, DRIVE / file.name) for file in program]
    return [o for here, there in seen for o in ("--ro-bind", str(here), str(there))]


def _tests() -> list[str]:
    """Show what a fork for a job stands on: the tests' own Python, and how it is asked."""
    places = {sys.prefix, str(Path(warm.__file__).parent)}
    shown = [place for place in sorted(places) if Path(place).parts[1] not in SYSTEM]
    return [option for place in shown for option in ("--ro-bind", place, place)]


def _boot(options: list[str]) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    reader, writer = os.pipe()
    command = ["bwrap", "--unshare-pid", "--unshare-ipc", "--die-with-parent", *options]
    process = subprocess.Popen(
        [*command, "--info-fd", str(writer), "--", "sleep", "infinity"],
        pass_fds=[writer],
        stdin=subprocess.DEVNULL,
    )
    os.close(writer)
    with os.fdopen(reader) as file:
        info = json.load(file)
    # Everything is mounted when the first process has got a child.
    until(lambda: children_of(info["child-pid"]), what="the machine's start")
    return process, info
