"""`git-checkout@v1`: this project's working tree, or one commit of any repository."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...base import folders
from ...base.errors import GradlabError
from ...base.terminal import printable
from ...base.units import human
from ...spec.spec import Job
from ...store import transfer
from ..logs import JobLog
from ..repository import Login, Repository, Run, clone

NAME = "git-checkout@v1"
EVENT = re.compile(r"(?:\$\{\{\s*)?context\.event\.github\.(url|ref)(?:\s*\}\})?")


def code(job: Job, event: Mapping[str, str], repository: Repository) -> str:
    """Identify what a job takes from outside the spec and its inputs: the working tree.

    Raises GradlabError where git can't tell what belongs to it.
    """
    taken = takes_working_tree(job, event, repository)
    return repository.digest() if taken else ""


def takes_working_tree(job: Job, event: Mapping[str, str], repository: Repository) -> bool:
    """Tell whether a job checks out this project as it is on the disk."""
    return job.uses == NAME and _is_working_tree(job.parameters, event, repository)


def check_out(
    parameters: Mapping[str, Any],
    event: Mapping[str, str],
    repository: Repository,
    target: Path,
    tmp: Path,
    log: JobLog,
    run: Run,
) -> int:
    """Fill a folder with what is asked for and give git's exit status; `run` runs a command.

    `tmp` gets a helper that logs in. Raises GradlabError.
    """
    folders.empty(target)
    if _is_working_tree(parameters, event, repository):
        return _copy_working_tree(repository, target, log)
    url, ref = (_filled(parameters.get(name), event) for name in ("url", "ref"))
    if repository.is_at(url) or not url:
        if commit := repository.commit(ref or "HEAD"):
            return repository.export(commit, target, run)
        if not url:
            known = ", ".join(repository.refs()[:10]) or "none"
            raise GradlabError(
                f"this repository ({repository.root}) has no {ref!r}, and no remote to get it "
                f"from; its branches and tags: {known}"
            )
    login = {}
    if password := parameters.get("password"):
        login = Login(str(parameters.get("username", "git")), str(password)).env(tmp, url)
    if status := clone(url, ref, target, login, run):
        raise GradlabError(f"git could not get {url} at {ref or 'HEAD'} (status {status})", 1)
    return 0


def _copy_working_tree(repository: Repository, target: Path, log: JobLog) -> int:
    root = repository.root
    with log.busy(f"reading the working tree {root}"):
        content = repository.content()
    for path in content.links:
        log.note(f"left out: {printable(path)}, a symbolic link that leads out of the project")
    for path in content.modules:
        log.note(
            f"left out: the submodule {path}, which is empty here; to have it: "
            f"git submodule update --init {path}"
        )
    count, size = len(content.tree.files), human(content.tree.size)
    with log.busy(f"copying {count:,} files, {size}"):
        transfer.copy(content.tree, root, target)
    log.note(f"{count:,} files of the working tree {root}")
    return 0


def _is_working_tree(
    parameters: Mapping[str, Any], event: Mapping[str, str], repository: Repository
) -> bool:
    """Tell whether a checkout is of this project at what is checked out here."""
    url, ref = _filled(parameters.get("url"), event), parameters.get("ref")
    # An event's address is this repository's, which need not have one.
    this = repository.is_at(url) or not url
    pushed = ref is not None and EVENT.fullmatch(str(ref))
    return this and (ref is None or (bool(pushed) and event["ref"] == repository.commit("HEAD")))


def _filled(text: Any, event: Mapping[str, str]) -> str:
    match = EVENT.fullmatch(str(text or ""))
    return event.get(match[1], "") if match else str(text or "")
