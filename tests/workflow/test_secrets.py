"""Secrets: one grammar for all commands, masked in whatever form they are printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gradlab.check import check
from gradlab.remote.gradient import needs

from .conftest import Project

NAMES = ["API_TOKEN", "api_token", "my-key", "my.key", "2fa", "_x", "A-b.c_1"]
NO_NAMES = ["my key", " KEY", "KEY ", "a/b", "schlüssel", "a:b", "", "KEY\n", "$KEY", "secret:A"]


def spec(script: str, outputs: object = None, **env: str) -> str:
    job = {"env": env, "uses": "script@v1", "with": {"image": "bash:5", "script": script}}
    return json.dumps({"jobs": {"job": job | {"outputs": outputs or {}}}})


def test_check_setup_and_run_agree_on_what_is_a_secret(project: Project) -> None:
    wanted = {f"KEY_{number}": f"secret:{name}" for number, name in enumerate(NAMES)}
    outputs = {"made": {"type": "dataset", "with": {"ref": "made"}}}
    project.workflow(spec("env | grep ^KEY_ > /outputs/made/values", outputs, **wanted))
    path = project.root / ".gradient" / "workflows" / "train.yaml"
    assert check.check(path) == []
    assert set(needs.read(project.root).secrets) == set(NAMES)
    project.ok("run", "train", "--engine", "paths", **{name: f"it is {name}" for name in NAMES})
    (version,) = project.versions("made")
    lines = (version / "data" / "values").read_text().splitlines()
    assert sorted(lines) == [f"KEY_{number}=it is {name}" for number, name in enumerate(NAMES)]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_looks_like_a_secret_and_is_none_is_an_error(tmp_path: Path, name: str) -> None:
    job = {"outputs": {"o": {"type": "volume"}}, "uses": "git-checkout@v1"}
    parameters = {"url": "https://github.com/o/r", "ref": "main", "username": f"secret:{name}"}
    values = [
        spec("true", KEY=f"secret:{name}"),
        json.dumps({"jobs": {"j": job | {"with": parameters}}}),
    ]
    for number, text in enumerate(values):
        (tmp_path / f"{number}.yaml").write_text(text)
        found = check.check(tmp_path / f"{number}.yaml")
        assert [each.rule for each in found] == ["secret-not-whole"]
        assert "letters, digits" in found[0].advice


@pytest.mark.parametrize("value", ["secret:API_TOKEN", "secret:my-key"])
def test_a_secret_where_none_is_filled_in_is_an_error(tmp_path: Path, value: str) -> None:
    job = {"uses": "container@v1", "with": {"image": "i", "command": "c", "args": [value]}}
    port = {"type": "string", "with": {"value": value}}
    script = json.loads(spec("cat /inputs/text"))
    script["jobs"]["job"]["inputs"] = {"text": port}
    for number, data in enumerate([{"jobs": {"job": job}}, script]):
        (tmp_path / f"{number}.yaml").write_text(json.dumps(data))
        rules = [each.rule for each in check.check(tmp_path / f"{number}.yaml")]
        assert rules == ["secret-not-whole"]


def test_a_missing_secret_is_named_with_its_place_and_the_variable_that_does(
    project: Project,
) -> None:
    project.workflow(spec("true", A="secret:my-key", B="secret:API_TOKEN"))
    text = project.fails(2, "run", "train")
    assert "the secret API_TOKEN, my-key is missing: set an environment variable" in text
    assert "MY_KEY for my-key" in text
    assert "train.yaml:1: job 'job' asks for my-key" in text
    project.ok("run", "train", MY_KEY="value-of-key", API_TOKEN="value-of-token")


def test_two_secrets_never_get_one_variable(project: Project) -> None:
    project.workflow(spec("true", A="secret:my-key", B="secret:MY_KEY"))
    text = project.fails(2, "run", "train", MY_KEY="value-of-one")
    assert "the secrets MY_KEY and my-key would both be the variable MY_KEY" in text
    project.ok("run", "train", **{"MY_KEY": "value-of-one", "my-key": "value-of-other"})


PASSED_ON = """
    jobs:
      make:
        env: {TOKEN: "secret:TOKEN", OTHER: "secret:OTHER"}
        outputs: {text: {type: string}}
        uses: script@v1
        with: {image: "bash:5", script: 'printf "bearer $TOKEN, $OTHER\\0." > /outputs/text'}
      use:
        needs: [make]
        inputs: {text: make.outputs.text}
        outputs: {size: {type: dataset, with: {ref: size}}}
        uses: script@v1
        with:
          image: "bash:5"
          script: |
            cat /inputs/text; echo; wc -c < /inputs/text > /outputs/size/bytes
            cp /inputs/text /outputs/size/text; exit ${FAILS:-0}
"""


def test_a_string_with_a_secret_is_handed_on_hidden_and_not_kept_in_clear(
    project: Project,
) -> None:
    values = {"TOKEN": "hunter2-hunter2", "OTHER": "hunter2"}
    project.workflow(PASSED_ON.replace("${FAILS:-0}", "1"))
    output = project.fails(1, "run", "train", "--engine", "paths", **values)
    assert "warning: the string /outputs/text holds a secret" in output
    assert "[use] bearer ***, ***" in output and "text=bearer ***, ***" in output
    assert "hunter2" not in output
    for path in project.storage.rglob("*"):
        if path.is_file() and "outputs" not in path.parts:
            assert b"hunter2" not in path.read_bytes(), path
    project.workflow(PASSED_ON)
    output = project.ok("run", "train", "--engine", "paths", **values)
    assert project.states(output)["make"] == "reused" and "hunter2" not in output
    (version,) = project.versions("size")
    assert (version / "data" / "text").read_bytes() == b"bearer hunter2-hunter2, hunter2\0."


@pytest.mark.parametrize("value", ["a", "failed", "status", json.dumps({"a": "b"}, indent=1)])
def test_a_secret_changes_none_of_the_runner_s_own_words(project: Project, value: str) -> None:
    outputs = {"text": {"type": "string"}}
    project.workflow(spec("printf '{plain}' > /outputs/text; exit 3", outputs, KEY="secret:KEY"))
    output = project.fails(1, "run", "train", "--engine", "paths", KEY=value)
    assert "job failed: its exit status is 3. Its last lines:" in output
    project.workflow(spec("printf '{plain}' > /outputs/text", outputs, KEY="secret:KEY"))
    output = project.ok("run", "train", "--engine", "paths", KEY=value)
    assert "text={plain}" in output and "holds a secret" not in output


def test_logins_in_variables_that_jobs_get_are_hidden(project: Project) -> None:
    project.workflow(spec("env; echo $UV_INDEX_MINE_PASSWORD"))
    variables = {
        "PIP_INDEX_URL": "https://me:pip-p4ss@pypi.example.com/simple",
        "UV_EXTRA_INDEX_URL": "https://a.example.com https://me:uv-p4ss@b.example.com",
        "UV_INDEX_MINE_PASSWORD": "index-p4ss",
        "https_proxy": "me:proxy-p4ss@proxy.example.com:3128",
        "NO_PROXY": "localhost",
    }
    output = project.ok("run", "train", "--engine", "paths", **variables)
    assert "PIP_INDEX_URL=https://me:***@pypi.example.com/simple" in output
    assert "https_proxy=me:***@proxy.example.com:3128" in output
    assert "NO_PROXY=localhost" in output and "p4ss" not in output
