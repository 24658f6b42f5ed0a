"""The notebook's first cells: where things are, the code, the installation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .cloud import Cloud
from .gitserver import TOKEN, Repository, Server, git
from .machine import Machine
from .machines import Machines
from .notebook import CellError, Notebook

CONSENT = "Google Drive was not mounted"
WHERE, CODE, INSTALL = "1. Where", "2. Get the code", "3. Install"


@pytest.fixture
def repository(project: Path, server: Server) -> Repository:
    return server.add(project, name="my_model")


def open_notebook(machine: Machine, project: Path, repository: str, **fields: object) -> Notebook:
    path = project / "notebooks/train.ipynb"
    return machine.notebook(path, repository=repository, **fields)


# Where things are


def test_drive_is_mounted_once_and_what_is_kept_is_said(
    project: Path, machines: Machines, cloud: Cloud
) -> None:
    book = open_notebook(machines.colab(cloud), project, "https://github.com/owner/my_model")
    for _ in range(2):
        text = book.run_cell(WHERE)
        assert "Kept in /content/drive/MyDrive/gradlab/my_model" in text
        assert "kept until you delete it" in text and "12 hours" in text
    assert len(cloud.events("consent")) == len(cloud.events("mount")) == 1


@pytest.mark.parametrize(
    ("user", "reason"),
    [({"consent": False}, "credential propagation"), ({"policy": False}, "domain policy")],
    ids=["refused", "policy"],
)
def test_who_cannot_mount_drive_gets_a_choice_and_can_go_on_without(
    project: Path, machines: Machines, cloud: Cloud, user: dict[str, bool], reason: str
) -> None:
    cloud.user(**user)
    machine = machines.colab(cloud)
    book = open_notebook(machine, project, "https://github.com/owner/my_model")
    with pytest.raises(CellError) as error:
        book.run_cell(WHERE)
    assert CONSENT in error.value.evalue and "clear keep_on_drive" in error.value.evalue
    assert reason in error.value.evalue
    assert error.value.traceback == error.value.evalue  # and no traceback
    assert not any(machine.path("/content").rglob("*"))
    book.set(keep_on_drive=False)
    text = book.run_cell(WHERE)
    assert "Kept in /content/gradlab/my_model" in text
    assert "gone when the session ends" in text


def test_a_drive_whose_process_has_died_is_mounted_again(
    project: Path, machines: Machines, cloud: Cloud
) -> None:
    machine = machines.colab(cloud)
    book = open_notebook(machine, project, "https://github.com/owner/my_model")
    book.run_cell(WHERE)
    cloud.faults(crash=True)
    machine.run("sh", "-c", "ls /content/drive/MyDrive || true")
    cloud.faults()
    assert "Kept in /content/drive" in book.run_cell(WHERE)
    assert machine.run("ls", "/content/drive").strip() == "MyDrive"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"repository": "nonsense with spaces"}, "is no address like"),
        ({"repository": "--upload-pack=x/y"}, "is no address like"),
        ({"repository": "https://me:secret@github.com/owner/my_model"}, "holds a password"),
        ({"branch": "--force"}, "can't be a branch"),
        ({"drive_folder": "../elsewhere"}, "is no folder in your Drive"),
        ({"drive_folder": "/content/drive/MyDrive"}, "is no folder in your Drive"),
    ],
)
def test_a_field_that_makes_no_sense_is_said_to(
    project: Path, machines: Machines, cloud: Cloud, fields: dict[str, str], words: str
) -> None:
    given = {"repository": "https://github.com/owner/my_model", **fields}
    book = machines.colab(cloud).notebook(project / "notebooks/train.ipynb", **given)
    with pytest.raises(CellError, match=words) as error:
        book.run_cell(WHERE)
    assert "me:secret" not in error.value.evalue


def test_a_page_of_a_repository_is_taken_for_the_repository(
    project: Path, machines: Machines
) -> None:
    book = open_notebook(machines.kaggle(), project, "https://github.com/owner/my_model")
    for page, taken in {
        "github.com/owner/my_model/": "",
        "github.com/owner/my_model?tab=readme-ov-file#usage": "",
        "github.com/owner/my_model/tree/main": " at main",
        "github.com/owner/my_model/blob/dev/notebooks/train.ipynb#L3": " at dev",
        "github.com/owner/my_model/commit/0a1b2c3": " at 0a1b2c3",
        "github.com/owner/my_model/releases/tag/v1": " at v1",
        "github.com/owner/my_model/pull/3/files": "",
        "gitlab.com/group/part/my_model/-/tree/main?ref_type=heads": " at main",
    }.items():
        book.set(repository=f"https://{page}")
        text = book.run_cell(WHERE)
        assert "Kept in" in text
        if "/my_model/" in page.rstrip("/"):
            top = page.partition("/my_model/")[0]
            assert f"Taken as the repository https://{top}/my_model{taken}\n" in text, page


def test_elsewhere_the_service_s_own_storage_is_named(
    project: Path, machines: Machines, tmp_path: Path
) -> None:
    gradient = machines.gradient(tmp_path / "notebooks", tmp_path / "storage")
    for machine, words in (
        (gradient, "Kept in /storage/my_model"),
        (machines.kaggle(), "Kept in /kaggle/working"),
        (machines.jupyter(tmp_path / "home"), "Kept in the folder storage of the project"),
    ):
        assert words in open_notebook(machine, project, "https://x.org/o/my_model").run_cell(WHERE)


# The code


def test_the_code_is_cloned_and_brought_up_to_date_with_edits_kept(
    project: Path, repository: Repository, machines: Machines
) -> None:
    machine = machines.kaggle()
    book = open_notebook(machine, project, repository.url)
    text = book.run(stop=INSTALL)
    assert "/kaggle/tmp/my_model at " in text and "The project as generated" in text
    code = machine.path("/kaggle/tmp/my_model")
    (code / "README.md").write_text("mine")
    repository.commit({"NEWS": "there is news"}, "News")
    assert "M README.md" in book.run(stop=INSTALL)
    assert (code / "NEWS").read_text() == "there is news"
    repository.commit({"README.md": "theirs"}, "Conflict")
    text = book.run(stop=INSTALL)
    assert "Your edits are kept, and the code is not updated" in text and "README.md" in text
    assert (code / "README.md").read_text() == "mine"


def test_a_branch_is_taken_and_changed(
    project: Path, repository: Repository, machines: Machines
) -> None:
    repository.commit({"WHICH": "other"}, "Another branch", branch="feature/other")
    machine = machines.kaggle()
    book = open_notebook(machine, project, repository.url, branch="feature/other")
    book.run(stop=INSTALL)
    code = machine.path("/kaggle/tmp/my_model")
    assert (code / "WHICH").exists()
    book.set(branch="main")
    book.run(stop=INSTALL)
    assert not (code / "WHICH").exists()
    book.set(branch="feature/other")
    book.run(stop=INSTALL)
    assert (code / "WHICH").exists()
    book.set(branch="nowhere")
    assert "nowhere" in book.run(stop=INSTALL)


def test_a_commit_or_a_page_is_as_good_as_a_branch(
    project: Path, repository: Repository, machines: Machines, cloud: Cloud
) -> None:
    first = repository.commit({"WHICH": "first"})
    repository.commit({"WHICH": "second"})
    repository.commit({"WHICH": "other"}, "Another branch", branch="feature/other")
    cloud.user(secrets={"GITHUB_TOKEN": TOKEN})
    machine, address = machines.colab(cloud), repository.private_url
    book = open_notebook(machine, project, address, keep_on_drive=False, branch="nowhere")
    with pytest.raises(CellError, match="has no branch, tag or commit 'nowhere'") as error:
        book.run(stop=INSTALL)
    assert "Its branches: feature/other, main" in error.value.evalue
    for fields, content in (
        ({"branch": first}, "first"),
        ({"branch": "main"}, "second"),
        ({"branch": first[:8]}, "first"),
        ({"repository": f"{address}/blob/feature/other/notebooks/train.ipynb"}, "other"),
        ({"repository": f"{address}/tree/main"}, "second"),
    ):
        book.set(**{"branch": "", "repository": address, **fields})
        book.run(stop=INSTALL)
        assert machine.path("/content/my_model/WHICH").read_text() == content, fields


def test_a_machine_without_a_network_is_told_how_to_get_one(
    project: Path, machines: Machines, cloud: Cloud
) -> None:
    nowhere = "http://127.0.0.1:9/owner/my_model"
    for machine, switch in ((machines.kaggle(), True), (machines.colab(cloud), False)):
        book = open_notebook(machine, project, nowhere, keep_on_drive=False)
        with pytest.raises(CellError, match=r"127\.0\.0\.1:9 can't be reached") as error:
            book.run(stop=INSTALL)
        assert "token" not in error.value.evalue
        assert ("Settings > Internet" in error.value.evalue) == switch


def test_a_kernel_whose_folder_is_gone_gets_the_code_all_the_same(
    project: Path, repository: Repository, machines: Machines
) -> None:
    book = open_notebook(machines.kaggle(), project, repository.url)
    gone = "import os, tempfile\nos.chdir(tempfile.mkdtemp())\nos.rmdir(os.getcwd())\n"
    book.cells[0].source = gone + book.cells[0].source
    assert "/kaggle/tmp/my_model at " in book.run(stop=INSTALL)


def test_a_notebook_in_a_checkout_uses_that_as_it_is(
    project: Path, machines: Machines, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(project, home)
    git(home, "init", "--quiet")
    book = open_notebook(machines.jupyter(home), project, "https://x.org/o/my_model")
    assert "The code is the checkout in which this notebook lies" in book.run(stop=INSTALL)


def test_a_private_repository_is_read_with_a_token_that_shows_nowhere(
    project: Path, repository: Repository, server: Server, machines: Machines, cloud: Cloud
) -> None:
    cloud.user(secrets={"GITHUB_TOKEN": f"{TOKEN}\n"})  # as it comes from a copied file
    machine = machines.colab(cloud)
    book = open_notebook(machine, project, repository.private_url, keep_on_drive=False)
    for _ in range(2):
        assert "/content/my_model at " in book.run(stop=INSTALL)
    assert any("auth=yes" in request for request in server.requests)
    written = [path for path in machine.path("/content").rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in book.text()


@pytest.mark.parametrize("user", [{}, {"refused": ["GITHUB_TOKEN"]}, {"silent": ["GITHUB_TOKEN"]}])
def test_a_private_repository_without_a_token_is_explained(
    project: Path,
    repository: Repository,
    machines: Machines,
    cloud: Cloud,
    user: dict[str, list[str]],
) -> None:
    cloud.user(**user)
    book = open_notebook(
        machines.colab(cloud), project, repository.private_url, keep_on_drive=False
    )
    with pytest.raises(CellError, match="put it into this service's secrets") as error:
        book.run(stop=INSTALL)
    assert error.value.traceback == error.value.evalue


def test_a_repository_that_is_no_project_is_refused(
    server: Server, machines: Machines, project: Path, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text("something else")
    other = server.add(tmp_path, name="other")
    book = open_notebook(machines.kaggle(), project, other.url)
    with pytest.raises(CellError, match="holds no project made from this notebook's template"):
        book.run(stop=INSTALL)


def test_a_cell_that_comes_too_early_says_so(project: Path, machines: Machines) -> None:
    book = open_notebook(machines.kaggle(), project, "https://x.org/o/my_model")
    for number in range(1, len(book.cells)):
        with pytest.raises(CellError, match=r"Run the cells? above first"):
            book.run_cell(number)
