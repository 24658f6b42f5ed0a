"""Storage that fails at one call, and files of which one bit is another one.

    forks = Forks(project, "torch", "sklearn.datasets")
    calls = forks.run(package, "train", env=env, under=[storage]).calls
    done = forks.run(package, "train", env=env, under=[storage], at=7, error="ESTALE")

For a program that is not forked, `environment` gives the variables that make its calls fail.
"""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import warm
from ..kit import paths
from .calls import VARIABLE

HERE = Path(__file__).parent
ERRORS = ("EIO", "ESTALE", "ENOSPC", "ENOTCONN")


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code, what it printed, and which calls were counted."""

    code: int
    output: str
    calls: tuple[str, ...] = ()

    @property
    def failed(self) -> str:
        """The call that was made to fail; '' where it was never reached."""
        return next((call for call in self.calls if call.endswith(" FAILED")), "")


def plan(
    under: Sequence[Path], log: Path, at: int = 0, error: str = "EIO", **more: str | float
) -> str:
    """Say which call below some folders, from 1, fails with which error; 0: count only.

    The error SIGKILL kills. `only` is a pattern of calls, such as "rename *.jsonl", `slow` one of
    paths that take `seconds` to open, `clock` by how many seconds the clock is ahead.
    """
    folders = [str(folder) for folder in under]
    return json.dumps({"under": folders, "log": str(log), "at": at, "error": error, **more})


def environment(
    under: Sequence[Path], log: Path, at: int = 0, error: str = "EIO", **more: str | float
) -> dict[str, str]:
    """Give the variables with which a Python program counts its calls in `log`, and one fails.

    Its own children count nothing. Where it needs a PYTHONPATH, put this one in front of it.
    """
    return {"PYTHONPATH": str(HERE), VARIABLE: plan(under, log, at, error, **more)}


class Forks:
    """Runs modules of a project as `python -m` would, in forks of a process that has loaded them.

    So a command costs what it does, and not the seconds in which torch is imported.
    """

    def __init__(self, project: Path, *modules: str) -> None:
        self.project, self._modules = project, modules
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("GRADLAB_", "COLAB_"))}
        # HERE comes first, so that all calls are watched before anything else is loaded.
        self._paths = paths(HERE, project / "src")
        self._env = clean | {"PYTHONPATH": self._paths, "OMP_NUM_THREADS": "1"}

    def run(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        under: Sequence[Path] = (),
        at: int = 0,
        error: str = "EIO",
        limit: int = 120,
        **more: str | float,
    ) -> Done:
        """Run a module; below the folders `under` calls are counted, and the `at`-th fails."""
        with tempfile.NamedTemporaryFile() as log:
            given = self._env | dict(env or {})
            if under:
                given[VARIABLE] = plan(under, Path(log.name), at, error, **more)
            process = warm.fork(self._modules, arguments, self.project, given, self._paths)
            end = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
            end.start()
            output, _ = process.communicate()
            end.cancel()
            calls = log.read().decode("utf-8", "replace").splitlines()
        return Done(process.wait(), output, tuple(calls))


def kept(folder: Path) -> list[Path]:
    """List the files below a folder that have any content, in order."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)


def flip_a_bit(path: Path, moment: random.Random) -> str:
    """Turn one bit of a file, at a random place; say which."""
    data = bytearray(path.read_bytes())
    place, bit = moment.randrange(len(data)), moment.randrange(8)
    data[place] ^= 1 << bit
    path.write_bytes(data)
    return f"{path}: bit {bit} of byte {place} of {len(data)}"
