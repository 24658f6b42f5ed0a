"""`GRADLAB_READS`: a job says what it reads of the code, and is not done again for the rest."""

from __future__ import annotations

import pytest

from .conftest import Project

# The last job fails while there is a file `bad` in the checkout.
WORKFLOW = """
    jobs:
      checkout:
        uses: git-checkout@v1
        with: {url: context.event.github.url, ref: context.event.github.ref}
        outputs: {repo: {type: volume}}
      whole:
        needs: [checkout]
        inputs: {repo: checkout.outputs.repo}
        outputs: {out: {type: volume}}
        uses: script@v1
        with: {image: bash:5, script: cp -R /inputs/repo/src /outputs/out}
      some:
        needs: [checkout]
        env: {GRADLAB_READS: WHAT}
        inputs: {repo: checkout.outputs.repo}
        outputs: {out: {type: volume}}
        uses: script@v1
        with: {image: bash:5, script: cp -R /inputs/repo/src /outputs/out}
      last:
        needs: [checkout, whole, some]
        inputs: {repo: checkout.outputs.repo, out: some.outputs.out}
        uses: script@v1
        with: {image: bash:5, script: test ! -e /inputs/repo/bad}
"""
READS = "src ./steps/train.py !src/report.py"
FILES = ("src/model.py", "src/report.py", "steps/train.py", "steps/last.py", "page.txt", "bad")
RUN = ("run", "train", "--engine", "paths")


@pytest.fixture
def cut(project: Project) -> Project:
    """Give a project whose last job has failed."""
    begin(project, READS)
    return project


def begin(project: Project, reads: str, code: int = 1) -> str:
    project.workflow(WORKFLOW.replace("WHAT", f'"{reads}"'))
    for path in FILES:
        (project.root / path).parent.mkdir(exist_ok=True)
        (project.root / path).write_text("1\n")
    (project.root / ".gitignore").write_text("storage\n")
    return project.fails(code, *RUN)


def again(project: Project, *changed: str, code: int = 1) -> dict[str, str]:
    """Run on after a change of some files, and give the jobs' states."""
    for path in changed:
        with open(project.root / path, "a") as file:
            file.write("2\n")
    done = project.run(*RUN)
    assert done.returncode == code, done.stdout
    return project.states(done.stdout)


@pytest.mark.parametrize("path", ["page.txt", "steps/last.py", "src/report.py"])
def test_a_job_is_not_done_again_for_code_that_it_does_not_read(cut: Project, path: str) -> None:
    states = again(cut, path)
    assert states["checkout"] == states["whole"] == "ran"
    assert states["some"] == "reused"


@pytest.mark.parametrize("path", ["src/model.py", "steps/train.py", "src/new.py"])
def test_a_job_is_done_again_for_code_that_it_reads(cut: Project, path: str) -> None:
    assert again(cut, path)["some"] == "ran"


def test_a_change_and_its_undoing_do_no_job_again(cut: Project) -> None:
    again(cut, "page.txt")
    (cut.root / "bad").unlink()
    assert again(cut, code=0)["some"] == "reused"


def test_what_is_done_holds_when_the_run_has_finished(cut: Project) -> None:
    (cut.root / "bad").unlink()
    assert again(cut, code=0)["some"] == "reused"
    only = (*RUN, "--only", "some")
    assert "[some] is done" in cut.ok(*only)
    (cut.root / "src/model.py").write_text("3\n")
    assert "[some] is done" not in cut.fails(2, *only)


@pytest.mark.parametrize("name", ["setps/train.py", "!src/old.py"])
def test_a_name_that_is_not_in_the_repository_fails_the_job_before_it_runs(
    project: Project, name: str
) -> None:
    begin(project, f"src {name}")
    output = project.fails(1, *RUN)
    assert f"names {name.removeprefix('!')!r}, which is not in the repository" in output
    assert "[some] failed: " in output and "train.yaml:" in output, output


@pytest.mark.parametrize(
    ("reads", "says"),
    [
        ("/inputs/repo/src", "'/inputs/repo/src': give paths from the top of the repository"),
        ("../src", "'../src': give paths from the top of the repository"),
        ("src 'page", "No closing quotation"),
    ],
)
def test_what_can_be_no_name_is_told_before_anything_runs(
    project: Project, reads: str, says: str
) -> None:
    output = begin(project, reads, code=2)
    assert says in output and "train.yaml:" in output and "[checkout]" not in output, output


def test_all_but_what_is_left_out_counts_where_nothing_else_is_named(project: Project) -> None:
    begin(project, "!src/report.py")
    states = again(project, "src/report.py")
    assert states["some"] == "reused" and again(project, "page.txt")["some"] == "ran"
