"""What a job has written so far, kept until it succeeds, so that it can carry on.

Promises: the outputs of a job that died are there again when it runs next. On a fast storage
they simply stay. From a slow one's machine, which may vanish, they are copied to the storage
every few minutes (GRADLAB_MIRROR_MINUTES, 5 unless set) and when the job stops: each content
once, under its SHA-256, then a list of what belongs together. The newest list that is whole
counts. Older ones are kept too, for what was written last may not be uploaded yet, and the copy
of a job that succeeded stays until its workflow runs anew, for its outputs may not be either. A
file that is written during the copy may be torn there: write files that matter under another
name and rename them.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..base import folders
from ..base.errors import GradlabError, note
from . import belongings, sealed, transfer, tree
from .backend import Backend
from .belongings import Draft, Key
from .copier import Copier
from .tree import File, Tree

LIST = re.compile(r"\d{8}\.json")
# What a list that is not whole, or no list, is read as.
NO_LIST = (FileNotFoundError, ValueError, KeyError, TypeError)


class DraftCopies:
    """The copies of a folder on the local disk, below a key of a backend, and the way back.

    `run` is the id of the workflow's run, which each list names. A folder that lies in the storage
    itself is not copied, but a copy from the time when that was a slow one is brought back. `fence`
    gives the token under which a list may be written, or raises.
    """

    def __init__(
        self,
        folder: Path,
        backend: Backend,
        key: str,
        run: str,
        draft: Draft | None = None,
        fence: Callable[[], int] = lambda: 0,
    ) -> None:
        self.folder, self.backend, self.key, self.run = folder, backend, key, run
        self.draft, self.fence = draft or Draft({}), fence
        self.box = folder.with_name("mirror")
        self._known: dict[str, tuple[int, int, File]] = {}
        self._listed: tuple[str, Tree] | None = None

    def copier(self, minutes: float) -> Copier | None:
        """Copy every so many minutes from now on, if the folder lies outside the storage."""
        if self._is_in_place():
            return None
        return Copier(self.backend, self, pause=0.0, every=60 * minutes)

    def _is_in_place(self) -> bool:
        """Whether the folder lies in the storage itself."""
        top = self.backend.folder
        return top is not None and self.folder.parent == top / self.key

    def restore(self, key: Key | None, here: Draft | None) -> int:
        """Bring the newest copy that is whole back, unless what is here is as new.

        Takes those of a job's key alone, None for any; of one with other inputs or code the
        training runs. `here` is the draft in the folder, if
        that holds one. Gives the number of the copy, 0 where none was brought.
        """
        passed_over = []
        for entry in self._lists():
            try:
                data = self._read(entry)
                content = self._usable(data, key)
                if not content:
                    continue
                if here and (data.get("by") == here.id or _number(entry) <= here.base):
                    return 0
                self._bring(content, here)
            except (*NO_LIST, GradlabError) as error:
                place = self.backend.where(entry)
                note(f"! the draft's copy {place} is not whole ({error}): taking the one before it")
                passed_over.append(entry)
                continue
            for each in passed_over:  # else it would stay in the place of this one
                self.backend.delete(each)
            return _number(entry)
        return 0 if here else self._bring_folder(key)

    def _usable(self, data: dict[str, Any], key: Key | None) -> Tree | None:
        """Give what a job with a key may take of a copy: of other inputs the training runs."""
        content, then = Tree.from_json(data), data.get("key")
        if key is None or then == key:
            return content
        if not then or then.get(belongings.TEXT) != key.get(belongings.TEXT):
            return None
        trainings = belongings.trainings(content)
        return trainings if trainings.files else None

    def forget(self) -> None:
        """Remove the copy if it is of the run with this id, not of a later one."""
        for entry in self._lists():
            try:
                run = self._read(entry)["run"]
            except NO_LIST:
                continue
            if run == self.run:
                self.discard()
            return

    def discard(self) -> None:
        """Remove the copy."""
        transfer.each(self.backend.delete, [*self.everything()], self.backend.parallel)
        self.backend.discard(self.key)

    def _lists(self) -> list[str]:
        found = [name for name in self.backend.list(self.key) if LIST.fullmatch(name)]
        return [f"{self.key}/{name}" for name in sorted(found, reverse=True)]

    def _read(self, entry: str) -> dict[str, Any]:
        return sealed.from_bytes(self.backend.read(entry))

    def entries(self) -> list[str]:
        """Give the lists that are whole, the newest first."""
        return [entry for entry in self._lists() if self._tree(entry) is not None]

    def parts_of(self, entry: str) -> set[str]:
        """Give the files that a list names."""
        content = self._tree(entry) or Tree()
        return {self._file(file.sha256) for file in content.files.values()}

    def _tree(self, entry: str) -> Tree | None:
        try:
            return Tree.from_json(self._read(entry))
        except NO_LIST:  # of a machine that died while it wrote it
            return None

    def everything(self) -> Iterator[str]:
        """Give all lists and files."""
        yield from self._lists()
        for path in self.backend.below(f"{self.key}/files"):
            yield f"{self.key}/files/{path}"

    def _file(self, sha256: str) -> str:
        # Not all in one folder, which Google Drive can't read once it holds thousands of files.
        return f"{self.key}/files/{sha256[:2]}/{sha256}"

    def _bring(self, content: Tree, here: Draft | None) -> None:
        brought = self._brought()

        def fetch(path: str, place: str, file: File) -> None:
            self.backend.fetch(self._file(file.sha256), place, file)
            count(file.size)

        with transfer.shown(f"a draft from {self.backend}", content.size) as count:
            transfer.fill(content, brought, fetch, self.backend.parallel)
        if here:  # an older one, of before another machine went on
            belongings.set_aside(self.folder.parent)
        self._put(brought)

    def _bring_folder(self, key: Key | None) -> int:
        """Bring what lies there as the job left it, on a storage that was a fast one then."""
        if self._is_in_place():
            return 0
        left = f"{self.key}/{self.folder.name}"
        known = belongings.parse(self._found(f"{self.key}/{belongings.FILE}"))
        if not self.backend.below(left):
            return 0
        if key is not None and (not known or known.key != key):
            return 0
        brought = self._brought()
        self.backend.bring(left, brought)
        if bad := belongings.damaged(brought, known) if known else []:
            place = self.backend.where(left)
            note(f"! damaged in what {place} holds: {', '.join(bad[:5])}; it is left alone")
            folders.discard(brought)
            return 0
        self._put(brought)
        return max(1, known.base if known else 1)

    def _found(self, key: str) -> bytes:
        try:
            return self.backend.read(key)
        except FileNotFoundError:
            return b""

    def _brought(self) -> Path:
        brought = self.folder.with_name("brought")
        folders.empty(brought)
        return brought

    def _put(self, brought: Path) -> None:
        # At once: half of it would look like a draft of its own after a kill.
        folders.discard(self.folder)
        brought.rename(self.folder)

    def copy(self, final: bool) -> None:
        """Copy what has changed, then the list of all that belongs together."""
        content, lists = self._copy_changed(), self._lists()
        if self._listed and self._listed[1] == content and self._listed[0] in lists:
            return
        # More than any that this draft came from, whatever of those has been lost.
        number = 1 + max(self.draft.base, _number(lists[0]) if lists else 0)
        entry = f"{self.key}/{number:08}.json"
        whose: dict[str, Any] = {"run": self.run, "key": self.draft.key, "by": self.draft.id}
        whose |= {"token": token} if (token := self.fence()) else {}
        try:
            self.backend.write(entry, sealed.to_text({**whose, **content.to_json()}).encode())
        except OSError:
            self.backend.delete(entry)
            raise
        self._listed, self.draft.base = (entry, content), number

    def _copy_changed(self) -> Tree:
        content, changed = Tree(), dict[str, Path]()
        folders.empty(self.box)
        for path, status in tree.walk(self.folder):
            source = self.folder / path
            size, time, file = self._known.get(path, (-1, -1, None))
            if source.is_symlink():
                content.links[path] = os.readlink(source)
            # A Drive that was mounted again may have lost what it had not uploaded.
            elif file and (size, time) == _state(status) and self._is_still_kept(file):
                content.files[path] = file
            elif held := self._hold(source, len(changed)):
                changed[path] = held

        def copy(path: str) -> None:
            state = _state(changed[path].stat())
            content.files[path] = self._copy(changed[path])
            self._known[path] = (*state, content.files[path])

        transfer.each(copy, changed, self.backend.parallel)
        folders.discard(self.box)
        return content

    def _hold(self, source: Path, number: int) -> Path | None:
        """Link a file, at once, so that it stays when the job removes or replaces it."""
        held = self.box / str(number)
        try:
            os.link(source, held)
        except FileNotFoundError:
            return None  # renamed or removed since it was listed
        return held

    def _copy(self, source: Path) -> File:
        """Copy one file by way of the local disk, where a copy is quick and then stands still."""
        still = source.with_name(f"{source.name}.still")
        sha256 = transfer.copy_as_it_is(str(source), str(still))
        file = File(still.stat().st_size, sha256, os.access(source, os.X_OK))
        if not self._is_kept(file) and self.backend.put(self._file(sha256), still) != sha256:
            raise OSError(errno.EIO, f"{still} was changed while it was copied")
        still.unlink()
        return file

    def _is_still_kept(self, file: File) -> bool:
        return not self.backend.writes_arrive_later or self._is_kept(file)

    def _is_kept(self, file: File) -> bool:
        return self.backend.size(self._file(file.sha256)) == file.size


def _number(entry: str) -> int:
    return int(entry[-13:-5])


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
