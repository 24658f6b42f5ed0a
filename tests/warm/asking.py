"""Asks a Python that has loaded what is slow to load, see server.py, to become this command.

It loads little itself, for it runs in programs that stand in for a Python; see `warm.program`.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping, Sequence

# What Python reads when it starts.
AT_START = re.compile(
    r"PYTHON(?!PATH$|UNBUFFERED$|DONTWRITEBYTECODE$|_EXEC$).*|LC_.*|LANG|LANGUAGE|LD_.*|OMP_.*"
    r"|MALLOC_.*"
)


def at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if AT_START.fullmatch(name)}


def main(python: str, server: str, loaded: dict[str, str], program: str, *arguments: str) -> None:
    """Run a module in a fork; do all else, and that in an environment unlike it, as usual."""
    module = arguments[1:] if arguments[:1] == ("-u",) else arguments
    given = at_start(os.environ)
    # A Python that finds none makes a locale of its own known.
    if given.get("LC_CTYPE") == "C.UTF-8":
        loaded = {"LC_CTYPE": "C.UTF-8"} | loaded
    if module[:1] != ("-m",) or not given.items() <= loaded.items():
        os.execv(python, [python, *arguments])
    become(server, module[1:])


def become(server: str, arguments: Sequence[str], afresh: Sequence[str] = ()) -> None:
    """Run a module, or a file, with this process's files and environment, and end as it does."""
    command = {"arguments": arguments, "folder": os.getcwd(), "env": dict(os.environ)}
    data = json.dumps(command | {"afresh": afresh, "tied": True}).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server)
    socket.send_fds(connection, [len(data).to_bytes(8, "big")], [0, 1, 2])
    connection.sendall(data)
    os.closerange(0, 3)  # they are the command's now
    answers = connection.makefile()
    answers.readline()
    code = int(answers.readline())
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)
