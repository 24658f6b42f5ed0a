"""Uploads in parts that were begun at an object store and never ended: they take room, unseen.

Promises: only those below a storage's own URL are told, each with the time since it was begun by
the store's clock. Stores that end them by themselves, or have none, have none here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Upload:
    """An upload of a key that has not ended; `age` in seconds, `size` in bytes so far."""

    key: str
    id: str
    age: float
    size: int


def unfinished(system: Any, root: str, ahead: float, below: str = "") -> Iterator[Upload]:
    """Give the uploads in a folder of a root, BUCKET/FOLDER, of a client that speaks S3.

    The store's clock is `ahead` by so many seconds.
    """
    bucket, _, folder = root.partition("/")
    prefix, marks = f"{folder}/" if folder else "", dict[str, str]()
    wanted = f"{prefix}{below}/" if below else prefix
    while True:
        page = system.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=wanted, **marks)
        for each in page.get("Uploads", ()):
            age = time.time() + ahead - each["Initiated"].timestamp()
            size = _size(system, bucket, each["Key"], each["UploadId"])
            yield Upload(each["Key"].removeprefix(prefix), each["UploadId"], age, size)
        if not page.get("IsTruncated"):
            return
        marks = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def _size(system: Any, bucket: str, key: str, id: str) -> int:
    """Add up the parts of an upload that have arrived, of its first thousand."""
    found = system.call_s3("list_parts", Bucket=bucket, Key=key, UploadId=id)
    return sum(part["Size"] for part in found.get("Parts", ()))


def abort(system: Any, root: str, upload: Upload) -> None:
    """End an upload, and remove its parts."""
    bucket, _, folder = root.partition("/")
    key = f"{folder}/{upload.key}" if folder else upload.key
    system.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload.id)
