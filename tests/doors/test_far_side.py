"""What was pushed really runs: the commit is got, the workflow run, its end noted."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from ..kit import KIT
from .conftest import Desk
from .kaggle_service import Kaggle, Kernel

Runs = Callable[[Kaggle, Kernel], None]


def runs_on(desk: Desk, folder: Path, outputs: list[str]) -> Runs:
    """Give what runs a notebook as Kaggle does, but on this machine, with the kit installed."""

    def run(service: Kaggle, kernel: Kernel) -> None:
        (name,) = kernel.datasets
        (folder / "bag.json").write_text(service.datasets[name])
        text = kernel.text.replace(f"/kaggle/input/**/{name}/**/bag.json", f"{folder}/bag.json")
        text = text.replace("'install': True", "'install': False")
        text = text.replace("'folders': ['/kaggle/tmp', '/tmp']", f"'folders': [{str(folder)!r}]")
        (folder / "run.py").write_text(text)

        def work() -> None:
            # Nothing of the user's environment is there.
            env = {"PATH": desk.env["PATH"], "HOME": desk.env["HOME"], "PYTHONPATH": str(KIT)}
            env |= {"GRADLAB_SCRATCH": str(folder / "scratch"), "GRADLAB_HOP_SECONDS": "0.5"}
            done = subprocess.run(
                [sys.executable, folder / "run.py"],
                cwd=folder,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            outputs.append(done.stdout)
            kernel.log = done.stdout
            kernel.status = "ERROR" if done.returncode else "COMPLETE"

        threading.Thread(target=work, daemon=True).start()

    return run


def test_a_run_at_kaggle_is_collected_here(desk: Desk, kaggle: Kaggle, tmp_path: Path) -> None:
    folder, outputs = tmp_path / "far", list[str]()
    folder.mkdir()
    kaggle.runs = runs_on(desk, folder, outputs)
    done = desk.run("logs", "train", "--follow")
    assert done.returncode == 2, "nothing was handed over yet"
    desk.ok("submit", "train", "--to", "kaggle")
    done = desk.run("logs", "train", "--follow")
    assert done.returncode == 0, (done.stdout, done.stderr, outputs)
    assert "[1 kaggle]" in done.stdout and "made:v1-" in done.stdout
    target = tmp_path / "collected"
    assert "made:v1-" in desk.ok("collect", "train", "--folder", str(target))
    assert (target / "made" / "file").read_text() == "good\n"
    assert not (folder / "bag.json").exists()
    assert desk.spills() == []


def test_a_run_that_can_not_begin_is_told_with_the_reason(
    desk: Desk, kaggle: Kaggle, tmp_path: Path
) -> None:
    folder, outputs = tmp_path / "far", list[str]()
    folder.mkdir()
    run = runs_on(desk, folder, outputs)

    def without_code(service: Kaggle, kernel: Kernel) -> None:
        kernel.text = kernel.text.replace("/project'", "/nowhere'")
        run(service, kernel)

    kaggle.runs = without_code
    desk.run("submit", "train", "--to", "kaggle")  # it may have ended by then
    done = desk.run("logs", "train", "--follow")
    assert done.returncode == 1
    assert "it could not begin: git -C" in done.stderr, done.stderr
    assert len(kaggle.pushed) == 1
