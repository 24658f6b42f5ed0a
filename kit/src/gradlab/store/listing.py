"""What `gradlab datasets` shows: what is kept, whether it is whole; and new versions."""

from __future__ import annotations

from pathlib import Path

from ..base.errors import GradlabError
from ..base.terminal import printable
from ..base.units import human
from . import models
from .backend import Backend
from .datasets import Datasets
from .versions import DamagedVersion, Version


def dispatch(store: Datasets, action: str, reference: str | None, folder: Path | None) -> int:
    """List, show, verify or add, as `gradlab datasets` was asked to; give the exit code."""
    if action == "list":
        return _list(store)
    if action == "verify":
        return _verify(store, reference)
    if reference is None:
        raise GradlabError(f"which dataset? gradlab datasets {action} NAME")
    if action == "show":
        return _show(store, reference)
    if folder is None:
        raise GradlabError(f"which folder? gradlab datasets add {reference} FOLDER")
    return _add(store, reference, folder)


def _list(store: Datasets) -> int:
    found = [entry for name in store.names() for entry in store.entries(name)]
    for entry in found:
        if isinstance(entry, DamagedVersion):
            print(_first_line(entry))
            continue
        tag = f"  ({entry.tag})" if entry.tag else ""
        print(f"{entry}  {_summary(entry)}  {entry.made}  {printable(entry.source)}{tag}")
    if not found:
        print(f"No datasets in {store.top}. Make one: gradlab datasets add NAME FOLDER")
    return 0


def _show(store: Datasets, reference: str) -> int:
    version = store.find(reference, whole=False)
    others = [other.id for other in store.versions(version.name) if other.id != version.id]
    print(f"{version}  {_summary(version)}\nmade {version.made} by {printable(version.source)}")
    print(f"in {store.where(version)}/data\nother versions: {', '.join(others) or 'none'}")
    for path, file in version.tree.files.items():
        print(f"  {file.sha256[:12]}  {file.size:>12,}  {printable(path)}")
    for path, target in version.tree.links.items():
        print(f"  {'link':>26}  {printable(path)} -> {printable(target)}")
    for path in version.tree.folders:
        print(f"  {'empty folder':>26}  {printable(path)}/")
    return 0


def _verify(store: Datasets, reference: str | None) -> int:
    found: list[Version | DamagedVersion] = []
    if reference:
        found = [store.find(reference, whole=False)]
    for name in () if reference else store.names():
        found += store.entries(name)
    damaged = 0 if reference else _verify_models(store.backend)
    for version in found:
        if isinstance(version, DamagedVersion):
            damaged += 1
            print(_first_line(version))
            continue
        if store.is_replaced(version):
            print(f"{version}  passed over: it was not uploaded whole, and a later one was")
            continue
        problems = store.problems(version)
        damaged += bool(problems)
        print(f"{version}  {'DAMAGED' if problems else 'ok'}  {_summary(version)}")
        for problem in problems:
            print(f"  {printable(problem)}")
    return 1 if damaged else 0


def _verify_models(backend: Backend) -> int:
    """Name the entries of the model registry that are damaged, and count them."""
    found = list(models.damaged(backend))
    for key, problem in found:
        _, name, file = key.split("/")
        place = backend.where(key)
        print(f"model {name} {file.removesuffix('.json')}  DAMAGED  {place}: {problem}")
    return len(found)


def _first_line(error: DamagedVersion) -> str:
    name, _, problem = str(error).partition("\n")[0].partition(" is damaged: ")
    return f"{name}  DAMAGED  {printable(problem)}"


def _add(store: Datasets, reference: str, folder: Path) -> int:
    if not folder.is_dir():
        raise GradlabError(f"{folder} is not a folder")
    kept = store.backend.folder
    if kept and kept.is_relative_to(folder.resolve()):
        raise GradlabError(
            f"{folder} holds the storage itself ({kept}), which can't be a part of a "
            "dataset: add the folder in it that holds the data, or move the storage elsewhere "
            "(GRADLAB_STORAGE)."
        )
    version = store.add(reference, folder, f"gradlab datasets add {folder}")
    print(f"{version}  {_summary(version)}")
    return 0


def _summary(version: Version) -> str:
    count = len(version.tree.files)
    return f"{count:,} file{'s' * (count != 1)}, {human(version.tree.size)}"
