"""What the notebook asks of the kit: run a workflow, look at what it made, take it, leave.

Promises: what the user can mend ends a cell with a message, not with a traceback; a secret
reaches a run by its environment alone; a Google Drive that dies under a run is mounted again;
what is said to be safe has been read back and compared.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from ..base import git, unfinished
from ..base.errors import GradlabError, note
from ..services import mounts, session, table
from ..services.table import here
from ..store import location, models
from . import board

WATCH_SECONDS = 5.0
REMOUNTS = 5
Secret = Callable[[str], str]


class Ended(Exception):
    """Ends a cell with a message; IPython shows it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@contextmanager
def _messages() -> Iterator[None]:
    try:
        yield
    except GradlabError as error:
        raise Ended(str(error)) from None


def run(
    *arguments: str, secret: Secret | None = None, remount: Callable[[], None] | None = None
) -> None:
    """Run a gradlab command and show what it prints; Ended where it fails or is stopped.

    `secret` gives those of the service, which only the notebook's kernel can read; `remount`
    mounts a Google Drive that has gone.
    """
    from .live import show

    root = session.project_root()
    with _messages():
        # This project's own package, whichever other projects are installed here.
        paths = [str(root / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**os.environ, "GRADLAB_BAR": "1", "PYTHONPATH": os.pathsep.join(paths)}
        if arguments[0] == "run" and secret:
            env |= _secrets(root, arguments[1], secret)
        watch = Watch(_storage(root).path or root, remount)
    status = show([sys.executable, "-m", "gradlab", *arguments], root, env, watch.look)
    if status in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise Ended("Stopped. Run this cell again to carry on from what was saved.")
    if status == unfinished.CODE:
        raise Ended(
            "A job has stopped in time, and what it has done is saved. Run this cell again to "
            "carry on; where the session is about to end, all cells of the next one."
        )
    if status:
        raise Ended(f"gradlab {' '.join(arguments)}: see above. (exit status {status})")


def _storage(root: Path) -> table.Storage:
    return session.storage(session.project_name(root))


def _secrets(root: Path, workflow: str, secret: Secret) -> dict[str, str]:
    """Give the secrets that the jobs of a workflow ask for, as far as they can be found."""
    from ..check import check
    from ..spec import credentials
    from ..spec import spec as specs

    spec = check.load(specs.find(workflow, root))
    groups = [group for job in spec.jobs.values() for group in (job.env, job.parameters)]
    wanted = sorted(credentials.names_in(*groups))
    found = {name: credentials.value_of(name) or secret(name) for name in wanted}
    return {name: value for name, value in found.items() if value}


class Watch:
    """Mounts a Google Drive again that dies while a command runs, a bounded number of times."""

    def __init__(self, path: Path, remount: Callable[[], None] | None) -> None:
        self.mounted = mounts.Mounted(path)
        self.remount = remount if self.mounted.kind == mounts.DRIVE else None
        self.left = REMOUNTS
        self.next = 0.0

    def look(self) -> None:
        """Look whether Drive is there, not at every call, and mount it if it isn't."""
        if not self.remount or not self.left or time.monotonic() < self.next:
            return
        try:
            self.mounted.check()
        except OSError as error:
            self.left -= 1
            note(f"! {error.strerror}: mounting it again.")
            try:
                self.remount()
                note("Google Drive is there again.")
            except Exception as failure:  # of the service, with no common base
                note(f"! {failure}")
        self.next = time.monotonic() + WATCH_SECONDS


def _versions(root: Path, workflow: str) -> Iterator[tuple[Any, Path]]:
    """Give the newest version of each dataset that a workflow makes, and its folder here."""
    from ..check import check
    from ..spec import spec as specs
    from ..store import datasets, versions

    store = datasets.open_store(root)
    spec = check.load(specs.find(workflow, root))
    ports = [port for job in spec.jobs.values() for port in job.outputs.values()]
    names = [versions.Reference.parse(port.ref).name for port in ports if port.ref]
    for name in dict.fromkeys(names):
        try:
            version = store.find(name)
        except versions.NoVersion:
            continue
        yield version, store.open(version)


def look(workflow: str) -> None:
    """Show the pictures and figures in the datasets that a workflow has made, and the models."""
    view: Any = import_module("IPython.display")
    root, seen = session.project_root(), set[str]()
    with _messages():
        for version, folder in _versions(root, workflow):
            print(f"dataset {version}, made {version.created}")
            for path, file in version.tree.files.items():
                if path.endswith(".png") and file.sha256 not in seen:
                    seen.add(file.sha256)
                    view.display(view.Image(filename=str(folder / path)))
        for entry in _models(root):
            figures = [f"{k} {v:.4g}" for k, v in entry["metrics"].items() if _is_number(v)]
            print(f"model {entry['name']} {entry['id']}  {entry['created']}  {', '.join(figures)}")
    if not seen:
        print("There is nothing to see yet: run the workflow first.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _models(root: Path) -> list[dict[str, Any]]:
    entries = list(models.entries(location.of(session.project_name(root)).backend))
    return sorted(entries, key=lambda entry: str(entry["created"]))


def tensorboard(workflow: str) -> None:
    """Show TensorBoard with the runs in the newest datasets and in a job that was cut off."""
    root = session.project_root()
    with _messages():
        folders = [folder for _, folder in _versions(root, workflow)]
        drafts = location.of(session.project_name(root)).work / "drafts" / workflow
    events = [path for top in (drafts, *folders) for path in top.rglob("events.out.tfevents.*")]
    runs = {path.parent.parent.name: path.parent for path in reversed(events)}
    if not runs:
        print("There is nothing to see yet: run the workflow first.")
        return
    with _messages():
        board.show(runs)


def take(workflow: str, as_onnx: bool, download: bool) -> None:
    """Say where the newest model lies; on demand export it as ONNX and download it."""
    root = session.project_root()
    with _messages():
        found = [path for _, top in _versions(root, workflow) for path in top.glob("runs/*/best.*")]
    if not found:
        print("There is no model yet: run the workflow first.")
        return
    model = max(found, key=lambda path: path.stat().st_mtime)
    print(f"The best model ({model.stat().st_size:,} bytes):\n{model}")
    if as_onnx:
        model = _export(root, model)
    if download:
        _download(root, model)


def _export(root: Path, model: Path) -> Path:
    """Export a model with the project's own command; it lies at <storage>/runs/<name>/..."""
    package = session.project_name(root).replace("-", "_")
    target = root / "exports" / f"{model.parent.name}.onnx"
    options = ["--name", model.parent.name, "--output", str(target)]
    env = {"GRADLAB_STORAGE": str(model.parents[2]), "GRADLAB_STORAGE_SLOW": "0"}
    for module in (["gradlab.notebook.install", "export"], [package, "export", *options]):
        command = [sys.executable, "-m", *module]
        done = subprocess.run(command, cwd=root, env={**os.environ, **env}, capture_output=True)
        print((done.stdout + done.stderr * bool(done.returncode)).decode("utf-8", "replace"))
        if done.returncode:
            raise Ended("The model was not exported; the lines above say why.")
    return target


def _download(root: Path, path: Path) -> None:
    if here().has_drive:
        from google.colab import files

        files.download(str(path))
        return
    (root / "exports").mkdir(exist_ok=True)
    shown = path if path.is_relative_to(root) else Path(shutil.copy(path, root / "exports"))
    view: Any = import_module("IPython.display")
    view.display(view.FileLink(os.path.relpath(shown, root)))


def leave() -> None:
    """Verify what is kept, bring it to Google Drive where it lies there, and say what is safe."""
    root = session.project_root()
    try:
        storage = _storage(root)
    except GradlabError:  # Drive isn't mounted
        print("Google Drive is not mounted here: nothing is left to be brought there.")
        return
    whole = _verify()
    if storage.path and mounts.filesystem(storage.path) == mounts.DRIVE:
        _flush()
    safe = storage.persistent and whole
    print(f"\n{'Safe' if safe else '! NOT safe'}: {storage} ({storage.why})")
    if not storage.persistent:
        print("  Download what you need before the session ends, or keep things on Google Drive.")
    edits = git.ask(root, "status", "--short")
    commits = git.ask(root, "log", "--oneline", "@{upstream}..")
    for what, lines in (("edits", edits), ("commits that were not pushed", commits)):
        if lines:
            print(f"! On this machine only: {what} in {root}\n{lines}")
    print("To carry on, open this notebook again and run all cells.")


def _verify() -> bool:
    """Read all datasets back and tell whether they are as they were written."""
    try:
        run("datasets", "verify")
    except Ended:
        print("! What is damaged above can't be used: run the workflow once more to make it anew.")
        return False
    return True


def _flush() -> None:
    from google.colab import drive

    try:
        print("Bringing everything to Google Drive ...", flush=True)
        drive.flush_and_unmount()
    except Exception as error:  # of the service, with no common base
        raise Ended(
            f"! Google Drive did not take everything: {error}\n"
            "Not all is safe: leave the session open, run the cells from the top and this one again"
        ) from None
