"""The part of a checkout that a job reads, where its GRADLAB_READS names that.

    env:
      GRADLAB_READS: src !src/app/report.py requirements.txt

Promises: files and folders are named from the top of the repository, ! takes one out again. A
change of anything else in the repository does not do the job again. A name that is not there is an
error, for a slip would leave a job undone that has to be done.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..base.errors import GradlabError
from ..spec.spec import Job, Spec
from ..store import tree
from .actions import checkout

NAME = "GRADLAB_READS"


@dataclass(frozen=True)
class Part:
    """Some files and folders of a checkout, without some others."""

    where: str  # it is said
    taken: tuple[str, ...]
    left_out: tuple[str, ...]

    def holds(self, path: str) -> bool:
        """Tell whether a file is one of them."""
        return _is_below(path, self.taken) and not _is_below(path, self.left_out)

    def digest(self, folder: Path) -> str:
        """Give the SHA-256 of them; GradlabError where one of the names is not in the folder."""
        whole = tree.scan(folder)
        files = {path: file for path, file in whole.files.items() if self.holds(path)}
        links = {path: target for path, target in whole.links.items() if self.holds(path)}
        empty = tuple(path for path in whole.folders if self.holds(path))
        everything = [*whole.files, *whole.links, *whole.folders]
        for name in (*self.taken, *self.left_out):
            if not any(_is_below(path, [name]) for path in everything):
                raise GradlabError(
                    f"{self.where}: {NAME} names {name!r}, which is not in the repository"
                )
        return replace(whole, files=files, links=links, folders=empty).digest


def part(job: Job, spec: Spec) -> Part | None:
    """Give the part that a job reads, None for all; GradlabError for names that can't be one."""
    where = f"{spec.path}:{job.mark.line}: job {job.name!r}"
    try:
        words = shlex.split(job.env.get(NAME, ""))
    except ValueError as error:
        raise GradlabError(f"{where}: {NAME} is {job.env[NAME]!r}: {error}") from error
    if not words:
        return None
    names = [word.removeprefix("!") for word in words]
    for name in names:
        if name.startswith("/") or ".." in name.split("/") or not name:
            raise GradlabError(
                f"{where}: {NAME} names {name!r}: give paths from the top of the repository"
            )
    plain = [str(PurePosixPath(name)) for name in names]
    pairs = list(zip(words, plain, strict=True))
    left_out = tuple(name for word, name in pairs if word.startswith("!"))
    taken = tuple(name for word, name in pairs if not word.startswith("!"))
    return Part(where, taken or (".",), left_out)


def code(job: Job, spec: Spec) -> set[str]:
    """Name the inputs of a job that are checked-out code."""
    found = set()
    for name, port in job.inputs.items():
        maker = spec.jobs.get(port.source[0]) if port.source else None
        output = maker.outputs.get(port.source[1]) if maker and port.source else None
        if maker and output and maker.uses == checkout.NAME and output.type == "volume":
            found.add(name)
    return found


def _is_below(path: str, names: Sequence[str]) -> bool:
    return any(name == "." or path == name or path.startswith(f"{name}/") for name in names)
