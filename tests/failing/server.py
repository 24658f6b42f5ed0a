"""A process that has loaded what is slow to load, and forks for each command it is given.

    python server.py MODULE...    then one command a line, as JSON, on standard input

Promises: a command runs as `python -m` would run it, in a process group of its own, and its exit
code is told when it has ended.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import signal
import sys
import threading
import traceback
from typing import Any

import calls


def serve() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(child(command))
        print(wait(pid, command["seconds"]), flush=True)


def wait(pid: int, seconds: int) -> int:
    """Give the exit code of a child, negative for a signal; it is killed when its time is up."""
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(pid, signal.SIGKILL))
    signal.alarm(seconds)
    status = os.waitpid(pid, 0)[1]
    signal.alarm(0)
    return os.waitstatus_to_exitcode(status)


def child(command: dict[str, Any]) -> int:
    os.setsid()
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(command["output"], os.O_WRONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.environ.update(command["env"])
    os.chdir(command["folder"])
    sys.argv = command["arguments"]
    if command["plan"]:
        calls.begin(command["plan"])
    code = run(sys.argv[0])
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


def run(module: str) -> int:
    """Run a module as the interpreter does; give its exit code."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    return 1


if __name__ == "__main__":
    serve()
