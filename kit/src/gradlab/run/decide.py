"""Whether a job has to run, and with what.

Promises: a job that succeeded earlier in this run is not run again while its own text, its
inputs and the code that it takes are the same and its outputs are still there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..base import folders
from ..spec import credentials
from ..spec.spec import Job, Port
from ..store import belongings, models, tree
from ..store.datasets import Datasets
from ..store.versions import NoVersion
from . import reads
from .actions import checkout
from .pins import own_dataset, writes
from .place import Place
from .record import BEGUN, Content, JobState, Record
from .sources import Sources


def inputs_of(job: Job, sources: Sources, record: Record) -> dict[str, Content]:
    """Say what a job's inputs hold; raises KeyError while a job before it hasn't succeeded."""
    return {name: input_of(port, job, sources, record) for name, port in job.inputs.items()}


def input_of(port: Port, job: Job, sources: Sources, record: Record) -> Content:
    """Say what one input holds."""
    if port.source and port.source[0] != "workflow":
        return record.jobs[port.source[0]].contents[port.source[1]]
    if reference := sources.reference(port):
        run, own = record.run, own_dataset(job, reference)
        found = run.own[own] if own in run.own else run.datasets[reference]
        return Content("dataset", found or "")
    if port.source:
        return sources.given[port.source[1]]
    return Content(port.type, port.value or "")


def identities_of(
    job: Job, inputs: Mapping[str, Content], sources: Sources, record: Record, place: Place
) -> dict[str, str]:
    """Say what is the same exactly if two inputs are, of code if what the job reads of it is."""
    found = {name: _identity(content, place.datasets) for name, content in inputs.items()}
    part, before = reads.part(job, sources.spec), record.jobs.get(job.name, BEGUN).reads
    for name in reads.code(job, sources.spec) if part else ():
        volume = place.volume(*(job.inputs[name].source or ("", "")))
        # The volumes of a run that has finished are gone.
        known = before.get(inputs[name].value, found[name])
        found[name] = part.digest(volume) if part and folders.is_folder(volume) else known
    return found


def data_of(
    job: Job, inputs: Mapping[str, Content], sources: Sources, store: Datasets
) -> dict[str, str]:
    """Give the SHA-256 of each input that holds data, but of what the job itself goes on with."""
    found = {}
    for name in sorted(inputs.keys() - reads.code(job, sources.spec)):
        content, reference = inputs[name], sources.reference(job.inputs[name])
        if content.type == "dataset" and content.value and not writes(job, reference):
            found[name] = store.find(content.value, whole=False).tree.digest
        elif content.type == "volume":
            found[name] = content.value
    return found


def fingerprint(job: Job, identities: Mapping[str, str], sources: Sources, run: str) -> str:
    """Give what two runs of a job share exactly if one can stand for the other."""
    code = checkout.code(job, sources.event, sources.repository)
    parts = [job.uses, job.parameters, job.env, _declared(job), dict(identities), code]
    filled = [credentials.fill(given, sources.secrets) for given in (job.parameters, job.env)]
    if filled != [job.parameters, job.env]:
        parts.append(_proof(filled, run))
    return _digest(parts)


def key(job: Job, identities: Mapping[str, str], sources: Sources, place: Place) -> belongings.Key:
    """Give what two runs of a job share exactly if one can go on with what the other left.

    A secret says who asks, not for what: another value is no other job.
    """
    part, code = reads.part(job, sources.spec), reads.code(job, sources.spec)
    found = {belongings.TEXT: _digest([job.uses, job.parameters, job.env, _declared(job)])}
    for name, identity in identities.items():
        if name in code:
            volume = place.volume(*(job.inputs[name].source or ("", "")))
            identity = belongings.code_key(volume, part.holds if part else None)
        found[f"input {name!r}"] = _digest(identity)
    return found


def done(job: Job, sources: Sources, record: Record, place: Place) -> bool:
    """Tell whether what a job did earlier in this run still holds and is still there."""
    if job.name not in record.jobs:
        return False
    inputs = inputs_of(job, sources, record)
    identities = identities_of(job, inputs, sources, record, place)
    return (
        reusable(job, fingerprint(job, identities, sources, record.run.id), record, place)
        is not None
    )


def reusable(job: Job, fingerprint: str, record: Record, place: Place) -> JobState | None:
    """Give what a job did earlier in this run, if that still holds and is still there."""
    state = record.jobs.get(job.name)
    if not state or state.state != "succeeded" or state.fingerprint != fingerprint:
        return None
    there = all(_is_there(job, *item, place) for item in state.contents.items())
    return state if there else None


def stands(job: Job, sources: Sources, record: Record, place: Place) -> bool:
    """Tell whether what a job did in a run that has finished still holds; its volumes are gone."""
    state = record.jobs.get(job.name)
    if not state:
        return False
    inputs = inputs_of(job, sources, record)
    identities = identities_of(job, inputs, sources, record, place)
    if state.fingerprint != fingerprint(job, identities, sources, record.run.id):
        return False
    return all(map(place.datasets.exists, state.versions()))


def _is_there(job: Job, name: str, content: Content, place: Place) -> bool:
    if content.type == "dataset":
        return place.datasets.exists(content.value)
    volume = place.volume(job.name, name)
    if content.type == "volume":
        return folders.is_folder(volume) and tree.scan(volume).digest == content.value
    if job.uses == "create-model@v1":
        return models.is_whole(place.backend, str(job.parameters["name"]), content.value)
    return True


def _declared(job: Job) -> dict[str, Any]:
    return {name: [port.type, port.ref] for name, port in job.outputs.items()}


def _proof(filled: Any, run: str) -> str:
    """Give what tells two values of a secret apart, and takes long to guess one by."""
    text = json.dumps(filled, sort_keys=True, default=str).encode()
    return hashlib.pbkdf2_hmac("sha256", text, run.encode(), 100_000).hex()


def _identity(content: Content, store: Datasets) -> str:
    # Not a version's name: one that was lost and made again may have another.
    if content.type == "dataset" and content.value:
        with suppress(NoVersion):  # told where it is opened
            return f"dataset {store.find(content.value, whole=False).tree.digest}"
    return str(content)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
