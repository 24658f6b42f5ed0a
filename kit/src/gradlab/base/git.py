"""Git as the kit calls it: on the repository that is meant, and without any question.

Promises: no GIT_* variable of the surroundings reaches it. In a hook git sets GIT_DIR and
GIT_INDEX_FILE, and every git below would work on the user's repository instead.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .errors import GradlabError


def environment(**more: str) -> dict[str, str]:
    """Give the environment for git: this process's without GIT_*, then what is added."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return clean | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"} | more


def command(folder: Path, *arguments: str) -> list[str]:
    """Give the command line that runs git in a folder."""
    return ["git", "-C", str(folder), *arguments]


def call(
    folder: Path, *arguments: str, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run git in a folder and give its end; file names come as Python's own functions take them.

    Raises FileNotFoundError where there is no git, and subprocess.TimeoutExpired.
    """
    return subprocess.run(
        command(folder, *arguments),
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=timeout,
    )


def ask(folder: Path, *arguments: str) -> str:
    """Give what git says, nothing where it can't: no repository, no upstream, no git."""
    try:
        done = call(folder, *arguments)
    except FileNotFoundError:
        return ""
    return "" if done.returncode else done.stdout.strip("\n")


def demand(folder: Path, *arguments: str) -> str:
    """Give what git says; GradlabError in git's words, with what would do, where it fails."""
    try:
        done = call(folder, *arguments)
    except FileNotFoundError:
        raise GradlabError(
            f"git is not installed, and only git can tell which files of {folder} belong to the "
            "project: install git, then give the same command again"
        ) from None
    if done.returncode == 0:
        return done.stdout.strip("\n")
    said = done.stderr.strip()
    if "dubious ownership" in said or "safe.directory" in said:
        top = repository_above(folder) or folder
        raise GradlabError(
            f"git refuses the repository {top}, whose files belong to another user.\n"
            f"If you trust them: git config --global --add safe.directory {top}"
        )
    raise GradlabError(f"git {arguments[0]} failed in {folder}: {said}")


def repository_above(folder: Path) -> Path | None:
    """Give the nearest folder upwards that holds a `.git`, whether git can read it or not."""
    return next((f for f in (folder, *folder.parents) if os.path.lexists(f / ".git")), None)
