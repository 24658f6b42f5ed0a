"""gradlab doctor: what this machine is, and what to do about anything that will hurt.

Promises: only looks, but for a probe that it writes to a storage by URL and removes; needs no other
network, works without a framework; every problem comes with what would mend it.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .base.errors import GradlabError
from .base.tables import columns
from .base.units import clock
from .services import machine, session
from .services.origin import origin
from .services.table import here

PACKAGES = ("numpy", "tensorboard", "matplotlib", "scikit-learn", "safetensors")
# The module that training imports first, and the packages whose versions matter.
FRAMEWORKS = {
    "pytorch": ("torch", ("torch",)),
    "jax": ("jax", ("jax", "flax", "optax")),
    "keras": ("keras", ("keras",)),
}
GIB = 2**30
LITTLE_SPACE = 2 * GIB
LITTLE_MEMORY = 2 * GIB
MUCH = 60  # seconds by which a clock may be off; S3 refuses requests from 15 minutes on


@dataclass(frozen=True)
class Fact:
    """A row of the table; advice is what to do about it where it is bad."""

    name: str
    value: str
    advice: str = ""
    fatal: bool = False


def doctor_command(gpu: bool = False) -> int:
    """Show what this machine is and keeps, and what to do about anything bad.

    Args:
        gpu: Fail where no GPU can be used.
    """
    facts, rows = list(_facts(gpu)), []
    for fact in facts:
        mark = " " if not fact.advice else "x" if fact.fatal else "!"
        rows.append((f"{mark} {fact.name}", fact.value))
        if fact.advice:
            rows.append(("", f"-> {fact.advice}"))
    print("\n".join(columns(rows)))
    return int(any(fact.fatal for fact in facts))


def _facts(gpu: bool) -> Iterator[Fact]:
    yield Fact("service", f"{here().name} ({platform.platform(terse=True)})")
    chosen = session.project_framework(session.project_root())
    framework, packages = FRAMEWORKS.get(chosen, FRAMEWORKS["pytorch"])
    yield _device(framework, gpu)
    yield _memory()
    yield from _storage()
    yield _time_left()
    yield _versions((*packages, *PACKAGES))
    yield Fact("template", origin(session.project_root()))


def _device(framework: str, gpu: bool) -> Fact:
    from .train import frameworks  # and with it NumPy, which no other command waits for

    try:
        name, problem = frameworks.named(framework).device()
    except ImportError as error:
        return Fact("device", f"unknown: {error}", _install(), fatal=True)
    if name:
        return Fact("device", name)
    value = f"CPU, {machine.cpus()} core(s): {problem}"
    if "not built for" in problem:
        advice = f"use the {framework} that came with the machine, or choose a newer GPU"
        return Fact("device", value, advice, fatal=gpu)
    return Fact("device", value, here().gpu if gpu else "", fatal=gpu)


def _install() -> str:
    return f"install the project: {session.how_to_install(session.project_root())}"


def _memory() -> Fact:
    total, free = machine.memory()
    if not total:
        return Fact("memory", "unknown")
    advice = "stop other notebooks and programs" if free < LITTLE_MEMORY else ""
    return Fact("memory", f"{total / GIB:.1f} GiB, {free / GIB:.1f} GiB available", advice)


def _storage() -> Iterator[Fact]:
    storage = session.storage(session.project_name(session.project_root()))
    kept = "" if storage.persistent else "save elsewhere what you need before the session ends"
    if not storage.persistent and here().has_drive:
        kept = "mount Google Drive, or set GRADLAB_STORAGE to a folder that persists"
    value = "persistent" if storage.persistent else "NOT persistent"
    yield Fact("storage", f"{storage} ({value}: {storage.why})", kept)
    if not storage.path:
        yield from _reached()
        return
    there = _existing(storage.path)
    if not os.access(there, os.W_OK):
        advice = "set GRADLAB_STORAGE to a folder that can be written"
        yield Fact("space", f"{there} can't be written", advice, fatal=True)
        return
    usage = shutil.disk_usage(there)
    advice = "delete old runs and datasets" if usage.free < LITTLE_SPACE else ""
    yield Fact("space", f"{usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB free", advice)


def _reached() -> Iterator[Fact]:
    """Tell whether a storage by URL can be read and written, and what its clock says."""
    from .store import location  # and with it the URL's client

    try:
        place = location.of(session.project_name(session.project_root()))
        found, ahead = place.backend.list(""), place.backend.clock()
    except (OSError, GradlabError) as error:
        what, _, advice = str(error).partition(": ")
        yield Fact("access", what, advice or "see docs/scale.md", fatal=True)
        return
    yield Fact("access", f"can be read and written ({len(found)} entries at its top)")
    off = f"{abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} the storage's"
    advice = "set this machine's clock: timedatectl set-ntp true" if abs(ahead) > MUCH else ""
    yield Fact("clock", off if ahead else "as the storage's", advice)


def _existing(path: Path) -> Path:
    """Give the path or the nearest folder above it that exists."""
    return next(p for p in (path, *path.parents) if p.exists())


def _time_left() -> Fact:
    deadline = session.deadline()
    if deadline is None:
        return Fact("time left", "no limit known")
    left = deadline - time.time()
    advice = "what you start now will have to carry on in the next session" if left < 1800 else ""
    return Fact("time left", f"{clock(left)} at most; idle sessions end sooner", advice)


def _versions(packages: Sequence[str]) -> Fact:
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    missing = "missing" in found.values()
    advice = _install() if missing else ""
    text = ", ".join(f"{name} {number}" for name, number in found.items())
    return Fact("versions", text, advice, fatal=missing)
