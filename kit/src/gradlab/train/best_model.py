"""The best model of a run, by the run's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from . import places, provenance, weightfile

Weights = TypeVar("Weights")


def load(
    project: str, name: str, package: Path, accept: bool, read: Callable[[bytes], Weights]
) -> tuple[Path, Weights, dict[str, Any]]:
    """Give a run's best model: its file, its weights, and the settings it was trained with.

    `package` holds the project's code, `read` is the framework's `load` of safetensors. Raises
    GradlabError where there is no such model, where it can't be read or is damaged, and where the
    model's code is not that of the training, unless `accept`.
    """
    command = f"python -m {project} train --name {name}"
    path = places.find(project, name, "best.safetensors", f"train first, with: {command}")
    again = f"To write it anew from the newest checkpoint: {command}"
    weights, settings = weightfile.unpack(path, again, read)
    provenance.compare_model(settings, package, path, accept)
    return path, weights, settings
