"""Finds a vendor's client and the Python that runs it, in an environment of its own.

Promises: looks only. In this order: the program that a variable names (GRADLAB_GRADIENT,
GRADLAB_KAGGLE, GRADLAB_COLAB, GRADLAB_HUGGINGFACE), the environment that the message of `missing`
installs, the search path. A program is taken only if it starts.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ...base.errors import GradlabError

HERE = Path(__file__).parent / "requirements"
# As pip writes the first lines of a program, also where the path is long or holds a space.
_SHEBANG = re.compile(r"#!\s*(?P<plain>/\S+)(?:\s+(?P<name>python\S*))?\s*$", re.MULTILINE)
_EXEC = re.compile(r"""#!/bin/sh\n'''exec' "?(?P<path>/[^"\n]+?)"? "\$0" """)
NEWER = ("3.13", "3.12")  # Pythons that are looked for where this one is too old for a client


@dataclass(frozen=True)
class Client:
    """A vendor's client: the program it installs, and what it needs."""

    id: str
    title: str
    program: str
    oldest: tuple[int, int] = (3, 11)  # of Python

    @property
    def variable(self) -> str:
        """Name the variable of the environment that names its program."""
        return f"GRADLAB_{self.id.upper()}"

    @property
    def requirements(self) -> Path:
        """Give the file that pins it, with all that it needs."""
        return HERE / f"{self.id}.txt"

    @property
    def home(self) -> Path:
        """Give the environment of its own in which it is installed."""
        cache = os.environ.get("XDG_CACHE_HOME", "")
        top = Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache"
        return top / "gradlab" / self.id

    def candidates(self) -> Iterator[Path]:
        """Give the programs that may be it; of the variable only the one that it names."""
        if named := os.environ.get(self.variable):
            found = shutil.which(Path(named).expanduser())
            if not found:
                raise GradlabError(f"{self.variable} is {named!r}: there is no such program")
            yield Path(found)
            return
        if (installed := self.home / "bin" / self.program).exists():
            yield installed
        if on_path := shutil.which(self.program):
            yield Path(on_path)

    def missing(self, root: Path, tried: Sequence[str]) -> GradlabError:
        """Say that there is none that works, why, and the one command that installs it."""
        lines = [f"{self.title} is not there; this installs it:"]
        if tried:
            lines = [f"{self.title} does not work here:", *(f"  {reason}" for reason in tried)]
            lines += ["This installs it in a place of its own:"]
        steps = " && ".join(map(shlex.join, self.installation(root)))
        return GradlabError("\n".join([*lines, "", f"  {steps}", ""]))

    def installation(self, root: Path) -> list[list[str]]:
        """Give the commands that install it, whose pins a project's requirements/ may replace."""
        there = str(self.home)
        own = root / "requirements" / f"{self.id}.txt"
        pins = str(own if own.is_file() else self.requirements)
        python = str(self.home / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet", "--requirement", pins]
        return [*self._environment(there), install]

    def _environment(self, there: str) -> list[list[str]]:
        """Give the commands that make the environment, of a Python that is new enough."""
        python = sys.executable
        if sys.version_info < self.oldest:
            python = newer_python(self.oldest)
        if not python:
            wanted = ".".join(map(str, self.oldest))
            uv = [sys.executable, "-m", "uv", "venv", "--quiet", "--seed", "--clear"]
            brings = [sys.executable, "-m", "pip", "install", "--quiet", "uv"]
            return [brings, [*uv, "--python", wanted, there]]
        if importlib.util.find_spec("ensurepip") is None:  # Debian and Colab leave it out of Python
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "virtualenv"]
            make = [sys.executable, "-m", "virtualenv", "--quiet", "--clear"]
            return [pip, [*make, "--python", python, there]]
        return [[python, "-m", "venv", "--clear", there]]


@lru_cache
def newer_python(oldest: tuple[int, int]) -> str:
    """Give a Python of this machine that is new enough, and can make environments; else nothing."""
    places = [found for name in NEWER if (found := shutil.which(f"python{name}"))]
    for name in NEWER:
        places += map(str, sorted(Path.home().glob(f".pyenv/versions/{name}.*/bin/python")))
    for place in places:
        asked = [place, "-c", "import sys, ensurepip; print(*sys.version_info[:2])"]
        said = subprocess.run(asked, capture_output=True, text=True).stdout.split()
        if len(said) == 2 and tuple(map(int, said)) >= oldest:
            return place
    return ""


def python_of(program: Path) -> Path | None:
    """Give the Python that runs a program, or None where it is no program of Python's."""
    program = program.resolve()
    try:
        head = program.read_bytes()[:4096].decode("utf-8", "replace")
    except OSError:
        return None
    if match := _EXEC.match(head):
        return Path(match["path"])
    match = _SHEBANG.match(head)
    if not match:
        return None
    name = match["name"] or match["plain"]
    found = shutil.which(name) if "python" in Path(name).name else None
    return Path(found) if found else None
