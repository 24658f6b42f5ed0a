"""The environment that a job gets of this machine, whichever engine runs it.

The network is on, as at the service; with the environment variable GRADLAB_NETWORK=off a
container and bubblewrap have none.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from ..services import session, urls
from .protocol import Task

PASSED_ON = re.compile(
    # The storage is the runner's, what a job keeps are its outputs; messages are the runner's too.
    r"TERM|TZ|(?i:https?|no|all)_(?i:proxy)|CUDA_VISIBLE_DEVICES|GRADLAB_(?!STORAGE|SCRATCH|NOTIFY)\w+"
    r"|KERAS_BACKEND|XLA_FLAGS|JAX_PLATFORMS"  # by which a training computes
)
PASSED_ON_HERE = re.compile(  # with values that hold on this machine's system only
    # But not where to install: that is the job's own Python.
    r"LANG|LC_\w+|PIP_(?!TARGET|PREFIX|USER|ROOT$|PYTHON|REQUIRE_VIRTUALENV)\w+"
    r"|UV_(?!SYSTEM_PYTHON|PYTHON|PROJECT|TARGET|PREFIX|BREAK)\w+|SSL_CERT_\w+|REQUESTS_CA_BUNDLE"
    r"|NVIDIA_\w+|OMP_NUM_THREADS|LD_LIBRARY_PATH"  # where Colab has its GPU's driver
)


def passed_on() -> dict[str, str]:
    """Give the variables of this machine that a job may get."""
    wanted = re.compile(f"{PASSED_ON_HERE.pattern}|{PASSED_ON.pattern}")
    return {name: value for name, value in os.environ.items() if wanted.fullmatch(name)}


def offline() -> bool:
    """Tell whether jobs are to have no network."""
    return os.environ.get("GRADLAB_NETWORK") == "off"


def common(task: Task, began: float) -> dict[str, str]:
    """Give the environment that every job has, the time that is left included.

    `began` is when the job will think that its session began: with process 1 of its own. A job that
    keeps things at a URL of its own gets what its client needs to reach it; no other one does.
    """
    env = urls.variables() if urls.is_url(task.env.get("GRADLAB_STORAGE", "")) else {}
    env |= {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    if end := session.deadline():
        env["GRADLAB_SESSION_MINUTES"] = f"{(end - began) / 60:.2f}"
    return env


def of_this_machine(task: Task, tmp: str, own: str, began: float) -> dict[str, str]:
    """Give a clean environment in which `python` is the one that runs gradlab, for this job."""
    env = {"HOME": f"{tmp}/home", "TMPDIR": tmp, "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
    env["VIRTUAL_ENV"] = f"{own}/python"
    env |= {name: value for name, value in os.environ.items() if PASSED_ON_HERE.fullmatch(name)}
    env |= common(task, began) | dict(task.env)
    # A job's PATH is that of its image: here it comes before this machine's, after its Python.
    path = [f"{own}/python/bin", task.env.get("PATH", ""), str(Path(sys.executable).parent)]
    path += [os.environ.get("PATH", ""), os.defpath]
    return env | {"PATH": os.pathsep.join(filter(None, path))}


def on_this_machine(program: str, env: Mapping[str, str]) -> bool:
    """Tell whether a job would find a program on this machine, its own Python's included."""
    path = [env.get("PATH", ""), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return bool(shutil.which(program, path=os.pathsep.join(filter(None, path))))
