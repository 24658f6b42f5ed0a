"""Tables at a project's top that say what a workflow's `instance-type` is on a cluster.

Promises: a job whose kind a table lacks is named with its place, and the line to add.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from ..base.errors import GradlabError
from ..spec.document import Document
from ..spec.reader import read
from ..spec.spec import Job, Spec

DEFAULT = "default"  # the row of jobs that name no instance-type
Row = TypeVar("Row")


def named(job: Job) -> str:
    """Name the row of a job."""
    return str(job.resources.get("instance-type") or DEFAULT)


def rows(
    path: Path,
    spec: Spec,
    jobs: Sequence[Job],
    row: Callable[[Document, str], Row],
    example: str,
    kind_of: Callable[[Job], str] = named,
    otherwise: Row | None = None,
) -> dict[str, Row]:
    """Give each job's row of a table; GradlabError for rows that it lacks.

    `otherwise` is the default row of a table that may have none.
    """
    document = read(path) if path.exists() else Document(path, "")
    found = {} if otherwise is None else {DEFAULT: otherwise}
    found |= {name: row(document, name) for name in document.data or {}}
    lacking: dict[str, Job] = {}
    for job in jobs:
        if kind_of(job) not in found:
            lacking.setdefault(kind_of(job), job)
    if lacking:
        raise _lacks(path, spec, lacking, example)
    return {job.name: found[kind_of(job)] for job in jobs}


def _lacks(path: Path, spec: Spec, lacking: dict[str, Job], example: str) -> GradlabError:
    asked = [
        f"{spec.path}:{job.mark.line}: job {job.name!r} "
        + (f"runs on {kind!r}" if kind != DEFAULT else "names no instance-type")
        for kind, job in lacking.items()
    ]
    what = f"{path} does not say" if path.exists() else f"there is no {path} to say"
    said = f"and {what} what that is on your cluster. Add to it, with your values:"
    return GradlabError("\n".join([*asked, said, *(f"{kind}: {example}" for kind in lacking)]))
