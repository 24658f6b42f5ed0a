"""`gradlab setup` with the real SDK and command line: what is there afterwards, and said."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from .api import KEY, Api
from .conftest import SPEC, Desk, rows

FRESH = {
    ("project", "demo"): "made",
    ("dataset", "digits"): "made",
    ("dataset", "digits-run"): "made",
    ("secret", "HUB_TOKEN"): "made",
    ("workflow", "train"): "made",
}


def test_afterwards_everything_that_the_spec_needs_is_there(desk: Desk, api: Api) -> None:
    assert rows(desk.ok("setup")) == FRESH
    (project,) = api.projects
    assert project["name"] == "demo"
    assert api.secrets[project["handle"]] == {"HUB_TOKEN": "hub-secret-value"}
    (workflow,) = api.workflows.values()
    assert (workflow["name"], workflow["projectId"]) == ("train", project["handle"])
    assert {dataset["name"] for dataset in api.datasets.values()} == {"digits", "digits-run"}
    for dataset in api.datasets.values():
        (version,) = dataset["versions"]
        assert version["isCommitted"]
        assert "first version" in version["files"]["README.md"]


def test_run_again_it_changes_nothing(desk: Desk, api: Api) -> None:
    desk.ok("setup")
    before, changes = api.state(), api.changes()
    assert set(rows(desk.ok("setup", HUB_TOKEN="another-value")).values()) == {"found"}
    assert api.state() == before
    assert api.changes() == changes


def test_a_dry_run_shows_the_plan_and_changes_nothing(desk: Desk, api: Api) -> None:
    api.add_version(api.add_dataset("digits"))
    plan = rows(desk.ok("setup", "--dry-run"))
    assert plan == dict.fromkeys(FRESH, "to make") | {("dataset", "digits"): "found"}
    assert api.changes() == []


def test_what_is_there_is_found_and_left_as_it_is(desk: Desk, api: Api) -> None:
    project = api.add_project("demo")
    api.add_workflow("train", project)
    api.add_version(api.add_dataset("digits"))
    api.add_version(api.add_dataset("digits-run"))
    api.secrets["team"]["HUB_TOKEN"] = "of the team"
    before = api.state()
    assert set(rows(desk.ok("setup")).values()) == {"found"}
    assert api.state() == before


def test_a_dataset_on_the_third_page_is_found(desk: Desk, api: Api) -> None:
    for number in range(45):
        api.add_version(api.add_dataset(f"a{number:02}"))
    wanted = api.add_dataset("digits")
    api.add_version(wanted)
    assert rows(desk.ok("setup"))["dataset", "digits"] == "found"
    assert [each for each in api.datasets.values() if each["name"] == "digits"] == [
        api.datasets[wanted]
    ]


def test_a_first_version_that_was_begun_is_finished_and_another_s_left_alone(
    desk: Desk, api: Api
) -> None:
    of_a_job = api.add_version(api.add_dataset("digits"), "by a job at work", committed=False)
    begun = api.add_version(api.add_dataset("digits-run"), "Made by gradlab setup", False)
    desk.ok("setup")
    digits, digits_run = api.datasets.values()
    states = {version["version"]: version["isCommitted"] for version in digits["versions"]}
    assert states.pop(of_a_job) is False
    assert list(states.values()) == [True]
    assert [version["version"] for version in digits_run["versions"]] == [begun]
    assert digits_run["versions"][0]["isCommitted"]


def test_of_two_projects_with_the_name_one_is_chosen_by_its_id(desk: Desk, api: Api) -> None:
    first, second = api.add_project("demo"), api.add_project("demo")
    text = desk.fails(1, "setup")
    assert first in text and second in text and "--project ID" in text
    assert rows(text)["workflow", "train"] == "not tried"
    desk.ok("setup", "--project", second)
    assert {each["projectId"] for each in api.workflows.values()} == {second}


def test_two_workflows_of_one_name_are_the_user_s_to_sort_out(desk: Desk, api: Api) -> None:
    project = api.add_project("demo")
    ids = [api.add_workflow("train", project), api.add_workflow("train", project)]
    text = desk.fails(1, "setup")
    assert all(id in text for id in ids) and "rename or delete" in text


def test_a_spec_with_errors_is_refused_before_anything_is_asked(desk: Desk, api: Api) -> None:
    desk.workflow(SPEC.replace("script@v1", "scirpt@v1"), "broken")
    text = desk.fails(2, "setup")
    assert "broken.yaml:" in text and "unknown-action" in text
    assert api.requests == []


def test_public_datasets_are_left_out_and_ids_and_tags_looked_up(desk: Desk, api: Api) -> None:
    id = api.add_dataset("old")
    api.add_version(id)
    tagged = api.add_dataset("digits")
    api.add_version(tagged)
    spec = SPEC.replace("ref: digits}", f"ref: {id}}}").replace(
        "    inputs:",
        "    inputs:\n"
        "      public: {type: dataset, with: {ref: gradient/mnist}}\n"
        "      tagged: {type: dataset, with: {ref: 'digits:clean'}}",
        1,
    )
    desk.workflow(spec.replace("/inputs/data", "/inputs/data /inputs/public /inputs/tagged"))
    text = desk.fails(1, "setup")
    states = rows(text)
    assert states["dataset", id] == "found"
    assert states["dataset", "digits:clean"] == "could not"
    assert "train.yaml:" in text and "'digits:clean'" in text
    assert not any("mnist" in name for _, name in states)
    api.datasets[tagged]["versions"][0]["tags"] = [{"name": "clean"}]
    desk.ok("setup")


def test_with_two_storage_providers_of_one_s_own_the_user_chooses(desk: Desk, api: Api) -> None:
    api.storage = [{"id": f"sp{n}", "name": f"bucket {n}", "type": "s3"} for n in (1, 2)]
    text = desk.fails(1, "setup")
    assert "gradient datasets create --name digits --storageProviderId" in text
    assert rows(text)["workflow", "train"] == "made"


def typed(desk: Desk, keys: bytes) -> tuple[int, str]:
    """Run the set-up in a terminal, type at its question, and give exit code and screen."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gradlab", "setup"],
        cwd=desk.root,
        env={name: value for name, value in desk.env.items() if name != "HUB_TOKEN"},
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
        # The terminal becomes the process's own, which is where a password is asked for.
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
    )
    os.close(end)
    # However it goes wrong, nobody waits at the question for ever.
    limit = threading.Timer(60, process.kill)
    limit.start()
    shown = b""
    while b"(not shown):" not in shown:
        shown += os.read(terminal, 1000)
    while process.poll() is None and termios.tcgetattr(terminal)[3] & termios.ECHO:
        time.sleep(0.01)
    os.write(terminal, keys)
    try:
        while piece := os.read(terminal, 1000):
            shown += piece
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    limit.cancel()
    return process.wait(30), shown.decode()


def test_a_secret_is_asked_for_without_an_echo(desk: Desk, api: Api) -> None:
    code, shown = typed(desk, b"typed-secret\n")
    assert code == 0, shown
    assert "typed-secret" not in shown
    assert api.secrets[api.projects[0]["handle"]] == {"HUB_TOKEN": "typed-secret"}


def test_interrupted_at_the_question_it_goes_on_the_next_time(
    desk: Desk, api: Api, gradient: Path
) -> None:
    desk.env["GRADLAB_GRADIENT"] = str(gradient)  # which gets the signal too
    code, shown = typed(desk, b"\x03")
    assert code == 130, shown
    assert "interrupted: the same command makes what is missing" in shown
    assert "Traceback" not in shown
    assert rows(desk.ok("setup"))["secret", "HUB_TOKEN"] == "made"


def test_without_a_terminal_a_missing_secret_is_named_and_the_rest_done(
    desk: Desk, api: Api
) -> None:
    text = desk.fails(1, "setup", HUB_TOKEN="")
    assert rows(text) == FRESH | {("secret", "HUB_TOKEN"): "could not"}
    assert "environment variable HUB_TOKEN" in text
    assert rows(desk.ok("setup"))["secret", "HUB_TOKEN"] == "made"


AUDIT = """
import json, os, sys
def hook(event, arguments):
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"):
        with open(os.environ["AUDIT"], "a") as file:
            file.write(json.dumps([event, repr(arguments[:2])]) + "\\n")
sys.addaudithook(hook)
"""


def test_no_secret_is_in_an_argument_an_output_or_a_file(
    desk: Desk, api: Api, gradient: Path, tmp_path: Path
) -> None:
    desk.env["GRADLAB_GRADIENT"] = str(gradient)
    hooks, temporary = tmp_path / "hooks", tmp_path / "tmp"
    for folder in (hooks, temporary):
        folder.mkdir()
    (hooks / "sitecustomize.py").write_text(AUDIT)
    started = tmp_path / "started"
    env = {"PYTHONPATH": f"{hooks}:{desk.env['PYTHONPATH']}", "AUDIT": str(started)}
    # Those that print the most: the service refuses the secret and repeats it.
    api.fail(422, pattern="PUT /projects/secrets", words="hub-secret-value is too short", times=1)
    more = {"TMPDIR": str(temporary), "PAPERSPACE_CLI_DEBUG": "true"}
    done = [desk.start("setup", **env, **more), desk.start("setup", **env, **more)]
    assert [each.returncode for each in done] == [1, 0]
    texts = [text for each in done for text in (each.stdout, each.stderr)]
    texts.append(started.read_text())
    for folder in (desk.root, desk.home, temporary):
        texts += [path.read_text() for path in folder.rglob("*") if path.is_file()]
    assert "agent.py" in started.read_text()
    for secret in ("hub-secret-value", KEY):
        assert not [text for text in texts if secret in text]
    assert api.secrets[api.projects[0]["handle"]] == {"HUB_TOKEN": "hub-secret-value"}


@pytest.mark.parametrize(
    ("key", "words"),
    [("", "there is no Paperspace API key"), ("a key\n", "a space, a line break")],
)
def test_a_key_that_is_missing_or_none_is_told_before_anything_is_asked(
    desk: Desk, api: Api, key: str, words: str
) -> None:
    text = desk.fails(2, "setup", PAPERSPACE_API_KEY=key)
    assert words in text and "console.paperspace.com" in text and "PAPERSPACE_API_KEY" in text
    assert api.requests == []


def test_a_wrong_key_is_told_once(desk: Desk, api: Api) -> None:
    text = desk.fails(1, "setup", PAPERSPACE_API_KEY="wrong")
    assert text.count("does not take the API key (HTTP 401: Invalid API key)") == 1
    assert len(api.requests) == 1
    assert list(rows(text).values()) == ["could not", *["not tried"] * 4]


def test_the_key_that_the_command_line_stored_is_used(desk: Desk, gradient: Path) -> None:
    desk.env["GRADLAB_GRADIENT"] = str(gradient)
    place = desk.home / ".paperspace" / "config.json"
    place.parent.mkdir()
    place.write_text(json.dumps({"apiKey": KEY}))
    desk.ok("setup", PAPERSPACE_API_KEY="")
    place.write_text("{")
    assert "config.json can't be read" in desk.fails(2, "setup", PAPERSPACE_API_KEY="")


@pytest.mark.parametrize("status", [403, 404])
def test_an_account_without_workflows_gets_the_rest_and_the_other_doors(
    desk: Desk, api: Api, status: int
) -> None:
    api.fail(status, pattern="/workflows$")
    desk.workflow(SPEC, "again")
    text = desk.fails(1, "setup")
    states = rows(text)
    assert states.pop(("workflow", "again")) == "could not"
    assert states.pop(("workflow", "train")) == "not tried"
    assert set(states.values()) == {"made"}
    for door in ("can't use Gradient Workflows", "notebook", "Google Colab", "GitHub Actions"):
        assert door in text


NOTEBOOK = """
name: demo-gpu
machineType: P4000
container: paperspace/gradient-base:pt211
command: jupyter lab
workspace: https://github.com/me/demo
workspaceRef: main
shutdownTimeout: 6
environment:
  SERVICE: gradient
tags: demo, gpu
"""


def runtime(desk: Desk, text: str = NOTEBOOK) -> None:
    (desk.root / "runtimes").mkdir(exist_ok=True)
    (desk.root / "runtimes" / "gpu.yaml").write_text(text)


def test_a_notebook_is_made_once_of_its_options_file(desk: Desk, api: Api) -> None:
    runtime(desk)
    assert rows(desk.ok("setup", "--notebook", "gpu"))["notebook", "demo-gpu"] == "made"
    assert rows(desk.ok("setup", "--notebook", "gpu"))["notebook", "demo-gpu"] == "found"
    (sent,) = api.sent("createNotebook")
    assert sent.body["machineType"] == "P4000"
    assert sent.body["projectId"] == api.projects[0]["handle"]
    assert sent.body["environment"] == {"SERVICE": "gradient"}
    (notebook,) = api.notebooks.values()
    assert notebook["tags"] == ["demo", "gpu"]


def test_a_machine_that_is_not_free_is_told_in_the_service_s_words(desk: Desk, api: Api) -> None:
    runtime(desk)
    words = "We are currently out of capacity"
    api.fail(429, pattern="createNotebook", words=words, headers={"Retry-After": "900"})
    text = desk.fails(1, "setup", "--notebook", "gpu")
    assert f"HTTP 429: {words}" in text and "asks to wait 900 seconds" in text
    assert rows(text)["notebook", "demo-gpu"] == "could not"


def test_a_notebook_that_is_not_there_or_has_no_name_is_refused_at_once(
    desk: Desk, api: Api
) -> None:
    runtime(desk, "machineType: P4000\n")
    assert "has no `name`" in desk.fails(2, "setup", "--notebook", "gpu")
    assert "runtimes has gpu" in desk.fails(2, "setup", "--notebook", "cpu")
    assert api.requests == []
