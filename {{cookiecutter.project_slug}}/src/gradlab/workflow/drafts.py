"""What a job has written so far, kept until it succeeds, so that it can carry on.

Promises: the outputs of a job that died are there again when it runs next. On a fast storage
they simply stay. From a slow one's machine, which may vanish, they are copied to the storage
every few minutes (GRADLAB_MIRROR_MINUTES, 5 unless set) and when the job stops: each content
once, under its SHA-256, then a list of what belongs together. The newest list that is whole
counts, and the one before it is kept too. A file that is written during the copy may be torn
there: write files that matter under another name and rename them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from pathlib import Path

from .. import files, session
from ..errors import GradlabError, note
from . import tree
from .tree import File, Tree

KEPT = 2


class Mirror:
    """Copies a folder on the local disk to one on slow storage, and back."""

    def __init__(self, folder: Path, kept: Path, mounted: session.Mounted) -> None:
        self.folder, self.kept, self.mounted = folder, kept, mounted
        self._known: dict[str, tuple[int, int, File]] = {}
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def restore(self) -> bool:
        """Bring the newest copy that is whole back, if the folder has no file; tell if it did."""
        if any(True for _ in tree.walk(self.folder)):
            return False
        for path in self._lists():
            try:
                self._bring(Tree.from_json(json.loads(path.read_text("utf-8"))))
                return True
            except (OSError, ValueError, KeyError, TypeError, GradlabError) as error:
                note(f"! the draft's copy {path} is not whole ({error}): taking the one before it")
        return False

    def start(self, minutes: float) -> None:
        """Copy every so many minutes from now on."""
        self._thread = threading.Thread(target=self._serve, args=(60 * minutes,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop copying; a copy under way is finished."""
        self._end.set()
        if self._thread:
            self._thread.join()

    def save(self) -> None:
        """Copy what has changed, then the list; a failure leaves the earlier copy as it is."""
        try:
            self.mounted.check()
            content = self._copy_changed()
            number = max((int(path.stem) for path in self._lists()), default=0) + 1
            tree.write(self.kept / f"{number:08}.json", json.dumps(content.to_json()))
            self._prune()
        except (OSError, GradlabError) as error:
            note(f"! the draft could not be copied to {self.kept}: {error}; trying later")

    def discard(self) -> None:
        """Remove the copy."""
        for path in [*self._lists(), *(self.kept / "files").glob("*/*")]:
            files.remove(path)
        tree.discard(self.kept)

    def _serve(self, seconds: float) -> None:
        while not self._end.wait(seconds):
            self.save()

    def _lists(self) -> list[Path]:
        return sorted(self.kept.glob("[0-9]*.json"), reverse=True)

    def _bring(self, content: Tree) -> None:
        brought = self.folder.with_name("brought")
        tree.empty(brought)
        for path, file in content.files.items():
            (brought / path).parent.mkdir(parents=True, exist_ok=True)
            tree.copy_file(self._kept_file(file.sha256), brought / path, file.sha256)
            if file.executable:
                (brought / path).chmod(0o755)
        tree.copy(Tree(links=content.links), brought, brought)
        # At once: half of it would look like a draft of its own after a kill.
        tree.discard(self.folder)
        brought.rename(self.folder)

    def _kept_file(self, sha256: str) -> Path:
        # Not all in one folder, which Google Drive can't read once it holds thousands of files.
        return self.kept / "files" / sha256[:2] / sha256

    def _copy_changed(self) -> Tree:
        content = Tree()
        for path, status in tree.walk(self.folder):
            if (self.folder / path).is_symlink():
                content.links[path] = os.readlink(self.folder / path)
                continue
            size, time, file = self._known.get(path, (-1, -1, None))
            if file is None or (size, time) != (status.st_size, status.st_mtime_ns):
                file = self._copy(self.folder / path)
            if file:
                content.files[path] = file
                self._known[path] = (status.st_size, status.st_mtime_ns, file)
        return content

    def _copy(self, source: Path) -> File | None:
        """Copy one file by way of the local disk, where a copy is quick and then stands still."""
        still = self.folder.parent / "mirror.tmp"
        try:
            shutil.copyfile(source, still)
        except FileNotFoundError:
            return None  # renamed or removed since it was listed
        with open(still, "rb") as reader:
            sha256 = hashlib.file_digest(reader, "sha256").hexdigest()
        kept = self._kept_file(sha256)
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not kept.exists() or kept.stat().st_size != still.stat().st_size:
            tree.copy_file(still, kept, sha256)
        return File(still.stat().st_size, sha256, os.access(source, os.X_OK))

    def _prune(self) -> None:
        for path in self._lists()[KEPT:]:
            files.remove(path)
        wanted = {
            file["sha256"]
            for path in self._lists()
            for file in json.loads(path.read_text("utf-8"))["files"].values()
        }
        for path in (self.kept / "files").glob("*/*"):
            if path.name not in wanted:
                files.remove(path)
