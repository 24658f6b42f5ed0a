"""Where the pods of a workflow keep things: a bucket by its URL, a volume claim, or both.

A claim is a folder that all pods share: volumes, drafts and locks lie there too. With a bucket
alone each pod works on a disk of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ...base.errors import GradlabError
from ...services.urls import EXTRAS, extra_of
from .pod import SCRATCH, STORAGE

# By the extra of the kit that has a storage's client: the variables that this reads.
VARIABLES: dict[str, tuple[str, ...]] = {
    "s3": (
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        *("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"),
    ),
    "gcs": (),  # by the identity of the pod's service account
    "hf": ("HF_TOKEN",),
}
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s@{}]+")
CLAIM = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True)
class Storage:
    """Where pods keep things; at least one of the two is given."""

    url: str
    claim: str
    project: str

    def __post_init__(self) -> None:
        if not self.url and not self.claim:
            raise GradlabError(
                "the pods need a storage that outlives them: --claim NAME of a volume claim that "
                "several pods can write (ReadWriteMany), or --storage s3://bucket/folder"
            )
        if self.claim and not CLAIM.fullmatch(self.claim):
            raise GradlabError(
                f"--claim {self.claim}: the name of a claim has small letters, digits, `-` and `.`"
            )
        if self.url and self.extra not in VARIABLES:
            known = ", ".join(f"{each}://" for each, extra in EXTRAS.items() if extra in VARIABLES)
            raise GradlabError(
                f"--storage {self.url}: pods can use URLs that begin with {known}, without a "
                "password in them; for a folder give the volume claim that it lies on, by --claim"
            )

    @property
    def extra(self) -> str:
        """The extra of the kit that brings the storage's client, or nothing."""
        return extra_of(self.url) if URL.fullmatch(self.url) else ""

    @property
    def credentials(self) -> tuple[str, ...]:
        """The variables in which the storage's client looks for credentials."""
        return VARIABLES.get(self.extra, ())

    def env(self) -> dict[str, str]:
        """Give the variables that say where things are kept."""
        if not self.url:
            return {"GRADLAB_STORAGE": f"{STORAGE}/{self.project}"}
        scratch = STORAGE if self.claim else SCRATCH
        return {"GRADLAB_STORAGE": self.url.rstrip("/"), "GRADLAB_SCRATCH": scratch}

    def volumes(self) -> dict[str, dict[str, Any]]:
        """Give the volumes that pods mount, by where."""
        if self.claim:
            claim = {"claimName": self.claim}
            return {STORAGE: {"name": "storage", "persistentVolumeClaim": claim}}
        return {SCRATCH: {"name": "scratch", "emptyDir": {}}}
