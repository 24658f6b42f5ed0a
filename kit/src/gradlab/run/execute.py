"""Doing a job's action with what was prepared for it.

Promises: what can't be done is refused before anything runs, by `problem`. A signal reaches the
job's processes, which have time to save.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..base import processes, unfinished
from ..base.errors import GradlabError
from ..base.stop import Stop
from ..engines.environment import on_this_machine
from ..engines.protocol import Engine, Task
from ..spec.spec import Job
from ..store import models
from .actions import checkout, s3
from .actions.outputs import target
from .logs import JobLog
from .place import Place
from .prepare import Prepared
from .record import Record
from .sources import Sources

ACTIONS = ("script@v1", "container@v1", checkout.NAME, "s3-download@v1", "create-model@v1")


class Unfinished(GradlabError):
    """A job has stopped in time, what it has done is saved, and there is more to do."""


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


def execute(
    prepared: Prepared,
    sources: Sources,
    run: str,
    place: Place,
    engine: Engine,
    log: JobLog,
    stop: Stop,
) -> None:
    """Do a job's action in a run; GradlabError where it fails or is ended by a signal.

    Raises Unfinished where it has stopped in time.
    """
    job, folder, parameters = prepared.job, prepared.folder, prepared.parameters

    def call(command: Sequence[str], env: Mapping[str, str]) -> int:
        marked = {**env, processes.MARK: prepared.env[processes.MARK]}
        return processes.run(processes.supervised(command), marked, folder, log.write, stop)

    match job.uses:
        case "script@v1" | "container@v1":
            status = _attend(engine, task_of(prepared), log.write, stop)
        case checkout.NAME:
            into, event, repository = (
                target(job, folder, parameters),
                sources.event,
                sources.repository,
            )
            tmp = folder / "tmp"
            status = checkout.check_out(parameters, event, repository, into, tmp, log, call)
        case "s3-download@v1":
            status = s3.download(parameters, target(job, folder, parameters), log, stop)
        case _:
            status = _create_model(prepared, run, place, log)
    _refuse_undone(status, folder, stop)


def _refuse_undone(status: int, folder: Path, stop: Stop) -> None:
    """Raise GradlabError for an exit status that says that the job is not done."""
    if status < 0 or stop.signal:
        raise GradlabError(f"ended by signal {stop.signal or -status}")
    hidden = not status and unfinished.is_left(folder / "tmp" / unfinished.NAME)
    if status == unfinished.CODE or hidden:
        raise Unfinished("stopped in time, with more to do")
    if status:
        raise GradlabError(f"its exit status is {status}")


def task_of(prepared: Prepared) -> Task:
    """Give what an engine is to run."""
    parameters, script = prepared.parameters, prepared.job.uses == "script@v1"
    return Task(
        prepared.folder,
        prepared.inputs,
        prepared.env,
        image=str(parameters.get("image", "")),
        script=str(parameters["script"]) if script else None,
        program=() if script else _list(parameters.get("command")),
        args=() if script else _list(parameters.get("args")),
    )


def _attend(engine: Engine, task: Task, take: Callable[[bytes], None], stop: Stop) -> int:
    """Run a task to its end, hand its output to `take`, and give its exit status."""
    if stop.signal:
        return -stop.signal
    # What a task waits for before it starts may be another run's; that nobody waits for.
    handle = engine.submit(task)
    poll, logs = partial(engine.poll, handle), partial(engine.logs, handle)
    cancel = partial(engine.cancel, handle)
    with stop.waits_for_processes():
        processes.attend(poll, logs, cancel, cancel, take, stop)
        return engine.poll(handle) or 0


def _create_model(prepared: Prepared, run: str, place: Place, log: JobLog) -> int:
    job, parameters = prepared.job, prepared.parameters
    if "model" not in prepared.inputs:
        raise GradlabError("create-model@v1 needs an input named `model`")
    inputs = {"model": prepared.inputs["model"], **prepared.inputs}
    name, type = str(parameters["name"]), str(parameters["type"])
    content = str(prepared.contents["model"])
    record = Record.load(place.backend, place.record)
    made_from = record.taken_and_made() if record else ()
    id = models.create(place.backend, name, type, content, inputs, f"{run} {job.name}", made_from)
    for output in job.outputs:
        (prepared.folder / "outputs" / output).write_text(id)
    log.note(f"model {name} {id} ({type}), {content}")
    return 0


def _list(value: Any) -> tuple[str, ...]:
    """Give `command` or `args` as a list; a single text is one program."""
    return (value,) if isinstance(value, str) else tuple(map(str, value or ()))
