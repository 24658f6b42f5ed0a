"""What this session keeps, and where, and when it ends.

Promises: only looks, works without torch; every answer can be overridden by an environment
variable:

    GRADLAB_STORAGE          folder, or URL such as s3://bucket/folder, for all that is to be kept
    GRADLAB_STORAGE_SLOW     1: treat it as slow and asynchronous, like Google Drive; 0: don't
    GRADLAB_SCRATCH          folder on a fast local disk, with one in it for each project
    GRADLAB_SESSION_MINUTES  how long this session lasts, from its start
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import tempfile
import time
import tomllib
from pathlib import Path

from ..base.errors import GradlabError
from . import machine, urls
from .mounts import DRIVE, DRIVE_MOUNTPOINT, SLOW_FILESYSTEMS, filesystem, real
from .table import Storage, here

JOB_AT = "GRADLAB_JOB_AT"  # set for a job: FILE:LINE of it in the workflow's file
OPTION = re.compile(r"(?<![\w-])--[a-z]")
RUNNER = re.compile(r"gradlab run .*")  # whose options are given on the command line
MARGIN_SECONDS = 120.0  # left for the last checkpoint before the service ends the session


def project_root(start: Path | None = None) -> Path:
    """Find the nearest folder upwards that holds a pyproject.toml, else the starting folder.

    Raises GradlabError where the folder that this process works in has been deleted.
    """
    try:
        start = (start or Path.cwd()).resolve()
    except FileNotFoundError:
        raise GradlabError(
            "the folder that you are in has been deleted: change to the project's folder first"
        ) from None
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file():
            return folder
    return start


def project_name(root: Path) -> str:
    """Read the project's name from its pyproject.toml, else take the folder's name."""
    try:
        return str(tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["name"])
    except (OSError, KeyError, TypeError, ValueError):
        return root.name


def project_framework(root: Path) -> str:
    """Read which framework a project trains with: the extra of the kit that it requires."""
    try:
        required = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
        found = re.search(r"\bgradlab\[(\w+)", str(required["dependencies"]))
    except (OSError, KeyError, TypeError, ValueError):
        found = None
    return found[1] if found else "pytorch"


def how_to_install(root: Path, module: str = "") -> str:
    """Say how what a project trains with is installed, or a module of that."""
    command = "python -m pip install --find-links vendor --editable "
    if module == "tensorflow" or project_framework(root) == "keras":
        return f'{command}".[tensorflow]"; or ".[jax]", and set KERAS_BACKEND=jax'
    return f"{command}."


def storage(project: str) -> Storage:
    """Give the folder or URL that keeps this project's runs, data and models between sessions.

    Raises GradlabError for a URL that can't be one, and where GRADLAB_STORAGE lies on a Google
    Drive that is not mounted: writing there would fill the machine's own disk and make the later
    mount fail.
    """
    if override := os.environ.get("GRADLAB_STORAGE", "").removeprefix("file://"):
        if url := urls.checked(override):
            return Storage(None, True, True, "set by GRADLAB_STORAGE", url)
        path = real(Path(override).expanduser())
        on_drive = filesystem(path) == DRIVE
        if path.is_relative_to(DRIVE_MOUNTPOINT) and not on_drive and here().has_drive:
            raise _unmounted(path)
        persistent = here().keeps_its_disk or on_drive
        drive = ", on Google Drive: uploads in the background" * on_drive
        return Storage(path, persistent, _is_slow(path), f"set by GRADLAB_STORAGE{drive}")
    found = here().storage(project)
    assert found.path, "a service's own storage is a folder"
    path = real(found.path if found.path.is_absolute() else project_root() / found.path)
    return Storage(path, found.persistent, _is_slow(path), found.why)


def _unmounted(path: Path) -> GradlabError:
    return GradlabError(
        f"GRADLAB_STORAGE is {path}, but Google Drive is not mounted at {DRIVE_MOUNTPOINT}.\n"
        "Mount it first (in a notebook cell: from google.colab import drive; "
        f"drive.mount('{DRIVE_MOUNTPOINT}')), or set GRADLAB_STORAGE to another folder."
    )


def _is_slow(path: Path) -> bool:
    forced = os.environ.get("GRADLAB_STORAGE_SLOW", "")
    return forced != "0" if forced else filesystem(path) in SLOW_FILESYSTEMS


def scratch(project: str) -> Path:
    """Give a folder on a fast local disk for this project and storage; it may be gone any time."""
    # Two storages must never share a folder, nor two projects or two users of one machine.
    place = hashlib.sha256(str(storage(project)).encode()).hexdigest()[:8]
    own = f"{project}-{place}"
    if override := os.environ.get("GRADLAB_SCRATCH"):
        return Path(override).expanduser().absolute() / own
    top = here().scratch
    top = top if top and top.is_dir() else Path(tempfile.gettempdir())
    return top / f"gradlab-{os.getuid()}" / own


def ways_to_start_over() -> str:
    """Say what starts a training run over, or begins another, where this process runs."""
    another = "begin another run by another RUN (or --name) in"
    if workflow := os.environ.get("GRADLAB_WORKFLOW"):
        file = os.environ.get(JOB_AT, f".gradient/workflows/{workflow}.yaml")
        return f"{another} {file}, or start this one over with: gradlab run {workflow} --fresh"
    if here().has_workflows:
        return f"{another} the workflow's file"
    return "take another --name, or start this one over with --fresh"


def place_of_options(message: str) -> str:
    """Say where the options that a message names are given, if that is not the command line."""
    file, own = os.environ.get(JOB_AT, ""), RUNNER.sub("", message)
    return f"Its options are given in {file}." if file and OPTION.search(own) else ""


def way_to_accept() -> str:
    """Say what goes on with a training run although its code or data have changed."""
    workflow = os.environ.get("GRADLAB_WORKFLOW")
    return f"gradlab run {workflow} --accept-changes" if workflow else "--accept-changes"


def ends(minutes: float | None = None) -> float:
    """Give the time to stop at, seconds since 1970: before the session ends, or in some minutes."""
    end = math.inf if minutes is None else time.time() + 60 * minutes
    return min(end, (deadline() or math.inf) - MARGIN_SECONDS)


def deadline() -> float | None:
    """Give the time at which the service ends this session: seconds since 1970, None if unknown."""
    if minutes := os.environ.get("GRADLAB_SESSION_MINUTES"):
        try:
            return machine.started() + 60 * float(minutes)
        except ValueError:
            raise GradlabError(
                f"GRADLAB_SESSION_MINUTES is {minutes!r}, not a number: for 6 hours set it to 360."
            ) from None
    hours = here().hours
    end = machine.started() + 3600 * hours if hours else None
    # A session that outlived the free limit is of a plan whose limit isn't known.
    return end if end and end > time.time() else None
