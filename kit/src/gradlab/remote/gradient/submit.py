"""`gradlab submit`: run a workflow at the Gradient service by hand, as a push would.

Promises: the spec that is posted is what the file says, with the `context` that a push fills in;
a file with errors is refused. That the service has taken the run is believed only when the
service shows it, for the command line ends with exit code 0 whatever happens.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import yaml

from ...base.errors import GradlabError, note
from ...check import check
from ...services import session
from ...spec.reader import read
from ...spec.spec import find
from . import push
from .service import Failure, Service, Thing, connect
from .steps import Outcome, Steps

_EVENT = "context.event.github"
_CREATED = re.compile(r"Created workflow run (\S+)")


def submit(name: str, ref: str | None = None, project: str | None = None) -> int:
    """Run a workflow at Gradient by hand, on the newest commit; it must be pushed."""
    root = session.project_root()
    path = find(name, root)
    check.load(path)
    spec = _spec(path, root, ref)
    wanted = project or session.project_name(root)
    with connect(root) as service:
        workflow = _workflow(service, wanted, path.stem)
        run = _run(service, workflow, spec)
        status, cli = run.get("status") or {}, service.program
        print(f"run {run['id']} of {path.stem} is {status.get('phase', 'accepted')}")
        print(f"follow it:  {cli} workflows get --id {workflow} --show-runs --run {run['id']}")
        print(f"its logs:   {cli} workflows logs --id {workflow} --run {run['id']}")
    return 0


def _spec(path: Path, root: Path, ref: str | None) -> dict[str, Any]:
    """Give what a file says, with what a push would have filled in."""
    document = read(path)
    data: dict[str, Any] = dict(document.data)
    if ref is None and _EVENT not in document.text:
        return data
    pushed = push.read(root, ref)
    for warning in pushed.warnings:
        note(f"! {warning}")
    context = data.get("context") or {}
    event = context.get("event") or {}
    github = {**(event.get("github") or {}), "ref": pushed.ref, "url": pushed.url}
    return {**data, "context": {**context, "event": {**event, "github": github}}}


def _workflow(service: Service, project: str, name: str) -> str:
    """Find the id of a workflow; raises GradlabError where `gradlab setup` has to make it."""
    steps = Steps(service, dry=True)
    found = steps.project(project)
    if found.id:
        found = steps.workflow(name, found.id)
    if found == Outcome("to make"):
        raise GradlabError(
            f"the project {project!r} with the workflow {name!r} is not at Gradient yet; make "
            "it: gradlab setup"
        )
    return found.id


def _run(service: Service, workflow: str, spec: dict[str, Any]) -> Thing:
    """Post a spec, and give the run that the service shows for it."""
    before = {run["id"] for run in service.runs(workflow)}
    said, problem = "", None
    with tempfile.TemporaryDirectory(prefix="gradlab-") as folder:
        path = Path(folder, "spec.yaml")
        path.write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")
        try:
            said = service.command("workflows", "run", "--id", workflow, "--path", str(path))
        except Failure as error:
            problem = error
    new = [run for run in service.runs(workflow) if run["id"] not in before]
    log = match[1] if (match := _CREATED.search(said)) else ""
    mine = [run for run in new if (run.get("status") or {}).get("logId") == log]
    if log and mine:
        return mine[0]
    raise problem if problem and not new else _doubt(said, problem, new)


def _doubt(said: str, problem: Failure | None, new: list[Thing]) -> Failure:
    words = str(problem or said.strip() or "nothing")
    if not new:
        return Failure(f"the service shows no new run; gradient workflows run says: {words}")
    ids = ", ".join(str(run["id"]) for run in new)
    return Failure(
        f"it can't be told whether the run was taken ({words}), but since then the service "
        f"shows the run {ids}: look at it before you submit again"
    )
