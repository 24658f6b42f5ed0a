"""The Python of one job: this one with all its packages, and room for what the job installs.

A virtual environment, made in a millisecond: what runs gradlab is seen through it, what the job
installs lands in it, and it is gone with the job. Programs that this Python has installed, like
`torchrun`, run in it too, or they would not see what the job has installed.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shlex
import site
import sys
import sysconfig
from pathlib import Path

from . import gang

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
SHEBANG = re.compile(rb"#!.*?(/\S+/python[\d.]*)|'''exec' \"?(/[^\n\"]+/python[\d.]*)")


def make(folder: Path, seen: str) -> None:
    """Make a job's Python in a new folder, which the job sees under the path `seen`."""
    packages, programs = folder / "lib" / f"python{VERSION}" / "site-packages", folder / "bin"
    packages.mkdir(parents=True)
    programs.mkdir()
    base = str(getattr(sys, "_base_executable", None) or sys.executable)
    (folder / "pyvenv.cfg").write_text(
        f"home = {os.path.dirname(base)}\ninclude-system-site-packages = true\n"
        f"version = {sys.version.split()[0]}\n"
    )
    (packages / "gradlab-job.pth").write_text(_path_file())
    (programs / "python").symlink_to(base)
    for name in ("python3", f"python{VERSION}"):
        (programs / name).symlink_to("python")
    python, here = shlex.quote(f"{seen}/bin/python"), shlex.quote(_scripts())
    _write_program(programs / ".pip", f'exec {python} -m pip "$@"')
    _write_program(programs / ".run", f'exec {python} {here}/"${{0##*/}}" "$@"')
    for name in _programs():
        _also(f"{programs}/.run", f"{programs}/{name}")
    for name in ("pip", "pip3", f"pip{VERSION}"):
        _also(f"{programs}/.pip", f"{programs}/{name}")
    if lines := gang.torchrun(f"{seen}/bin/python"):
        (programs / "torchrun").unlink(missing_ok=True)
        _write_program(programs / "torchrun", lines)


def _write_program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def _also(program: str, name: str) -> None:
    """Give a program another name: a hard link, for a hundred symbolic ones take a while."""
    try:
        os.link(program, name)
    except OSError:  # a file system without them
        os.symlink(os.path.basename(program), name)


def _path_file() -> str:
    """Give the line by which the job's Python sees the packages of this one, and no others."""
    places = [*site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        places.insert(0, site.getusersitepackages())
    found = [place for place in places if os.path.isdir(place)]
    # The base Python of a virtual environment has packages that this one doesn't see.
    return (
        f"import site, sys; site.PREFIXES.clear(); list(map(site.addsitedir, {found!r})); "
        f"sys.path.extend({_bundled_pip()!r})\n"
    )


@functools.cache
def _bundled_pip() -> list[str]:
    """Give the pip that comes with Python, where none is installed (uv makes none)."""
    spec = None if importlib.util.find_spec("pip") else importlib.util.find_spec("ensurepip")
    if not spec or not spec.origin:
        return []
    return [str(path) for path in Path(spec.origin).parent.glob("_bundled/pip-*.whl")]


def _scripts() -> str:
    return sysconfig.get_path("scripts")


@functools.cache
def _programs() -> list[str]:
    """Name the programs that this Python's packages have installed, but for pip."""
    found = []
    for entry in os.scandir(_scripts()) if os.path.isdir(_scripts()) else ():
        if re.fullmatch(r"(pip|python)[\d.]*", entry.name) or not entry.is_file():
            continue
        with open(entry.path, "rb") as file:
            match = SHEBANG.search(file.read(512))
        python = match and (match[1] or match[2])
        if python and os.path.realpath(python) == os.path.realpath(sys.executable).encode():
            found.append(entry.name)
    return found
