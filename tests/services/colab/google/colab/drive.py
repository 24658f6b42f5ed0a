"""Google Drive as a folder, by the program that STAND_IN_DRIVE names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from . import _message

PROGRAM = "STAND_IN_DRIVE"
CACHE = "/var/cache/drive"
LOG = "/var/log/drive.log"
FLUSH = "user.drive.flush"
DAY_MS = 24 * 60 * 60 * 1000


def mount(
    mountpoint: str,
    force_remount: bool = False,
    timeout_ms: int = 120000,
    readonly: bool = False,
) -> None:
    """Mount the user's Drive, after asking for consent, even if it is mounted already."""
    if " " in mountpoint:
        raise ValueError("Mountpoint must not contain a space.")
    _message.blocking_request("request_auth", {"authType": "dfs_ephemeral"}, timeout_ms / 1000)
    mountpoint = os.path.expanduser(mountpoint)
    if not force_remount and os.path.isdir(os.path.join(mountpoint, "MyDrive")):
        print(
            f"Drive already mounted at {mountpoint}; to attempt to forcibly remount, "
            f'call drive.mount("{mountpoint}", force_remount=True).'
        )
        return
    if force_remount:
        _unmount(mountpoint)
    _check(mountpoint)
    user = json.loads(Path(os.environ[_message.USER]).read_text())
    if not user["policy"]:
        raise ValueError(
            "The domain policy has disabled Drive File Stream: "
            "https://support.google.com/a/answer/7496409"
        )
    _start(mountpoint, timeout_ms / 1000)
    if readonly:
        # Without the helper program that the type names, which there is none of.
        subprocess.run(["mount", "-i", "-o", "remount,ro", mountpoint], check=True)
    print(f"Mounted at {mountpoint}")


def _check(mountpoint: str) -> None:
    if os.path.islink(mountpoint):
        raise ValueError("Mountpoint must not be a symlink")
    if mountpoint in _mounted():
        # Its process died: neither a folder nor something that could be mounted over.
        raise ValueError("mount failed")
    if os.path.isdir(mountpoint) and os.listdir(mountpoint):
        raise ValueError("Mountpoint must not already contain files")
    if os.path.exists(mountpoint) and not os.path.isdir(mountpoint):
        raise ValueError("Mountpoint must either be a directory or not exist")
    if not os.path.exists(os.path.dirname(os.path.normpath(mountpoint))):
        raise ValueError("Mountpoint must be in a directory that exists")


def _start(mountpoint: str, seconds: float) -> None:
    os.makedirs(mountpoint, exist_ok=True)
    os.makedirs(os.path.dirname(LOG), exist_ok=True)
    cloud = str(Path(os.environ[_message.USER]).parent / "drive")
    # By a shell that ends, so that it is no child of the kernel's and outlives it.
    command = 'setsid "$@" >"$LOG" 2>&1 </dev/null &'
    program = [sys.executable, os.environ[PROGRAM], cloud, CACHE, mountpoint]
    subprocess.run(
        ["sh", "-c", command, "sh", *program], env={**os.environ, "LOG": LOG}, check=True
    )
    end = time.monotonic() + seconds
    while not os.path.isdir(os.path.join(mountpoint, "MyDrive")):
        if time.monotonic() > end:
            raise ValueError("mount failed")
        time.sleep(0.02)


def _mounted() -> list[str]:
    fields = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [field[1] for field in fields if field[2] == "fuse.drive"]


def _unmount(mountpoint: str) -> None:
    while mountpoint in _mounted():
        subprocess.run(["umount", "-l", mountpoint], check=True)


def flush_and_unmount(timeout_ms: int = DAY_MS) -> None:
    """Upload what is still to be uploaded and unmount the Drive."""
    places = _mounted()
    if not places:
        print("Drive not mounted, so nothing to flush and unmount.")
        return
    for place in places:
        try:
            os.setxattr(place, FLUSH, b"")
        except OSError as error:
            raise ValueError("flush_and_unmount failed") from error
        _unmount(place)
