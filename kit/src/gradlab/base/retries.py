"""What a file system fails with now and then is tried again, a few times.

Promises: a failure that lasts is raised, as an OSError that names the file.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
# What network file systems such as Google Drive's fail with now and then, to work a moment later.
PASSING = (errno.EIO, errno.EAGAIN, errno.ETIMEDOUT, errno.ENOTCONN, errno.ESTALE)
WAITS = (0.05, 0.5, 2, 4, 8)  # seconds between two tries
SHORT = WAITS[:2]  # where work waits meanwhile that can go on without


def retry(
    work: Callable[[], Result], waits: Sequence[float] = WAITS, at: Path | None = None
) -> Result:
    """Do something again while the file system fails, a few times.

    The error that is raised names `at` where the kernel named no file.
    """
    try:
        for wait in waits:
            try:
                return work()
            except OSError as error:
                if error.errno not in PASSING:
                    raise
            time.sleep(wait)
        return work()
    except OSError as error:
        if at and error.filename is None:
            error.filename = str(at)
        raise
