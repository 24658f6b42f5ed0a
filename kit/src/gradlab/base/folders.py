"""Folders and what lies in them: told apart, moved and removed as a whole.

Promises: what can't be told is an OSError, never an absence; no symbolic link is followed.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from .retries import retry


def status(path: Path | str) -> os.stat_result | None:
    """Give a path's lstat, None if nothing is there; raises OSError where that can't be told."""
    try:
        return retry(lambda: os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def exists(path: Path | str) -> bool:
    """Tell whether something is there; raises OSError where that can't be told."""
    return status(path) is not None


def is_folder(path: Path | str) -> bool:
    """Tell whether a folder is there, no link to one; raises OSError where that can't be told."""
    found = status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def move(source: Path, target: Path) -> None:
    """Rename, again where the file system fails, which may have done it all the same."""
    begun = False

    def once() -> None:
        nonlocal begun
        if not begun or exists(source) or not exists(target):
            begun = True
            os.rename(source, target)

    retry(once)


def discard(folder: Path) -> None:
    """Remove a folder, if there is one, and all in it, what is write-protected too.

    A symbolic link in its place is removed itself. Raises OSError.
    """
    if is_folder(folder):
        retry(lambda: _discard(folder))
    elif exists(folder):  # a link in its place is not followed
        folder.unlink()


def _discard(folder: Path) -> None:
    with suppress(PermissionError):
        shutil.rmtree(folder)
        return
    for top, folders, _ in os.walk(folder):
        for name in (".", *folders):
            path = os.path.join(top, name)
            if not os.path.islink(path) and not os.access(path, os.W_OK | os.X_OK):
                os.chmod(path, stat.S_IRWXU)
    if exists(folder):
        shutil.rmtree(folder)


def empty(folder: Path) -> None:
    """Make a folder that has nothing in it."""
    discard(folder)
    folder.mkdir(parents=True)
