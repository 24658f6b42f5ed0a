"""A repository of models at the Hugging Face Hub, through its own client.

Promises: what is sent becomes visible in one commit, or not at all; what is there already is not
sent again, and where nothing has changed there is no commit. A commit whose answer was lost is
found by looking, not made twice.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..base.errors import GradlabError, note
from ..base.files import CHUNK, read_bytes, sha256
from . import refused

WAITS = (1.0, 4.0, 15.0)  # seconds between two tries


def require() -> None:
    """Raise GradlabError where the Hub's client is not installed."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        way = 'pip install "gradlab[hf]" (with --find-links vendor)'
        raise GradlabError(f"hf:// needs a client that is not installed: {way}") from error


class Hub:
    """The Hub that HF_ENDPOINT names, or the one that everybody knows, and a token for it."""

    def __init__(self, repository: str, private: bool) -> None:
        from huggingface_hub import HfApi, get_token

        self.repository, self.private = repository, private
        self._token = get_token() or ""
        if not self._token:
            raise GradlabError(
                "there is no token for the Hugging Face Hub: set HF_TOKEN, or give  hf auth login"
            )
        self._api = HfApi(token=self._token)
        self.where = f"{self._api.endpoint}/{repository}"

    def bring(self, folder: Path, names: Sequence[str], own: Sequence[str], message: str) -> str:
        """Make a repository hold files of a folder; give the commit's address, "" for none.

        Those of `own` that are not among the names are removed there. Raises GradlabError.
        """
        for wait in (*WAITS, None):
            try:
                return self._bring(folder, names, own, message)
            # Its client's errors have no ancestor in common.
            except Exception as error:
                found = refused.said(error, self.where, self._token)
                if wait is None or not refused.passes(error):
                    raise found from None
                note(f"! {found} It is tried again.")
                time.sleep(wait)
        raise AssertionError

    def _bring(self, folder: Path, names: Sequence[str], own: Sequence[str], message: str) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        parent = self._newest()
        there = self._there(parent)
        new = [name for name in names if there.get(name) not in _oids(folder / name)]
        gone = [name for name in own if name in there and name not in names]
        if not new and not gone:
            return ""
        operations: list[Any] = [CommitOperationAdd(name, folder / name) for name in new]
        operations += map(CommitOperationDelete, gone)
        done = self._api.create_commit(
            self.repository, operations, commit_message=message, parent_commit=parent
        )
        return str(done.commit_url)

    def _newest(self) -> str:
        """Give the newest commit, of a repository that is made if it isn't there."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            return str(self._api.model_info(self.repository).sha)
        except RepositoryNotFoundError as error:
            if refused.status(error) != 404:
                raise
        self._api.create_repo(self.repository, private=self.private or None, exist_ok=True)
        return str(self._api.model_info(self.repository).sha)

    def _there(self, commit: str) -> dict[str, str]:
        """Give what tells the content of each file: of large ones the SHA-256, else git's SHA-1."""
        from huggingface_hub.hf_api import RepoFile

        tree = self._api.list_repo_tree(self.repository, recursive=True, revision=commit)
        files = [each for each in tree if isinstance(each, RepoFile)]
        return {each.path: each.lfs.sha256 if each.lfs else each.blob_id for each in files}


def _oids(path: Path) -> tuple[str, str]:
    """Give by what a file's content may be known: its SHA-256, and its SHA-1 as git has it."""
    hashed = hashlib.sha1(f"blob {os.stat(path).st_size}\0".encode(), usedforsecurity=False)
    if path.stat().st_size <= CHUNK:
        hashed.update(read_bytes(path))
        return sha256(path), hashed.hexdigest()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            hashed.update(chunk)
    return sha256(path), hashed.hexdigest()
