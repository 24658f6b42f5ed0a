"""From where pods get the code: a commit of the project's repository, with the kit in `vendor/`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ...base import git
from ...base.errors import GradlabError, note

SSH = re.compile(r"(?:ssh://)?(?:[\w.-]+@)([\w.-]+)(?::\d+(?=/))?[:/](.+)")
HTTP = re.compile(r"(https?://)(?:[^/@]*@)?([\w.-]+(?::\d+)?/[^\s{}]+)")
WHEEL = "vendor/gradlab-*.whl"


@dataclass(frozen=True)
class Source:
    """What of which repository a pod clones."""

    repository: str
    commit: str
    folder: str  # of the project in it, "" at its top


def find(root: Path, repository: str) -> Source:
    """Find a project's commit; GradlabError for what pods could not get, a note for what is new."""
    if git.repository_above(root) is None:
        raise GradlabError(f"pods clone the code, and {root} is in no git repository: git init")
    commit = git.ask(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if not commit:
        raise GradlabError(f"pods clone the code, and {root} has no commit yet: git commit")
    if not git.demand(root, "ls-files", "--", WHEEL):
        raise GradlabError(
            f"pods install the kit from the repository, and git knows of no {WHEEL} in {root}: "
            "copy the wheel there, git add it and commit"
        )
    url = repository or git.ask(root, "remote", "get-url", "origin")
    source = Source(_reachable(url), commit, git.demand(root, "rev-parse", "--show-prefix"))
    if not git.ask(root, "branch", "--remotes", "--contains", commit):
        note(f"! the commit {commit[:12]} is on no branch of a remote that is known here: git push")
    if git.ask(root, "status", "--porcelain", "--untracked-files=no"):
        note("! there are changes that are not committed: pods get none of them")
    return source


def _reachable(url: str) -> str:
    """Give the address by which a pod can clone; GradlabError where there is none."""
    if match := HTTP.fullmatch(url):
        return match[1] + match[2]
    if match := SSH.fullmatch(url):
        return f"https://{match[1]}/{match[2]}"
    what = f"the address {url!r} is not one that pods can clone" if url else "there is no `origin`"
    raise GradlabError(f"{what}: give one by --repository https://HOST/OWNER/NAME.git")
