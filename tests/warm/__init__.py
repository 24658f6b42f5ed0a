"""Modules run as `python -m` runs them, without the seconds in which libraries are imported.

A command whose environment sets what Python reads when it starts is started the usual way.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from .asking import at_start

SERVER = Path(__file__).with_name("server.py")
# What training loads, and what the kit's other commands do.
KIT = ("tyro", "yaml", "jsonschema", "tqdm", "tomllib", "graphlib", "concurrent.futures")
# The commands themselves, for those that always run the same copy of the kit.
COMMANDS = (
    *KIT,
    *("gradlab.run.runner", "gradlab.inventory.datasets", "gradlab.check.check"),
    *("gradlab.check.show", "gradlab.remote.gradient.setup", "gradlab.remote.gradient.submit"),
    *("gradlab.train.compare", "gradlab.doctor", "gradlab.cli", "gradlab.services.origin"),
)
LEARNING = (
    *KIT,
    *("numpy", "scipy.ndimage", "sklearn.datasets", "sklearn.model_selection", "safetensors"),
    *("matplotlib.figure", "matplotlib.backends.backend_agg"),
    *("tensorboard.compat.proto.event_pb2", "tensorboard.compat.proto.summary_pb2"),
    "tensorboard.summary.writer.record_writer",
)
TRAINING = (
    *("torch", "torch.distributed.run", "torch.utils.data", "torch.nn.parallel"),
    *(*LEARNING, "safetensors.torch"),
    "torch._inductor",  # which setting the algorithms loads, and building an optimizer
)
# No thread of theirs has computed anything yet, so that they may be forked.
JAX = (*LEARNING, "jax.export", "flax.nnx", "optax")
KERAS = (*LEARNING, "keras", "jax.export")
TENSORFLOW = (*LEARNING, "tensorflow", "keras")
# Where every job finds them, which may have a /tmp of its own.
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)
SERVERS = Path(sys.prefix, f"warm-{RUN[:8]}")
STARTED: list[Any] = []  # kept, that none is taken for one that was forgotten
AT_LOAD = re.compile(r"(JAX|KERAS|TF)_.*")


def start(
    modules: tuple[str, ...],
    arguments: tuple[str, ...],
    folder: Path,
    env: Mapping[str, str],
    apart: bool = False,
) -> Any:
    """Start a module in a session of its own, as subprocess.Popen does; its output is text.

    `modules` are loaded before, from this command's PYTHONPATH where they are not installed.
    `apart` gives what it writes to standard error by itself.
    """
    if _differs(env):
        return cold(arguments, folder, env, apart)
    paths = env.get("PYTHONPATH", "") if modules == COMMANDS else ""
    return Process(_server(modules, paths), arguments, folder, env, apart)


def cold(
    arguments: tuple[str, ...],
    folder: Path,
    env: Mapping[str, str],
    apart: bool = False,
    python: str = sys.executable,
) -> subprocess.Popen[str]:
    """Start a module in a Python of its own, for what no fork may have loaded."""
    return subprocess.Popen(
        [python, "-m", *arguments],
        cwd=folder,
        env=dict(env),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if apart else subprocess.STDOUT,
        start_new_session=True,
    )


def fork(
    modules: tuple[str, ...],
    arguments: tuple[str, ...],
    folder: Path,
    env: Mapping[str, str],
    paths: str = "",
    python: str = sys.executable,
) -> Process:
    """Start a module in a fork of a Python that has loaded others, found by the PYTHONPATH `paths`.

    What Python reads when it starts is that of the tests, whatever `env` says; what a framework
    reads when it is loaded is that of `env`.
    """
    server = _server(modules, paths, python, _at_load(env))
    return Process(server, arguments, folder, env, apart=False)


def program(
    path: Path, modules: tuple[str, ...], *before: str, env: Mapping[str, str] | None = None
) -> Path:
    """Write a program that is as this Python, but runs a module in a fork of one that is warm.

    What is `before` comes before the arguments that it is given. Killed, it takes the module along.
    What a framework reads when it is loaded is that of `env`.
    """
    server = _server(modules, "", given=_at_load(env or {}))
    given = (sys.executable, server, at_start(_environment()))
    return _write(path, f"asking.main(*{given!r}, sys.argv[0], *{before!r}, *sys.argv[1:])")


def _write(path: Path, asks: str) -> Path:
    lines = [
        f"#!{sys.executable} -IS",
        f"import sys; sys.path.append({str(SERVER.parent)!r})",
        f"import asking; {asks}",
    ]
    path.write_text("\n".join([*lines, ""]))
    path.chmod(0o755)
    return path


def for_jobs(
    modules: tuple[str, ...], env: Mapping[str, str] | None = None, python: str = sys.executable
) -> dict[str, str]:
    """Give the variable by which jobs of `gradlab run`, if it is started here, run modules warm.

    Such a module is no process of the job's; but signals to the job reach it, and so does its end.
    """
    server = _server(modules, "", python, _at_load(env or {}))
    return {"WARM_PYTHON": str(Path(server).parent / "bin" / "python")}


def _at_load(env: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(item for item in sorted(env.items()) if AT_LOAD.fullmatch(item[0]))


def _differs(env: Mapping[str, str]) -> bool:
    paths = env.get("PYTHONPATH", "").split(os.pathsep)
    patched = any(Path(path, "sitecustomize.py").exists() for path in paths)
    return patched or not at_start(env).items() <= at_start(_environment()).items()


def _environment() -> dict[str, str]:
    # One thread: many tests share the cores, and the number of threads alters the bits.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return clean | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def _server(
    modules: tuple[str, ...],
    paths: str,
    python: str = sys.executable,
    given: tuple[tuple[str, str], ...] = (),
) -> str:
    return _served(modules, paths, python, given)


@functools.cache
def _served(
    modules: tuple[str, ...], paths: str, python: str, given: tuple[tuple[str, str], ...]
) -> str:
    """Start a server, or find that of another process of these tests; it ends with the last one."""
    env = _environment() | {"PYTHONPATH": paths, **dict(given)}
    key = repr((modules, paths, python, given, at_start(env)))
    folder = SERVERS / hashlib.sha256(key.encode()).hexdigest()[:12]
    with Path(sys.prefix, "warm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _serve(folder, [python, "-P", str(SERVER), f"{folder}/socket", *modules], env)
        else:
            os.open(folder / "used", os.O_WRONLY)
    return f"{folder}/socket"


def _serve(folder: Path, command: list[str], env: Mapping[str, str]) -> None:
    (folder / "bin").mkdir(parents=True)
    (folder / "lib").symlink_to(Path(sys.base_prefix, "lib"))  # what the Python of jobs comes with
    handed = (os.path.realpath(sys.executable), f"{folder}/socket", at_start(_environment()))
    _write(folder / "bin" / "python", f"asking.job(*{handed!r}, *sys.argv)")
    os.mkfifo(folder / "used")
    used = os.open(folder / "used", os.O_RDONLY | os.O_NONBLOCK)
    os.open(folder / "used", os.O_WRONLY)  # until this process has ended
    process = subprocess.Popen(
        command, env=env, text=True, stdin=used, stdout=subprocess.PIPE, start_new_session=True
    )
    os.close(used)
    assert process.stdout and process.stdout.readline() == "ready\n"
    STARTED.append(process)


class Process:
    """A command that runs, with what subprocess.Popen has of it."""

    def __init__(
        self,
        server: str,
        arguments: tuple[str, ...],
        folder: Path,
        env: Mapping[str, str],
        apart: bool,
    ) -> None:
        self.args = arguments
        self.returncode: int | None = None
        command = {"arguments": arguments, "folder": str(folder), "env": dict(env)}
        data = json.dumps(command).encode()
        pipes = [os.pipe() for _ in range(1 + apart)]
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(server)
        written = [pipe[1] for pipe in pipes]
        socket.send_fds(self._connection, [len(data).to_bytes(8, "big")], written)
        self._connection.sendall(data)
        for file in written:
            os.close(file)
        opened: list[IO[str]] = [
            os.fdopen(pipe[0], encoding="utf-8", errors="replace") for pipe in pipes
        ]
        self.stdout, self.stderr = opened[0], opened[1] if apart else None
        self._answers = self._connection.makefile()
        self.pid = int(self._answers.readline())

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                answer = self._answers.readline()
            except TimeoutError:
                self._answers = self._connection.makefile()  # the old one reads no more
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self.returncode = int(answer)
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """Give the exit code, None while it runs."""
        try:
            return self.wait(1e-4)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout: float | None = None) -> tuple[str, str | None]:
        """Read all that is printed, wait for the end, and give it."""
        streams = [stream for stream in (self.stdout, self.stderr) if stream]
        read = ["" for _ in streams]

        def take(number: int) -> None:
            with suppress(ValueError):  # closed by whoever no longer wants it
                read[number] = streams[number].read()
                streams[number].close()

        threads = [threading.Thread(target=take, args=(n,), daemon=True) for n in range(len(read))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout)
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(timeout)
        return read[0], read[1] if self.stderr else None

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(15)

    def kill(self) -> None:
        self.send_signal(9)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        for stream in (self.stdout, self.stderr):
            if stream:
                stream.close()


def run(
    modules: tuple[str, ...],
    arguments: tuple[str, ...],
    folder: Path,
    env: Mapping[str, str],
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    """Run a module to its end, as subprocess.run does; killed when its time is up."""
    process = start(modules, arguments, folder, env, apart=True)
    try:
        output, errors = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)
