"""What a service has preinstalled stays as it is: the requirements resolved against its list."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Collection
from pathlib import Path

import pytest
import yaml

from .conftest import TEMPLATE, Bake
from .kit import metadata
from .test_template import ANSWERS

DATA = Path(__file__).parent / "data"
IMAGES = {"colab-2026-08": "3.13", "gradient-pt211": "3.11"}
Versions = dict[str, str]


def versions(text: str) -> Versions:
    """Read lines name==version; a build's own suffix, such as +cu128, is no other version."""
    lines = (line.strip().partition("+")[0] for line in text.splitlines() if "==" in line)
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def resolve(
    image: str, requirements: str, folder: Path, shadowed: Collection[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Resolve requirements as if nothing that the image has could be moved, but for some."""
    kept = listed(image, shadowed)
    (folder / "kept.txt").write_text("".join(f"{n}=={v}\n" for n, v in kept.items()))
    (folder / "requirements.in").write_text(requirements)
    options = ["--python-version", IMAGES[image], "--constraint", "kept.txt"]
    return uv_compile(folder, *options, "requirements.in")


def listed(image: str, shadowed: Collection[str] = ()) -> Versions:
    """Give what an image has, but for what is shadowed there."""
    found = versions((DATA / f"{image}.txt").read_text())
    return {name: version for name, version in found.items() if name not in shadowed}


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
    assert {"torch", "numpy", "pillow"} <= unmoved(done.stdout, image)


def unmoved(found: str, image: str, shadowed: Collection[str] = ()) -> set[str]:
    """Name what a resolution takes as the image has it; nothing else may be taken otherwise."""
    resolved, kept = versions(found), listed(image, shadowed)
    both = resolved.keys() & kept.keys()
    assert {name: resolved[name] for name in both} == {name: kept[name] for name in both}
    return both


# What is new in Colab; besides, what comes with torch and JAX in whatever build they are there.
NEW = {"pytorch": {"gradlab", "tyro"}, "jax": {"gradlab", "tyro"}, "keras": {"gradlab", "tyro"}}


@pytest.mark.parametrize("framework", ANSWERS["framework"])
def test_in_colab_a_project_adds_the_kit_and_one_package(
    bake: Bake, tmp_path: Path, framework: str
) -> None:
    done = resolve("colab-2026-08", required(bake(framework=framework)), tmp_path)
    assert done.returncode == 0, done.stderr
    unmoved(done.stdout, "colab-2026-08")
    found, kept = versions(done.stdout), listed("colab-2026-08")
    new = {name for name in found.keys() - kept if not re.match("nvidia|cuda", name)}
    assert new == NEW[framework]


# What an overlay puts before what the image has, for the image's own is too old.
SHADOWED = {"jax": {"scipy"}, "keras": set[str]()}


@pytest.mark.parametrize("framework", ANSWERS["framework"][1:])
def test_beside_gradients_image_an_overlay_is_added_that_shadows_what_it_must(
    bake: Bake, tmp_path: Path, framework: str
) -> None:
    runtime = yaml.safe_load((TEMPLATE / f"runtimes/{framework}.yaml").read_text())["gradient"]
    project = bake(framework=framework)
    assert shlex.join(runtime["overlay"]) in (project / "Dockerfile").read_text()
    workflow = (project / ".gradient/workflows/train.yaml").read_text()
    assert workflow.count(shlex.join(runtime["overlay"])) == 2
    wanted = "\n".join([required(project), *runtime["overlay"]])
    done = resolve("gradient-pt211", wanted, tmp_path, SHADOWED[framework])
    assert done.returncode == 0, done.stderr
    kept = unmoved(done.stdout, "gradient-pt211", SHADOWED[framework])
    assert {"numpy", "pillow", "scikit-learn", "matplotlib"} <= kept


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
