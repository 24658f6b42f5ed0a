"""What git-checkout@v1 takes of the user's repository, which stays as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gradlab.base import files
from gradlab.run.repository import Repository

from .conftest import Project

CHECKOUT = """
jobs:
  checkout:
    uses: git-checkout@v1
    with: {{ {} }}
    outputs: {{repo: {{type: dataset, with: {{ref: code}}}}}}
"""
THIS = "url: context.event.github.url, ref: context.event.github.ref"
SECRETS = {".env": "KEY=1", "data/big.bin": "data", ".gitignore": ".env\ndata/\nstorage/\n"}


def git(folder: Path, *arguments: str) -> str:
    name = (
        "-c",
        "user.name=me",
        "-c",
        "user.email=me@example.com",
        "-c",
        "init.defaultBranch=main",
    )
    command = ["git", "-C", str(folder), *name, *arguments]
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def commit(folder: Path, files: dict[str, str]) -> str:
    write(folder, files)
    if not (folder / ".git").exists():
        git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "a change")
    return git(folder, "rev-parse", "HEAD")


def taken(project: Project) -> dict[str, str]:
    """Give the files of the newest version of `code`, but for the project's own."""
    top = project.versions("code")[-1] / "data"
    files = {str(path.relative_to(top)): path for path in top.rglob("*") if path.is_file()}
    own = ("pyproject.toml", ".gradient/", ".git/")
    return {name: path.read_text() for name, path in files.items() if not name.startswith(own)}


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another repository, to be checked out."""
    (tmp_path / "other").mkdir()
    commit(tmp_path / "other", {"theirs.py": "theirs"})
    return tmp_path / "other"


IN_A_HOOK = {
    "GIT_DIR": ".git",
    "GIT_INDEX_FILE": ".git/index",
    "GIT_WORK_TREE": ".",
    "GIT_OBJECT_DIRECTORY": ".git/objects",
    "GIT_COMMON_DIR": ".git",
    "GIT_NAMESPACE": "nowhere",
    "GIT_CONFIG_PARAMETERS": "'core.bare=true'",
    "GIT_EXEC_PATH": "/nowhere",
}


@pytest.mark.parametrize("names", [["GIT_DIR"], ["GIT_INDEX_FILE"], list(IN_A_HOOK)], ids=len)
def test_a_run_in_a_hook_leaves_the_user_s_repository_alone(
    project: Project, other: Path, names: list[str]
) -> None:
    commit(project.root, {"mine.py": "mine", ".gitignore": "storage/\n"})
    write(project.root, {"staged.py": "staged"})
    git(project.root, "add", "staged.py")

    def state() -> list[str]:
        asked = (["symbolic-ref", "HEAD"], ["rev-parse", "HEAD"], ["ls-files", "--stage"])
        return [git(project.root, *arguments) for arguments in asked]

    before = state()
    hook = {name: IN_A_HOOK[name] for name in names}
    hook = {k: str(project.root / v) if v.startswith(".") else v for k, v in hook.items()}
    for parameters, file in ((f"url: 'file://{other}'", "theirs.py"), (THIS, "mine.py")):
        project.workflow(CHECKOUT.format(parameters))
        project.ok("run", "train", **hook)
        assert file in taken(project)
    assert state() == before


def test_in_a_part_of_a_repository_what_is_ignored_stays(project: Project) -> None:
    write(project.root, {"code.py": "code", ".env": "KEY=1", "data/big.bin": "data"})
    commit(project.root.parent, {".gitignore": ".env\n/demo/data/\nstorage/\n"})
    project.workflow(CHECKOUT.format(THIS))
    project.ok("run", "train")
    assert taken(project) == {"code.py": "code"}


@pytest.mark.parametrize("ignored", ["/demo/", "demo", "/d*/"])
def test_a_project_in_a_folder_that_a_repository_ignores_is_taken_whole(
    project: Project, ignored: str
) -> None:
    commit(project.root.parent, {".gitignore": f"{ignored}\n", "theirs.py": "theirs"})
    write(project.root, {"code.py": "code", "src/more.py": "more", ".gitignore": "storage/\n"})
    project.workflow(CHECKOUT.format(THIS))
    project.ok("run", "train")
    assert taken(project).keys() == {"code.py", "src/more.py", ".gitignore"}


def test_without_a_repository_what_would_be_ignored_stays(project: Project) -> None:
    write(project.root, {**SECRETS, "code.py": "code", "__pycache__/a.pyc": ""})
    project.workflow(CHECKOUT.format(THIS))
    project.ok("run", "train")
    assert taken(project) == {"code.py": "code", ".gitignore": SECRETS[".gitignore"]}


def another_owner(root: Path) -> dict[str, str]:
    if os.getuid():
        pytest.skip("giving files to another user needs root")
    for path in (root, root / ".git"):
        os.chown(path, 12345, 12345)
    return {}


def a_broken_index(root: Path) -> dict[str, str]:
    (root / ".git" / "index").write_bytes(b"no index")
    return {}


def a_broken_repository(root: Path) -> dict[str, str]:
    (root / ".git" / "HEAD").write_text("nonsense")
    return {}


def no_git(root: Path) -> dict[str, str]:
    programs = root.parent / "bin"
    programs.mkdir()
    for name in ("bash", "sh"):
        (programs / name).symlink_to(shutil.which(name) or name)
    return {"PATH": str(programs)}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (another_owner, "git config --global --add safe.directory"),
        (a_broken_index, "index file"),
        (a_broken_repository, "git ls-files failed"),
        (no_git, "git is not installed"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_where_git_can_not_tell_nothing_is_taken(
    project: Project, fault: Callable[[Path], dict[str, str]], words: str
) -> None:
    commit(project.root, {**SECRETS, "code.py": "code"})
    project.workflow(CHECKOUT.format(THIS))
    env = fault(project.root)
    text = project.fails(2, "run", "train", "--engine", "paths", **env)
    assert words in text and "train.yaml:3: job 'checkout'" in text
    assert not project.versions("code")


def test_a_submodule_is_taken_and_an_empty_one_is_named(project: Project, other: Path) -> None:
    write(project.root, {".gitignore": "storage/\n"})
    commit(project.root, {"code.py": "code"})
    local = ("-c", "protocol.file.allow=always")
    for name in ("here", "empty"):
        git(project.root, *local, "submodule", "add", str(other), f"lib/{name}")
    git(project.root, "submodule", "deinit", "--force", "lib/empty")
    project.workflow(CHECKOUT.format(THIS))
    output = project.ok("run", "train")
    assert "left out: the submodule lib/empty" in output
    assert "git submodule update --init lib/empty" in output
    assert taken(project).keys() >= {"code.py", "lib/here/theirs.py"}
    assert not [name for name in taken(project) if name.startswith("lib/empty")]


@pytest.mark.parametrize("place", [".", "part"])
def test_an_event_is_of_this_repository_with_or_without_a_remote(
    project: Project, place: str
) -> None:
    top = project.root.parent if place == "part" else project.root
    first = commit(top, {"code.py": "old", "demo/code.py": "old", ".gitignore": "storage/\n"})
    git(top, "tag", "v1")
    git(top, "branch", "dev")
    commit(top, {"code.py": "new", "demo/code.py": "new"})
    write(project.root, {"code.py": "edited"})
    url = "url: context.event.github.url"
    refs = {"main": "new", "v1": "old", first[:9]: "old"}
    for parameters, content in [
        *((f"{url}, ref: '{ref}'", content) for ref, content in refs.items()),
        (url, "edited"),
        (THIS, "edited"),
    ]:
        project.workflow(CHECKOUT.format(parameters))
        project.ok("run", "train")
        assert taken(project)["code.py"] == content, parameters
    project.workflow(CHECKOUT.format(f"{url}, ref: master"))
    text = project.fails(1, "run", "train")
    assert "has no 'master'" in text and "branches and tags: dev, main, v1" in text


def test_a_tree_is_read_again_where_it_has_changed_and_nowhere_else(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.py", "b.py"):
        (project.root / name).write_text("1\n")
    time.sleep(1.1)  # files that have just changed are read each time
    repository = Repository(project.root, [project.storage])
    first, read = repository.content().tree, list[str]()
    assert repository.content().tree == first
    (project.root / "a.py").write_text("2\n")
    sha256 = files.sha256
    monkeypatch.setattr(files, "sha256", lambda path: read.append(path.name) or sha256(path))
    for _ in range(2):
        assert repository.content().tree.digest != first.digest
    assert read == ["a.py", "a.py"]
