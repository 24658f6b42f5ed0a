"""Removing what a storage keeps, so that a kill at any moment leaves all else as it was.

    <storage>/.trash/<nonce>/               on its way out: moved there at once, then removed
    <storage>/datasets/<name>/.removed/<version>    a version that was removed, or is about to be

Promises: where a folder can be moved at once it is never seen half; where it can't, what makes it
count goes first. A version's number is noted before anything of it goes, and never given again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable

from . import sealed, transfer
from .backend import Backend
from .shelf import REMOVED, key_of
from .versions import MANIFEST

TRASH = ".trash"


def discard(backend: Backend, key: str, first: Iterable[str] = ()) -> None:
    """Remove a folder and all in it; of its files the `first` ones before all others.

    Raises OSError where that can't be done; given again it does the rest.
    """
    if backend.rename_is_atomic:
        gone = f"{TRASH}/{secrets.token_hex(8)}"
        if backend.folder:
            (backend.folder / TRASH).mkdir(parents=True, exist_ok=True)
        backend.move(key, gone)
        backend.discard(gone)
        return
    for path in first:
        drop(backend, f"{key}/{path}")
    # Each by itself: what is emptied before it goes takes no room in a Drive's own trash.
    left = [f"{key}/{path}" for path in backend.below(key)]
    transfer.each(backend.delete, left, backend.parallel)
    backend.discard(key)


def drop(backend: Backend, key: str) -> None:
    """Remove a file; OSError where it is still there."""
    backend.delete(key)
    if backend.size(key) is not None:
        raise OSError(f"{backend.where(key)} could not be removed")


def note_removed(backend: Backend, name: str, id: str) -> None:
    """Note that a version is removed, so that its number is never given again."""
    text = sealed.to_text({"removed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
    backend.write(f"{key_of(name)}/{REMOVED}/{id}", text.encode())


def remove_version(backend: Backend, name: str, id: str) -> None:
    """Make a folder no version any more, which takes one removal; `discard` removes the rest."""
    note_removed(backend, name, id)
    drop(backend, f"{key_of(name, id)}/{MANIFEST}")
