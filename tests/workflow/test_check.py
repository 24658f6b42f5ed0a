"""`gradlab check`: each rule by a file that breaks it, and what real workflows may do."""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from gradlab.base.errors import GradlabError
from gradlab.check.check import RULES, check, load
from gradlab.check.registry import rule
from gradlab.check.rules.argo import RULES_OF_MANIFESTS
from gradlab.spec.document import SpecError
from gradlab.spec.reader import read
from gradlab.spec.spec import find, parse

from ..kit import KIT
from .conftest import Project

SPECS = Path(__file__).parent / "specs"
BROKEN, VALID = SPECS / "broken", SPECS / "valid"
SCHEMA = json.loads((KIT / "gradlab/spec/schema.json").read_text())

ELSEWHERE = {"unknown-branch", *RULES_OF_MANIFESTS}  # which have tests of their own

SCRIPT = """
jobs:
  clone:
    outputs:
      repo:
        type: volume
    uses: git-checkout@v1
    with:
      url: https://github.com/user/repository
  train:
    needs: [clone]
    inputs:
      repo: clone.outputs.repo
    outputs:
      model:
        type: volume
    uses: script@v1
    with:
      image: python:3.11
      script: |-
        {script}
"""


def rules(tmp_path: Path, text: str) -> list[str]:
    """Check a text and give the rules of its findings."""
    path = tmp_path / "train.yaml"
    path.write_text(text)
    return [each.rule for each in check(path)]


def test_every_rule_has_a_file_that_breaks_it() -> None:
    assert {path.stem for path in BROKEN.glob("*.yaml")} == set(RULES) - ELSEWHERE


def test_no_two_rules_have_the_same_id() -> None:
    before = dict(RULES)
    with pytest.raises(ValueError, match="two rules 'cycle'"):
        rule("cycle", "warning", "again")(lambda spec, document: iter(()))
    assert before == RULES


@pytest.mark.parametrize("rule", sorted(RULES.keys() - ELSEWHERE))
def test_a_broken_file_gets_exactly_these_messages(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (BROKEN / "findings.txt").read_text().splitlines()
    monkeypatch.chdir(BROKEN)
    found = check(Path(f"{rule}.yaml"))
    assert [str(each) for each in found] == [
        line for line in lines if line.startswith(f"{rule}.yaml:")
    ]
    assert {each.severity for each in found if each.rule == rule} == {RULES[rule].severity}


@pytest.mark.parametrize("path", sorted(VALID.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_workflow_that_works_has_no_finding(path: Path) -> None:
    assert check(path) == []


@pytest.mark.parametrize(
    "line",
    [
        "cat /inputs/$NAME /inputs/${NAME}/x /inputs/part-$I /outputs/`date`",
        "for file in /inputs/* /inputs/part-?.zip /outputs/{a,b}; do cat $file; done",
        'python -c \'print(f"/inputs/{name}", "/outputs/run-%d" % 3)\'',
        "cd foo/inputs/bar ./inputs/bar ../inputs/bar ~/inputs/bar $HOME/inputs/bar",
        'cp "$ROOT"/inputs/bar ${ROOT}/outputs/bar $(pwd)/outputs/bar /mnt/outputs/bar .',
        "curl https://example.com/inputs/bar s3://bucket/outputs/bar",
        "ls /inputs /inputs/ /inputs/. /outputs_old /inputsx",
        "ls  # not /inputs/bar any more",
        "python /inputs/repo/src/train.py --out=/outputs/model/a/b --log '/outputs/model.'",
    ],
)
def test_a_path_that_may_be_right_is_no_error(tmp_path: Path, line: str) -> None:
    assert "undeclared-path" not in rules(tmp_path, SCRIPT.format(script=line))


@pytest.mark.parametrize(
    "line",
    [
        "cat /inputs/bar",
        'cat "/inputs/bar/x"',
        "python train.py --data=/inputs/bar",
        "PYTHONPATH=/inputs/repo:/inputs/bar python train.py",
        "cat x>/outputs/bar",
        "cat /inputs/bar.",
    ],
)
def test_a_path_that_is_not_declared_is_an_error(tmp_path: Path, line: str) -> None:
    assert "undeclared-path" in rules(tmp_path, SCRIPT.format(script=line))


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("HF_TOKEN", "abcdef", True),
        ("hf_token", "abcdef", True),
        ("MYSECRET", "abcdef", True),
        ("DB_PASSWORD", "12345678", True),
        ("OPENAI_API_KEY", "abcdef", True),
        ("OPENAI_APIKEY", "abcdef", True),
        ("SECRET_KEY", "abcdef", True),
        ("HARMLESS", "ghp_" + "a1B2" * 9, True),
        ("HARMLESS", "https://user:hunter2@example.com", True),
        ("HF_TOKEN", "secret:HF_TOKEN", False),
        ("HF_TOKEN", "", False),
        ("HF_TOKEN", "$OTHER", False),
        ("TOKEN_FILE", "token.txt", False),
        ("MAX_TOKENS", "512", False),
        ("TOKENIZERS_PARALLELISM", "false", False),
        ("PLACEHOLDER_TOKEN", "<cat-toy>", False),
        ("HARMLESS", "https://user:$TOKEN@example.com", False),
    ],
)
def test_a_secret_in_clear_is_found_and_not_shown(
    tmp_path: Path, name: str, value: str, secret: bool
) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(
        f'defaults:\n  env:\n    {name}: "{value}"\n' + SCRIPT.format(script="ls /inputs /outputs")
    )
    found = [each for each in check(path) if each.severity == "error"]
    assert [each.rule for each in found] == ["secret-in-clear"] * secret
    assert not secret or value not in str(found[0])


def test_a_checkout_by_context_is_right_where_the_file_gives_the_context(tmp_path: Path) -> None:
    text = SCRIPT.replace("https://github.com/user/repository", "context.event.github.url")
    text = text.format(script="ls /inputs/repo /outputs/model")
    assert rules(tmp_path, text) == ["event-without-push"]
    context = "context: {event: {github: {url: 'https://github.com/user/repository'}}}\n"
    assert rules(tmp_path, context + text) == []


def test_a_merge_key_keeps_the_places_of_what_it_brings_in(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(
        "jobs:\n"
        "  one: &one\n"
        "    uses: container@v1\n"
        "    with: {image: bash:5, args: [yes]}\n"
        "  two:\n"
        "    <<: *one\n"
        "    timeout: 5\n"
    )
    places = [(each.line, each.column, each.message) for each in check(path)]
    reads = "must be text, but YAML reads `yes` as the boolean true"
    assert places == [
        (4, 34, f"`with.args[0]` of job `one` {reads}"),
        (4, 34, f"`with.args[0]` of job `two` {reads}"),
    ]


def test_an_alias_is_pointed_at_where_it_stands_not_where_its_value_does(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(
        "jobs:\n"
        "  one: {uses: container@v1, with: {image: bash:5, args: [&word yes]}}\n"
        "  two:\n"
        "    uses: container@v1\n"
        "    with: {image: bash:5, args: [echo, *word]}\n"
    )
    assert [(each.line, each.column, each.message) for each in check(path)] == [
        (
            2,
            58,
            "`with.args[0]` of job `one` must be text, but YAML reads `yes` as the boolean true",
        ),
        (5, 40, "`with.args[1]` of job `two` must be text, but it is the boolean true"),
    ]


def test_checking_takes_no_longer_than_reading_and_grows_with_the_jobs(
    tmp_path: Path,
) -> None:
    def seconds(work: Callable[[], object]) -> float:
        begin = time.process_time()  # of this process: the machine may be busy
        work()
        return time.process_time() - begin

    def checked(path: Path) -> float:
        return seconds(lambda: check(path))

    def chain(jobs: int) -> Path:
        path = tmp_path / f"{jobs}.yaml"
        body = "".join(
            f"  job-{i}:\n    needs: [{', '.join(f'job-{k}' for k in range(max(0, i - 2), i))}]\n"
            "    inputs:\n      data: {type: dataset, with: {ref: data}}\n"
            + (f"      other: job-{i - 1}.outputs.out-{i - 1}\n" if i else "")
            + f"    outputs:\n      out-{i}: {{type: volume}}\n      model:\n"
            f"        type: dataset\n        with: {{ref: model-{i}}}\n"
            "    env: {EPOCHS: '3', HF_TOKEN: secret:HF}\n"
            "    resources: {instance-type: C5}\n    uses: script@v1\n    with:\n"
            "      image: python:3.11\n      script: |-\n"
            f"        python train.py /inputs/* /outputs/model --cache /outputs/out-{i}\n"
            for i in range(jobs)
        )
        path.write_text("jobs:\n" + body)
        return path

    small, large = chain(100), chain(400)
    assert check(small) == check(large) == []
    plain = yaml.SafeLoader  # in Python, as is what is measured
    gc.freeze()  # else all that other tests have left would be looked through again and again
    times = [
        (seconds(lambda: yaml.load(large.read_text(), plain)), checked(small), checked(large))
        for _ in range(3)
    ]
    gc.unfreeze()
    assert statistics.median(large / read for read, _, large in times) < 1.5
    assert statistics.median(large / small for _, small, large in times) < 8


def test_the_schema_is_sound_and_names_only_rules_there_are() -> None:
    Draft7Validator.check_schema(SCHEMA)

    def named(schema: object) -> set[str]:
        if isinstance(schema, list):
            return set().union(*map(named, schema))
        if not isinstance(schema, dict):
            return set()
        words = schema.get("x-check", {})
        here = {words[keyword]["rule"] for keyword in words if keyword in schema}
        assert words.keys() <= schema.keys(), f"{words} is for no keyword of its schema"
        return here.union(*(named(part) for key, part in schema.items() if key != "x-check"))

    assert named(SCHEMA) <= set(RULES)


@pytest.mark.parametrize("path", sorted(VALID.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_schema_alone_takes_a_workflow_that_works(path: Path) -> None:
    assert list(Draft7Validator(SCHEMA).iter_errors(read(path).data)) == []


def test_a_spec_has_its_defaults_and_references_resolved() -> None:
    spec = load(VALID / "grammar.yaml")
    train = spec.jobs["train"]
    assert train.env == {
        "WANDB_API_KEY": "secret:WANDB_API_KEY",
        "TOKENIZERS_PARALLELISM": "false",
        "EPOCHS": "10",
    }
    assert train.resources["instance-type"] == "A100-80Gx8"
    assert spec.jobs["report"].resources["instance-type"] == "P4000"
    assert (train.needs, train.timeout) == (("clone", "download"), 3600)
    assert train.inputs["repo"].source == ("clone", "repo")
    assert train.inputs["data"].source == ("workflow", "data")
    assert train.inputs["images"].ref == "gradient/mnist"
    assert spec.inputs["message"].value == "hello"
    assert spec.inputs["pretrained"].optional
    assert spec.on == {
        "github": {
            "branches": {"only": "main", "include": ["main", "release/*"], "ignore": ["draft"]},
            "tags": {"only": "v1"},
        }
    }


def test_a_document_knows_where_everything_stands() -> None:
    document = read(VALID / "grammar.yaml")
    lines = document.text.splitlines()
    for keys, text in (
        (("jobs",), "jobs:"),
        (("jobs", "train", "needs", 1), "download"),
        (("jobs", "train", "with", "image"), "image: paperspace"),
        (("jobs", "train", "with", "no such key"), "with:"),
    ):
        mark = document.mark(*keys)
        assert lines[mark.line - 1][mark.column - 1 :].startswith(text)


@pytest.mark.parametrize("path", sorted(BROKEN.glob("*.yaml")), ids=lambda path: path.stem)
def test_even_a_broken_document_can_be_parsed_once_it_is_read(path: Path) -> None:
    try:
        document = read(path)
    except SpecError as error:
        assert str(error) in map(str, check(path))
    else:
        assert parse(document).path == path


def test_loading_names_all_errors_and_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("version: 1\njobs:\n  train:\n    uses: script@v3\n    needs: [test]\n")
    with pytest.raises(GradlabError) as error:
        load(path)
    lines = str(error.value).splitlines()
    assert [line.partition("[")[2].partition("]")[0] for line in lines] == [
        "unknown-action",
        "unknown-need",
    ]


def test_a_workflow_is_found_by_its_name(project: Project) -> None:
    project.workflow("jobs: {}", "train")
    project.workflow("jobs: {}", "sweep")
    folder = project.root / ".gradient" / "workflows"
    (folder / "sweep.yaml").rename(folder / "sweep.yml")
    assert find("train", project.root) == folder / "train.yaml"
    assert find("sweep", project.root) == folder / "sweep.yml"
    for name in ("trian", "../workflows/train"):
        with pytest.raises(GradlabError, match=r"there are sweep, train"):
            find(name, project.root)


def test_without_files_all_workflows_of_the_project_are_checked(project: Project) -> None:
    project.workflow(SCRIPT.format(script="ls /inputs/repo /outputs/model"), "good")
    assert project.ok("check") == "1 file: 0 errors, 0 warnings\n"
    project.workflow("jobs:\n  train:\n    uses: script@v2\n", "bad")
    (project.root / "src").mkdir()
    assert project.fails(1, "check") == (
        ".gradient/workflows/bad.yaml:3:5: error [unknown-action] `uses` of job `train` can't be "
        "`script@v2`; write `script@v1`\n2 files: 1 error, 0 warnings\n"
    )


def test_the_exit_code_tells_errors_from_files_that_cannot_be_read(project: Project) -> None:
    project.workflow("version: 1\n" + SCRIPT.format(script="ls /inputs /outputs"), "warning")
    project.workflow("jobs:\n\ttrain: {}\n", "tab")
    folder = ".gradient/workflows"
    assert "1 warning" in project.ok("check", f"{folder}/warning.yaml")
    assert "error [tab]" in project.fails(1, "check", f"{folder}/tab.yaml")
    both = project.fails(2, "check", f"{folder}/tab.yaml", "nowhere.yaml")
    assert "nowhere.yaml:1:1: error [unreadable] there is no such file" in both
    assert "error [tab]" in both


def test_a_project_without_workflows_is_told_so(project: Project) -> None:
    assert "there is no workflow to check" in project.fails(2, "check")


def test_github_gets_commands_that_nothing_in_a_name_can_break(project: Project) -> None:
    name = "50%,a:b"
    project.workflow('jobs:\n  train:\n    uses: "50%\\n::error::x"\n    need: []\n', name)
    output = project.fails(1, "check", "--format", "github")
    file = ".gradient/workflows/50%25%2Ca%3Ab.yaml"
    assert output.splitlines() == [
        f"::error file={file},line=3,col=5,title=unknown-action::`uses` of job `train` can't be "
        "`50%25\\n::error::x`; write `script@v1`, `container@v1`, `git-checkout@v1`, "
        "`s3-download@v1` or `create-model@v1`",
        f"::warning file={file},line=4,col=5,title=unknown-key::job `train` has no key `need`; "
        "it is called `needs` here",
    ]


def test_json_is_for_programs(project: Project) -> None:
    project.workflow("jobs:\n  train:\n    uses: script@v2\n")
    assert json.loads(project.fails(1, "check", "--format", "json")) == [
        {
            "path": ".gradient/workflows/train.yaml",
            "line": 3,
            "column": 5,
            "rule": "unknown-action",
            "severity": "error",
            "message": "`uses` of job `train` can't be `script@v2`",
            "advice": "write `script@v1`",
        }
    ]
