"""Commands whose output nobody reads, can't be written, or can't show a letter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradlab.base import errors
from gradlab.train import progress

from .conftest import Project
from .test_run_hostile import MADE, job

COMMANDS = [
    ["--help"],
    ["--version"],
    ["check"],
    ["show", "train"],
    ["datasets"],
    ["bogus"],
    ["doctor"],
]
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0"}


def shell(project: Project, line: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    gradlab = f"{sys.executable} -m gradlab"
    command = ["bash", "-o", "pipefail", "-c", line.replace("gradlab", gradlab, 1)]
    return subprocess.run(command, cwd=project.root, env=project.env | env, capture_output=True)


@pytest.fixture
def written(project: Project) -> Project:
    project.workflow(job("echo é█; echo x > /outputs/made/é", MADE))
    return project


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_a_command_whose_reader_has_gone_ends_as_others_do(
    written: Project, arguments: list[str]
) -> None:
    done = shell(written, f"gradlab {' '.join(arguments)} 2>&1 | true")
    assert done.returncode in (141, 0, 2), done.stderr
    assert done.stderr == b""


def test_the_exit_code_is_that_of_a_program_ended_by_a_broken_pipe(written: Project) -> None:
    assert shell(written, "gradlab check | (sleep 0; exec <&-; sleep 3)").returncode == 141


@pytest.mark.parametrize("line", ["gradlab check > /dev/full", "gradlab --help > /dev/full"])
def test_an_output_that_is_full_is_one_message(written: Project, line: str) -> None:
    done = shell(written, line)
    assert done.returncode == 1
    assert done.stderr == b"gradlab: the output could not be written: No space left on device\n"


@pytest.mark.parametrize("env", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
def test_a_long_output_fails_as_a_short_one_does(project: Project, env: dict[str, str]) -> None:
    one = {"uses": "script@v1", "with": {"image": "bash:5", "script": ":"}}
    project.workflow(json.dumps({"jobs": {f"job-{i}": one for i in range(1200)}}))
    full = shell(project, "gradlab show train > /dev/full", **env)
    assert full.stderr == b"gradlab: the output could not be written: No space left on device\n"
    cut = shell(project, "gradlab show train | head -1", **env)
    assert (full.returncode, cut.returncode, cut.stderr) == (1, 141, b"")


@pytest.mark.parametrize("line", ["gradlab check >&-", "gradlab check <&- >&- 2>&-"])
def test_a_closed_output_is_no_error(written: Project, line: str) -> None:
    done = shell(written, line)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("env", [PLAIN, {"PYTHONIOENCODING": "ascii"}], ids=["locale", "output"])
def test_any_text_can_be_shown_in_any_locale(written: Project, env: dict[str, str]) -> None:
    for line in (
        "gradlab --help",
        "gradlab run train --engine paths",
        "gradlab datasets show made",
    ):
        done = shell(written, line, **env)
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
    shown = done.stdout.decode()
    assert ("é" if env == PLAIN else r"\xe9") in shown
    # The names of files are the same in every locale.
    assert "é" in written.ok("datasets", "show", "made")


def test_progress_and_notes_stop_no_work_where_nobody_reads_them(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    before = sys.stderr
    try:
        with open(writer, "w", buffering=1) as sys.stderr:
            shown = progress.Progress(0, 3, None, every=0.0)
            for step in range(1, 4):
                shown.update(step, 1, 0.5)
            shown.say("é")
            shown.close()
            errors.note("nobody reads this")
            os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
    finally:
        sys.stderr = before
