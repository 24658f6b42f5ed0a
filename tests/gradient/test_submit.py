"""`gradlab submit`: what the real command line posts, and when that counts as taken."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gradlab.remote.gradient.push import https

from .api import KEY, Api
from .conftest import SPEC, Desk

URL = "https://github.com/me/demo"


def git(root: Path, *arguments: str) -> str:
    name = ("-c", "user.name=me", "-c", "user.email=me@example.com")
    command = ["git", "-C", str(root), *name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def pushed(desk: Desk, tmp_path: Path) -> Desk:
    """A project at the service, whose commit is pushed to a GitHub that is a folder here."""
    server = tmp_path / "server"
    git(tmp_path, "init", "--quiet", "--bare", str(server / "me" / "demo.git"))
    # What git calls instead of ssh: it goes to the folder, whatever the host is.
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\ncd "{server}" && shift && exec sh -c "$*"\n')
    ssh.chmod(0o755)
    git(desk.root, "init", "--quiet", "--initial-branch", "main")
    git(desk.root, "config", "core.sshCommand", str(ssh))
    git(desk.root, "config", "ssh.variant", "simple")
    git(desk.root, "remote", "add", "origin", "git@github.com:me/demo.git")
    commit(desk, "first")
    git(desk.root, "push", "--quiet", "origin", "main")
    desk.ok("setup")
    return desk


def commit(desk: Desk, message: str) -> str:
    git(desk.root, "add", "--all")
    git(desk.root, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(desk.root, "rev-parse", "HEAD")


def posted(api: Api) -> Any:
    (request,) = api.sent("POST /workflows/.*/runs")
    return request.body


def test_the_service_gets_what_the_file_says_with_the_context_of_a_push(
    pushed: Desk, api: Api
) -> None:
    text = pushed.ok("submit", "train")
    body = posted(api)
    spec = yaml.safe_load(SPEC)
    head = git(pushed.root, "rev-parse", "HEAD")
    assert body.pop("spec") == spec | {"context": {"event": {"github": {"ref": head, "url": URL}}}}
    assert body == {"clusterId": None, "run": True, "markDefault": False}
    (workflow,) = api.workflows.values()
    assert text.startswith("run 1 of train is Pending\n")
    assert f"gradient workflows logs --id {workflow['id']} --run 1" in text


def test_an_agent_that_was_forked_asks_what_one_that_was_started_does(
    pushed: Desk, api: Api, gradient: Path
) -> None:
    asked = []
    for program in (str(gradient), pushed.env["GRADLAB_GRADIENT"]):
        api.clear()
        api.ids = itertools.count(1)
        pushed.ok("setup", GRADLAB_GRADIENT=program)
        pushed.ok("submit", "train", GRADLAB_GRADIENT=program)
        asked.append(api.requests)
    assert asked[0] == asked[1]
    assert {each.headers["x-api-key"] for each in asked[0] if "/s3/" not in each.path} == {KEY}


def test_the_project_s_own_workflow_is_posted_as_it_stands_in_the_file(
    pushed: Desk, api: Api, project: Path
) -> None:
    file = project / ".gradient" / "workflows" / "train.yaml"
    shutil.copy(file, pushed.root / ".gradient" / "workflows" / "own.yaml")
    pushed.ok("setup")
    pushed.ok("submit", "own")
    spec = posted(api)["spec"]
    assert spec.pop("context")["event"]["github"]["url"] == URL
    assert spec == yaml.safe_load(file.read_text())
    assert spec["on"] == {"github": {"branches": {"only": "main"}}}


def test_a_bare_on_and_any_script_arrive_unharmed(pushed: Desk, api: Api) -> None:
    script = 'printf "%s\\n" "ünï 🦊 \x7f \u2028 é"  # yes: no\n\ttab > /outputs/run/a'
    spec = yaml.safe_load(SPEC)
    spec["jobs"]["train"]["with"]["script"] = script + " /inputs/repo /inputs/data"
    text = yaml.safe_dump(spec, sort_keys=False).replace("'on':", "on:")
    assert "\non:" in f"\n{text}"
    pushed.workflow(text)
    pushed.ok("submit", "train", LC_ALL="C")
    found = posted(api)["spec"]
    assert found["jobs"] == spec["jobs"]
    assert found["on"] == spec["on"] and "true" not in found


def test_another_commit_can_be_run(pushed: Desk, api: Api) -> None:
    first = git(pushed.root, "rev-parse", "HEAD")
    commit(pushed, "second")
    git(pushed.root, "push", "--quiet", "origin", "main")
    pushed.ok("submit", "train", "--ref", first[:8])
    assert posted(api)["spec"]["context"]["event"]["github"]["ref"] == first
    assert "nonsense is no commit" in pushed.fails(2, "submit", "train", "--ref", "nonsense")


def test_a_commit_that_is_not_pushed_is_refused(pushed: Desk, api: Api) -> None:
    head = commit(pushed, "second")
    text = pushed.fails(2, "submit", "train")
    assert head[:12] in text and "git push origin HEAD" in text
    assert not api.sent("POST /workflows/.*/runs")


def test_a_commit_below_another_branch_s_tip_counts_as_pushed(pushed: Desk, api: Api) -> None:
    git(pushed.root, "checkout", "--quiet", "-b", "other")
    head = commit(pushed, "second")
    commit(pushed, "third")
    git(pushed.root, "push", "--quiet", "origin", "other")
    git(pushed.root, "checkout", "--quiet", head)
    pushed.ok("submit", "train")
    assert posted(api)["spec"]["context"]["event"]["github"]["ref"] == head


def test_changes_that_are_not_committed_are_warned_of(pushed: Desk) -> None:
    (pushed.root / "new.py").write_text("")
    done = pushed.run("submit", "train")
    assert done.returncode == 0
    assert "not committed" in done.stderr and "new.py" in done.stderr


@pytest.mark.parametrize(
    ("remote", "told"),
    [
        ("https://me:token-in-url@github.com/me/demo.git", URL),
        ("ssh://git@ssh.github.com:443/me/demo.git/", URL),
        ("git@github.com:me/demo", URL),
        ("https://git.example.com:8443/a/b/c.git", "https://git.example.com:8443/a/b/c"),
    ],
)
def test_a_remote_s_address_becomes_https_without_a_login(remote: str, told: str) -> None:
    assert https(remote) == told


@pytest.mark.parametrize("remote", ["/srv/demo.git", "file:///srv/demo.git", "work:me/demo"])
def test_a_remote_that_the_service_can_t_reach_is_refused(
    pushed: Desk, api: Api, remote: str
) -> None:
    git(pushed.root, "remote", "set-url", "origin", remote)
    assert "nothing that Gradient can clone" in pushed.fails(2, "submit", "train")
    assert not api.sent("POST /workflows/.*/runs")


def test_a_remote_that_does_not_answer_is_told_in_git_s_words(pushed: Desk) -> None:
    git(pushed.root, "remote", "set-url", "origin", "git@github.com:me/gone.git")
    text = pushed.fails(2, "submit", "train")
    assert "does not answer" in text and "gone.git" in text


def test_a_workflow_without_the_event_needs_no_git(desk: Desk, api: Api) -> None:
    spec = SPEC.replace("context.event.github.url", URL).replace("context.event.github.ref", "v1")
    desk.workflow(spec)
    desk.ok("setup")
    desk.ok("submit", "train")
    assert posted(api)["spec"] == yaml.safe_load(spec)


def test_a_spec_with_errors_is_refused_before_anything_is_asked(pushed: Desk, api: Api) -> None:
    pushed.workflow(SPEC.replace("needs: [checkout]", "needs: [chekout]"))
    asked = len(api.requests)
    text = pushed.fails(2, "submit", "train")
    assert "train.yaml:" in text and "unknown-need" in text
    assert len(api.requests) == asked


def test_before_the_set_up_it_names_the_set_up(pushed: Desk, api: Api) -> None:
    api.workflows.clear()
    assert "gradlab setup" in pushed.fails(2, "submit", "train")
    api.projects.clear()
    assert "gradlab setup" in pushed.fails(2, "submit", "train")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (401, "does not take the API key"),
        (422, "the service refused it (HTTP 422: Github url is invalid.)"),
        (500, "the service failed (HTTP 500: Github url is invalid.)"),
        ("drop", "Can't connect to Paperspace API"),
        ("lost", "it can't be told whether the run was taken"),
    ],
)
def test_what_the_service_does_not_show_counts_as_not_taken(
    pushed: Desk, api: Api, what: int | str, words: str, tmp_path: Path
) -> None:
    api.fail(what, pattern="POST /workflows/.*/runs", words="Github url is invalid.")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    text = pushed.fails(1, "submit", "train", TMPDIR=str(temporary))
    assert words in text
    assert list(temporary.iterdir()) == []
    assert len(api.sent("POST /workflows/.*/runs")) == 1


def test_a_run_that_the_service_took_and_does_not_show_is_no_success(
    pushed: Desk, api: Api
) -> None:
    api.fail("forget", pattern="POST /workflows/.*/runs")
    text = pushed.fails(1, "submit", "train")
    assert "shows no new run" in text and "Created workflow run log-" in text
