"""Which command line is taken, what is said where none is, and that the pinned one works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradlab.remote.gradient.service import CLIENT

from .api import Api
from .conftest import INSTALLED, PYTHONS, Desk, Install


def environment(folder: Path, *paths: Path) -> Path:
    """Make an environment that sees other folders' packages; give its program `gradient`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # The first of them goes before all others.
    first, *others = paths
    lines = [f"import sys; sys.path.insert(0, {str(first)!r})", *map(str, others)]
    (site / "others.pth").write_text("\n".join(lines) + "\n")
    program = folder / "bin" / "gradient"
    program.write_text(f"#!{folder}/bin/python\nfrom gradient import main\nmain.main()\n")
    program.chmod(0o755)
    return program


def test_without_one_the_message_is_the_command_that_installs_it(desk: Desk, api: Api) -> None:
    text = desk.fails(2, "setup", GRADLAB_GRADIENT="")
    assert f"{desk.home}/.cache/gradlab/gradient" in text
    assert f"--requirement {CLIENT.requirements}" in text
    assert api.requests == []


@pytest.mark.slow
def test_the_command_of_the_message_works_when_pasted(desk: Desk, gradient: Path) -> None:
    home = gradient.parents[len(INSTALLED.parts) + 1]
    assert gradient.read_text().startswith(f"#!{home}/{INSTALLED}/bin/python")
    desk.ok("setup", GRADLAB_GRADIENT="", HOME=str(home))


def test_one_on_the_search_path_is_taken(desk: Desk, gradient: Path) -> None:
    path = f"{gradient.parent}:{desk.env['PATH']}"
    desk.ok("setup", "--dry-run", GRADLAB_GRADIENT="", PATH=path)


def test_one_whose_path_holds_a_space_is_taken(desk: Desk, gradient: Path, tmp_path: Path) -> None:
    program = tmp_path / "a program" / "gradient"
    program.parent.mkdir()
    lines = ("#!/bin/sh", f"""'''exec' "{gradient.parent}/python" "$0" "$@\"""", "' '''", "")
    program.write_text("\n".join(lines))
    program.chmod(0o755)
    desk.ok("setup", "--dry-run", GRADLAB_GRADIENT=str(program))


def test_version_3_is_another_product(desk: Desk, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "gradient").mkdir(parents=True)
    (site / "gradient" / "__init__.py").touch()
    (site / "gradient-3.0.1.dist-info").mkdir()
    (site / "gradient-3.0.1.dist-info" / "METADATA").write_text("Name: gradient\nVersion: 3.0.1\n")
    program = environment(tmp_path / "three", site)
    text = desk.fails(2, "setup", GRADLAB_GRADIENT=str(program))
    assert f"{program}: version 3.0.1 is another product" in text
    assert str(CLIENT.requirements) in text


@pytest.mark.slow
def test_one_that_dies_of_a_newer_click_is_told_apart(
    desk: Desk, gradient: Path, tmp_path: Path
) -> None:
    newer = tmp_path / "newer"
    pip = [str(gradient.parent / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", str(newer), "click==8.3.1"], check=True)
    (site,) = gradient.parent.parent.glob("lib/python*/site-packages")
    program = environment(tmp_path / "broken", newer, site)
    text = desk.fails(2, "setup", GRADLAB_GRADIENT=str(program))
    assert "version 2.99.4 dies here" in text and "Sentinel" in text


@pytest.mark.parametrize(("named", "words"), [("/nowhere", "no such program"), ("/bin/sh", "told")])
def test_a_name_that_is_no_command_line_is_refused(desk: Desk, named: str, words: str) -> None:
    assert words in desk.fails(2, "setup", GRADLAB_GRADIENT=named)


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_the_pinned_set_runs_a_workflow_on_each_python(
    version: str, install: Install, api: Api, tmp_path: Path
) -> None:
    program = install(version)
    id = api.add_workflow("train", api.add_project("demo"))
    spec = tmp_path / "spec.yaml"
    spec.write_text("jobs: {}\n")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | api.env
    command = [program, "workflows", "run", "--id", id, "--path", spec]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert "Created workflow run log-" in done.stdout, done.stdout + done.stderr
    assert api.workflows[id]["runs"]
