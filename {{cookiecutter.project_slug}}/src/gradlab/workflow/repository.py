"""The project's own repository, and others, as git-checkout@v1 gives them.

Promises: of this very project the working tree is taken, uncommitted changes and new files
included, ignored files and the storage not; it works without a remote and without git. Passwords
reach git through its environment alone: never an argument, a URL, a log or .git/config.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import GradlabError
from . import tree
from .tree import Tree

JUNK = {".git", ".venv", "venv", "node_modules", "__pycache__", ".ipynb_checkpoints", "storage"}
JUNK |= {".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".eggs", ".DS_Store"}
ASKPASS = """#!/bin/sh
case "$1" in
    Username*) printf '%s\\n' "$GRADLAB_GIT_USERNAME" ;;
    *) printf '%s\\n' "$GRADLAB_GIT_PASSWORD" ;;
esac
"""

Run = Callable[[Sequence[str], Mapping[str, str]], int]  # runs a command, its output logged


class Repository:
    """The project in a folder, with or without git."""

    def __init__(self, root: Path, storage: Path) -> None:
        self.root = root
        self.storage = storage if storage != root and storage.is_relative_to(root) else None
        top = self._git("rev-parse", "--show-toplevel")
        self.tracked = bool(top) and os.path.realpath(top) == os.path.realpath(root)

    @property
    def url(self) -> str:
        """The address of the remote `origin`, or of the only remote; else nothing."""
        if not self.tracked:
            return ""
        remotes = self._git("remote").splitlines()
        name = "origin" if "origin" in remotes else remotes[0] if len(remotes) == 1 else ""
        return self._git("remote", "get-url", name) if name else ""

    def is_at(self, url: str) -> bool:
        """Tell whether a URL means this repository."""
        return bool(self.url) and _canonical(url) == _canonical(self.url)

    def commit(self, ref: str) -> str:
        """Give the commit that a ref means here, or nothing."""
        wanted = ("--end-of-options", f"{ref}^{{commit}}")
        return self._git("rev-parse", "--verify", "--quiet", *wanted)

    def content(self) -> tuple[Tree, list[str]]:
        """Hash the working tree; give it and the symbolic links left out, which lead out of it."""
        paths = self._listed() if self.tracked else self._walked()
        kept: list[str] = []
        left_out: list[str] = []
        for path in paths:
            place = self.root / path
            if self.storage in (place, *place.parents) or not os.path.lexists(place):
                continue
            outside = place.is_symlink() and tree.leads_out(self.root, path)
            (left_out if outside else kept).append(path)
        return tree.scan(self.root, kept), left_out

    def export(self, commit: str, target: Path, run: Run) -> int:
        """Write a commit's files to a folder, with neither branch nor index of this one touched."""
        env = {**os.environ, "GIT_INDEX_FILE": str(target.parent / f"{target.name}.index")}
        command = ["git", "-C", str(self.root), "--work-tree", str(target), "checkout", "--quiet"]
        try:
            return run([*command, commit, "--", "."], env)
        finally:
            Path(env["GIT_INDEX_FILE"]).unlink(missing_ok=True)

    def _listed(self) -> list[str]:
        found: list[str] = []
        listed = self._git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for path in dict.fromkeys(listed.split("\0")):  # one in a conflict is listed three times
            if path and (self.root / path).is_dir() and not (self.root / path).is_symlink():
                module = Repository(self.root / path, self.root)
                found += [os.path.join(path, below) for below in module._listed()]
            elif path:
                found.append(path)
        return found

    def _walked(self) -> list[str]:
        return [path for path, _ in tree.walk(self.root, without=JUNK)]

    def _git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.root), *arguments]
        try:
            done = subprocess.run(command, capture_output=True)
        except FileNotFoundError:
            return ""
        return os.fsdecode(done.stdout).strip("\n") if done.returncode == 0 else ""


@dataclass(frozen=True)
class Login:
    """Who asks for a private repository."""

    username: str
    password: str

    def env(self, tmp: Path) -> dict[str, str]:
        """Give the environment from which git takes the login; `tmp` gets a helper script."""
        askpass = tmp / "askpass.sh"
        askpass.write_text(ASKPASS)
        askpass.chmod(0o700)
        names = {"USERNAME": self.username, "PASSWORD": self.password}
        login = {f"GRADLAB_GIT_{name}": value for name, value in names.items()}
        # No helper of the user's may answer first, or keep the password.
        no_helper = {"COUNT": "1", "KEY_0": "credential.helper", "VALUE_0": ""}
        return login | {
            "GIT_ASKPASS": str(askpass),
            **{f"GIT_CONFIG_{name}": value for name, value in no_helper.items()},
        }


def clone(url: str, ref: str, target: Path, env: Mapping[str, str], run: Run) -> int:
    """Get one commit of another repository into an empty folder, and give git's exit status."""
    if re.match(r"[\w+.-]+://[^/]*:[^/]*@", url):
        raise GradlabError("the URL holds a password: use `username` and `password: secret:NAME`")
    if ref.startswith("-"):
        raise GradlabError(f"{ref!r} is no git ref")
    git = ["git", "-C", str(target)]
    safe = {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "http:https:ssh:git:file"}
    env = {**os.environ, **safe, **env}
    # No remote is set up: nothing of the URL stays in .git/config.
    status = run([*git, "init", "--quiet", "--initial-branch=none"], env)
    for fetch, commit in _ways_to_fetch(url, ref or "HEAD"):
        status = run([*git, "fetch", "--quiet", *fetch], env)
        if status == 0:
            return run([*git, "checkout", "--quiet", "--detach", commit, "--"], env)
    return status


def _ways_to_fetch(url: str, ref: str) -> Iterator[tuple[list[str], str]]:
    """Give arguments of `git fetch`, and what to check out: the cheapest way first."""
    yield ["--depth=1", "--", url, ref], "FETCH_HEAD"
    yield ["--", url, ref], "FETCH_HEAD"  # for a server without shallow clones
    # For a short commit id, which no server knows.
    yield ["--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"], ref


def _canonical(url: str) -> str:
    """Write the forms of one address alike: git@host:a/b.git, https://host/a/b, ssh://..."""
    url = re.sub(r"^[\w+.-]+://", "", url.strip())
    url = re.sub(r"^[^/@]*@", "", url)
    return re.sub(r"(\.git)?/*$", "", url.replace(":", "/", 1)).lower()
