"""What commits of versions that were cut off have left in a storage."""

from __future__ import annotations

from ..base.errors import note
from . import transfer
from .backend import Backend
from .versions import MANIFEST, VERSION

ABANDONED_AFTER = 24 * 3600.0  # seconds: no copy to a slow storage takes that long


def sweep(backend: Backend, folder: str) -> None:
    """Remove half versions of long ago from a dataset's folder; no reason to fail."""
    try:
        if backend.folder is None:
            backend.sweep(folder)
        transfer.each(
            lambda id: _sweep(backend, f"{folder}/{id}"), _halves(backend, folder), backend.parallel
        )
    except OSError as error:
        note(f"! what is left over in {backend.where(folder)} could not be removed: {error}")


def abandoned(backend: Backend, folder: str) -> list[str]:
    """Give the keys of half versions of long ago in a dataset's folder; raises OSError."""
    keys = [f"{folder}/{id}" for id in _halves(backend, folder)]
    return [key for key in keys if _is_abandoned(backend, key)]


def _halves(backend: Backend, folder: str) -> list[str]:
    """Name what may be a half version, also a box in which one is made."""
    return [id for id in backend.list(folder) if VERSION.fullmatch(id.lstrip("."))]


def _sweep(backend: Backend, key: str) -> None:
    if _is_abandoned(backend, key):
        backend.discard(key)


def _is_abandoned(backend: Backend, key: str) -> bool:
    whole = backend.size(f"{key}/{MANIFEST}") is not None and key.rpartition("/")[2][0] != "."
    return not whole and backend.idle(key) > ABANDONED_AFTER
