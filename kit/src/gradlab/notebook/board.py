"""TensorBoard in a notebook, started anew each time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from ..base.errors import GradlabError

PORT = 6006
LOGS = "--logdir"
TERM_SECONDS = 10.0


def show(runs: Mapping[str, Path]) -> None:
    """Show the event files in the folders of some runs; GradlabError where it does not start."""
    logs = _linked(runs)
    address = os.environ.get("PAPERSPACE_FQDN")
    # There a notebook can't show another port, but the service has an address for this one.
    options = ["--port", str(PORT), "--bind_all"] if address else []
    port = _start([LOGS, str(logs), *options])
    if address:
        print(f"TensorBoard: https://tensorboard-{address}/")
    else:
        import_module("tensorboard.notebook").display(port=port, height=700)


def _linked(runs: Mapping[str, Path]) -> Path:
    """Give a folder with a link to each run, for a list of paths may hold no comma or colon."""
    top = Path(tempfile.gettempdir(), f"gradlab-tensorboard-{os.getuid()}")
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir()
    for name, folder in runs.items():
        (top / name).symlink_to(folder.absolute())
    return top


def _start(options: list[str]) -> int:
    """Start TensorBoard in the place of an earlier one and give its port."""
    manager = import_module("tensorboard.manager")
    _end_earlier([info.pid for info in manager.get_all()])
    # By this very Python: its folder of programs need not be in the PATH of a notebook.
    command = [sys.executable, "-m", "tensorboard.main", *options]
    with tempfile.TemporaryFile() as words:  # not a pipe, which would be full one day
        process = subprocess.Popen(command, stdout=words, stderr=words)
        while process.poll() is None:
            if found := [info.port for info in manager.get_all() if info.pid == process.pid]:
                return int(found[0])
            time.sleep(0.2)
        words.seek(0)
        said = words.read().decode("utf-8", "replace").strip()
    raise GradlabError(f"TensorBoard did not start: {said}")


def _end_earlier(pids: list[int]) -> None:
    """End what was started here before, also by a kernel that has died: it holds the port."""
    for pid in pids:
        words = Path(f"/proc/{pid}/cmdline")
        with suppress(OSError):
            if LOGS.encode() in words.read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGTERM)
                end = time.monotonic() + TERM_SECONDS
                while words.read_bytes() and time.monotonic() < end:  # none of one that has ended
                    time.sleep(0.1)
