"""How a storage by URL is asked: through its client, again while that may help.

Promises: every failure is an OSError that names the URL and says what would do.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from threading import Lock
from typing import TypeVar

from ..base.errors import GradlabError
from ..base.retries import PASSING, SHORT, WAITS, retry
from ..services import urls
from . import clients
from .refusals import is_vague, said

Result = TypeVar("Result")
# Kinds of storage where an object is written at once or not at all, and has no folder to be made.
WHOLE = ("s3", "gcs", "hf")


class Remote:
    """What lies below a URL, and its client."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._is_whole = urls.extra_of(url) in WHOLE
        # A listing that a client keeps all the same, such as Hugging Face's.
        self._fresh = {"refresh": True} if self._is_whole else {}
        self._cut_off = False
        # Two threads that ask paramiko at the same time wait for each other for ever.
        self._turn: AbstractContextManager[object] = nullcontext() if self._is_whole else Lock()
        try:
            self._system, self._root = clients.open_client(url)
        except GradlabError:
            raise
        except Exception as error:  # of a client that asks its server at once
            raise GradlabError(str(said(error, url)), 1) from error
        # Newer ones of S3 ask for the size first, to read a large object in parts.
        reading = getattr(self._system, "_cat_file", None)
        in_parts = reading and "max_concurrency" in signature(reading).parameters
        self._plain = {"max_concurrency": 1} if in_parts else {}

    def __str__(self) -> str:
        return self.url

    def where(self, key: str) -> str:
        """Name the place of a key's file, as people know it."""
        return f"{self.url}/{key}" if key else self.url

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def _do(self, key: str, work: Callable[[], Result], hurry: bool = False) -> Result:
        """Do something, again while that may help; raises an OSError that says what it met."""

        def once() -> Result:
            try:
                with self._turn:
                    if self._cut_off:
                        self._system, self._cut_off = clients.open_client(self.url)[0], False
                    return work()
            except Exception as error:
                found = self._said(error, key)
                # A connection that is gone stays so; a client without one makes another by itself.
                self._cut_off = not self._is_whole and found.errno in PASSING
                raise found from error

        waits = SHORT if hurry else WAITS
        return retry(once, [wait * random.uniform(0.5, 1.5) for wait in waits])

    def _said(self, error: Exception, key: str) -> OSError:
        if is_vague(error) and not isinstance(error, FileNotFoundError):
            try:  # the answer to this one says why
                self._system.ls(self._root, detail=False, **self._fresh)
            except FileNotFoundError:
                pass
            except Exception as clearer:
                error = clearer
        return said(error, self.where(key))
