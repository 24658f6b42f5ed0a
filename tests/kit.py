"""The kit: its sources, for tests that need not install it, and the wheel that projects carry."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement

TEMPLATE = Path(__file__).resolve().parents[1]
PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"
KIT = TEMPLATE / "kit" / "src"
REQUIREMENTS = PROJECT / "requirements.{{ 'txt' }}"
CHOSEN = "{{ cookiecutter.framework }}"


def paths(*folders: str | Path) -> str:
    """Give a PYTHONPATH on which the kit's sources come last."""
    return os.pathsep.join([*map(str, folders), str(KIT)])


def wheel(project: Path = PROJECT) -> Path:
    """Give the wheel with the kit that a project carries."""
    (found,) = (project / "vendor").glob("gradlab-*.whl")
    return found


def metadata() -> Distribution:
    """Give the metadata of the kit, as of an installed package."""
    (found,) = distributions(path=[str(wheel())])
    return found


def requirements(file: Path) -> Iterator[Requirement]:
    """Give what a file of requirements asks for; for the kit, what the kit asks for too.

    The template's own file stands for that of a project with PyTorch.
    """
    for line in file.read_text("utf-8").replace(CHOSEN, "pytorch").splitlines():
        if line and not line.startswith(("#", "--")):
            asked = Requirement(line)
            yield asked
            if asked.name == "gradlab":
                yield from of_the_kit(asked.extras)


def of_the_kit(extras: Collection[str] = ()) -> list[Requirement]:
    """List what the kit asks for, and its extras."""
    asked = [Requirement(line) for line in metadata().requires or ()]
    return [r for r in asked if any(applies(r, extra) for extra in ("", *extras))]


def applies(requirement: Requirement, extra: str = "") -> bool:
    """Tell whether a requirement counts here, for an extra."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def environment(folder: Path, *lacking: str) -> Path:
    """Make a Python with the packages of this one, but for the kit and some others.

    Gives the folder of its programs.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    here = Path(next(path for path in sys.path if path.endswith("site-packages")))
    base = folder / "base"
    base.mkdir()
    for path in here.iterdir():
        if not path.name.startswith(("gradlab", *lacking)):
            (base / path.name).symlink_to(path)
    (packages / "base.pth").write_text(str(base))
    return folder / "bin"


def install_kit(programs: Path) -> None:
    """Install the kit's wheel in an environment that has all that it asks for."""
    command = [programs / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, wheel()], check=True)


@contextmanager
def cache_of_types(project: Path, shared: Path) -> Iterator[Path]:
    """Give a folder that mypy keeps what it knows in: to read all libraries takes half a minute.

    One check at a time has it, and projects alone whose options are alike: else mypy discards it.
    """
    options = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["tool"]["mypy"]
    folder = shared / "-".join(["mypy", *options.get("untyped_calls_exclude", [])])
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
