"""The helper that makes calls fail: it counts what a program does, and fails one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .failing import Done, environment

PROGRAM = """
import os, pathlib, shutil, sys
top = pathlib.Path(sys.argv[1])
(top / "a").write_text("text")
assert (top / "a").read_bytes() == b"text" and os.listdir(top) == ["a"]
os.replace(top / "a", top / "b")
with open(top / "b", "ab") as file:
    file.write(b"more")
    file.flush()
    os.fsync(file.fileno())
shutil.rmtree(top)
pathlib.Path("/dev/null").read_bytes()
subprocess = __import__("subprocess").run([sys.executable, "-c", "open(%r, 'w')" % str(top)])
"""


def run(folder: Path, at: int = 0, error: str = "EIO") -> Done:
    top, log = folder / "top", folder / "log"
    top.mkdir()
    log.write_text("")
    env = os.environ | environment([top], log, at, error)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(top)], env=env, text=True, capture_output=True
    )
    calls = tuple(log.read_text().splitlines())
    return Done(done.returncode, done.stderr, calls)


def test_calls_below_a_folder_are_counted_and_those_of_children_are_not(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.code == 0, done.output
    found = [call.removesuffix(f" {tmp_path}/top{end}") for call, end in pairs(done, tmp_path)]
    kinds = ["open", "write", "open", "read", "list", "rename", "open", "write", "fsync"]
    assert [kind for kind in found if kind in kinds][: len(kinds)] == kinds
    assert found[-1] == "remove"


def pairs(done: Done, folder: Path) -> list[tuple[str, str]]:
    return [(call, call.partition(f"{folder}/top")[2]) for call in done.calls]


@pytest.mark.parametrize("at, call", [(1, "open"), (2, "write"), (4, "read")])
def test_one_call_fails_as_if_the_kernel_had_said_so(tmp_path: Path, at: int, call: str) -> None:
    done = run(tmp_path, at, "ESTALE")
    assert done.failed == f"{call} {tmp_path}/top/a FAILED" and len(done.calls) >= at
    assert done.code == 1 and "OSError: [Errno 116] Stale file handle" in done.output
