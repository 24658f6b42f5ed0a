"""What uploads in parts that were cut off have left in S3, where no listing shows it.

Promises: one of the last day stays, for it may be under way. Failing is no reason to stop work.
"""

from __future__ import annotations

from typing import Any

ABANDONED_AFTER = 24 * 3600.0  # seconds


def abort_abandoned(system: Any, path: str, now: float) -> None:
    """Abort uploads of long ago below a path, through s3fs; `now` is the storage's own time."""
    bucket, prefix, _ = system.split_path(f"{path}/")
    place: dict[str, str] = {"Bucket": bucket, "Prefix": f"{prefix.rstrip('/')}/"}
    while True:
        found = system.call_s3("list_multipart_uploads", **place)
        for upload in found.get("Uploads", ()):
            if now - upload["Initiated"].timestamp() > ABANDONED_AFTER:
                system.abort_mpu(bucket, upload["Key"], upload["UploadId"])
        if not found.get("IsTruncated"):
            return
        place |= {
            "KeyMarker": found["NextKeyMarker"],
            "UploadIdMarker": found["NextUploadIdMarker"],
        }
