"""Runs where Kaggle's client is installed, and calls it for the kit: see clients/frame.py.

Promises: what is pushed holds no secret; these go into a private dataset, from memory and without
a file on this machine.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients"))

import frame
from frame import Answer

version = frame.version_of("kaggle")
try:
    import requests
    import transport

    # Its own __init__ would ask the service who this is, at once and without a limit.
    package = types.ModuleType("kaggle")
    package.__path__ = list(importlib.util.find_spec("kaggle").submodule_search_locations)  # type: ignore
    package.__version__ = version  # type: ignore
    sys.modules["kaggle"] = package
    from kaggle.api.kaggle_api_extended import KaggleApi
    from kagglesdk.blobs.types import blob_api_service as blobs
    from kagglesdk.datasets.types import dataset_api_service as datasets
    from kagglesdk.kernels.types import kernels_api_service as kernels
except Exception as error:
    frame.tell({"version": version, "unusable": f"{type(error).__name__}: {error}"})
    sys.exit()

FILE = "bag.json"
METADATA = "kernel-metadata.json"
PAGE = 20
ABSENT = (403, 404)  # what is said of what isn't there
api = KaggleApi()


def greeting() -> Answer:
    """Say what this is."""
    transport.carry_everything()
    return {"version": version}


def answer(request: Answer) -> Answer:
    """Do what a request asks for."""
    return transport.answered(lambda: do(request), words_of)


def do(request: Answer) -> Any:
    if not getattr(api, "_authenticated", False):
        try:
            api.authenticate()
        except SystemExit:
            raise frame.Unusable("status", "it knows no such token", 401) from None
    return frame.method(request, METHODS)


def words_of(said: Any) -> str:
    """Give the words of a refusal."""
    return str(said.get("message") or said.get("error") or said) if isinstance(said, dict) else ""


def owner() -> str:
    """Name the account."""
    return str(api.config_values[api.CONFIG_NAME_USER])


def quota() -> Answer:
    """Give the hours of GPU that are used and allowed this week, and when a new one begins."""
    found = api.quota_view()
    if found.gpu_quota is None:
        return {}
    used, allowed = found.gpu_quota.time_used, found.gpu_quota.total_time_allowed
    renewed = found.quota_refresh_time
    return {
        "used": used.total_seconds() / 3600 if used else 0.0,
        "allowed": allowed.total_seconds() / 3600 if allowed else 0.0,
        "renewed": renewed.isoformat(timespec="minutes") if renewed else "",
    }


def status(name: str) -> Answer:
    """Say how a notebook's last session stands; nothing where there is no such notebook."""
    request = kernels.ApiGetKernelSessionStatusRequest()
    request.user_name, request.kernel_slug = owner(), name
    with api.build_kaggle_client() as client:
        try:
            found = client.kernels.kernels_api_client.get_kernel_session_status(request)
        except requests.exceptions.HTTPError as error:
            if error.response.status_code not in ABSENT or name in mine(name):
                raise
            return {}
    return {"status": found.status.name, "words": found.failure_message or ""}


def mine(text: str) -> list[str]:
    """Name the account's notebooks that a text finds, the last run first."""
    found = api.kernels_list(mine=True, search=text, page_size=PAGE, sort_by="dateRun") or []
    return [kernel.ref.rpartition("/")[2] for kernel in found]


def push(name: str, text: str, machine: str, seconds: float, dataset: str) -> Answer:
    """Save a script as a notebook of this name, and run it."""
    data = {
        "id": f"{owner()}/{name}",
        "title": name,
        "code_file": "run.py",
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": bool(machine),
        "enable_internet": True,
        "dataset_sources": [f"{owner()}/{dataset}"],
    }
    with tempfile.TemporaryDirectory(prefix="gradlab-") as folder:
        Path(folder, METADATA).write_text(json.dumps(data), "utf-8")
        Path(folder, "run.py").write_text(text, "utf-8")
        said = api.kernels_push(folder, timeout=str(int(seconds)), acc=machine or None)
    return {
        "error": said.error or "",
        "version": said.version_number or 0,
        "without": list(said.invalid_dataset_sources or []),
    }


def dataset_status(name: str) -> str:
    """Say how a dataset stands, nothing where there is none."""
    request = datasets.ApiGetDatasetStatusRequest()
    request.owner_slug, request.dataset_slug = owner(), name
    with api.build_kaggle_client() as client:
        try:
            found = client.datasets.dataset_api_client.get_dataset_status(request)
        except requests.exceptions.HTTPError as error:
            if error.response.status_code not in ABSENT or name in my_datasets(name):
                raise
            return ""
    return "" if found.status.name == "DELETED" else str(found.status.name)


def my_datasets(text: str) -> list[str]:
    """Name the account's datasets that a text finds."""
    found = api.dataset_list(mine=True, search=text) or []
    return [each.ref.rpartition("/")[2] for each in found]


def dataset_create(name: str, text: str) -> str:
    """Make a private dataset of one file; give what the service says against it."""
    begin = blobs.ApiStartBlobUploadRequest()
    begin.type, begin.name = blobs.ApiBlobType.DATASET, FILE
    begin.content_length = len(text.encode())
    request = datasets.ApiCreateDatasetRequest()
    request.owner_slug, request.slug, request.title = owner(), name, name
    request.license_name, request.is_private = "unknown", True
    with api.build_kaggle_client() as client:
        place = client.blobs.blob_api_client.start_blob_upload(begin)
        requests.put(place.create_url, data=text.encode()).raise_for_status()
        file = datasets.ApiDatasetNewFile()
        file.token = place.token
        request.files = [file]
        said = client.datasets.dataset_api_client.create_dataset(request)
    return str(said.error or "")


def dataset_delete(name: str) -> None:
    """Remove a dataset, if it is there."""
    if dataset_status(name):
        api.dataset_delete(owner(), name, no_confirm=True)


def logs(name: str) -> str:
    """Give what a notebook's last session has printed."""
    text = api.kernels_logs(f"{owner()}/{name}")
    try:
        return "".join(event.get("data", "") for event in json.loads(text))
    except (ValueError, AttributeError):
        return str(text)


def delete(name: str) -> None:
    """Remove a notebook, and so its session, if it is there."""
    if status(name):
        api.kernels_delete(f"{owner()}/{name}", no_confirm=True)


METHODS = {
    each.__name__: each
    for each in (quota, status, mine, push, dataset_status, dataset_create, dataset_delete)
} | {"logs": logs, "delete": delete, "my_datasets": my_datasets}

if __name__ == "__main__":
    frame.serve(greeting, answer)
