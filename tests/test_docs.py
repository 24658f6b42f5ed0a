"""The pages: links lead somewhere, commands work, the tutorial does what it shows."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from scripts import reference

from .conftest import TEMPLATE, generate
from .kit import KIT
from .pages import PACKAGE, TUTORIAL, Page, Shell, pages_of, plain

BLOCKS = {"", "sh", "text", "python", "diff", "mermaid", "yaml"}

# In this order in one project, with what they have to print.
RUN = {
    "make help": "List the targets",
    "gradlab --version": "cookiecutter-gradient-colab 0.",
    "gradlab doctor": "storage",
    "gradlab check": "2 files: 0 errors, 0 warnings",
    "gradlab show train": "flowchart LR",
    "gradlab run train --dry-run": "would be",
    "gradlab datasets add my_model-data data": "my_model-data:v1-",
    "gradlab datasets": "my_model-data:v1-",
    "gradlab datasets show my_model-data": "table.csv",
    "gradlab datasets verify": "  ok  1 file,",
    "python -m my_model train": "Finished.",
    "python -m my_model train --max-minutes 30": "finished at step",
    "python -m my_model train --fresh": "The earlier run is kept in",
    "python -m my_model train --name wider --model.width 64": "Finished.",
    "python -m my_model find-rate": "falls fastest by: --learning-rate",
    "python -m my_model evaluate": "on 360 test examples.",
    "python -m my_model export": "model.onnx: the same as",
    "gradlab compare storage/runs/*": "The best is ",
}
GRADIENT = "tests/gradient/test_readme.py::"
GRADIENT += "test_the_readme_leads_from_a_fresh_project_to_a_run_on_gradient"
INSTALLED = "tests/gradient/test_cli.py::test_the_command_of_the_message_works_when_pasted"
UPDATED = "tests/test_updates.py::"
UPDATED += "test_an_update_keeps_your_edits_and_takes_up_those_of_the_kit"
DOORS = "tests/doors/test_faults.py::test_"
HANDED = (
    "tests/doors/test_kaggle.py::test_a_run_is_handed_over_and_its_end_is_read_from_its_own_record"
)
CLUSTER = "tests/slurm/test_run.py::test_"
ADOPTED = f"{CLUSTER}the_command_given_again_follows_what_lives"
LISTED = "tests/training/test_listed.py::"
LISTED += "test_a_run_is_listed_as_cut_off_running_finished_or_failed"
REMOVED = "tests/workflow/test_removed.py::test_"
REMOVED_ONE = f"{REMOVED}a_version_goes_once_it_is_confirmed_and_its_number_never_comes_again"
OF_A_MODEL = f"{REMOVED}what_a_registered_model_was_made_from_goes_only_by_its_name"
CLEANED = "tests/workflow/test_clean.py::test_what_nobody_needs_goes_and_all_else_stays"
SHARED = "tests/training/test_shared.py::"
SHARED += "test_a_model_is_shared_with_all_that_it_was_made_from_and_once"
ELSEWHERE = {
    "gradlab runs": LISTED,
    "gradlab datasets remove": REMOVED_ONE,
    "gradlab datasets remove NAME:VERSION": REMOVED_ONE,
    "gradlab datasets remove NAME": REMOVED_ONE,
    "gradlab datasets remove NAME:VERSION --model ID": OF_A_MODEL,
    "gradlab clean": CLEANED,
    "gradlab publish hf://OWNER/NAME": SHARED,
    "gradlab publish hf://OWNER/NAME --dry-run": SHARED,
    "gradlab publish hf://OWNER/NAME --run NAME": SHARED,
    "cookiecutter gh:org/cookiecutter-gradient-colab": (
        "tests/test_use.py::test_the_template_is_used_from_git_at_a_tag"
    ),
    "cruft create": UPDATED,
    "cruft update": UPDATED,
    "gradlab run train": (
        "tests/test_own_workflows.py::"
        "test_kills_of_the_runner_and_all_its_children_cost_nothing_but_time"
    ),
    "gradlab run train --only evaluate": (
        "tests/workflow/test_only.py::test_job_by_job_a_run_is_done_and_finished"
    ),
    "gradlab export train --to argo --claim my-claim": (
        "tests/argo/test_export.py::test_each_job_is_a_pod_that_waits_for_those_that_it_needs"
    ),
    "gradlab check train-argo.yaml": (
        "tests/argo/test_export.py::"
        "test_a_mistake_that_schema_and_hera_let_pass_is_found_where_it_is"
    ),
    "gradlab run sweep": (
        "tests/test_own_workflows.py::test_the_sweep_keeps_the_best_model_and_shows_the_comparison"
    ),
    "gradlab run train --engine slurm": (
        f"{CLUSTER}jobs_read_what_was_submitted_and_no_secret_lies_about"
    ),
    "gradlab run train --engine slurm --detach": ADOPTED,
    "gradlab status train": ADOPTED,
    "gradlab stop train": f"{CLUSTER}a_run_that_is_stopped_saves_and_is_carried_on",
    "gradlab logs train --follow": f"{CLUSTER}logs_are_followed_to_the_end",
    "torchrun --nproc-per-node 2 -m my_model train": (
        "tests/training/test_distributed.py::"
        "test_two_processes_resumed_by_two_end_with_the_same_bytes"
    ),
    "torchrun --nproc-per-node 4 -m my_model train --shard": (
        "tests/training/test_sharded.py::"
        "test_four_processes_killed_at_random_in_half_precision_end_with_the_same_bytes"
    ),
    'git init --initial-branch main && git add --all && git commit --message "Start"': GRADIENT,
    "git remote add origin https://github.com/your-github-name/my_model": GRADIENT,
    "git push --set-upstream origin main": GRADIENT,
    "gradlab doors gradient --install": INSTALLED,
    "gradlab doors kaggle --install": INSTALLED,
    "gradlab doors": f"{DOORS}what_is_held_is_listed",
    "gradlab submit train --to kaggle": HANDED,
    "gradlab submit train --to kaggle,colab": HANDED,
    "gradlab submit train --to kaggle,colab --follow": HANDED,
    "gradlab collect train": f"{DOORS}a_run_that_lives_is_adopted_and_never_begun_twice",
    "~/.cache/gradlab/gradient/bin/gradient apiKey": GRADIENT,
    "gradlab setup --dry-run": GRADIENT,
    "gradlab setup": GRADIENT,
    "gradlab submit train": GRADIENT,
    "gradlab setup --notebook free-gpu": GRADIENT,
    "python -m pip install gradlab-*.whl": (
        "tests/test_kit.py::test_the_wheel_alone_runs_the_workflows_of_any_repository_without_torch"
    ),
}
NOT_RUN = {
    "make wheel": "tests/test_kit.py compares what it makes with what is there",
    "make demo": "fetches packages; what it runs then is `gradlab run train`",
    "make demo FRAMEWORK=jax": "as make demo",
    "make test": "runs this very test",
    "make test TESTS=\"-m 'not slow'\"": "runs this very test",
    "make lint": "runs before the tests, in .ci/run",
    "make bench": "measures, for which nothing else may run",
    "make docs": "writes docs/reference.md, which is compared below",
    "make picture": "tests/test_browser.py takes the one of the notebook",
    'pip install "cookiecutter>=2.1.1"': "fetches packages",
    "python -m pip install --find-links vendor --editable .": "fetches the build backend",
    'python -m pip install --find-links vendor --editable ".[dev]"': "fetches packages",
    'pip install --find-links vendor -e ".[export]"': "fetches packages",
    'pip install --find-links vendor "gradlab[hf]"': "fetches packages",
    'pip install --find-links vendor "gradlab[wandb]"': "fetches packages",
    "python -m my_model train --tracker wandb": "needs W&B's library; tests/trackers has it",
    "tensorboard --logdir storage/runs": "serves until it is stopped",
}

OWN = re.compile(rf"(?:^| )(gradlab|-m {PACKAGE})\b(.*)")


@pytest.fixture(scope="module")
def pages(project: Path) -> list[Page]:
    """All pages: those of the template and those of a project."""
    return pages_of(TEMPLATE) + pages_of(project)


def test_every_link_leads_somewhere(pages: list[Page]) -> None:
    broken = [
        f"{place}: {target}: {problem}"
        for page in pages
        for place, target in page.links()
        if (problem := what_is_wrong(page, target))
    ]
    assert broken == []
    assert sum(len(list(page.links())) for page in pages) > 20


def what_is_wrong(page: Page, target: str) -> str:
    """Say what is wrong with a link, or nothing; of other sites only the form is looked at."""
    url = urlsplit(target)
    if url.scheme or url.netloc:
        sound = url.scheme == "https" and re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", url.netloc)
        return "" if sound and not re.search(r"[\s{}<>|]", target) else "no sound https address"
    path = page.root / Path(page.name).parent / unquote(url.path) if url.path else None
    there = path or page.root / page.name
    if not there.resolve().is_relative_to(page.root.resolve()):
        return "leads out of the repository"
    if not there.exists():
        return "no such file"
    if url.fragment and there.suffix == ".md":
        other = Page(page.root, os.path.relpath(there, page.root))
        return "" if url.fragment in other.anchors() else "no such heading"
    return ""


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# A `b`-c, d\n\n[x](page.md#a-b-c-d) <a href='#b-c'>\n")
    page = Page(tmp_path, "page.md")
    assert [what_is_wrong(page, target) for _, target in page.links()] == ["", "no such heading"]
    wrong = ["other.md", "#none", "../page.md", "http://a.org", "https://a b.org", "https://local"]
    assert all(what_is_wrong(page, target) for target in wrong)


def test_every_command_is_run_by_a_test_or_marked_with_why_not(pages: list[Page]) -> None:
    known = {*RUN, *ELSEWHERE, *NOT_RUN}
    found = [command for page in pages for command in page.commands()]
    assert [f"{place}: {text}" for place, text in found if text not in known] == []
    assert known - {text for _, text in found} == set()


def test_every_block_is_of_a_kind_that_is_looked_at(pages: list[Page]) -> None:
    for page in pages:
        for node in page.of("fence"):
            assert node.info.split(" ")[0] in BLOCKS, page.at(node)


@pytest.mark.parametrize("test", sorted(set(ELSEWHERE.values())))
def test_the_tests_that_run_a_command_elsewhere_are_there(test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((TEMPLATE / file).read_text("utf-8"))
    assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """What --help prints for each program and each of its commands."""
    found = {}
    for program, commands in reference.programs().items():
        called = plain(program)
        found[called] = reference.help_of(program, commands)
        for command in commands:
            name = reference.name_of(command)
            found[f"{called} {name}"] = reference.help_of(program, commands, name)
    return found


def test_commands_and_options_are_spelled_as_the_programs_do(
    pages: list[Page], helps: dict[str, str]
) -> None:
    checked = 0
    for page in pages:
        mentioned = [(page.at(node), text) for node, text in page.mentions()]
        for place, text in [*mentioned, *page.commands()]:
            if OWN.search(text):
                checked += 1
                assert not misspelled(text, helps), f"{place}: {text}"
    assert checked > 40


def misspelled(command: str, helps: dict[str, str]) -> list[str]:
    """Give the words of a command that the help of the program doesn't have."""
    match = OWN.search(command)
    assert match
    program, words = match[1].replace("-m", "python -m"), shlex.split(match[2])
    if words and not words[0].startswith("-"):
        program = f"{program} {words.pop(0)}"
    if program not in helps:
        return [program]
    # Answered before the arguments are parsed, so it stands in no help.
    options = [*re.findall(r"--[\w.-]+", helps[program]), "--version"]
    return [word for word in words if word.startswith("--") and word not in options]


@pytest.mark.parametrize("command", ["gradlab chekc", "gradlab run train --dryrun"])
def test_a_misspelled_command_is_found(helps: dict[str, str], command: str) -> None:
    assert misspelled(command, helps)


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_every_target_of_make_exists(pages: list[Page]) -> None:
    commands = {text for page in pages for _, text in page.commands() if text.startswith("make ")}
    assert len(commands) > 3
    for command in commands:
        done = subprocess.run(
            [*shlex.split(command), "--dry-run"], cwd=TEMPLATE, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("columns", ["40", "200"])
def test_the_reference_is_what_the_code_says(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert reference.PAGE.read_text("utf-8") == reference.page(), "make docs"


def test_every_environment_variable_of_the_kit_is_explained() -> None:
    code = "".join(path.read_text("utf-8") for path in (KIT / "gradlab").rglob("*.py"))
    used = set(re.findall(r"GRADLAB_[A-Z_]*[A-Z]", code))
    lines = (TEMPLATE / "docs/workflows.md").read_text("utf-8").splitlines()
    rows = [line.split("|")[1] for line in lines if line.startswith("| `GRADLAB_")]
    explained = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    # Between git and its helper only.
    assert explained == {name for name in used if not name.startswith("GRADLAB_GIT")}


@pytest.mark.slow
def test_the_commands_of_the_pages_work_in_a_fresh_project(tmp_path: Path) -> None:
    project = generate(tmp_path, {})
    settings = project / "src" / PACKAGE / "config.py"
    text = settings.read_text("utf-8").replace("epochs: int = 60", "epochs: int = 2")
    settings.write_text(text, "utf-8")
    (project / "data").mkdir()
    (project / "data/table.csv").write_text("1,2\n")
    shell = Shell(project, tmp_path / "tools")
    for command, shown in RUN.items():
        folder = TEMPLATE if command.startswith("make ") else project
        assert shown in (printed := shell.run(command, folder)), f"{command}\n{printed}"


@pytest.mark.slow
def test_the_tutorial_does_what_it_shows(tmp_path: Path) -> None:
    project = generate(tmp_path, {})
    Shell(project, tmp_path / "tools").follow(Page(TEMPLATE, TUTORIAL))
