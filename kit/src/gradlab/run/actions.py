"""What `uses` names: the actions of the service, done here.

    script@v1        a script for bash, without options: only its last command's failure counts,
                     so write `set -e` at its beginning
    container@v1     the image's program, or `command` and `args`
    git-checkout@v1  this project's working tree, or one commit of any repository
    s3-download@v1   what lies below s3://BUCKET/PREFIX, by boto3
    create-model@v1  an entry in the local model registry

Promises: what can't be done is refused before anything runs, by `problem`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..base import folders, processes
from ..base.errors import GradlabError
from ..base.stop import Stop
from ..base.terminal import printable
from ..base.units import human
from ..engines.environment import on_this_machine
from ..engines.protocol import Engine, Task
from ..spec.spec import Job
from ..store import models, transfer
from .report import JobLog
from .repository import Login, Repository, clone

EVENT = re.compile(r"(?:\$\{\{\s*)?context\.event\.github\.(url|ref)(?:\s*\}\})?")


@dataclass(frozen=True)
class Context:
    """One job that is about to run, with all that its action may use."""

    job: Job
    run: str
    folder: Path
    inputs: Mapping[str, Path]
    contents: Mapping[str, str]  # what identifies each input
    parameters: Mapping[str, Any]  # secrets filled in
    env: Mapping[str, str]
    repository: Repository
    event: Mapping[str, str]  # context.event.github
    models: Path
    engine: Engine
    log: JobLog
    stop: Stop

    @property
    def target(self) -> Path:
        """The folder that an action fills: `path`, or the only volume or dataset output."""
        outputs = self.folder / "outputs"
        if path := self.parameters.get("path"):
            parts = PurePosixPath(str(path)).parts
            inside = parts[:2] == ("/", "outputs") and ".." not in parts
            if inside and parts[2:3] and parts[2] in self.job.outputs:
                return _within(outputs, *parts[2:])
            raise GradlabError(f"path {path!r} is not below one of the job's outputs")
        names = [name for name, port in self.job.outputs.items() if port.type != "string"]
        if len(names) != 1:
            raise GradlabError("it needs exactly one volume or dataset output, or `path`")
        return outputs / names[0]

    def execute(self, command: Any, env: Mapping[str, str]) -> int:
        """Run a command of the action itself on this machine, its output logged."""
        marked = {**env, processes.MARK: self.env[processes.MARK]}
        command = processes.supervised(command)
        return processes.run(command, marked, self.folder, self.log.write, self.stop)


def _within(outputs: Path, *parts: str) -> Path:
    """Give a place below the outputs; GradlabError where a link on the way leads elsewhere."""
    place = outputs
    for part in parts:
        place /= part
        if place.is_symlink():
            raise GradlabError(
                f"/outputs/{place.relative_to(outputs)} is a link to {os.readlink(place)}, left by "
                "an earlier try, and nothing is written through it: begin anew with --fresh"
            )
    return place


def problem(job: Job, engine: Engine) -> str:
    """Say why a job can't run in an engine, or nothing."""
    if job.uses not in ACTIONS:
        return f"there is no action {job.uses!r}; there are {', '.join(ACTIONS)}"
    if job.uses == "container@v1" and engine.name != "container":
        words = (*_list(job.parameters.get("command")), *_list(job.parameters.get("args")))
        if not words or not on_this_machine(words[0], job.env):
            what = f"the program {words[0]!r}" if words else "`command` or `args`"
            return (
                f"container@v1 needs {what} on this machine with the engine {engine.name!r}: "
                "use --engine container, or script@v1"
            )
    return ""


def code(job: Job, event: Mapping[str, str], repository: Repository) -> str:
    """Identify what a job takes from outside the spec and its inputs: the working tree.

    Raises GradlabError where git can't tell what belongs to it.
    """
    taken = takes_working_tree(job, event, repository)
    return repository.content().tree.digest if taken else ""


def takes_working_tree(job: Job, event: Mapping[str, str], repository: Repository) -> bool:
    """Tell whether a job checks out this project as it is on the disk."""
    checkout = job.uses == "git-checkout@v1"
    return checkout and _is_working_tree(job.parameters, event, repository)


def perform(context: Context) -> int:
    """Do a job's action and give its exit status; raises GradlabError where it fails."""
    return ACTIONS[context.job.uses](context)


def _script(context: Context) -> int:
    return _run(context, script=str(context.parameters["script"]))


def _container(context: Context) -> int:
    parameters = context.parameters
    program, args = _list(parameters.get("command")), _list(parameters.get("args"))
    return _run(context, program=program, args=args)


def _run(context: Context, **what: Any) -> int:
    image = str(context.parameters.get("image", ""))
    task = Task(context.folder, context.inputs, context.env, image, **what)
    take, stop = context.log.write, context.stop
    # Not for the launch, which may wait for another run; but until what it made is gone.
    with ExitStack() as stack, context.engine.launch(task) as launch:
        stack.enter_context(stop.waits_for_processes())
        folder = context.folder / "tmp"
        return processes.run(launch.command, launch.env, folder, take, stop, launch.tell)


def _git_checkout(context: Context) -> int:
    parameters, repository = context.parameters, context.repository
    folders.empty(context.target)
    if _is_working_tree(parameters, context.event, repository):
        return _copy_working_tree(context)
    url, ref = (_filled(parameters.get(name), context.event) for name in ("url", "ref"))
    if repository.is_at(url) or not url:
        if commit := repository.commit(ref or "HEAD"):
            return repository.export(commit, context.target, context.execute)
        if not url:
            known = ", ".join(repository.refs()[:10]) or "none"
            raise GradlabError(
                f"this repository ({repository.root}) has no {ref!r}, and no remote to get it "
                f"from; its branches and tags: {known}"
            )
    login = {}
    if password := parameters.get("password"):
        who = Login(str(parameters.get("username", "git")), str(password))
        login = who.env(context.folder / "tmp", url)
    if status := clone(url, ref, context.target, login, context.execute):
        raise GradlabError(f"git could not get {url} at {ref or 'HEAD'} (status {status})", 1)
    return 0


def _copy_working_tree(context: Context) -> int:
    root = context.repository.root
    with context.log.busy(f"reading the working tree {root}"):
        content = context.repository.content()
    for path in content.links:
        context.log.note(
            f"left out: {printable(path)}, a symbolic link that leads out of the project"
        )
    for path in content.modules:
        context.log.note(
            f"left out: the submodule {path}, which is empty here; to have it: "
            f"git submodule update --init {path}"
        )
    count, size = len(content.tree.files), human(content.tree.size)
    with context.log.busy(f"copying {count} files, {size}"):
        transfer.copy(content.tree, root, context.target)
    context.log.note(f"{count} files of the working tree {root}")
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


def _s3_download(context: Context) -> int:
    try:
        import boto3  # type: ignore[import-untyped, import-not-found, unused-ignore]
        from botocore.exceptions import (  # type: ignore[import-untyped, import-not-found, unused-ignore]
            BotoCoreError,
            ClientError,
        )
    except ImportError:
        raise GradlabError("s3-download@v1 needs boto3: pip install boto3") from None
    parameters = context.parameters
    match = re.fullmatch(r"s3://([^/]+)/*(.*?)/*", str(parameters["url"]))
    if not match:
        raise GradlabError(f"url {parameters['url']!r} is not of the form s3://BUCKET/PREFIX")
    try:
        client = boto3.client(
            "s3",
            aws_access_key_id=str(parameters["access-key"]),
            aws_secret_access_key=str(parameters["secret-access-key"]),
            region_name=parameters.get("region"),
            endpoint_url=parameters.get("endpoint"),
        )
        return _fetch_all(client, match[1], match[2], context)
    except (BotoCoreError, ClientError, ValueError) as error:
        raise GradlabError(f"{parameters['url']}: {error}", exit_code=1) from error


def _fetch_all(client: Any, bucket: str, prefix: str, context: Context) -> int:
    """Get the object of that name, or what lies below it as a folder."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    found = [o for page in pages for o in page.get("Contents", ())]
    objects = {o["Key"]: (o["Size"], o["LastModified"].timestamp()) for o in found}
    below = f"{prefix}/" if prefix else ""
    wanted = {
        key: key.removeprefix(below) if key.startswith(below) else os.path.basename(key)
        for key in objects
        if (key == prefix or key.startswith(below)) and not key.endswith("/")
    }
    for key, path in wanted.items():
        if context.stop.signal:
            return -context.stop.signal
        if path.startswith("/") or ".." in path.split("/"):
            raise GradlabError(f"the object {key!r} would be written outside of the output")
        target = context.target
        place = _within(target.parent, target.name, *path.split("/"))
        # A draft's file is the object's if it is of its time too: another may be as large.
        if not place.is_file() or _state(place) != objects[key]:
            _download(client, bucket, key, place, objects[key][1])
    if not wanted:
        raise GradlabError(f"there is nothing at s3://{bucket}/{prefix}", exit_code=1)
    context.log.note(f"{len(wanted)} files of s3://{bucket}/{prefix}")
    return 0


def _state(place: Path) -> tuple[int, float]:
    status = place.stat()
    return status.st_size, status.st_mtime


def _download(client: Any, bucket: str, key: str, place: Path, changed: float) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.part")
    part.unlink(missing_ok=True)  # not through what may be a link
    client.download_file(bucket, key, str(part))
    os.utime(part, (changed, changed))
    os.replace(part, place)


def _create_model(context: Context) -> int:
    job, parameters = context.job, context.parameters
    if "model" not in context.inputs:
        raise GradlabError("create-model@v1 needs an input named `model`")
    inputs = {"model": context.inputs["model"], **context.inputs}
    name, type = str(parameters["name"]), str(parameters["type"])
    content = context.contents["model"]
    id = models.create(context.models, name, type, content, inputs, f"{context.run} {job.name}")
    for output in job.outputs:
        (context.folder / "outputs" / output).write_text(id)
    context.log.note(f"model {name} {id} ({type}), {content}")
    return 0


def _list(value: Any) -> tuple[str, ...]:
    """Give `command` or `args` as a list; a single text is one program."""
    return (value,) if isinstance(value, str) else tuple(map(str, value or ()))


ACTIONS: dict[str, Callable[[Context], int]] = {
    "script@v1": _script,
    "container@v1": _container,
    "git-checkout@v1": _git_checkout,
    "s3-download@v1": _s3_download,
    "create-model@v1": _create_model,
}
