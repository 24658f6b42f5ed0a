"""The package under test, whatever it is called, and a storage of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = str(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["name"])
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start a command of the package, which keeps everything in the test's own folder."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "GRADLAB_STORAGE": str(tmp_path)}

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", PACKAGE, *arguments]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, env=env, text=True, cwd=tmp_path, **output)

    return run
