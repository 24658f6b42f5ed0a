"""What a service has preinstalled stays as it is: the requirements resolved against its list."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from .kit import metadata

DATA = Path(__file__).parent / "data"
IMAGES = {"colab-2026-08": "3.13", "gradient-pt211": "3.11"}
Versions = dict[str, str]


def versions(text: str) -> Versions:
    """Read lines name==version; a build's own suffix, such as +cu128, is no other version."""
    lines = (line.strip().partition("+")[0] for line in text.splitlines() if "==" in line)
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def resolve(image: str, requirements: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Resolve requirements as if everything that the image has could not be moved."""
    kept = versions((DATA / f"{image}.txt").read_text())
    (folder / "kept.txt").write_text("".join(f"{n}=={v}\n" for n, v in kept.items()))
    (folder / "requirements.in").write_text(requirements)
    options = ["--python-version", IMAGES[image], "--constraint", "kept.txt"]
    return uv_compile(folder, *options, "requirements.in")


def uv_compile(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Have uv say which versions it would install."""
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "UV_PYTHON_DOWNLOADS": "never"}
    return subprocess.run(
        [*command, *options], cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("extras", [(), ("export", "s3")], ids=["plain", "extras"])
def test_the_project_installs_without_moving_what_a_service_brought(
    project: Path, tmp_path: Path, image: str, extras: tuple[str, ...]
) -> None:
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    more = [one for extra in extras for one in table["optional-dependencies"][extra]]
    done = resolve(image, required(project) + "\n".join(more), tmp_path)
    assert done.returncode == 0, done.stderr
    found, kept = versions(done.stdout), versions((DATA / f"{image}.txt").read_text())
    assert {"torch", "numpy", "pillow"} <= found.keys() & kept.keys()
    assert {n: v for n, v in found.items() if n in kept} == {
        n: v for n, v in kept.items() if n in found
    }


def test_in_colab_the_project_adds_the_kit_and_one_package(project: Path, tmp_path: Path) -> None:
    done = resolve("colab-2026-08", required(project), tmp_path)
    found, kept = versions(done.stdout), versions((DATA / "colab-2026-08.txt").read_text())
    # Those come with torch, in whatever build it is there.
    new = {name for name in found.keys() - kept.keys() if not re.match("nvidia|cuda", name)}
    assert new == {"gradlab", "tyro"}


def test_uv_finds_the_kit_where_the_project_says_that_it_lies(project: Path) -> None:
    done = uv_compile(project, "pyproject.toml")
    assert done.returncode == 0, done.stderr
    assert versions(done.stdout)["gradlab"] == metadata().version


def required(project: Path) -> str:
    """Give the project's requirements, with the kit where it lies."""
    text = (project / "requirements.txt").read_text()
    return text.replace("--find-links vendor", f"--find-links {project / 'vendor'}")


@pytest.mark.parametrize(
    "image, requirement, name",
    [("colab-2026-08", "numpy>=2.3", "numpy"), ("gradient-pt211", "torch>=2.2", "torch")],
)
def test_a_requirement_that_would_move_something_does_not_resolve(
    tmp_path: Path, image: str, requirement: str, name: str
) -> None:
    done = resolve(image, requirement, tmp_path)
    assert done.returncode == 1
    assert f"you require {name}" in " ".join(done.stderr.split())
