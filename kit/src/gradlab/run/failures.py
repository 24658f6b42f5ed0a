"""Which jobs of a run have failed, for whoever looks at it later.

    <storage>/workflows/<name>/failures/<job>.json

Promises: only observes. That a job has failed counts while the run is the one that it failed in,
and the job has not succeeded since.
"""

from __future__ import annotations

from contextlib import suppress

from ..store import sealed
from .record import Record

FOLDER = "failures"


def note(job: str, state: str, message: str, record: Record) -> None:
    """Note that a job has failed, in words without secrets."""
    if state != "failed":
        return
    text = sealed.to_text({"run": record.run.id, "message": message})
    with suppress(OSError):
        record.backend.write(f"{record.folder}/{FOLDER}/{job}.json", text.encode(), synced=False)


def of(record: Record) -> dict[str, str]:
    """Give the jobs of a run that have failed, each with the message; raises OSError."""
    found = dict[str, str]()
    for name in record.backend.list(f"{record.folder}/{FOLDER}"):
        with suppress(sealed.Damaged, FileNotFoundError, KeyError):
            data = sealed.from_bytes(record.backend.read(f"{record.folder}/{FOLDER}/{name}"))
            job = name.removesuffix(".json")
            if data["run"] == record.run.id and job not in record.jobs:
                found[job] = str(data["message"])
    return found
