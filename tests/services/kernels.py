"""What is installed on the services' machines before anybody has installed anything.

Promises: the kernel of Colab (IPython, ipykernel and what they stand on), really installed; on the
Python that runs the tests, what the generated project requires from there, but for what no service
brings; on Python 3.13 the same from a list, with a torch of which only the metadata is there. Made
once and kept in pytest's cache; read-only on the machines.
"""

from __future__ import annotations

import fcntl
import functools
import glob
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from ..kit import REQUIREMENTS, applies, of_the_kit, requirements

HERE = Path(__file__).resolve().parent
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
KERNEL = "kernel.txt"
ON_3_13 = "python3.13.txt"
TORCH_ON_3_13 = "2.11.0+cu130"
# What no service has: the kit, and one package that it needs.
LACKING = {canonicalize_name("gradlab"), canonicalize_name("tyro")}
# Where a machine sees the packages, and those of the tests' own Python that they are links to.
INSTALLED = Path("/preinstalled/packages")
HOST = Path("/preinstalled/host")


@dataclass(frozen=True)
class Environment:
    """A Python and the packages that it finds installed, as folders of the host."""

    python: Path
    prefix: Path
    packages: Path


class NotHere(Exception):
    """What a machine needs and this one lacks; its text is the reason to skip a test."""


def environment(cache: Path, version: str, frameworks: Sequence[str] = ()) -> Environment:
    """Give the environment of a Python version such as "3.13"; makes it the first time.

    It has what projects need with PyTorch and with other `frameworks`. Raises NotHere where that
    Python is not installed.
    """
    python = _find(version)
    lists = [HERE / KERNEL, *([] if version == OWN else [HERE / ON_3_13])]
    links = _links(frameworks) if version == OWN else {}
    content = "".join(file.read_text() for file in lists), str(python), sorted(links.items())
    place = cache / hashlib.sha256(repr(content).encode()).hexdigest()[:16]
    with _locked(cache / "lock"):
        if not place.is_dir():
            _make(place, python, lists, links)
    return Environment(python, _prefix(python), place)


def host_packages() -> Path:
    """Give the folder of the packages of the Python that runs the tests."""
    return Path(sysconfig.get_path("purelib"))


def _find(version: str) -> Path:
    if version == OWN:
        return Path(sys.executable)
    program = f"python{version}"
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    for found in (shutil.which(program), *glob.glob(f"{pyenv}/versions/{version}.*/bin/{program}")):
        # A program of this name may be one that only says which Python it would need.
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return Path(found)
    raise NotHere(f"there is no Python {version} on this machine")


@functools.cache
def _prefix(python: Path) -> Path:
    command = [str(python), "-c", "import sys; print(sys.base_prefix)"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(place: Path, python: Path, lists: Iterable[Path], links: dict[str, str]) -> None:
    new = place.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    wanted = [option for file in lists for option in ("-r", str(file))]
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--no-deps"]
    # It can't be compiled later, when it is read-only; what few machines have needn't be.
    compiled = ["--compile-bytecode"] if links else []
    where = ["--python", str(python), "--target", str(new), *compiled]
    subprocess.run([*uv, *where, *wanted], check=True)
    for name, target in links.items():
        if not (new / name).exists():
            (new / name).symlink_to(target)
    if not links:
        _describe_torch(new / f"torch-{TORCH_ON_3_13}.dist-info")
    new.rename(place)


def _describe_torch(info: Path) -> None:
    info.mkdir()
    text = f"Metadata-Version: 2.1\nName: torch\nVersion: {TORCH_ON_3_13}\n"
    (info / "METADATA").write_text(text)
    (info / "INSTALLER").write_text("pip\n")
    (info / "RECORD").write_text(f"{info.name}/METADATA,,\n{info.name}/INSTALLER,,\n")


def _links(frameworks: Sequence[str]) -> dict[str, str]:
    """Map the entries of the packages that are to be seen to where a machine finds them."""
    here = {
        canonicalize_name(d.metadata["Name"]): d for d in distributions(path=[str(host_packages())])
    }
    others = {canonicalize_name(r.name) for r in of_the_kit(frameworks)}
    required = (_names(REQUIREMENTS) | others) - LACKING
    names = _closure(required, here) - _names(HERE / KERNEL)
    files = (file for name in names for file in here[name].files or ())
    entries = {file.parts[0] for file in files} - {"..", "__pycache__"}
    return {entry: str(HOST / entry) for entry in entries}


def _names(file: Path) -> set[NormalizedName]:
    return {canonicalize_name(requirement.name) for requirement in requirements(file)}


def _closure(
    names: set[NormalizedName], here: dict[NormalizedName, Distribution]
) -> set[NormalizedName]:
    seen: set[NormalizedName] = set()
    while names:
        seen |= names
        asked = (Requirement(r) for name in names for r in here[name].requires or ())
        needed = {canonicalize_name(r.name) for r in asked if applies(r)}
        names = (needed & here.keys()) - seen
    return seen
