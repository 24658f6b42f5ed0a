"""Logs and the terminal: they may fail in any way, and nothing in them is obeyed."""

from __future__ import annotations

import io
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from gradlab.run import logs
from gradlab.run.logs import Console, JobLog
from gradlab.run.masking import Mask

from .conftest import Project
from .test_run_hostile import MADE, job


class Broken(io.StringIO):
    """A terminal that is gone."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


def log(path: Path, stream: io.StringIO, *secrets: str) -> JobLog:
    return JobLog("job", path, Console(stream), Mask(secrets), append=False)


def test_a_log_on_a_full_disk_stops_no_job_and_is_said_once(tmp_path: Path) -> None:
    Path(tmp_path, "full.log").symlink_to("/dev/full")
    shown = io.StringIO()
    written = log(tmp_path / "full.log", shown)
    for number in range(3):
        written.write(f"line {number}\n".encode())
    written.close()
    assert shown.getvalue().count("[job] line ") == 3
    assert shown.getvalue().count("is incomplete: No space left on device") == 1


def test_lines_that_could_not_be_written_leave_a_gap(tmp_path: Path, monkeypatch: Any) -> None:
    written = log(tmp_path / "job.log", io.StringIO())
    write = written.file._write
    for number in range(6):
        lost = number in (2, 3)
        monkeypatch.setattr(written.file, "_write", fail if lost else write)
        written.write(f"line {number}\n".encode())
    written.close()
    lines = (tmp_path / "job.log").read_text().split()
    gap = ["[2", "lines", "are", "missing", "here]"]
    assert lines == ["line", "0", "line", "1", *gap, "line", "4", "line", "5"]


def fail(data: bytes) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("place", ["file", "file/below", "gone/../none"])
def test_a_log_that_cant_be_opened_stops_no_job(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    shown = io.StringIO()
    written = log(tmp_path / place / "job.log", shown)
    written.write(b"goes on\n")
    written.close()
    assert "[job] goes on" in shown.getvalue()


def test_a_log_whose_folder_vanishes_is_said_to_be_incomplete(tmp_path: Path) -> None:
    shown = io.StringIO()
    written = log(tmp_path / "logs" / "job.log", shown)
    written.write(b"one\n")
    (tmp_path / "logs" / "job.log").unlink()
    written.write(b"two\n")
    written.close()
    assert "is incomplete: No such file" in shown.getvalue()


@pytest.mark.parametrize(
    "error",
    [BrokenPipeError(), OSError(28, "full"), OSError(5, "io"), ValueError("closed file")],
    ids=lambda error: type(error).__name__,
)
def test_a_terminal_that_fails_leaves_the_log_whole(tmp_path: Path, error: Exception) -> None:
    written = log(tmp_path / "job.log", Broken(error))
    written.write(b"one\ntwo\r")
    written.close()
    assert (tmp_path / "job.log").read_text() == "one\ntwo\n"


def test_a_run_whose_log_and_terminal_are_full_succeeds(project: Project) -> None:
    logs = project.storage / "workflows" / "train" / "logs"
    logs.mkdir(parents=True)
    (logs / "job.log").symlink_to("/dev/full")
    project.workflow(job("seq 20000; echo x > /outputs/made/file", MADE))
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            project.command("run", "train", "--engine", "paths"),
            cwd=project.root, env=project.env, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("The output is incomplete") == 1
    assert len(project.versions("made")) == 1


HOSTILE = {
    "a cursor's move": ("a\x1b[2Ab", "ab"),
    "an erased screen": ("a\x1b[2J\x1b[Hb", "ab"),
    "a title": ("a\x1b]0;title\x07b", "ab"),
    "a title without an end": ("a\x1b]0;title", "a"),
    "a link": ("\x1b]8;;https://x\x1b\\text\x1b]8;;\x1b\\", "text"),
    "a device's string": ("a\x1bPq#0\x1b\\b", "ab"),
    "a reset": ("a\x1bcb", "ab"),
    "C1": ("a\x9b2Jb\x85c", "abc"),
    "bells and backspaces": ("a\x07\x08\x0b\x0cb", "ab"),
    "colours": ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
    "a colour left on": ("\x1b[31mred", "\x1b[31mred\x1b[0m"),
    "tabs and letters": ("a\tbé漢█", "a\tbé漢█"),
    "a line separator": ("a\u2028b", "ab"),
}


@pytest.mark.parametrize(("text", "expected"), HOSTILE.values(), ids=HOSTILE)
def test_of_a_job_s_output_only_colours_reach_terminal_and_log(
    tmp_path: Path, text: str, expected: str
) -> None:
    shown = io.StringIO()
    written = log(tmp_path / "job.log", shown)
    written.write(f"{text}\n".encode())
    written.close()
    assert shown.getvalue() == f"[job] {expected}\n"
    assert (tmp_path / "job.log").read_text() == f"{expected}\n"


def test_commands_to_github_s_runner_are_none(project: Project) -> None:
    project.workflow(
        job("echo '::error::no'; echo '  ::set-output x'; echo 'a ##[error]no'; false")
    )
    for line in project.fails(1, "run", "train", "--engine", "paths").splitlines():
        assert not line.strip().startswith("::") and "##[" not in line


def test_names_with_line_ends_and_escapes_stay_in_their_line(project: Project) -> None:
    name = "a\n[job] FORGED\x1b]0;title\x07\x1b[2J\udcff::error::"
    folder = project.root / "files"
    folder.mkdir()
    (folder / name).write_text("x")
    project.ok("datasets", "add", "odd", "files")
    (project.versions("odd")[0] / "data" / name).write_text("y")
    texts = [project.ok("datasets", "show", "odd"), project.ok("datasets", "list")]
    texts.append(project.fails(1, "datasets", "verify"))
    (folder / name).unlink()
    (folder / name).symlink_to("/etc")
    texts.append(project.fails(2, "datasets", "add", "odd", "files"))
    script = r"""cd /outputs; ln -s /etc made/$'a\n[job] FORGED\e[2J'; touch $'b\nFORGED\e[2J'"""
    project.workflow(job(script, MADE))
    texts.append(project.fails(1, "run", "train", "--engine", "paths"))
    for text in texts:
        assert "\x1b" not in text and "\x07" not in text
        assert not any(line.startswith(("[job] FORGED", "FORGED")) for line in text.splitlines())
    assert sum(r"a\n[job] FORGED\x1b" in text for text in texts) >= 4


def test_a_line_of_megabytes_costs_as_much_as_many_lines(tmp_path: Path) -> None:
    def seconds(data: bytes) -> float:
        written = log(tmp_path / "job.log", io.StringIO(), "s3cr3t-of-mine")
        began = time.process_time()
        for at in range(0, len(data), 1 << 16):
            written.write(data[at : at + (1 << 16)])
        written.close()
        return time.process_time() - began

    size = 8 << 20
    lines = seconds((b"0123456789abcdef" * 63 + b"\n") * (size // 1009))
    assert seconds(b"\r" + b"x" * size) < 2 * lines + 0.5
    assert seconds(b"x" * size) < 2 * lines + 0.5


def test_long_work_of_the_runner_is_told_and_short_work_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "BUSY_SECONDS", 0.05)
    shown = io.StringIO()
    written = log(tmp_path / "log", shown)
    with written.busy("reading its outputs"):
        pass
    assert not shown.getvalue()
    with written.busy("copying 5477 files, 31 MiB"):
        while shown.getvalue().count("\n") < 2:
            time.sleep(0.01)
    assert "[job] copying 5477 files, 31 MiB: 0.1 s so far" in shown.getvalue()
