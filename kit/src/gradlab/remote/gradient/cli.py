"""Finds Paperspace's command line, `gradient` 2.99, and the Python that runs it.

Promises: looks only. In this order: the program that GRADLAB_GRADIENT names, the environment
that the message of `missing` installs, the search path. A program is taken only if it starts:
`gradient` 3 is another product, and 2.99 dies with a newer click than its pins allow.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...base.errors import GradlabError

REQUIREMENTS = Path("requirements", "gradient.txt")
# As pip writes the first lines of a program, also where the path is long or holds a space.
_SHEBANG = re.compile(r"#!\s*(?P<plain>/\S+)(?:\s+(?P<name>python\S*))?\s*$", re.MULTILINE)
_EXEC = re.compile(r"""#!/bin/sh\n'''exec' "?(?P<path>/[^"\n]+?)"? "\$0" """)


def home() -> Path:
    """Give the environment of its own in which the command line is installed."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    top = Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache"
    return top / "gradlab" / "gradient"


def candidates() -> Iterator[Path]:
    """Give the programs that may be it; of GRADLAB_GRADIENT only the one that it names."""
    if named := os.environ.get("GRADLAB_GRADIENT"):
        found = shutil.which(Path(named).expanduser())
        if not found:
            raise GradlabError(f"GRADLAB_GRADIENT is {named!r}: there is no such program")
        yield Path(found)
        return
    if (installed := home() / "bin" / "gradient").exists():
        yield installed
    if on_path := shutil.which("gradient"):
        yield Path(on_path)


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


def missing(root: Path, tried: Sequence[str]) -> GradlabError:
    """Say that there is no command line that works, why, and the one command that installs it."""
    lines = ["Paperspace's command line, `gradient` 2.99, is not there; this installs it:"]
    if tried:
        lines = ["Paperspace's command line, `gradient` 2.99, does not work here:"]
        lines += [f"  {reason}" for reason in tried] + ["This installs it in a place of its own:"]
    return GradlabError("\n".join([*lines, "", f"  {_installation(root)}", ""]))


def _installation(root: Path) -> str:
    there, python = str(home()), str(home() / "bin" / "python")
    steps = [[sys.executable, "-m", "venv", "--clear", there]]
    if importlib.util.find_spec("ensurepip") is None:  # Debian and Colab leave it out of Python
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "virtualenv"]
        steps = [pip, [sys.executable, "-m", "virtualenv", "--quiet", "--clear", there]]
    requirements = str(root / REQUIREMENTS)
    steps.append([python, "-m", "pip", "install", "--quiet", "--requirement", requirements])
    return " && ".join(map(shlex.join, steps))
