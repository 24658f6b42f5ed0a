"""What a batch script of Slurm becomes: `gradlab job`, put back into the queue while there is more.

    python -m gradlab.run.slurm.node SUBMISSION JOB

Promises: Slurm sends SIGTERM to this process before the time limit, and to it and all of the job's
at a preemption, a requeue and a cancel: at any moment that is harmless. What stopped in time is
requeued by its own id, unless the run was told to stop.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from ...base import unfinished
from ...base.errors import GradlabError, note
from ...engines import gang
from .. import submission, worker
from . import client

KILLED_WITHIN = 120.0  # seconds in which Slurm ends a job that it has put back into the queue


def main(arguments: list[str]) -> int:
    """Do a job, and put it back into the queue while it has more to do; give the exit code."""
    told = False

    def tell(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told = True

    # The script ignored it up to here. Without a handler it would end this process at once.
    signal.signal(signal.SIGTERM, tell)
    os.environ[gang.WANTED] = "1"
    folder, job = arguments
    code = worker.job_command(Path(folder), job)
    number = os.environ.get("SLURM_JOB_ID", "")
    if code == unfinished.CODE and number and not submission.is_stopped(Path(folder)):
        told = False
        if _requeued(number):
            end = time.monotonic() + KILLED_WITHIN
            while not told and time.monotonic() < end:
                time.sleep(0.1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return code


def _requeued(number: str) -> bool:
    try:
        return client.requeue(number)
    except GradlabError as error:
        note(f"! job {number} could not be put back into the queue: {error}")
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
