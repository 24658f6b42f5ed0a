"""The place in a job's outputs that an action of the runner's own fills.

Promises: nothing is written through a link, which an earlier try may have left.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ...base.errors import GradlabError
from ...spec.spec import Job


def target(job: Job, folder: Path, parameters: Mapping[str, Any]) -> Path:
    """Give the folder that an action fills: `path`, or the only volume or dataset output."""
    outputs = folder / "outputs"
    if path := parameters.get("path"):
        parts = PurePosixPath(str(path)).parts
        inside = parts[:2] == ("/", "outputs") and ".." not in parts
        if inside and parts[2:3] and parts[2] in job.outputs:
            return within(outputs, *parts[2:])
        raise GradlabError(f"path {path!r} is not below one of the job's outputs")
    names = [name for name, port in job.outputs.items() if port.type != "string"]
    if len(names) != 1:
        raise GradlabError("it needs exactly one volume or dataset output, or `path`")
    return outputs / names[0]


def within(outputs: Path, *parts: str) -> Path:
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
