"""What has to stay of a storage: what a run under way needs, what registered models were made from.

Promises: where that can't be told, because a record can't be read or is damaged, it is an error,
and nothing is removed.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..base.errors import GradlabError
from ..base.files import names
from ..run import holding
from ..run.place import Place
from ..run.record import Record
from ..spec.spec import FOLDER
from ..store import models
from ..store.datasets import Datasets
from ..store.location import Location
from ..store.records import Records
from ..store.shelf import key_of
from ..store.versions import Version
from ..train import heads, learned, summary

MADE_BY = re.compile(r".+, run (\w+)", re.DOTALL)  # the source of a version that a job made
LOOKED_AT = 8  # files with weights of a model's version, in which it is told what they learned from
MODEL = re.compile(r"(\S+) (\S+:\S+)")  # `dataset NAME:VERSION`


@dataclass
class Guards:
    """Versions of datasets, NAME:VERSION, that have to stay, with what they are needed for."""

    under_way: dict[str, str] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)  # by the SHA-256 of what they hold
    models: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def why(self, version: str, digest: str, given: Set[str] = frozenset()) -> str:
        """Say why a version has to stay, nothing if it may go.

        `given` are the ids of models of which that was asked for.
        """
        if reason := self.under_way.get(version) or self.read.get(digest):
            return reason
        held = sorted(self.models.get(version, set()) - given)
        return f"the registered model {held[0]} was made from it" if held else ""


def look(place: Location) -> Guards:
    """Look at what has to stay; raises GradlabError where that can't be told, OSError."""
    found = Guards()
    for name in place.backend.list("workflows"):
        own = Place.of(name, place)
        record = Record.load(place.backend, own.record)
        if record is None and (keys := Records(place.backend, own.record, "run-").keys()):
            raise GradlabError(
                f"the record of {name!r} is damaged, so that nobody knows what its run needs: "
                f"{place.backend.where(keys[0])}",
                exit_code=1,
            )
        if record and not record.run.finished:
            why = f"the run {record.run.id} of {name!r} needs it, which has not finished"
            found.under_way |= dict.fromkeys(record.taken_and_made(), why)
    found.read = dict(_read_now(place))
    _add_models(found, place)
    return found


def _read_now(place: Location) -> Iterator[tuple[str, str]]:
    """Give the SHA-256 of each dataset that a training reads now."""
    for name in {name for side in place.sides for name in side.list("runs")}:
        if name.startswith(".") or not summary.is_under_way(place, name):
            continue
        for side in place.sides:
            if (size := side.size(f"runs/{name}/config.json")) is not None:
                settings = json.loads(side.part(f"runs/{name}/config.json", 0, size) or b"{}")
                for entry in learned.of(settings):
                    why = f"the training {name!r}, which is under way, reads it"
                    yield from ((digest, why) for digest in entry.get("data", ()))


def _add_models(found: Guards, place: Location) -> None:
    for key, problem in models.damaged(place.backend):
        raise GradlabError(
            f"{place.backend.where(key)} is damaged ({problem}), so that nobody knows what that "
            "model was made from: mend or delete it first",
            exit_code=1,
        )
    older = []
    for entry in models.entries(place.backend):
        id, held = str(entry["id"]), MODEL.fullmatch(str(entry["model"]))
        for version in [*entry.get("made_from", ()), *([held[2]] if held else [])]:
            found.models[version].add(id)
        if held and "made_from" not in entry:  # which versions before did not note
            older.append((id, held[2]))
    if older:
        _add_older(found, older, Datasets(place))


def _add_older(found: Guards, older: list[tuple[str, str]], store: Datasets) -> None:
    """Add what models were made from by what their versions tell: its run, its weights."""
    versions = {str(v): v for name in store.names() for v in store.versions(name)}
    for id, held in older:
        if held not in versions:
            continue
        run, learned_from = _run(versions[held]), set(_learned_from(versions[held], store))
        for name, version in versions.items():
            if (run and _run(version) == run) or version.tree.digest in learned_from:
                found.models[name].add(id)


def _run(version: Version) -> str:
    match = MADE_BY.fullmatch(version.source)
    return match[1] if match else ""


def _learned_from(version: Version, store: Datasets) -> Iterator[str]:
    """Give the SHA-256 of the datasets that a version's weights have learned from."""
    weights = [path for path in version.tree.files if path.endswith(".safetensors")]
    for path in weights[:LOOKED_AT]:
        key = f"{key_of(version.name, version.id)}/data/{path}"
        try:
            metadata = heads.metadata(lambda a, b, key=key: store.backend.part(key, a, b))  # type: ignore[misc]
            settings: dict[str, Any] = json.loads(metadata.get("settings", "{}"))
        except ValueError:  # another program's
            continue
        for entry in learned.of(settings):
            yield from map(str, entry.get("data", ()))


@contextmanager
def no_run_begins(place: Location, root: Path) -> Iterator[None]:
    """Keep runs of workflows, those in the storage and those of the project, from beginning."""
    stems = [Path(name).stem for name in names(root / FOLDER)]
    with ExitStack() as stack:
        for name in sorted({*place.backend.list("workflows"), *stems}):
            stack.enter_context(holding.beginning(Place.of(name, place)))
        yield
