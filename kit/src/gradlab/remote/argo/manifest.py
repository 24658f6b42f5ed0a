"""A workflow as a manifest of Argo Workflows v3.6 or newer: one template for each job.

Promises: the same workflow and options give the same manifest. It holds names of secrets and no
value. Exit codes decide what is tried again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...base import unfinished
from ...spec import credentials
from ...spec.spec import Job, Spec
from . import pod
from .storage import Storage
from .table import Row

API = "argoproj.io/v1alpha1"
GRACE = 120  # seconds that a job has to save once its pod is told to end
KEPT = 7 * 24 * 3600  # seconds for which Argo lists a workflow that has succeeded
UID = "WORKFLOW_UID"
# A pod that was drained, preempted or deleted, and what stopped in time, goes on. A job's own
# failure does not, nor one for which there was too little memory, nor code that can't be had.
RETRIED = (
    "(lastRetry.status == 'Error' or asInt(lastRetry.exitCode) in [-1, {codes}])"
    " and not (lastRetry.message contains 'OOMKilled')"
    " and not (lastRetry.message contains '{clone}: Error (exit code {failed})')"
)
CODES = (unfinished.CODE, 137, 143)
ORDERED = "({0}.Succeeded || {0}.Failed || {0}.Errored || {0}.Skipped || {0}.Omitted)"
VOLUMES: dict[str, dict[str, Any]] = {
    pod.CODE: {"name": "code", "emptyDir": {}},
    # Loader workers pass batches through it, for which the usual 64 MB are too few.
    "/dev/shm": {"name": "shm", "emptyDir": {"medium": "Memory"}},
}
ENV = {"PYTHONUNBUFFERED": "1", "PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_ROOT_USER_ACTION": "ignore"}


@dataclass(frozen=True)
class Export:
    """All that a manifest is made of."""

    spec: Spec
    jobs: Sequence[Job]  # in an order that `needs` allows
    rows: Mapping[str, Row]
    images: Mapping[str, str]
    checkouts: Mapping[str, Sequence[str]]  # of each job: those that its own pod does first
    storage: Storage
    repository: str
    commit: str
    folder: str  # of the project in its repository
    secret: str  # the name of the cluster's
    token: str  # the key in it for a private repository, or nothing
    given: Mapping[str, str]  # values of the workflow's inputs
    service_account: str
    retries: int

    @property
    def workflow(self) -> str:
        """The workflow's name."""
        return self.spec.path.stem

    def parameters(self) -> dict[str, str]:
        """Give the parameter of each input of the workflow."""
        return unique(self.spec.inputs, taken=("repository", "commit"), prefix="input")

    def templates(self) -> dict[str, str]:
        """Give the template of each job."""
        return unique([job.name for job in self.jobs], prefix="job")


def unique(names: Iterable[str], taken: Sequence[str] = (), prefix: str = "") -> dict[str, str]:
    """Give each name in letters, digits and `-`, a letter first, and no two alike."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9-]+", "-", name)
        plain = plain if re.match("[A-Za-z]", plain) else f"{prefix}-{plain}"
        while plain in (*taken, *found.values()):
            plain += "-2"
        found[name] = plain
    return found


def slug(text: str, longest: int) -> str:
    """Give a text as Kubernetes takes names of objects, and labels."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:longest].strip("-") or "gradlab"


def manifest(export: Export) -> dict[str, Any]:
    """Give the manifest."""
    templates = export.templates()
    (graph,) = unique(["workflow"], taken=[*templates.values()]).values()
    name = f"{export.storage.project}-{export.workflow}"
    labels = {
        "app.kubernetes.io/name": slug(export.storage.project, 63),
        "app.kubernetes.io/component": slug(export.workflow, 63),
        "app.kubernetes.io/managed-by": "gradlab",
    }
    spec = {
        "entrypoint": graph,
        "arguments": {"parameters": _parameters(export)},
        # One run at a time: a second workflow waits.
        "synchronization": {"mutexes": [{"name": f"gradlab-{slug(name, 200)}"}]},
        "podGC": {"strategy": "OnWorkflowSuccess"},
        "ttlStrategy": {"secondsAfterSuccess": KEPT},
        "podSpecPatch": json.dumps({"terminationGracePeriodSeconds": GRACE}),
        "volumes": [*(VOLUMES | export.storage.volumes()).values()],
        "templates": [_graph(graph, export), *(_template(job, export) for job in export.jobs)],
    }
    if export.service_account:
        spec["serviceAccountName"] = export.service_account
    metadata = {"generateName": f"{slug(name, 50)}-", "labels": labels}
    return {"apiVersion": API, "kind": "Workflow", "metadata": metadata, "spec": spec}


def _parameters(export: Export) -> list[dict[str, str]]:
    code = {"repository": export.repository, "commit": export.commit}
    found = [{"name": name, "value": value} for name, value in code.items()]
    for name, parameter in export.parameters().items():
        value = {"value": export.given[name]} if name in export.given else {}
        found.append({"name": parameter, **value})
    return found


def _retry_strategy(limit: int) -> dict[str, Any]:
    codes = ", ".join(map(str, CODES))
    return {
        "limit": str(limit),
        "retryPolicy": "Always",
        "expression": RETRIED.format(codes=codes, clone=pod.CLONED, failed=pod.FAILED),
        "backoff": {"duration": "10s", "factor": "2", "cap": "5m"},
    }


def _graph(name: str, export: Export) -> dict[str, Any]:
    templates, tasks = export.templates(), []
    # On disks of their own two pods at once would both note the same checkout as theirs.
    in_a_row = any(export.checkouts.values())
    for before, job in zip([None, *export.jobs], export.jobs, strict=False):
        task = {"name": templates[job.name], "template": templates[job.name]}
        waits = [templates[need] for need in job.needs]
        if in_a_row and before and before.name not in job.needs:
            waits.append(ORDERED.format(templates[before.name]))
        if waits:
            task["depends"] = " && ".join(waits)
        tasks.append(task)
    return {"name": name, "dag": {"tasks": tasks}}


def _template(job: Job, export: Export) -> dict[str, Any]:
    row, image = export.rows[job.name], export.images[job.name]
    mounts = [
        {"name": volume["name"], "mountPath": path}
        for path, volume in (VOLUMES | export.storage.volumes()).items()
    ]
    script = pod.script(export.workflow, job.name, export.checkouts[job.name], export.storage.extra)
    container: dict[str, Any] = {
        "image": image,
        "workingDir": f"{pod.CODE}/{export.folder}".rstrip("/."),
        "command": ["bash", "-c", script, "gradlab"],
        "args": _arguments(export),
        "env": _env(job, export),
        "volumeMounts": mounts,
    }
    if row.resources:
        container["resources"] = row.resources
    template: dict[str, Any] = {"name": export.templates()[job.name]}
    if row.node_selector:
        template["nodeSelector"] = row.node_selector
    if row.tolerations:
        template["tolerations"] = row.tolerations
    # Not by templateDefaults: the graph itself would be tried again, with all that it has.
    template["retryStrategy"] = _retry_strategy(export.retries)
    return template | {"initContainers": [_clone(image, export)], "container": container}


def _arguments(export: Export) -> list[str]:
    found = []
    for name, parameter in export.parameters().items():
        found += ["--input", f"{name}={{{{workflow.parameters.{parameter}}}}}"]
    return found


def _clone(image: str, export: Export) -> dict[str, Any]:
    names = {pod.REPOSITORY: "repository", pod.COMMIT: "commit"}
    env = [
        {"name": variable, "value": f"{{{{workflow.parameters.{name}}}}}"}
        for variable, name in names.items()
    ]
    if export.token:
        env.append(_of_secret(pod.TOKEN, export.secret, export.token))
    return {
        "name": pod.CLONED,
        "image": image,
        "command": ["bash", "-c", pod.CLONE],
        "env": env,
        "volumeMounts": [{"name": VOLUMES[pod.CODE]["name"], "mountPath": pod.CODE}],
    }


def _env(job: Job, export: Export) -> list[dict[str, Any]]:
    values = ENV | export.storage.env() | {UID: "{{workflow.uid}}"}
    found: list[dict[str, Any]] = [{"name": name, "value": text} for name, text in values.items()]
    for name in sorted(secrets_of(job, export.spec)):
        found.append(_of_secret(credentials.variable(name), export.secret, name))
    own = {each["name"] for each in found}
    for name in export.storage.credentials:
        if name not in own:  # or by another way, such as the service account's identity
            found.append(_of_secret(name, export.secret, name, optional=True))
    return found


def secrets_of(job: Job, spec: Spec) -> set[str]:
    """Name the secrets that a pod needs: those of its job, and of the jobs that this one needs."""
    needed, found = [job], set[str]()
    for each in needed:
        found |= credentials.names_in(each.env, each.parameters)
        needed += [spec.jobs[need] for need in each.needs if spec.jobs[need] not in needed]
    return found


def _of_secret(variable: str, secret: str, key: str, optional: bool = False) -> dict[str, Any]:
    reference: dict[str, Any] = {"name": secret, "key": key}
    if optional:
        reference["optional"] = True
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}
