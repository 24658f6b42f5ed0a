"""`gradlab export NAME --to argo`: a workflow for a Kubernetes cluster with Argo Workflows.

Promises: what pods could not do is an error here, with the place and the way out. What is exported
was checked by the rules of `gradlab check` for such manifests.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import yaml

from ...base.errors import GradlabError, note
from ...check import check
from ...run import plan
from ...run.actions import checkout
from ...services import session
from ...spec import credentials
from ...spec import spec as specs
from ...spec.spec import Job, Spec
from . import source, table
from .manifest import Export, manifest, secrets_of
from .storage import CLAIM, Storage

IMAGE = re.compile(r"[^\s{}$]+")
KEY = re.compile(r"[\w.-]+", re.ASCII)
HEADER = """\
# {file} of {project} for Argo Workflows, made by  gradlab export {name} --to argo
#
#   kubectl create -f FILE      or  argo submit FILE --parameter commit=main
#
# The namespace needs {needs}.
"""


def export_command(
    name: Annotated[str, tyro.conf.Positional],
    to: Literal["argo"],
    output: Path | None = None,
    claim: str = "",
    storage: str = "",
    secret: str = "gradlab",
    token: str = "",
    image: str = "",
    repository: str = "",
    input: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    service_account: str = "",
    retries: int = 50,
) -> int:
    """Write a workflow as another system's, which runs its jobs by gradlab; nothing is sent.

    Args:
        name: Of .gradient/workflows/NAME.yaml.
        to: argo: an Argo Workflow for Kubernetes, with a pod for each job. argo.yaml says what each
            instance-type is there.
        output: The file; without it the manifest is printed.
        claim: A volume claim that all pods can write, where datasets, drafts and volumes lie.
        storage: A URL such as s3://bucket/folder for what is to be kept, beside a claim or alone.
        secret: The cluster's secret with a key for each secret:NAME, and the storage's credentials.
        token: The key in it for a private repository, whose value git gets as the password.
        image: For jobs that name none, such as a checkout; it needs bash, git and Python with pip.
        repository: The address that pods clone from; without it that of origin, by https.
        input: NAME=VALUE of an input of the workflow; any can be given at the submission, too.
        service_account: That pods run as.
        retries: How often a job that was cut off is taken up again.
    """
    root = session.project_root()
    spec = check.load(specs.find(name, root))
    jobs = plan.select(spec, None)
    project = re.sub(r"[^\w.-]+", "-", session.project_name(root), flags=re.ASCII)
    kept = Storage(storage, claim, project)
    _refuse_alike(spec, jobs)
    rows, images = table.rows(root, spec, jobs), _images(spec, jobs, image)
    checkouts, given = _checkouts(spec, jobs, kept), _given(spec, input)
    code = source.find(root, repository)
    export = Export(
        spec=spec,
        jobs=jobs,
        rows=rows,
        images=images,
        checkouts=checkouts,
        storage=kept,
        repository=code.repository,
        commit=code.commit,
        folder=code.folder,
        secret=_named(CLAIM, secret, "--secret"),
        token=_named(KEY, token, "--token"),
        given=given,
        service_account=_named(CLAIM, service_account, "--service-account"),
        retries=retries,
    )
    text = _header(export) + written(manifest(export))
    _refuse_wrong(text)
    _put(text, output)
    return 0


def written(data: Mapping[str, Any]) -> str:
    """Write data as YAML, scripts as they are."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are, and nothing by an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _named(pattern: re.Pattern[str], value: str, option: str) -> str:
    if value and not pattern.fullmatch(value):
        raise GradlabError(f"{option} {value}: Kubernetes takes letters, digits, `-` and `.` there")
    return value


def _images(spec: Spec, jobs: Sequence[Job], otherwise: str) -> dict[str, str]:
    """Give the image of each job's pod."""
    named = {job.name: str(job.parameters.get("image", "")) for job in jobs}
    first = otherwise or next(filter(None, named.values()), "")
    found = {}
    for job in jobs:
        image = found[job.name] = named[job.name] or first
        if not image:
            raise _refused(spec, job, "names no image, nor does any other: give one by --image")
        if not IMAGE.fullmatch(image):
            raise _refused(spec, job, f"has the image {image!r}, which is none")
        words = job.parameters.get("command") or job.parameters.get("args")
        if job.uses == "container@v1" and not words:
            raise _refused(
                spec,
                job,
                "runs its image's own program, which a pod can't: write it down as `command`, or "
                "use script@v1",
            )
    return found


def _checkouts(spec: Spec, jobs: Sequence[Job], kept: Storage) -> dict[str, list[str]]:
    """Name, for each job, the checkouts that its pod has to make: none where pods share a disk."""
    found: dict[str, list[str]] = {job.name: [] for job in jobs}
    if kept.claim:
        return found
    with_volumes = [job for job in jobs if _makes_volumes(job)]
    for job in with_volumes:
        if job.uses != checkout.NAME:
            raise _refused(
                spec,
                job,
                "makes a volume, which lies on a disk that all pods share: give a claim as well, "
                "by --claim NAME, or make a dataset of it",
            )
    for job in jobs:
        needed = {each.name for each in plan.select(spec, job.name)} - {job.name}
        found[job.name] = [each.name for each in with_volumes if each.name in needed]
    return found


def _makes_volumes(job: Job) -> bool:
    return any(port.type == "volume" for port in job.outputs.values())


def _given(spec: Spec, arguments: Sequence[str]) -> dict[str, str]:
    """Give the values of the workflow's inputs that are known by now."""
    found = {}
    for name, port in spec.inputs.items():
        value = port.ref if port.type == "dataset" else port.value
        if value is not None or port.optional:
            found[name] = value or ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise GradlabError(f"--input {argument}: write NAME=VALUE")
        if name not in spec.inputs:
            known = ", ".join(spec.inputs) or "none"
            raise GradlabError(f"{spec.path} has no input {name!r}; its inputs: {known}")
        found[name] = value
    for name, value in found.items():
        if "{{" in value:
            where = f"{spec.path}:{spec.inputs[name].mark.line}: the input {name!r}"
            raise GradlabError(f"{where} holds `{{{{`, which Argo would replace")
    return found


def _refuse_alike(spec: Spec, jobs: Sequence[Job]) -> None:
    """Raise GradlabError for two secrets that would be one variable."""
    for job in jobs:
        taken: dict[str, str] = {}
        for name in sorted(secrets_of(job, spec)):
            other = taken.setdefault(credentials.variable(name), name)
            if other != name:
                raise _refused(
                    spec,
                    job,
                    f"needs the secrets {other} and {name}, which would both be the variable "
                    f"{credentials.variable(name)}: rename one of them",
                )


def _refused(spec: Spec, job: Job, why: str) -> GradlabError:
    return GradlabError(f"{spec.path}:{job.mark.line}: job {job.name!r} {why}")


def _header(export: Export) -> str:
    needs, spec = [], export.spec
    if export.storage.claim:
        needs.append(f"the volume claim {export.storage.claim} (ReadWriteMany)")
    keys = set().union(
        *(secrets_of(job, spec) for job in export.jobs), filter(None, [export.token])
    )
    if keys:
        needs.append(f"the secret {export.secret} with {', '.join(sorted(keys))}")
    if export.storage.credentials:
        needs.append(f"in {export.secret} what of {', '.join(export.storage.credentials)} is used")
    needs.append("a service account that may create workflowtaskresults")
    said = {"file": spec.path.name, "project": export.storage.project, "name": export.workflow}
    return HEADER.format(needs="; ".join(needs).replace("; ", ";\n#   "), **said)


def _refuse_wrong(text: str) -> None:
    """Raise GradlabError where the rules for manifests find something."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "argo.yaml")
        path.write_text(text, "utf-8")
        findings = check.check(path)
    if findings:
        what = "\n".join(f"line {each.line}: {each.message}; {each.advice}" for each in findings)
        raise GradlabError(f"the workflow can't be exported:\n{what}")


def _put(text: str, output: Path | None) -> None:
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise GradlabError(f"{output} can't be written: {error.strerror}") from error
    note(f"{output} is written; to run it: kubectl create -f {output}")
