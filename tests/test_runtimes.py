"""Where a project runs at Gradient: its notebook definitions and an image of its own."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from .conftest import TEMPLATE, Bake
from .kit import KIT, environment
from .test_template import ANSWERS
from .workflow.conftest import needs_bubblewrap

RUNTIME = yaml.safe_load((TEMPLATE / "runtimes/pytorch.yaml").read_text())["gradient"]
KEYS = {
    *("name", "machineType", "container", "command", "workspace", "workspaceRef"),
    *("shutdownTimeout", "environment", "tags"),
}
KINDS = {"free-gpu", "free-cpu", "gpu", "multi-gpu", "cpu"}
# What any of these asks for is there already; these two aren't, in no service.
ADDED = {"gradlab", "tyro"}


def definitions(project: Path) -> dict[str, dict[str, object]]:
    return {path.stem: yaml.safe_load(path.read_text()) for path in project.glob("runtimes/*.yaml")}


def test_there_is_a_notebook_for_each_kind_of_machine(project: Path) -> None:
    found = definitions(project)
    assert found.keys() == KINDS
    for kind, content in found.items():
        assert content.keys() == KEYS
        assert content["name"] == f"my_model-{kind}"
        assert content["container"] == RUNTIME["image"]
        assert shlex.split(str(content["command"]))[:2] == ["jupyter", "lab"]
        assert content["workspace"] == "https://github.com/your-github-name/my_model"
        # A list would become the one tag "['my_model']".
        assert content["tags"] == "my_model"
        command = f"gradient notebooks create --projectId ID --optionsFile runtimes/{kind}.yaml"
        assert command in (project / "runtimes" / f"{kind}.yaml").read_text().splitlines()[1]


@pytest.mark.parametrize("answer", ANSWERS["gradient_machine"])
def test_a_notebook_gets_a_machine_of_its_kind_and_the_chosen_one_where_that_is_of_it(
    bake: Bake, answer: str
) -> None:
    project = bake(gradient_machine=answer)
    known = json.loads((KIT / "gradlab/check/machines.json").read_text())
    gpus = {machine["name"]: machine["gpus"] for machine in known["machines"]}
    chosen = {kind: str(d["machineType"]) for kind, d in definitions(project).items()}
    assert (chosen["free-gpu"], chosen["free-cpu"]) == ("Free-GPU", "Free-CPU")
    assert gpus[chosen["cpu"]] == 0 and gpus[chosen["gpu"]] == 1 and gpus[chosen["multi-gpu"]] > 1
    assert answer in chosen.values()
    if any(re.fullmatch(rf"{answer}x\d", name) for name in gpus):
        assert chosen["multi-gpu"].startswith(f"{answer}x")


def test_the_dockerfile_has_nothing_that_hadolint_complains_of(project: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, project / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def instructions(project: Path, folder: Path) -> list[tuple[str, str]]:
    """Give the Dockerfile's instructions; the parser must not write where the file lies."""
    parser = DockerfileParser(str(folder))
    parser.content = (project / "Dockerfile").read_text()
    return [(step["instruction"], step["value"]) for step in parser.structure]


def test_the_image_starts_what_gradient_starts_where_gradient_looks_for_it(
    project: Path, tmp_path: Path
) -> None:
    steps = [step for step in instructions(project, tmp_path) if step[0] != "COMMENT"]
    assert steps[0] == ("FROM", RUNTIME["image"])
    assert steps[-3:-1] == [("WORKDIR", "/notebooks"), ("EXPOSE", "8888 6006")]
    assert steps[-1][0] == "CMD"
    assert json.loads(steps[-1][1]) == shlex.split(RUNTIME["command"])
    assert "--ServerApp.allow_origin=*" in json.loads(steps[-1][1])


def packages(programs: Path) -> dict[str, str]:
    command = [programs / "python3", "-m", "pip", "list", "--format=json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {package["name"]: package["version"] for package in json.loads(shown)}


@pytest.mark.slow
@needs_bubblewrap
def test_the_dockerfile_adds_what_is_missing_and_moves_nothing(
    project: Path, tmp_path: Path
) -> None:
    """Its instructions, one by one, in a root file system that is read-only but for its folders."""
    programs = environment(tmp_path / "image", *ADDED)
    before = packages(programs)
    script = ["set -e"]
    for instruction, value in instructions(project, tmp_path):
        if instruction == "WORKDIR":
            script.append(f"mkdir -p {value}; cd {value}")
        elif instruction == "COPY":
            source, target = value.split()
            script.append(f"cp -R {shlex.quote(str(project))}/{source} {target}")
        elif instruction == "RUN":
            script.append(value)
    root = ["--tmpfs", "/", "--proc", "/proc", "--dev", "/dev"]
    for path in sorted(set(Path("/").iterdir()) - {Path("/proc"), Path("/dev"), Path("/tmp")}):
        kind = (
            ["--symlink", str(path.readlink())] if path.is_symlink() else ["--ro-bind", str(path)]
        )
        root += [*kind, str(path)]
    for path in {Path(sys.prefix), project.parent, Path(sys.base_prefix)}:
        root += ["--ro-bind", str(path), str(path)]
    root += ["--bind", str(tmp_path), str(tmp_path)]
    env = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    command = ["bwrap", *root, "--", "bash", "-o", "pipefail", "-c", "\n".join(script)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    after = packages(programs)
    assert after.keys() - before.keys() == ADDED
    assert {name: after[name] for name in before} == before


@pytest.mark.slow
def test_the_images_jupyter_takes_gradients_flags_and_answers_in_time(
    project: Path, tmp_path: Path
) -> None:
    """The service gives Jupyter 120 seconds."""
    uv = str(Path(sys.executable).with_name("uv"))
    environment = tmp_path / "jupyter"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    wanted = f"jupyterlab=={RUNTIME['preinstalled']['jupyterlab']}"
    install = [uv, "pip", "install", "--quiet", "--python", environment / "bin/python", wanted]
    subprocess.run(install, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex()
    path = f"{environment}/bin{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "HOME": str(tmp_path), "JUPYTER_TOKEN": token}
    (cmd,) = (value for name, value in instructions(project, tmp_path) if name == "CMD")
    command = [*json.loads(cmd), f"--port={port}"]
    command[0] = str(environment / "bin" / command[0])
    log = tmp_path / "jupyter.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=output, stderr=output)
    try:
        end = time.monotonic() + 120
        while not (status := answer(f"http://127.0.0.1:{port}/lab?token={token}")):
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        assert status == 200
        assert "unrecognized" not in log.read_text().lower()
    finally:
        server.terminate()
        server.wait(timeout=30)


def answer(url: str) -> int:
    """Give the status that an address answers with, 0 if nobody does."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return int(response.status)
    except OSError:
        return 0


def test_the_build_context_holds_nothing_but_what_the_dockerfile_copies(
    project: Path, tmp_path: Path
) -> None:
    lines = (project / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied = {v.split()[0] for name, v in instructions(project, tmp_path) if name == "COPY"}
    assert "*" in lines and kept == copied
    assert all((project / name).exists() for name in kept)
