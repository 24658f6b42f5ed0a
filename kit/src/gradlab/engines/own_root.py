"""A root of one's own for a job: this machine's system below it, to be written to and forgotten.

    <task>/root             the job's `/`: what it writes at the root lands here, and what it
                            writes to /usr, /etc and so on, as root, by overlayfs
                .gradlab/   its script and its Python
           layers/          overlayfs's own

Promises: nothing that a job writes there reaches this machine, nor another job; it is removed
when the job has ended. Other folders of this machine are seen, and can't be written to.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..base import folders, processes
from ..services import session
from . import job_python

OWN = ".gradlab"
ROOT = "root"
TRIED = ".layers-"
ROOM = (ROOT, "layers")  # in a task's folder
SYSTEM = ("usr", "etc", "var", "opt", "root", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
NOT_SHOWN = {"proc", "dev", "tmp", "run", "inputs", "outputs", OWN}
# Of /run, where the sockets are by which root could change the machine, only what is needed.
OF_RUN = ("/run/opengl-driver", "/run/current-system", "/run/nvidia-persistenced")
GPU_DEVICES = ("nvidia*", "dri", "kfd")
# Of root's powers those over files and identities that tar, apt-get and su need: none by which
# the machine could be changed, or what is mounted read-only.
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")
# Root may write to them without any power, and they are the machine's.
OF_PROC = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi", "mtrr")
PROBING = threading.Lock()
# Without `volatile` each end of a job would wait for the disk; older kernels don't know it.
OVERLAY = "lowerdir=/{0},upperdir=root/{0},workdir=layers/{0}"
TRY = f'''cd "$1" && shift && for name; do for more in ,volatile ""; do
mount -i -t overlay -o "{OVERLAY.format("$name")}$more" overlay "root/$name" || continue
echo "$name$more"; break; done; done 2>/dev/null; true'''
# All in one process, whatever stands in the path to it.
MOUNTED = 'cd "$1" && mount -i -a -T layers/all || exit 125; shift; exec "$@"'


@contextmanager
def made(folder: Path, seen: str) -> Iterator[Path]:
    """Make a task's root, with a Python that the job sees below the path `seen`; then remove it."""
    discard(folder)
    root = folder / ROOT
    (root / OWN).mkdir(parents=True)
    job_python.make(root / OWN / "python", f"{seen}/python")
    try:
        yield root
    finally:
        with suppress(OSError):  # the next job makes room for itself
            discard(folder)


def discard(folder: Path) -> None:
    """Remove what a task has written at its root."""
    for name in ROOM:
        folders.discard(folder / name)


def private_mounts() -> list[str]:
    """Give the command by which root runs another one with mounts of its own."""
    unshare = shutil.which("unshare") or "unshare"
    return [unshare, "--mount", "--propagation", "private", "--"]


def layered(folder: Path) -> tuple[str, ...]:
    """Name the system's folders that a task can be given to write to."""
    if os.getuid() or not shutil.which("unshare"):
        return ()
    with PROBING:
        return tuple(_layers(folder.parent))


@functools.cache
def _layers(folder: Path) -> dict[str, str]:
    """Try which of the system's folders can be layered with files below a folder, and how."""
    names = [name for name in SYSTEM if _room_for(folder, name)]
    for left in folder.glob(f"{TRIED}*"):  # by a runner that was killed while it tried
        folders.discard(left)
    with suppress(OSError), tempfile.TemporaryDirectory(prefix=TRIED, dir=folder) as place:
        _make_layers(Path(place), names)
        command = [*private_mounts(), "/bin/sh", "-c", TRY, "sh", place, *names]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        found = (line.partition(",") for line in done.stdout.split())
        return {name: comma + more for name, comma, more in found}
    return {}


def _room_for(folder: Path, name: str) -> bool:
    top = Path("/", name)
    # No layer over a folder can be kept in that folder itself.
    inside = folder.resolve().is_relative_to(top.resolve())
    return top.is_dir() and not top.is_symlink() and not inside and any(top.iterdir())


def _make_layers(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        for part in ROOM:
            (folder / part / name).mkdir(parents=True, exist_ok=True)
        shutil.copystat(f"/{name}", folder / ROOT / name)


def with_layers(folder: Path, names: Sequence[str], command: Sequence[str]) -> tuple[str, ...]:
    """Give a command that runs another one, with the layers mounted in the task's root."""
    if not names:
        return processes.shell('exec "$@"', *command)
    _make_layers(folder, names)
    ways = _layers(folder.parent)
    lines = (f"overlay root/{name} overlay {OVERLAY.format(name)}{ways[name]}\n" for name in names)
    (folder / "layers" / "all").write_text("".join(lines))
    return (*private_mounts(), *processes.shell(MOUNTED, str(folder), *command))


def system(folder: Path | None = None, layers: Sequence[str] = ()) -> list[str]:
    """Give bubblewrap's command for a view of this machine's system, with its GPUs.

    With a task's folder the root can be written to, and so can the `layers` of it.
    """
    command = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--as-pid-1"]
    command += [f"--unshare-{kind}" for kind in ("pid", "ipc", "uts", "cgroup-try")]
    if not os.getuid():
        command += ["--cap-drop", "ALL"]
        command += [word for name in CAPABILITIES for word in ("--cap-add", f"CAP_{name}")]
    if folder:
        command += ["--bind", str(folder / ROOT), "/"]
    for name in sorted(set(os.listdir("/")) - NOT_SHOWN):
        command += _mounted_below(f"/{name}") if name in layers else _shown(f"/{name}")
    command += ["--dir", "/run"]
    for path in (*OF_RUN, os.path.realpath("/etc/resolv.conf")):
        command += ["--ro-bind-try", path, path] if path.startswith("/run/") else []
    command += ["--proc", "/proc", "--dev", "/dev"]
    for path in (f"/proc/{name}" for name in OF_PROC):
        command += ["--ro-bind", path, path] if os.path.exists(path) else []
    for device in (path for pattern in GPU_DEVICES for path in Path("/dev").glob(pattern)):
        command += ["--dev-bind", str(device), str(device)]
    return command


def _shown(path: str) -> list[str]:
    """Give bubblewrap's arguments for one entry of the root that can't be written to."""
    if os.path.islink(path):
        return ["--symlink", os.readlink(path), path]
    return ["--ro-bind-try", path, path] if os.path.isdir(path) else []


def _mounted_below(path: str) -> list[str]:
    """Give bubblewrap's arguments for what is mounted below a layer, which is one file system's.

    Like the GPU's driver within a container.
    """
    places = set[str]()
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            places.add(re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split()[4]))
    below = sorted(place for place in places if place.startswith(f"{path}/"))
    return [word for place in below for word in ("--ro-bind-try", place, place)]


def needed_below_tmp(*more: Path) -> list[str]:
    """Give the folders of Python and the project that a /tmp of the job's own would hide."""
    found = {sys.prefix, sys.base_prefix, str(session.project_root()), *map(str, more)}
    found.add(str(processes.SUPERVISOR.parent))
    found |= {os.path.realpath(path) for path in found}
    return sorted(path for path in found if Path(path).is_relative_to("/tmp"))


def own_tmp(tmp: Path, needed: Sequence[str], command: Sequence[str]) -> tuple[str, ...]:
    """Give a command that root runs with a /tmp of its own, in which what is `needed` is seen."""
    lines = ["set -e"]
    for top in sorted({Path(path).parts[2] for path in needed if len(Path(path).parts) > 2}):
        hidden, shown = shlex.quote(f"/tmp/{top}"), shlex.quote(f"{tmp}/{top}")
        lines.append(f"mkdir -p {shown}; mount -i --bind {hidden} {shown}")
    lines.append(f'mount -i --rbind {shlex.quote(str(tmp))} /tmp; exec "$@"')
    return (*private_mounts(), *processes.shell("; ".join(lines), *command))
