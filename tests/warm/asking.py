"""Asks a Python that has loaded what is slow to load, see server.py, to become this command.

It loads little itself, for it runs in programs that stand in for a Python; see `warm.program`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Mapping, Sequence

# What Python reads when it starts.
AT_START = re.compile(
    r"PYTHON(?!PATH$|UNBUFFERED$|DONTWRITEBYTECODE$|_EXEC$).*|LC_.*|LANG|LANGUAGE|LD_.*|OMP_.*"
    r"|MALLOC_.*"
)
# What looks at its Python's own files, or starts others.
NOT_WARM = ("pip", "venv", "torch.distributed.run")


def at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if AT_START.fullmatch(name)}


def main(python: str, server: str, loaded: dict[str, str], program: str, *arguments: str) -> None:
    """Run a module, or a script that comes by `-`, in a fork.

    All else, and what has an environment unlike the fork's, is run as usual.
    """
    module = arguments[1:] if arguments[:1] == ("-u",) else arguments
    given = at_start(os.environ)
    # A Python that finds none makes a locale of its own known.
    if given.get("LC_CTYPE") == "C.UTF-8":
        loaded = {"LC_CTYPE": "C.UTF-8"} | loaded
    warm = module[:1] == ("-m",) or module == ("-",)
    if not warm or not given.items() <= loaded.items():
        os.execv(python, [python, *arguments])
    become(server, module if module == ("-",) else module[1:])


def job(python: str, server: str, loaded: dict[str, str], program: str, *arguments: str) -> None:
    """Be the Python `program` of a job, in whose namespaces a fork runs the project's modules."""
    given = {k: v for k, v in at_start(os.environ).items() if (k, v) != ("LANG", "C.UTF-8")}
    of_project = arguments[:1] == ("-m",) and arguments[1] not in NOT_WARM
    if of_project and given.items() <= loaded.items():
        become(server, arguments[1:], inhabit=program)
    os.execv(python, [program, *arguments])


def become(
    server: str, arguments: Sequence[str], afresh: Sequence[str] = (), inhabit: str = ""
) -> None:
    """Run a module, or a file, with this process's files and environment, and end as it does.

    It may `inhabit` the environment of a Python, in this process's namespaces; signals to this one
    are then passed on.
    """
    command = {"arguments": arguments, "folder": os.getcwd(), "env": dict(os.environ)}
    more = {"afresh": afresh, "inhabit": inhabit, "tied": True}
    data = json.dumps(command | more).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server)
    socket.send_fds(connection, [len(data).to_bytes(8, "big")], [0, 1, 2])
    connection.sendall(data)
    for number in (1, 2, 15) if inhabit else ():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: connection.send(bytes([number])))
    os.closerange(0, 3)  # they are the command's now
    answers = connection.makefile()
    answers.readline()
    code = int(answers.readline())
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
