"""Which service this is, what it keeps, what it computes on and when it ends.

Promises: only looks (environment variables, mounts, folders), never mounts, creates or
imports anything of a service; works without torch; every answer can be overridden by an
environment variable:

    GRADLAB_STORAGE          folder for everything that is to be kept
    GRADLAB_STORAGE_SLOW     1: treat it as slow and asynchronous, like Google Drive; 0: don't
    GRADLAB_SCRATCH          folder on a fast local disk, with one in it for each project
    GRADLAB_SESSION_MINUTES  how long this session lasts, from its start
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .base.errors import GradlabError

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
DRIVE = "fuse.drive"
DRIVE_MOUNTPOINT = Path("/content/drive")
SLOW_FILESYSTEMS = (DRIVE, "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.sshfs")
# The longest that a free session was seen to last; paid ones may last longer.
HOURS = {"colab": 12.0, "kaggle": 12.0, "gradient-notebook": 6.0}


@dataclass(frozen=True)
class Storage:
    """A folder for what is to be kept, and how far it can be trusted."""

    path: Path
    persistent: bool
    slow: bool
    why: str


def service() -> str:
    """Name this service.

    One of kaggle, colab-enterprise, colab, gradient-notebook, gradient-workflow, local.
    """
    env = os.environ
    # Kaggle's images are built from Colab's and carry its variables: ask for it first.
    if "KAGGLE_KERNEL_RUN_TYPE" in env:
        return "kaggle"
    if env.get("VERTEX_PRODUCT") == "COLAB_ENTERPRISE":
        return "colab-enterprise"
    # Presence counts: COLAB_GPU is empty on a machine without a GPU.
    if "COLAB_RELEASE_TAG" in env or "COLAB_BACKEND_VERSION" in env:
        return "colab"
    if "PAPERSPACE_NOTEBOOK_REPO_ID" in env or "PAPERSPACE_NOTEBOOK_ID" in env:
        return "gradient-notebook"
    if "PAPERSPACE_FQDN" in env and Path("/notebooks").is_dir():
        return "gradient-notebook"
    if _is_real_folder("/inputs") and _is_real_folder("/outputs"):
        return "gradient-workflow"
    return "local"


def _is_real_folder(path: str) -> bool:
    # Not a link: with links of these names `gradlab run` lends a machine to one of its jobs.
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


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


def storage(project: str) -> Storage:
    """Give the folder that keeps this project's runs, data and models between sessions.

    Raises GradlabError where GRADLAB_STORAGE lies on a Google Drive that is not mounted:
    writing there would fill the machine's own disk and make the later mount fail.
    """
    if override := os.environ.get("GRADLAB_STORAGE"):
        path = _real(Path(override).expanduser())
        _refuse_unmounted_drive(path)
        persistent = service() not in ("colab", "colab-enterprise", "kaggle") or _on(path, DRIVE)
        drive = ", on Google Drive: uploads in the background" * _on(path, DRIVE)
        return Storage(path, persistent, _is_slow(path), f"set by GRADLAB_STORAGE{drive}")
    found = _of_service(project)
    path = _real(found.path)
    return Storage(path, found.persistent, _is_slow(path), found.why)


def _of_service(project: str) -> Storage:
    here = service()
    if here in ("colab", "colab-enterprise"):
        return _of_colab(project)
    if here == "kaggle":
        path = Path("/kaggle/working", project)
        return Storage(path, False, False, "kept only by Save Version or the persistence option")
    if here == "gradient-notebook":
        top = Path("/storage") if Path("/storage").is_dir() else Path("/notebooks")
        return Storage(top / project, True, False, f"{top} outlives the notebook's machine")
    if here == "gradient-workflow":
        why = "a job keeps its declared outputs only: set GRADLAB_STORAGE to /outputs/<name>"
        return Storage(Path("/outputs"), False, False, why)
    return Storage(project_root() / "storage", True, False, "on this machine's disk")


def _of_colab(project: str) -> Storage:
    for mountpoint, kind in _mounts():
        if kind == DRIVE:
            path = mountpoint / "MyDrive" / "gradlab" / project
            return Storage(path, True, True, "Google Drive: uploads in the background")
    why = "the machine's own disk, gone with the session: mount Google Drive to keep it"
    return Storage(Path("/content/gradlab", project), False, False, why)


def _refuse_unmounted_drive(path: Path) -> None:
    if path.is_relative_to(DRIVE_MOUNTPOINT) and not _on(path, DRIVE) and service() == "colab":
        raise GradlabError(
            f"GRADLAB_STORAGE is {path}, but Google Drive is not mounted at {DRIVE_MOUNTPOINT}.\n"
            "Mount it first (in a notebook cell: from google.colab import drive; "
            f"drive.mount('{DRIVE_MOUNTPOINT}')), or set GRADLAB_STORAGE to another folder."
        )


def _is_slow(path: Path) -> bool:
    forced = os.environ.get("GRADLAB_STORAGE_SLOW", "")
    return forced != "0" if forced else filesystem(path) in SLOW_FILESYSTEMS


def _on(path: Path, kind: str) -> bool:
    return filesystem(path) == kind


def _real(path: Path) -> Path:
    """Follow symbolic links, as far as the path exists: what counts is where it leads."""
    # Not resolve(), which raises for links in a circle and where a mount has died.
    return Path(os.path.realpath(path))


def filesystem(path: Path) -> str:
    """Name the type of file system that a path leads to, as in /proc/mounts; '' if unknown."""
    path = _real(path)
    found = [(mount, kind) for mount, kind in _mounts() if path.is_relative_to(mount)]
    # Of mounts at the same place the last one hides the others.
    best = max(enumerate(found), key=lambda f: (len(f[1][0].parts), f[0]), default=None)
    return best[1][1] if best else ""


class Mounted:
    """The file system of a path: once it is gone, writing would fill the disk below it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kind = filesystem(path)

    def check(self, patience: float = 0.0) -> None:
        """Raise OSError (ENOTCONN) if it is gone and does not come back within some seconds."""
        end = time.monotonic() + patience
        while not self._is_there():
            if time.monotonic() >= end:
                raise OSError(errno.ENOTCONN, f"{self.path}: its {self.kind} is no longer mounted")
            time.sleep(1)

    def _is_there(self) -> bool:
        try:
            os.lstat(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            # Still in the table of mounts, but the program that serves it has died.
            if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
                return False
        return filesystem(self.path) == self.kind


def _mounts() -> list[tuple[Path, str]]:
    try:
        lines = Path("/proc/mounts").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
    fields = [line.split(" ") for line in lines]
    return [(Path(_unescape(field[1])), field[2]) for field in fields if len(field) > 2]


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def scratch(project: str) -> Path:
    """Give a folder on a fast local disk for this project and storage; it may be gone any time."""
    # Two storages must never share a folder, nor two projects or two users of one machine.
    place = hashlib.sha256(str(storage(project).path).encode()).hexdigest()[:8]
    own = f"{project}-{place}"
    if override := os.environ.get("GRADLAB_SCRATCH"):
        return Path(override).expanduser().absolute() / own
    kaggle = Path("/kaggle/tmp")
    top = kaggle if service() == "kaggle" and kaggle.is_dir() else Path(tempfile.gettempdir())
    return top / f"gradlab-{os.getuid()}" / own


def ways_to_start_over() -> str:
    """Say what starts a training run over, or begins another, where this process runs."""
    another = "begin another run by another RUN (or --name) in"
    if workflow := os.environ.get("GRADLAB_WORKFLOW"):
        file = f".gradient/workflows/{workflow}.yaml"
        return f"{another} {file}, or start this one over with: gradlab run {workflow} --fresh"
    if service() == "gradient-workflow":
        return f"{another} the workflow's file"
    return "take another --name, or start this one over with --fresh"


def way_to_accept() -> str:
    """Say what goes on with a training run although its code or data have changed."""
    workflow = os.environ.get("GRADLAB_WORKFLOW")
    return f"gradlab run {workflow} --accept-changes" if workflow else "--accept-changes"


def started() -> float:
    """Give the time (seconds since 1970) at which this session's machine or container began."""
    try:
        since_boot = float(Path("/proc/uptime").read_text().split()[0])
        # After the command's name, which may hold spaces: field 22 of proc(5).
        ticks = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
        return time.time() - since_boot + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.time()


def deadline() -> float | None:
    """Give the time at which the service ends this session: seconds since 1970, None if unknown."""
    if minutes := os.environ.get("GRADLAB_SESSION_MINUTES"):
        try:
            return started() + 60 * float(minutes)
        except ValueError:
            raise GradlabError(
                f"GRADLAB_SESSION_MINUTES is {minutes!r}, not a number: for 6 hours set it to 360."
            ) from None
    hours = HOURS.get(service())
    end = started() + 3600 * hours if hours else None
    # A session that outlived the free limit is of a plan whose limit isn't known.
    return end if end and end > time.time() else None


def memory() -> tuple[int, int]:
    """Give total and available memory in bytes, within the container's limit; zeros if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        total, available = sizes["MemTotal"], sizes["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        return 0, 0
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path("/sys/fs/cgroup", limit).read_text()))
        except (OSError, ValueError):
            continue
    return total, min(total, available)


def cpus() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
