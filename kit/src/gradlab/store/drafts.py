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
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from ..base import files, folders
from ..base.errors import GradlabError, note
from ..services import mounts
from . import belongings, copier, copies, tree
from .belongings import Draft, Key
from .tree import File, Tree

KEPT = 2
FULL = (errno.ENOSPC, errno.EDQUOT)
LIST = re.compile(r"\d{8}\.json")


class Mirror:
    """Copies a folder on the local disk to one on slow storage, and back.

    `run` is the id of the workflow's run, which each list names. A folder that lies in the storage
    itself is not copied, but a copy from the time when that was a slow one is brought back.
    """

    def __init__(
        self,
        folder: Path,
        kept: Path,
        mounted: mounts.Mounted,
        run: str,
        draft: Draft | None = None,
    ) -> None:
        self.folder, self.kept, self.mounted, self.run = folder, kept, mounted, run
        self.draft = draft or Draft({})
        self.box = folder.with_name("mirror")
        self._known: dict[str, tuple[int, int, File]] = {}
        self._listed: tuple[Path, Tree] | None = None
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_apart = folder.parent != kept

    def restore(self, key: Key | None, here: Draft | None) -> int:
        """Bring the newest copy that is whole back, unless what is here is as new.

        Takes those of a job's key alone, None for any. `here` is the draft in the folder, if
        that holds one. Gives the number of the copy, 0 where none was brought.
        """
        passed_over = []
        for path in self._lists():
            try:
                data = json.loads(files.read_text(path))
                if key is not None and data.get("key") != key:
                    continue
                if here and (data.get("by") == here.id or int(path.stem) <= here.base):
                    return 0
                self._bring(Tree.from_json(data), here)
            except (FileNotFoundError, ValueError, KeyError, TypeError, GradlabError) as error:
                note(f"! the draft's copy {path} is not whole ({error}): taking the one before it")
                passed_over.append(path)
                continue
            for each in passed_over:  # else it would stay in the place of this one
                files.remove(each)
            return int(path.stem)
        return 0 if here else self._bring_folder(key)

    def start(self, minutes: float) -> None:
        """Copy every so many minutes from now on."""
        if self._is_apart:
            self._thread = threading.Thread(target=self._serve, args=(60 * minutes,), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop copying; a copy under way is finished."""
        self._end.set()
        if self._thread:
            self._thread.join()

    def save(self) -> None:
        """Copy what has changed, then the list; a failure leaves the earlier copy as it is."""
        if not self._is_apart:
            return
        try:
            self.mounted.check()
            self._copy_all()
            self._prune(copies.outdated(self._lists(), KEPT))
        except (OSError, ValueError, GradlabError) as error:
            note(f"! the draft could not be copied to {self.kept}: {error}; trying later")
            if isinstance(error, OSError) and error.errno in FULL:
                self._make_room()

    def forget(self) -> None:
        """Remove the copy if it is of the run with this id, not of a later one."""
        for path in self._lists():
            try:
                run = json.loads(files.read_text(path))["run"]
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                continue
            if run == self.run:
                self.discard()
            return

    def discard(self) -> None:
        """Remove the copy."""
        for path in [*self._lists(), *(self.kept / "files").glob("*/*")]:
            files.remove(path)
        folders.discard(self.kept)

    def _serve(self, seconds: float) -> None:
        while not self._end.wait(seconds):
            self.save()

    def _lists(self) -> list[Path]:
        found = [name for name in files.names(self.kept) if LIST.fullmatch(name)]
        return [self.kept / name for name in sorted(found, reverse=True)]

    def _bring(self, content: Tree, here: Draft | None) -> None:
        brought = self._brought()
        for path, file in content.files.items():
            (brought / path).parent.mkdir(parents=True, exist_ok=True)
            copier.copy_file(self._kept_file(file.sha256), brought / path, file.sha256)
            if file.executable:
                (brought / path).chmod(0o755)
        copier.copy(Tree(links=content.links), brought, brought)
        if here:  # an older one, of before another machine went on
            belongings.set_aside(self.folder.parent)
        self._put(brought)

    def _bring_folder(self, key: Key | None) -> int:
        """Bring what lies there as the job left it, on a storage that was a fast one then."""
        left, known = self.kept / self.folder.name, belongings.read(self.kept)
        if left == self.folder or not left.is_dir() or left.is_symlink():
            return 0
        if key is not None and (not known or known.key != key):
            return 0
        if bad := belongings.damaged(self.kept, known) if known else []:
            note(f"! damaged in what {left} holds: {', '.join(bad[:5])}; it is left alone")
            return 0
        content, brought = tree.scan(left), self._brought()
        copier.copy(content, left, brought, plain=True)
        self._put(brought)
        return max(1, known.base if known else 1) if content.files else 0

    def _brought(self) -> Path:
        brought = self.folder.with_name("brought")
        folders.empty(brought)
        return brought

    def _put(self, brought: Path) -> None:
        # At once: half of it would look like a draft of its own after a kill.
        folders.discard(self.folder)
        brought.rename(self.folder)

    def _kept_file(self, sha256: str) -> Path:
        # Not all in one folder, which Google Drive can't read once it holds thousands of files.
        return self.kept / "files" / sha256[:2] / sha256

    def _copy_all(self) -> None:
        content, lists = self._copy_changed(), self._lists()
        if self._listed and self._listed[1] == content and self._listed[0] in lists:
            return
        # More than any that this draft came from, whatever of those has been lost.
        number = 1 + max(self.draft.base, int(lists[0].stem) if lists else 0)
        path = self.kept / f"{number:08}.json"
        try:
            whose = {"run": self.run, "key": self.draft.key, "by": self.draft.id}
            files.write_in_place(path, json.dumps({**whose, **content.to_json()}))
        except OSError:
            files.remove(path)
            raise
        self._listed, self.draft.base = (path, content), number

    def _copy_changed(self) -> Tree:
        content, changed = Tree(), dict[str, Path]()
        folders.empty(self.box)
        for path, status in tree.walk(self.folder):
            source = self.folder / path
            size, time, file = self._known.get(path, (-1, -1, None))
            if source.is_symlink():
                content.links[path] = os.readlink(source)
            # A Drive that was mounted again may have lost what it had not uploaded.
            elif file and (size, time) == _state(status) and self._is_kept(file):
                content.files[path] = file
            elif held := self._hold(source, len(changed)):
                changed[path] = held
        for path, held in changed.items():
            state = _state(held.stat())
            content.files[path] = self._copy(held)
            self._known[path] = (*state, content.files[path])
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
        still = self.box / "still"
        shutil.copyfile(source, still)
        with open(still, "rb") as reader:
            sha256 = hashlib.file_digest(reader, "sha256").hexdigest()
        file = File(still.stat().st_size, sha256, os.access(source, os.X_OK))
        if not self._is_kept(file):
            kept = self._kept_file(sha256)
            kept.parent.mkdir(parents=True, exist_ok=True)
            copier.copy_file(still, kept, sha256)
        return file

    def _is_kept(self, file: File) -> bool:
        kept = self._kept_file(file.sha256)
        return kept.exists() and kept.stat().st_size == file.size

    def _prune(self, lists: Sequence[Path]) -> None:
        for path in lists:
            files.remove(path)
        wanted = set()
        for path in self._lists():
            try:
                found = Tree.from_json(json.loads(files.read_text(path)))
                wanted |= {file.sha256 for file in found.files.values()}
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                files.remove(path)  # of a machine that died while it wrote it
        for path in (self.kept / "files").glob("*/*"):
            if path.name not in wanted:
                files.remove(path)

    def _make_room(self) -> None:
        try:
            # The newest, and the oldest, which is uploaded if any is.
            self._prune(self._lists()[1:-1])
        except OSError as error:
            note(f"! no room could be made in {self.kept}: {error}")


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
