"""Environments that have what is asked for, and nothing else, without minutes of installing.

Promises: what a requirement does not ask for, directly or not, is missing as it would be after pip.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

SCRIPTS = Path(sysconfig.get_path("scripts"))


def lend(environment: Path, requirements: Iterable[str], but: str) -> None:
    """Make an environment with the tests' own packages, as far as requirements ask for them.

    One of them is left out. pip still looks whether all is there, and brings what isn't.
    """
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    [packages] = environment.glob("lib/python*/site-packages")
    for package in asked_for(requirements):
        for file in package.files or () if package.name != but else ():
            source, place = Path(package.locate_file(file)), packages / file
            if source.parent == SCRIPTS:
                lend_script(source, environment / "bin" / source.name)
            elif not place.exists():
                link(source, place)
                compiled = Path(importlib.util.cache_from_source(str(source)))
                if source.suffix == ".py" and compiled.exists():
                    link(compiled, place.parent / compiled.parent.name / compiled.name)


def asked_for(requirements: Iterable[str]) -> Iterator[Distribution]:
    """Give the packages that are here, of those which requirements ask for, directly or not."""
    seen, waiting = set[tuple[str, str]](), [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        try:
            package = distribution(wanted.name)
        except PackageNotFoundError:
            continue
        if (package.name, "") not in seen:
            yield package
        for extra in {"", *wanted.extras}:
            if (package.name, extra) not in seen:
                seen.add((package.name, extra))
                needed = map(Requirement, package.requires or ())
                waiting += [
                    n for n in needed if not n.marker or n.marker.evaluate({"extra": extra})
                ]


def link(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, place)
    except FileExistsError:
        pass
    except OSError:  # on another disk
        shutil.copy2(source, place)


def lend_script(source: Path, place: Path) -> None:
    """Copy a program; it is run by the environment's own Python."""
    data = source.read_bytes()
    head = f"#!{SCRIPTS}/".encode()
    if data.startswith(head):
        data = b"#!" + str(place.parent).encode() + b"/" + data[len(head) :]
    place.write_bytes(data)
    shutil.copymode(source, place)
