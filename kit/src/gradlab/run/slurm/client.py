"""Slurm's own commands: what is queued, submitting, cancelling.

Promises: a controller that does not answer is asked again for a minute, for it may be starting; an
answer that was lost submits nothing twice, for each job carries in its comment what it is. Of this
process's environment only what it takes to find programs is passed on: Slurm keeps it in files.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...base.errors import GradlabError

PATIENCE = 60.0  # seconds for a controller that does not answer
PAUSE = 2.0  # seconds between two tries
SILENT = re.compile(
    r"Unable to contact|Connection (?:refused|timed out|reset)|timed out|Socket|Zero Bytes|backup"
    r"|Slurm temporarily unable|Communication|not respond|Resource temporarily",
    re.I,
)
# To find programs and what they need; nothing in which a secret may be.
PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|PYTHONPATH|VIRTUAL_ENV"
    r"|MODULE\w+|LMOD_\w+|LOADEDMODULES|_LMFILES_|CONDA_PREFIX|SLURM_CONF|MUNGE_SOCKET"
    r"|XDG_RUNTIME_DIR|CONTAINERS_CONF"
)
LIVE = {
    *("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_FED"),
    *("REQUEUE_HOLD", "RESIZING", "RESV_DEL_HOLD", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT"),
    *("STOPPED", "PREEMPTED"),
}
FORMAT = "%i|%T|%N|%r|%k"


@dataclass(frozen=True)
class Queued:
    """What Slurm says of a job."""

    id: str
    state: str
    node: str
    reason: str
    comment: str

    @property
    def lives(self) -> bool:
        """Whether it runs or is yet to run."""
        return self.state in LIVE


def is_here() -> bool:
    """Tell whether Slurm's commands are on this machine."""
    return not _lacking()


def require() -> None:
    """Raise GradlabError where Slurm's commands are not on this machine."""
    if program := _lacking():
        raise GradlabError(
            f"the engine slurm needs Slurm's command {program}, which is not on this machine: "
            "give the command on a login node of the cluster"
        )


def _lacking() -> str:
    programs = ("sbatch", "squeue", "scancel", "scontrol")
    return next((program for program in programs if not shutil.which(program)), "")


def queue(comment: str) -> list[Queued]:
    """List the user's jobs whose comments begin so, those too that ended some minutes ago."""
    text = _ask("squeue", "--me", "--noheader", "--states=all", f"--format={FORMAT}")
    found = []
    for line in text.splitlines():
        fields = line.split("|", 4)
        if len(fields) == 5 and fields[4].startswith(comment):
            found.append(Queued(*fields))
    return found


def submit(options: Sequence[str], comment: str, script: Path, *arguments: str) -> str:
    """Submit a batch script under a comment that no other job has; give the job's id.

    GradlabError with Slurm's own words where it refuses.
    """
    command = ("sbatch", "--parsable", f"--comment={comment}", *options, str(script), *arguments)
    end = time.monotonic() + PATIENCE
    while True:
        done = _call(command)
        if not done.returncode:
            return done.stdout.strip().partition(";")[0]
        if not SILENT.search(done.stderr) or time.monotonic() > end:
            raise GradlabError(f"Slurm refuses it: {_words(done)}", exit_code=1)
        time.sleep(PAUSE)
        # It may have been taken, and the answer lost.
        if taken := [job for job in queue(comment) if job.comment == comment and job.lives]:
            return taken[0].id


def cancel(ids: Sequence[str]) -> None:
    """Cancel jobs: those that run have some seconds to save."""
    for first in range(0, len(ids), 200):
        _ask("scancel", *ids[first : first + 200])


def requeue(id: str) -> bool:
    """Put a job that runs back into the queue, which ends it; tell whether Slurm does so.

    One that Slurm is ending itself is left to it: a job that was cancelled is not to come back.
    """
    end = time.monotonic() + PATIENCE
    while _ask("squeue", "--noheader", f"--jobs={id}", "--format=%T").strip() == "RUNNING":
        if not _call(("scontrol", "requeue", id)).returncode:
            return True
        if time.monotonic() > end:
            break
        time.sleep(PAUSE)
    return False


def environment() -> dict[str, str]:
    """Give what Slurm may keep of this process's environment."""
    return {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}


def _ask(*command: str) -> str:
    end = time.monotonic() + PATIENCE
    while True:
        done = _call(command)
        if not done.returncode:
            return done.stdout
        if not SILENT.search(done.stderr):
            raise GradlabError(f"{command[0]} fails: {_words(done)}", exit_code=1)
        if time.monotonic() > end:
            raise GradlabError(
                f"Slurm's controller does not answer: {_words(done)}.\nWhat was submitted goes on; "
                "give the same command again when it does.",
                exit_code=1,
            )
        time.sleep(PAUSE)


def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )


def _words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.strip().splitlines() if line]
    return " ".join(lines[-2:]) or f"{done.args[0]} gave exit status {done.returncode}"
