"""How a storage by URL is asked: through its client, again while that may help.

Promises: every failure is an OSError that names the URL and says what would do.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from ..base.retries import SHORT, WAITS, retry
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
        self._system, self._root = clients.open_client(url)
        self._is_whole = urls.extra_of(url) in WHOLE

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
                return work()
            except Exception as error:
                raise self._said(error, key) from error

        waits = SHORT if hurry else WAITS
        return retry(once, [wait * random.uniform(0.5, 1.5) for wait in waits])

    def _said(self, error: Exception, key: str) -> OSError:
        if is_vague(error) and not isinstance(error, FileNotFoundError):
            try:  # the answer to this one says why
                self._system.ls(self._root, detail=False, refresh=True)
            except FileNotFoundError:
                pass
            except Exception as clearer:
                error = clearer
        return said(error, self.where(key))
