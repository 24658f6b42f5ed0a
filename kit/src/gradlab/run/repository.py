"""The project's own repository, and others, as git-checkout@v1 gives them.

Promises: of this very project the working tree is taken, uncommitted changes and new files
included, ignored files and the storage not; it works without a remote. What git would not take is
never taken: where git can't tell, that is an error. Passwords reach git through its environment
alone: never an argument, a URL, a log or .git/config.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..base import files, folders, git
from ..base.errors import GradlabError
from ..store import tree
from ..store.tree import Tree

# What no project wants to keep, ignored or not, where there is no repository to say so.
JUNK = [".git", ".venv", "venv", "node_modules", "__pycache__", ".ipynb_checkpoints", "storage"]
JUNK += [".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".eggs", ".DS_Store"]
LISTED = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
STALLED = "120"
SETTLED = 10**9  # nanoseconds without a change, after which any change is seen by the time
ASKPASS = """#!/bin/sh
case "$1" in
    *"//$GRADLAB_GIT_HOST'"* | *"@$GRADLAB_GIT_HOST'"*) ;;
    *"//$GRADLAB_GIT_HOST/"* | *"@$GRADLAB_GIT_HOST/"*) ;;
    *) exit 1 ;; # another host, to which the first one has redirected git
esac
case "$1" in
    Username*) printf '%s\\n' "$GRADLAB_GIT_USERNAME" ;;
    *) printf '%s\\n' "$GRADLAB_GIT_PASSWORD" ;;
esac
"""

Run = Callable[[Sequence[str], Mapping[str, str]], int]  # runs a command, its output logged


@dataclass
class Content:
    """The files of a working tree, and what of it was left out."""

    tree: Tree
    links: list[str] = field(default_factory=list)  # symbolic links that lead out of it
    modules: list[str] = field(default_factory=list)  # submodules that nobody has initialised


class Repository:
    """The project in a folder: at the top of a repository, in a part of one, or without any."""

    def __init__(self, root: Path, storage: Sequence[Path]) -> None:
        self.root = root
        self.storage = [each for each in storage if each != root and each.is_relative_to(root)]
        self.tracked = git.repository_above(root) is not None and not _is_ignored(root)
        self._known: dict[str, tuple[tuple[int, ...], str]] = {}

    @cached_property
    def url(self) -> str:
        """The address of the remote `origin`, or of the only remote; else nothing."""
        remotes = git.ask(self.root, "remote").splitlines() if self.tracked else []
        name = "origin" if "origin" in remotes else remotes[0] if len(remotes) == 1 else ""
        return git.ask(self.root, "remote", "get-url", name) if name else ""

    def is_at(self, url: str) -> bool:
        """Tell whether a URL means this repository."""
        return bool(self.url) and _canonical(url) == _canonical(self.url)

    def commit(self, ref: str) -> str:
        """Give the commit that a ref means here, or nothing."""
        wanted = ("--end-of-options", f"{ref}^{{commit}}")
        return git.ask(self.root, "rev-parse", "--verify", "--quiet", *wanted)

    def refs(self) -> list[str]:
        """Name the branches and tags that are here."""
        form = "--format=%(refname:short)"
        return git.ask(self.root, "for-each-ref", form, "refs/heads", "refs/tags").splitlines()

    def content(self) -> Content:
        """Hash the working tree; GradlabError where git can't tell what belongs to it."""
        paths, modules = self.paths()
        found, kept = Content(Tree(), modules=modules), list[str]()
        for path in paths:
            place = self.root / path
            kept_there = not {place, *place.parents}.isdisjoint(self.storage)
            if kept_there or not os.path.lexists(place):
                continue
            outside = place.is_symlink() and tree.leads_out(self.root, path)
            (found.links if outside else kept).append(path)
        states = ((path, folders.status(self.root / path)) for path in sorted(kept))
        there = ((path, state) for path, state in states if state)
        found.tree = tree.collect(self.root, there, self._sha256)
        return found

    def digest(self) -> str:
        """Give the SHA-256 of the working tree; GradlabError as above."""
        return self.content().tree.digest

    def _sha256(self, path: str, state: os.stat_result) -> str:
        """Hash a file, once per run unless it has changed; one that changes just now each time."""
        now = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
        if path in self._known and self._known[path][0] == now:
            return self._known[path][1]
        since, sha256 = time.time_ns() - state.st_ctime_ns, files.sha256(self.root / path)
        if since > SETTLED:
            self._known[path] = (now, sha256)
        return sha256

    def paths(self) -> tuple[list[str], list[str]]:
        """List what git would take, and the submodules that are empty; GradlabError as above."""
        modules: list[str] = []
        listed = self._listed(modules) if self.tracked else self._listed_without()
        return list(listed), modules

    def export(self, commit: str, target: Path, run: Run) -> int:
        """Write a commit's files to a folder, with neither branch nor index of this one touched."""
        folder = git.demand(self.root, "rev-parse", "--absolute-git-dir")
        below = git.demand(self.root, "rev-parse", "--show-prefix")
        command = git.command(target, f"--git-dir={folder}", f"--work-tree={target}")
        with tempfile.TemporaryDirectory() as temporary:
            env = git.environment(GIT_INDEX_FILE=str(Path(temporary, "index")))
            status = run([*command, "read-tree", f"{commit}:{below}"], env)
            return status or run([*command, "checkout-index", "--all", "--force"], env)

    def _listed(self, modules: list[str], below: str = "") -> Iterator[str]:
        listed = git.demand(self.root / below, *LISTED)
        for name in dict.fromkeys(listed.split("\0")):  # one in a conflict is listed three times
            path, place = os.path.join(below, name.rstrip("/")), self.root / below / name
            if not name:
                continue
            if not place.is_dir() or place.is_symlink():
                yield path
            elif os.path.lexists(place / ".git"):
                yield from self._listed(modules, path)
            else:  # an empty folder, in which git would find the repository around it again
                modules.append(path)

    def _listed_without(self) -> list[str]:
        """List what git would take if the project were a repository, its .gitignore heeded."""
        with tempfile.TemporaryDirectory() as folder:
            git.demand(Path(folder), "init", "--quiet", "--bare")
            here = ("-c", "core.bare=false", f"--git-dir={folder}", f"--work-tree={self.root}")
            junk = [f"--exclude={name}" for name in JUNK]
            listed = git.demand(self.root, *here, *LISTED, *junk)
        return [path for path in listed.split("\0") if path]


def _is_ignored(root: Path) -> bool:
    """Tell whether a project lies in a repository that ignores it, and so is none of its part."""
    if os.path.lexists(root / ".git") or git.ask(root, "ls-files", "--cached"):
        return False
    return bool(git.ask(root.parent, "check-ignore", root.name))


@dataclass(frozen=True)
class Login:
    """Who asks for a private repository."""

    username: str
    password: str

    def env(self, tmp: Path, url: str) -> dict[str, str]:
        """Give the environment from which git takes the login for a URL's host, and no other.

        `tmp` gets a helper script.
        """
        askpass = tmp / "askpass.sh"
        askpass.write_text(ASKPASS)
        askpass.chmod(0o700)
        names = {"USERNAME": self.username, "PASSWORD": self.password, "HOST": _host(url)}
        login = {f"GRADLAB_GIT_{name}": value for name, value in names.items()}
        # No helper of the user's may answer first, or keep the password.
        no_helper = {"COUNT": "1", "KEY_0": "credential.helper", "VALUE_0": ""}
        return login | {
            "GIT_ASKPASS": str(askpass),
            **{f"GIT_CONFIG_{name}": value for name, value in no_helper.items()},
        }


def _host(url: str) -> str:
    """Give the host, and the port if there is one, of a URL or of git@host:path."""
    after = url.partition("://")[2]
    host = after.partition("/")[0] if after else url.partition(":")[0]
    return host.rpartition("@")[2]


def clone(url: str, ref: str, target: Path, env: Mapping[str, str], run: Run) -> int:
    """Get one commit of another repository into an empty folder, and give git's exit status."""
    if re.match(r"[\w+.-]+://[^/]*:[^/]*@", url):
        raise GradlabError("the URL holds a password: use `username` and `password: secret:NAME`")
    if ref.startswith("-"):
        raise GradlabError(f"{ref!r} is no git ref")
    command = git.command(target)
    safe = {"GIT_ALLOW_PROTOCOL": "http:https:ssh:git:file"}
    # Bytes and seconds: a server that gives less for so long has stalled.
    safe |= {"GIT_HTTP_LOW_SPEED_LIMIT": "100", "GIT_HTTP_LOW_SPEED_TIME": STALLED}
    env = git.environment(**safe, **env)
    # No remote is set up: nothing of the URL stays in .git/config.
    status = run([*command, "init", "--quiet", "--initial-branch=none"], env)
    for fetch, commit in _ways_to_fetch(url, ref or "HEAD"):
        status = run([*command, "fetch", "--quiet", *fetch], env)
        if status == 0:
            return run([*command, "checkout", "--quiet", "--detach", commit, "--"], env)
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
