"""What the workflows of a project need at the service before they can run.

Promises: a spec with errors is refused with all its findings; each need knows the file and line
that it comes from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ...base.errors import GradlabError
from ...check import check
from ...spec.credentials import names_in
from ...spec.spec import FOLDER, Spec, source, workflow_files
from ...store.versions import Reference

# What the service gives a dataset for an id.
_DATASET_ID = re.compile(r"ds[a-z0-9]{13}")


@dataclass
class Needs:
    """Each by its name, with the places in the workflows that ask for it."""

    datasets: dict[str, str] = field(default_factory=dict)  # those that can be made
    references: dict[str, str] = field(default_factory=dict)  # those that must be there
    secrets: dict[str, str] = field(default_factory=dict)
    workflows: dict[str, str] = field(default_factory=dict)


def read(root: Path) -> Needs:
    """Read all workflows of a project; raises GradlabError where one has errors."""
    paths = workflow_files(root)
    if not paths:
        raise GradlabError(f"there is no workflow to set up: {root / FOLDER} holds no YAML file")
    needs, errors = Needs(), list[str]()
    for path in paths:
        try:
            spec = check.load(path)
        except GradlabError as error:
            errors.append(str(error))
            continue
        if path.stem in needs.workflows:
            errors.append(f"{path}: another file has the name {path.stem!r}: rename one of them")
        needs.workflows[path.stem] = str(path)
        _add(needs, spec)
    if errors:
        raise GradlabError("\n".join([*errors, "Nothing was set up: mend these first."]))
    return needs


def _add(needs: Needs, spec: Spec) -> None:
    inputs = list(spec.inputs.values())
    inputs += [port for job in spec.jobs.values() for port in job.inputs.values()]
    outputs = [port for job in spec.jobs.values() for port in job.outputs.values()]
    for port in (*inputs, *outputs):
        # An optional one is there or not, as the user likes.
        if port.type != "dataset" or not port.ref or source(port.ref) or port.optional:
            continue
        place = f"{spec.path}:{port.mark.line}"
        reference = Reference.parse(port.ref)
        known = bool(_DATASET_ID.fullmatch(reference.name))
        if "/" in reference.name:
            continue  # of another team, or public
        if not known:
            needs.datasets.setdefault(reference.name, place)
        if port in inputs and (known or reference.version != "latest"):
            needs.references.setdefault(port.ref, place)
    for job in spec.jobs.values():
        for name in sorted(names_in(job.env, job.parameters)):
            needs.secrets.setdefault(name, f"{spec.path}:{job.mark.line}")
