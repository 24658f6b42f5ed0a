"""The README's way to a first run on Gradient: its commands, as they stand there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from ..conftest import generate
from ..pages import Page, Shell
from .api import KEY, Api

# Run by the test of what `gradlab setup` says where there is no command line.
INSTALLATION = "gradlab doors gradient --install"
GITHUB = "https://github.com/your-github-name/my_model"


@pytest.fixture
def shell(tmp_path: Path, gradient: Path, api: Api) -> Shell:
    """A fresh project of somebody who has git, a folder as GitHub, and the command line."""
    shell = Shell(generate(tmp_path, {}), tmp_path / "tools")
    home, server = tmp_path / "home", tmp_path / "server"
    (home / ".cache/gradlab").mkdir(parents=True)
    (home / ".cache/gradlab/gradient").symlink_to(gradient.parents[1])
    ssh = tmp_path / "ssh"
    # As many have it: GitHub by ssh, which here goes to the folder.
    (home / ".gitconfig").write_text(
        "[user]\nname = Ann\nemail = ann@example.org\n"
        '[url "git@github.com:"]\ninsteadOf = https://github.com/\n'
        f"[core]\nsshCommand = {ssh}\n[ssh]\nvariant = simple\n"
    )
    ssh.write_text(f'#!/bin/sh\ncd "{server}" && shift && exec sh -c "$*"\n')
    ssh.chmod(0o755)
    bare = server / "your-github-name/my_model"
    subprocess.run(["git", "init", "--quiet", "--bare", str(bare)], check=True)
    shell.env |= api.env | {"HOME": str(home)}
    del shell.env["PAPERSPACE_API_KEY"]
    return shell


def steps(page: Page) -> Iterator[str]:
    """Give the commands, from the push to the run on Gradient."""
    heading = ""
    for node in page.of("heading", "fence"):
        if node.type == "heading":
            heading = node.children[0].content
        elif heading.startswith("First run"):
            yield from (line for line in node.content.splitlines() if line)


@pytest.mark.slow
def test_the_readme_leads_from_a_fresh_project_to_a_run_on_gradient(shell: Shell, api: Api) -> None:
    page = Page(shell.project, "README.md")
    commands = list(steps(page))
    assert sum(command.startswith(INSTALLATION) for command in commands) == 1
    for command in commands:
        if command.endswith("gradient apiKey"):
            give_the_key(command, shell)
        elif not command.startswith(INSTALLATION):
            printed = shell.run(command)
    assert "of train is" in printed
    assert sorted(each["name"] for each in api.workflows.values()) == ["sweep", "train"]
    (run,) = api.sent("POST /workflows/.*/runs")
    head = shell.run("git rev-parse HEAD").strip()
    assert run.body["spec"]["context"]["event"]["github"] == {"ref": head, "url": GITHUB}
    (other_door,) = [text for _, text in page.commands() if "--notebook" in text]
    shell.run(other_door)
    assert [notebook["name"] for notebook in api.notebooks.values()] == ["my_model-free-gpu"]


def give_the_key(command: str, shell: Shell) -> None:
    terminal = pexpect.spawn("bash", ["-ec", command], env=shell.env, timeout=60, encoding="utf-8")
    terminal.expect("API Key: ")
    terminal.sendline(KEY)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0, terminal.before
