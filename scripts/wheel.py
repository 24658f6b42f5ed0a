"""Build the kit's wheel, which projects carry, in the place of the one that lies there.

    python scripts/wheel.py

Promises: the same files give the same bytes, whenever, wherever and by whomever they are built.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KIT = ROOT / "kit"
VENDOR = ROOT / "{{cookiecutter.project_slug}}" / "vendor"
WHEELS = "gradlab-*.whl"
EPOCH = "1735689600"  # 2025-01-01: the time of all files in it
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")


def build(folder: Path) -> Path:
    """Build the wheel of kit/ into a folder."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as place:
        copy = Path(shutil.copytree(KIT, Path(place, "kit"), ignore=LEFT_OUT))
        for path in copy.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        subprocess.run(
            [sys.executable, "-c", BUILD, str(folder.resolve())],
            cwd=copy,
            env=clean | {"SOURCE_DATE_EPOCH": EPOCH},
            umask=0o022,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    (wheel,) = folder.glob(WHEELS)
    return wheel


def main() -> None:
    """Put the wheel where each project gets it from."""
    with tempfile.TemporaryDirectory() as place:
        wheel = build(Path(place))
        VENDOR.mkdir(exist_ok=True)
        for old in VENDOR.glob(WHEELS):
            old.unlink()
        made = Path(shutil.copy(wheel, VENDOR))
    print(f"{made.relative_to(ROOT)}, {made.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
