"""What differs from service to service: no other place in the kit knows one of them.

Promises: only looks (environment variables, mounts, folders); never mounts, creates or imports
anything of a service.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import limits
from .mounts import DRIVE, mounts


@dataclass(frozen=True)
class Storage:
    """Where things are to be kept, a folder or a URL, and how far that can be trusted."""

    path: Path | None  # none for a URL
    persistent: bool
    slow: bool
    why: str
    url: str = ""

    def __str__(self) -> str:
        return self.url or str(self.path)


@dataclass(frozen=True)
class Service:
    """A service; `is_here` tells whether this machine is one of it."""

    id: str
    name: str
    is_here: Callable[[], bool]
    storage: Callable[[str], Storage]  # of a project; a relative path is below its folder
    gpu: str = "install a torch built for your GPU and its driver"  # how to get one
    keeps_its_disk: bool = True
    is_thrown_away: bool = False  # the machine, when the session ends
    has_secrets: bool = False  # which only a notebook can read
    has_drive: bool = False  # Google Drive, and what else `google.colab` offers
    has_workflows: bool = False  # what a job does is written in its workflow's file only
    scratch: Path | None = None  # a faster folder than the usual one, where it is there

    @property
    def hours(self) -> float | None:
        """How long a free session lasts at most, as far as that is known."""
        return limits.of(self.id).hours


def here() -> Service:
    """Give the service that this machine is of."""
    return next(service for service in SERVICES if service.is_here())


def _on_kaggle(project: str) -> Storage:
    path = Path("/kaggle/working", project)
    return Storage(path, False, False, "kept only by Save Version or the persistence option")


def _on_colab(project: str) -> Storage:
    for mountpoint, kind in mounts():
        if kind == DRIVE:
            path = Path(mountpoint, "MyDrive", "gradlab", project)
            return Storage(path, True, True, "Google Drive: uploads in the background")
    why = "the machine's own disk, gone with the session: mount Google Drive to keep it"
    return Storage(Path("/content/gradlab", project), False, False, why)


def _in_gradient_notebook(project: str) -> Storage:
    top = Path("/storage") if Path("/storage").is_dir() else Path("/notebooks")
    return Storage(top / project, True, False, f"{top} outlives the notebook's machine")


def _in_gradient_job(_: str) -> Storage:
    why = "a job keeps its declared outputs only: set GRADLAB_STORAGE to /outputs/<name>"
    return Storage(Path("/outputs"), False, False, why)


def _is_gradient_notebook() -> bool:
    env = os.environ
    if "PAPERSPACE_NOTEBOOK_REPO_ID" in env or "PAPERSPACE_NOTEBOOK_ID" in env:
        return True
    return "PAPERSPACE_FQDN" in env and Path("/notebooks").is_dir()


def _is_real_folder(path: str) -> bool:
    # Not a link: with links of these names `gradlab run` lends a machine to one of its jobs.
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


# The first that says so is meant: Kaggle's images are built from Colab's and carry its variables.
SERVICES = (
    Service(
        id="kaggle",
        name="Kaggle",
        is_here=lambda: "KAGGLE_KERNEL_RUN_TYPE" in os.environ,
        storage=_on_kaggle,
        gpu="Settings > Accelerator > GPU T4 x2",
        keeps_its_disk=False,
        is_thrown_away=True,
        has_secrets=True,
        scratch=Path("/kaggle/tmp"),
    ),
    Service(
        id="colab-enterprise",
        name="Colab Enterprise",
        is_here=lambda: os.environ.get("VERTEX_PRODUCT") == "COLAB_ENTERPRISE",
        storage=_on_colab,
        keeps_its_disk=False,
        is_thrown_away=True,
    ),
    Service(
        id="colab",
        name="Google Colab",
        # Presence counts: COLAB_GPU is empty on a machine without a GPU.
        is_here=lambda: bool({"COLAB_RELEASE_TAG", "COLAB_BACKEND_VERSION"} & os.environ.keys()),
        storage=_on_colab,
        gpu="Runtime > Change runtime type > T4 GPU; if it is refused, try later",
        keeps_its_disk=False,
        is_thrown_away=True,
        has_secrets=True,
        has_drive=True,
    ),
    Service(
        id="gradient-notebook",
        name="Gradient notebook",
        is_here=_is_gradient_notebook,
        storage=_in_gradient_notebook,
        gpu="stop the notebook and start it on a machine with a GPU",
        is_thrown_away=True,
    ),
    Service(
        id="gradient-workflow",
        name="Gradient workflow job",
        is_here=lambda: _is_real_folder("/inputs") and _is_real_folder("/outputs"),
        storage=_in_gradient_job,
        gpu="set resources.instance-type to a machine with a GPU",
        has_workflows=True,
    ),
    Service(
        id="local",
        name="this machine",
        is_here=lambda: True,
        storage=lambda _: Storage(Path("storage"), True, False, "on this machine's disk"),
    ),
)
