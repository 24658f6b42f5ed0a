"""What the service knows of a push: the repository's address and the commit.

Promises: only looks; a commit that the remote doesn't have is refused, and so is a remote that
the service can't reach. A password in the remote's address goes no further.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ...base import git
from ...base.errors import GradlabError

TIMEOUT = 60.0  # seconds for the remote to answer
_SCP = re.compile(r"(?:[^@/:]+@)?(?P<host>[^/:]+):(?P<path>(?!//).+)")
NO_PASSWORD = re.compile("could not read Username|Authentication failed")
HOSTS = {"ssh.github.com": "github.com"}  # GitHub's SSH where port 22 is closed


@dataclass(frozen=True)
class Push:
    """A commit that the remote has, as https address and full id; what is to be warned of."""

    url: str
    ref: str
    warnings: tuple[str, ...] = ()


def read(root: Path, ref: str | None) -> Push:
    """Give the commit `ref`, else the newest one; raises GradlabError where it isn't pushed."""
    remote = _remote(root)
    url = https(_git(root, "remote", "get-url", remote))
    wanted = ref or "HEAD"
    options = ("--verify", "--quiet", "--end-of-options", f"{wanted}^{{commit}}")
    commit = _git(root, "rev-parse", *options, advice=f"{wanted} is no commit of this repository")
    if not _is_pushed(root, remote, commit):
        raise GradlabError(
            f"the commit {commit[:12]} ({wanted}) is not at {url}, so Gradient can't check it "
            f"out; push it: git push {remote} HEAD"
        )
    changes = _git(root, "status", "--porcelain")
    files = ", ".join(line[3:] for line in changes.splitlines()[:3])
    warning = f"what is not committed is not run, but for the workflow file itself: {files}"
    return Push(url, commit, (warning,) if changes else ())


def https(remote: str) -> str:
    """Write a remote's address as https, without a login and without `.git`."""
    if "://" in remote:
        parts = urlsplit(remote)
        host, path = parts.hostname or "", parts.path
        if parts.port and parts.scheme in ("http", "https"):
            host += f":{parts.port}"
        reachable = parts.scheme in ("http", "https", "ssh", "git")
    else:
        match = _SCP.fullmatch(remote)
        host, path = (match["host"], match["path"]) if match else ("", "")
        reachable = match is not None
    host, path = HOSTS.get(host, host), re.sub(r"(\.git)?/*$", "", path).strip("/")
    if not reachable or "." not in host or not path:
        raise GradlabError(
            f"the remote {_without_login(remote)} is nothing that Gradient can clone: push the "
            "project to GitHub, and name that repository: git remote set-url origin URL"
        )
    return f"https://{host}/{path}"


def _without_login(remote: str) -> str:
    return re.sub(r"//[^/@]*@", "//", remote)


def _remote(root: Path) -> str:
    remotes = _git(root, "remote", advice=f"{root} is no git repository: git init").split()
    if "origin" in remotes:
        return "origin"
    if len(remotes) == 1:
        return remotes[0]
    raise GradlabError(
        "the repository has no remote `origin` for Gradient to clone: push it to GitHub"
    )


def _is_pushed(root: Path, remote: str, commit: str) -> bool:
    """Tell whether a branch or tag of the remote has a commit, as far as is known here."""
    try:
        listed = _git(root, "ls-remote", remote, advice=f"the remote {remote} does not answer")
    except GradlabError as error:
        # A checkout on GitHub's machine has a private remote's branches, and no password for it.
        known = _run(root, "branch", "--remotes", "--contains", commit).stdout.strip()
        if known and NO_PASSWORD.search(str(error)):
            return True
        raise
    tips = {line.split("\t")[0] for line in listed.splitlines()}
    if commit in tips:
        return True
    ancestor = ("merge-base", "--is-ancestor", commit)
    return any(_run(root, *ancestor, tip).returncode == 0 for tip in tips)


def _git(root: Path, *arguments: str, advice: str = "git failed") -> str:
    done = _run(root, *arguments)
    if done.returncode != 0:
        words = _without_login(" ".join(done.stderr.split()))
        raise GradlabError(f"{advice}: {words}" if words else advice)
    return done.stdout.rstrip("\n")


def _run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return git.call(root, *arguments, timeout=TIMEOUT)
    except FileNotFoundError:
        raise GradlabError("git is not installed, and a run needs a pushed commit") from None
    except subprocess.TimeoutExpired:
        raise GradlabError(f"git {arguments[0]} took longer than {TIMEOUT:g} seconds") from None


def is_public(url: str) -> bool:
    """Tell whether everybody may read a repository: none of the user's passwords is used."""
    env = git.environment(GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="credential.helper")
    env |= {"GIT_CONFIG_VALUE_0": "", "GIT_ASKPASS": "true", "GIT_TERMINAL_PROMPT": "0"}
    command = [*git.command(Path.cwd()), "ls-remote", "--quiet", "--exit-code", "--", url, "HEAD"]
    try:
        done = subprocess.run(command, env=env, capture_output=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise GradlabError(f"{url} does not answer within {TIMEOUT:g} seconds") from None
    return done.returncode == 0
