"""The local model registry: what create-model@v1 writes.

    <storage>/models/<name>/<id>.json

Promises: an entry tells the model's name and type, the dataset's version that holds it and the
metrics that were measured, with a checksum over all of it. The same job of the same run gives the
same entry.
"""

from __future__ import annotations

import hashlib
import json
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..base import folders
from ..base.errors import GradlabError
from ..base.names import MODEL
from ..base.retries import retry
from . import sealed
from .backend import Backend

METRICS = ("evaluation.json", "metrics.json")
LARGEST = 1 << 20  # bytes: metrics are a short text


def create(
    backend: Backend,
    name: str,
    type: str,
    content: str,
    inputs: Mapping[str, Path],
    run: str,
    made_from: Iterable[str] = (),
) -> str:
    """Register a model and give its id.

    `content` says what holds it, such as `dataset NAME:VERSION`, `made_from` which versions of
    datasets its run took and made; metrics are taken from the
    first evaluation.json or metrics.json at the top of an input.
    """
    MODEL.require(name)
    id = "mo" + hashlib.sha256(f"{run} {name} {content}".encode()).hexdigest()[:13]
    entry = {
        "id": id,
        "name": name,
        "type": type,
        "model": content,
        "made_from": sorted(made_from),
        "metrics": _metrics(inputs.values()),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    backend.write(f"models/{name}/{id}.json", sealed.to_text(entry).encode())
    return id


def is_whole(backend: Backend, name: str, id: str) -> bool:
    """Tell whether an entry is there and whole; raises OSError where it can't be read."""
    try:
        return bool(sealed.from_bytes(backend.read(f"models/{name}/{id}.json")))
    except (FileNotFoundError, sealed.Damaged):
        return False


def entries(backend: Backend) -> Iterator[dict[str, Any]]:
    """Give the entries that are whole, in no order; raises OSError."""
    for name in backend.list("models"):
        for file in backend.list(f"models/{name}"):
            with suppress(FileNotFoundError, sealed.Damaged):
                if file.endswith(".json"):
                    yield sealed.from_bytes(backend.read(f"models/{name}/{file}"))


def damaged(backend: Backend) -> Iterator[tuple[str, str]]:
    """Give the keys of entries that are damaged, each with what is wrong; raises OSError."""
    for name in sorted(backend.list("models")):
        for file in sorted(backend.list(f"models/{name}")):
            key = f"models/{name}/{file}"
            try:
                if file.endswith(".json"):
                    sealed.from_bytes(backend.read(key))
            except sealed.Damaged as error:
                yield key, str(error)


def _metrics(inputs: Iterable[Path]) -> dict[str, Any]:
    places = [folder / name for name in METRICS for folder in inputs]
    for path in places:
        there = folders.status(path)
        if there and stat.S_ISREG(there.st_mode) and there.st_size <= LARGEST:
            try:
                found = json.loads(retry(path.read_bytes))
            except ValueError as error:
                raise GradlabError(f"{path.name} is not JSON: {error}", exit_code=1) from error
            if isinstance(found, dict):
                return found
    return {}
