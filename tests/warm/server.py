"""A Python that has loaded what is slow to load, and becomes a command by a fork.

    python -P server.py SOCKET MODULE...

Each connection brings one command: its output's files, or all three, then its length and itself, as
JSON. The answers are two lines: its process id, and its exit code once it has ended. A command may
name modules to load `afresh`, and be `tied` to the connection: what comes by it then are signals,
and with its end the command is killed. It may `inhabit` the environment of a Python, in the
namespaces of whoever asked for it. The server ends with its standard input, and removes the folder
of its socket.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import io
import json
import os
import runpy
import select
import shutil
import signal
import site
import socket
import struct
import sys
import tempfile
import threading
import traceback
import types
from contextlib import suppress
from pathlib import Path
from typing import Any

DEFAULT = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
HEAD = 8  # bytes that hold a command's length
NAMESPACES = ("user", "cgroup", "ipc", "uts", "net", "pid", "mnt")
WARM_PYTHON = "WARM_PYTHON"  # that jobs of `gradlab run` are to have: see warm.for_jobs


def serve(path: str, modules: list[str]) -> None:
    for name in modules:
        with suppress(ImportError):
            importlib.import_module(name)
    if "matplotlib.figure" in sys.modules:
        draw()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        # Standard input ends with the tests.
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection = listener.accept()[0]
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            head, files, _, _ = socket.recv_fds(connection, HEAD, 3)
            if os.fork() == 0:
                listener.close()
                watch(connection, receive(connection, int.from_bytes(head, "big")), files)
                os._exit(0)
            for file in (*files, connection.detach()):
                os.close(file)
    shutil.rmtree(os.path.dirname(path), ignore_errors=True)
    with suppress(OSError):  # there are others
        os.rmdir(os.path.dirname(os.path.dirname(path)))


def draw() -> None:
    """Load the fonts, which the first picture does."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    figure.subplots().plot([1, 2], label="a")
    figure.legend()
    figure.savefig(io.BytesIO())


def receive(connection: socket.socket, size: int) -> Any:
    data = b""
    while len(data) < size:
        data += connection.recv(size - len(data))
    return json.loads(data)


def watch(connection: socket.socket, command: dict[str, Any], files: list[int]) -> None:
    """Start a command and tell how it ends: a process that is killed can't tell that itself."""
    if command.get("inhabit"):
        enter(connection)
    pid = os.fork()
    if pid == 0:
        connection.close()
        os._exit(become(command, files))
    for file in files:
        os.close(file)
    with suppress(OSError):  # whoever asked may have gone
        connection.sendall(f"{pid}\n".encode())
    if command.get("tied"):
        ended = os.pidfd_open(pid)
        while ended not in select.select([ended, connection], [], [])[0]:
            for number in connection.recv(16) or [signal.SIGKILL]:
                os.kill(pid, number)
    status = os.waitpid(pid, 0)[1]
    with suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def enter(connection: socket.socket) -> None:
    """Enter the namespaces of whoever is at the other end."""
    size = struct.calcsize("3i")
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    there, here = (Path(f"/proc/{pid}/ns") for pid in (struct.unpack("3i", peer)[0], "self"))
    names = [name for name in NAMESPACES if os.readlink(there / name) != os.readlink(here / name)]
    libc = ctypes.CDLL(None, use_errno=True)
    for file in [os.open(there / name, os.O_RDONLY) for name in names]:
        if libc.setns(file, 0):
            raise OSError(ctypes.get_errno(), "a job's namespace can't be entered")
        os.close(file)


def inhabit(program: str) -> None:
    """Find the packages that a Python of this path would find, and be installed where it is."""
    place = Path(program).parents[1]
    sys.executable, sys.prefix, sys.exec_prefix = program, str(place), str(place)
    sys.path[:] = [path for path in sys.path if not path.endswith("-packages")]
    site.addsitedir(str(next(place.glob("lib/python*/site-packages"))))


def become(command: dict[str, Any], files: list[int]) -> int:
    """Run a module, or a file, in this process as `python` does; give its exit code."""
    os.setsid()
    given = files[0] if len(files) == 3 else os.open(os.devnull, os.O_RDONLY)
    for source, target in zip((given, files[-2:][0], files[-1]), (0, 1, 2), strict=True):
        os.dup2(source, target)
    os.closerange(3, 256)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in DEFAULT:
        signal.signal(number, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(command["env"])
    os.chdir(command["folder"])
    tempfile.tempdir = None
    if command.get("inhabit"):
        inhabit(command["inhabit"])
    if python := os.environ.pop(WARM_PYTHON, ""):
        sys._base_executable = python  # type: ignore[attr-defined]
    if not sys.flags.isolated:
        sys.dont_write_bytecode = bool(command["env"].get("PYTHONDONTWRITEBYTECODE"))
        paths = filter(None, command["env"].get("PYTHONPATH", "").split(os.pathsep))
        sys.path[:0] = [os.getcwd(), *map(os.path.abspath, paths)]
    for name in command.get("afresh", ()):
        load_afresh(name)
    # As tests/failing/sitecustomize.py does in a Python that is started.
    if (calls := sys.modules.get("calls")) and (plan := os.environ.pop(calls.VARIABLE, "")):
        calls.begin(plan)
    sys.argv = command["arguments"]
    code = run(sys.argv[0])
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return code


def load_afresh(name: str) -> None:
    """Let a module's classes be as if it were loaded only now; where it can't, forget it all."""
    module = sys.modules.get(name)
    if module is None:
        return
    classes = {key: value for key, value in vars(module).items() if isinstance(value, type)}
    try:
        importlib.reload(module)
    except Exception:
        top = name.partition(".")[0]
        for loaded in [each for each in sys.modules if each.partition(".")[0] == top]:
            del sys.modules[loaded]
        return
    for key, known in classes.items():
        for field, value in vars(getattr(module, key)).items():
            if not field.startswith("__"):
                setattr(known, field, value)
        setattr(module, key, known)


def run(module: str) -> int:
    try:
        if module == "-":
            sys.modules["__main__"] = main = types.ModuleType("__main__")
            exec(compile(sys.stdin.read(), "<stdin>", "exec"), vars(main))
        elif module.endswith(".py"):
            runpy.run_path(module, run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
    return 1


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
