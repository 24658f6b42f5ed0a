"""Kaggle on loopback, as its real client (2.2.5) asks it: notebooks, private datasets, a quota.

A notebook that is pushed is run by `runs`, at most two at a time. Secrets are in datasets only.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from ..gradient.api import Request
from .standin import Reply, Service

TOKEN = "kaggle-token-0123456789abcdef"
OWNER = "me"
LIVE = ("QUEUED", "RUNNING")
FULL = "Maximum batch GPU session count of 2 reached."
ABSENT: Reply = (403, {"code": 403, "message": "Permission 'kernels.get' was denied"})


@dataclass
class Kernel:
    """A notebook and its last session."""

    slug: str
    text: str
    seconds: float
    datasets: list[str]
    machine: str
    status: str = "RUNNING"
    words: str = ""
    log: str = ""
    runs: int = 1
    end: Callable[[], None] = field(default=lambda: None)


class Kaggle(Service):
    """The service."""

    def __init__(self, runs: Callable[[Kaggle, Kernel], None]) -> None:
        self.runs = runs
        self.clear()
        super().__init__()

    def clear(self) -> None:
        """Forget everything."""
        self.kernels: dict[str, Kernel] = {}
        self.datasets: dict[str, str] = {}
        self.blobs: dict[str, str] = {}
        self.pushed: list[str] = []
        self.used, self.allowed_hours = 12.5, 30.0
        self.others = 0  # sessions of the account that are not the kit's
        self.ids = itertools.count(1)
        self.requests, self.faults, self.before = [], [], {}

    @property
    def env(self) -> dict[str, str]:
        return {"KAGGLE_API_TOKEN": TOKEN, "STAND_IN_KAGGLE": self.url}

    def live(self) -> list[str]:
        return [kernel.slug for kernel in self.kernels.values() if kernel.status in LIVE]

    def allowed(self, request: Request) -> bool:
        given = request.headers.get("authorization") == f"Bearer {TOKEN}"
        return given or request.path.startswith("/upload/")

    def _introspect(self, request: Request, _: re.Match[str]) -> Reply:
        return 200, {"active": True, "username": OWNER}

    def _quota(self, request: Request, _: re.Match[str]) -> Reply:
        gpu = {
            "timeUsed": f"{self.used * 3600}s",
            "totalTimeAllowed": f"{self.allowed_hours * 3600}s",
        }
        return 200, {"quotaRefreshTime": "2026-12-04T00:00:00Z", "gpuQuota": gpu}

    def _status(self, request: Request, _: re.Match[str]) -> Reply:
        kernel = self.kernels.get(request.body["kernelSlug"])
        if kernel is None:
            return ABSENT
        return 200, {"status": kernel.status, "failureMessage": kernel.words}

    def _list(self, request: Request, _: re.Match[str]) -> Reply:
        found = [s for s in self.kernels if request.body.get("search", "") in s]
        return 200, {"kernels": [{"ref": f"{OWNER}/{slug}"} for slug in found]}

    def _save(self, request: Request, _: re.Match[str]) -> Reply:
        body = request.body
        slug = body["slug"].rpartition("/")[2]
        if len(self.live()) + self.others >= 2:
            return 200, {"error": FULL}
        sources = [each.rpartition("/")[2] for each in body.get("datasetDataSources", [])]
        lost = [each for each in sources if each not in self.datasets]
        again = self.kernels.get(slug)
        kernel = Kernel(
            slug,
            body["text"],
            body.get("sessionTimeoutSeconds", 0),
            [each for each in sources if each in self.datasets],
            body.get("machineShape", ""),
            runs=again.runs + 1 if again else 1,
        )
        self.kernels[slug] = kernel
        self.pushed.append(slug)
        self.runs(self, kernel)
        url = f"{self.url}/code/{OWNER}/{slug}"
        told = {"ref": f"/code/{OWNER}/{slug}", "url": url, "versionNumber": kernel.runs}
        return 200, told | {"invalidDatasetSources": lost}

    def _output(self, request: Request, _: re.Match[str]) -> Reply:
        kernel = self.kernels.get(request.body["kernelSlug"])
        return (200, {"files": [], "log": kernel.log}) if kernel else ABSENT

    def _delete(self, request: Request, _: re.Match[str]) -> Reply:
        kernel = self.kernels.pop(request.body["kernelSlug"], None)
        if kernel:
            kernel.end()
        return (200, {}) if kernel else ABSENT

    def _begin_blob(self, request: Request, _: re.Match[str]) -> Reply:
        token = f"blob-{next(self.ids)}"
        return 200, {"token": token, "createUrl": f"{self.url}/upload/{token}"}

    def _put_blob(self, request: Request, match: re.Match[str]) -> Reply:
        self.blobs[match[1]] = str(request.body)
        return 200, b""

    def _create_dataset(self, request: Request, _: re.Match[str]) -> Reply:
        body = request.body
        assert body["isPrivate"] is True, "secrets are for nobody else"
        if body["slug"] in self.datasets:
            return 200, {"status": "error", "error": "The requested slug is already in use"}
        token = body["files"][0]["token"]
        if token not in self.blobs:
            return 400, {"code": 400, "message": "no such blob"}
        self.datasets[body["slug"]] = self.blobs.pop(token)
        return 200, {"ref": f"{OWNER}/{body['slug']}", "status": "ok"}

    def _dataset_status(self, request: Request, _: re.Match[str]) -> Reply:
        there = request.body["datasetSlug"] in self.datasets
        return (200, {"status": "READY"}) if there else ABSENT

    def _list_datasets(self, request: Request, _: re.Match[str]) -> Reply:
        found = [s for s in self.datasets if request.body.get("search", "") in s]
        return 200, {"datasets": [{"ref": f"{OWNER}/{slug}"} for slug in found]}

    def _delete_dataset(self, request: Request, _: re.Match[str]) -> Reply:
        gone = self.datasets.pop(request.body["datasetSlug"], None)
        return (200, {}) if gone is not None else ABSENT

    routes = (
        ("POST", r"/v1/security\.OAuthService/IntrospectToken", _introspect),
        ("POST", r"/v1/kernels\.KernelsApiService/GetAcceleratorQuotaStatistics", _quota),
        ("POST", r"/v1/kernels\.KernelsApiService/GetKernelSessionStatus", _status),
        ("POST", r"/v1/kernels\.KernelsApiService/ListKernels", _list),
        ("POST", r"/v1/kernels\.KernelsApiService/SaveKernel", _save),
        ("POST", r"/v1/kernels\.KernelsApiService/ListKernelSessionOutput", _output),
        ("POST", r"/v1/kernels\.KernelsApiService/DeleteKernel", _delete),
        ("POST", r"/v1/blobs\.BlobApiService/StartBlobUpload", _begin_blob),
        ("PUT", r"/upload/(.+)", _put_blob),
        ("POST", r"/v1/datasets\.DatasetApiService/CreateDataset", _create_dataset),
        ("POST", r"/v1/datasets\.DatasetApiService/GetDatasetStatus", _dataset_status),
        ("POST", r"/v1/datasets\.DatasetApiService/ListDatasets", _list_datasets),
        ("POST", r"/v1/datasets\.DatasetApiService/DeleteDataset", _delete_dataset),
    )
