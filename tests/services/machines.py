"""The services' machines, made when a test asks for one.

Promises: the variables, folders and programs by which the services can be told apart, and what
each of them keeps when a machine has gone: Colab a Drive, Gradient /storage and /notebooks,
Kaggle nothing, a plain Jupyter server the user's home. Needs root, bubblewrap, nsenter and FUSE.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from .. import warm
from .cloud import USER, Cloud
from .kernels import OWN, environment
from .machine import DRIVE, Kind, Machine

GOOGLE = "/srv/google"
ENGINES = ("bwrap", "docker", "podman")
INLINE = "module://matplotlib_inline.backend_inline"

COLAB = Kind(
    home="/root",
    cwd="/content",
    env={
        "COLAB_RELEASE_TAG": "release-colab-external_20261008-060047_RC00",
        "COLAB_BACKEND_VERSION": "next",
        "COLAB_GPU": "",
        "MPLBACKEND": INLINE,
        "PYTHONPATH": "/env/python",
        "STAND_IN_USER": f"{GOOGLE}/{USER}",
        "STAND_IN_DRIVE": f"{DRIVE}/drive.py",
    },
    stand_ins="colab",
    hidden=ENGINES,
    loaded=("numpy", "PIL"),
)
GRADIENT = Kind(
    home="/root",
    cwd="/notebooks",
    env={
        "PAPERSPACE_NOTEBOOK_REPO_ID": "r0000000001",
        "PAPERSPACE_FQDN": "n0000000001.clg07azjl.paperspacegradient.com",
        "PAPERSPACE_METRIC_WORKLOAD_ID": "n0000000001",
    },
    hidden=ENGINES,
)
KAGGLE = Kind(
    home="/root",
    cwd="/kaggle/working",
    env={
        "KAGGLE_KERNEL_RUN_TYPE": "Interactive",
        "MPLBACKEND": INLINE,
        "STAND_IN_USER": f"{GOOGLE}/{USER}",
    },
    folders=("/kaggle/tmp",),
    stand_ins="kaggle",
    hidden=ENGINES,
)
JUPYTER = Kind(home="/home/user", cwd="/home/user")


def missing() -> str:
    """Say why there can be no machines here, or nothing."""
    if os.getuid():
        return "making namespaces and mounting file systems needs root"
    for program in ("bwrap", "nsenter"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not Path("/dev/fuse").exists() or ctypes.util.find_library("fuse3") is None:
        return "there is no FUSE here (/dev/fuse and libfuse3)"
    return "" if importlib.util.find_spec("mfusepy") else "mfusepy is not installed"


class Machines:
    """Makes machines and knows those that it made."""

    def __init__(self, cache: Path, shared: Path) -> None:
        """Keep what is preinstalled in `cache`; `shared` is seen in every machine at its place."""
        self.cache = cache
        self.shared = shared
        self.made: list[Machine] = []
        # Of those that are made from now on:
        self.frameworks: tuple[str, ...] = ()  # that they have beside PyTorch
        self.loaded: tuple[str, ...] = ()  # modules that their jobs need not load

    def colab(
        self, cloud: Cloud, python: str = OWN, env: Mapping[str, str] | None = None
    ) -> Machine:
        """Start a virtual machine of Colab's for a user, whose Drive is not mounted yet.

        Raises NotHere where there is no such Python.
        """
        return self._make(COLAB, {GOOGLE: cloud.folder}, env, python)

    def gradient(
        self, notebooks: Path, storage: Path, env: Mapping[str, str] | None = None
    ) -> Machine:
        """Start the machine of a Gradient notebook on the folders that persist."""
        return self._make(GRADIENT, {"/notebooks": notebooks, "/storage": storage}, env)

    def kaggle(
        self, secrets: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None
    ) -> Machine:
        """Start an interactive session of Kaggle's for a user with these secrets."""
        user = Cloud(self.shared / f"kaggle-{len(self.made)}")
        user.user(secrets=secrets)
        return self._make(KAGGLE, {GOOGLE: user.folder}, env)

    def jupyter(self, home: Path, env: Mapping[str, str] | None = None) -> Machine:
        """Start a Linux machine with a Jupyter server of one's own, in the user's home."""
        return self._make(JUPYTER, {JUPYTER.home: home}, env)

    def _make(
        self,
        kind: Kind,
        kept: Mapping[str, Path],
        env: Mapping[str, str] | None,
        python: str = OWN,
    ) -> Machine:
        place = environment(self.cache, python, self.frameworks)
        seen = {**kept, str(self.shared): self.shared}
        python_of_jobs = warm.for_jobs(self.loaded) if self.loaded else {}
        machine = Machine(kind, place, seen, env or {}, *map(Path, python_of_jobs.values()))
        self.made.append(machine)
        return machine

    def end(self) -> None:
        """Let all machines die."""
        for machine in self.made:
            machine.die()
