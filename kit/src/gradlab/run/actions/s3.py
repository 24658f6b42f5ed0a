"""`s3-download@v1`: what lies below s3://BUCKET/PREFIX, by boto3."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...base.errors import GradlabError
from ...base.stop import Stop
from ..logs import JobLog
from .outputs import within


def download(parameters: Mapping[str, Any], target: Path, log: JobLog, stop: Stop) -> int:
    """Fill a folder, give 0 or the signal that ended it, negative; raises GradlabError."""
    try:
        import boto3  # type: ignore[import-untyped, import-not-found, unused-ignore]
        from botocore.exceptions import (  # type: ignore[import-untyped, import-not-found, unused-ignore]
            BotoCoreError,
            ClientError,
        )
    except ImportError:
        raise GradlabError("s3-download@v1 needs boto3: pip install boto3") from None
    match = re.fullmatch(r"s3://([^/]+)/*(.*?)/*", str(parameters["url"]))
    if not match:
        raise GradlabError(f"url {parameters['url']!r} is not of the form s3://BUCKET/PREFIX")
    try:
        client = boto3.client(
            "s3",
            aws_access_key_id=str(parameters["access-key"]),
            aws_secret_access_key=str(parameters["secret-access-key"]),
            region_name=parameters.get("region"),
            endpoint_url=parameters.get("endpoint"),
        )
        return _fetch_all(client, match[1], match[2], target, log, stop)
    except (BotoCoreError, ClientError, ValueError) as error:
        raise GradlabError(f"{parameters['url']}: {error}", exit_code=1) from error


def _fetch_all(client: Any, bucket: str, prefix: str, target: Path, log: JobLog, stop: Stop) -> int:
    """Get the object of that name, or what lies below it as a folder."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    found = [o for page in pages for o in page.get("Contents", ())]
    objects = {o["Key"]: (o["Size"], o["LastModified"].timestamp()) for o in found}
    below = f"{prefix}/" if prefix else ""
    wanted = {
        key: key.removeprefix(below) if key.startswith(below) else os.path.basename(key)
        for key in objects
        if (key == prefix or key.startswith(below)) and not key.endswith("/")
    }
    for key, path in wanted.items():
        if stop.signal:
            return -stop.signal
        if path.startswith("/") or ".." in path.split("/"):
            raise GradlabError(f"the object {key!r} would be written outside of the output")
        place = within(target.parent, target.name, *path.split("/"))
        # A draft's file is the object's if it is of its time too: another may be as large.
        if not place.is_file() or _state(place) != objects[key]:
            _download(client, bucket, key, place, objects[key][1])
    if not wanted:
        raise GradlabError(f"there is nothing at s3://{bucket}/{prefix}", exit_code=1)
    log.note(f"{len(wanted):,} files of s3://{bucket}/{prefix}")
    return 0


def _state(place: Path) -> tuple[int, float]:
    status = place.stat()
    return status.st_size, status.st_mtime


def _download(client: Any, bucket: str, key: str, place: Path, changed: float) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.part")
    part.unlink(missing_ok=True)  # not through what may be a link
    client.download_file(bucket, key, str(part))
    os.utime(part, (changed, changed))
    os.replace(part, place)
