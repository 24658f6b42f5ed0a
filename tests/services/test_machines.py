"""The stand-ins of the services' machines do what they say, so that tests can trust them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import nbformat.v4 as v4
import pytest
from nbformat import NotebookNode

from ..kit import KIT
from .cloud import Cloud
from .gitserver import TOKEN, Server
from .kernels import NotHere
from .machine import Machine
from .machines import Machines
from .notebook import CellError
from .processes import until

VERSIONS = "import IPython, ipykernel, jupyter_client, tornado, sys; print(sys.version_info[:2], "
VERSIONS += (
    "IPython.__version__, ipykernel.__version__, jupyter_client.__version__, tornado.version)"
)
MOUNT = "from google.colab import drive\ndrive.mount('/content/drive')"
TICK = "import time\nfor i in range(1_000):\n    print('tick', i, flush=True); time.sleep(0.05)"


def notebook(*cells: str) -> NotebookNode:
    return v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])


def ask(machine: Machine, code: str) -> str:
    """Run Python code in a machine."""
    return machine.run("python", "-c", code).strip()


def service(machine: Machine) -> str:
    """Ask the kit which service it takes the machine for."""
    for path in (KIT / "gradlab/__init__.py", *(KIT / "gradlab/services").glob("*.py")):
        place = machine.path(f"/tmp/kit/{path.relative_to(KIT)}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    code = "from gradlab.services.table import here; print(here().id)"
    return machine.run("python", "-c", code, env={"PYTHONPATH": "/tmp/kit"}).strip()


# The machines


def test_colab_is_as_the_real_one(machines: Machines, cloud: Cloud) -> None:
    machine = machines.colab(cloud)
    assert service(machine) == "colab"
    assert machine.run("pwd").strip() == "/content"
    assert machine.run("ls", "/root", "/content").split() == ["/content:", "/root:"]
    assert ask(machine, "import os; print(os.environ['HOME'], os.getuid())") == "/root 0"
    assert ask(machine, "import shutil; print([shutil.which(n) for n in ('bwrap', 'podman')])") == (
        "[None, None]"
    )
    machine.run("ln", "-s", "/content", "/inputs")
    assert not os.path.lexists("/inputs")


@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_colabs_kernel_has_the_real_versions(machines: Machines, cloud: Cloud, python: str) -> None:
    try:
        machine = machines.colab(cloud, python)
    except NotHere as reason:
        pytest.skip(str(reason))
    book = machine.notebook(notebook(VERSIONS, "import sys; print('numpy' in sys.modules)"))
    version = f"({python.replace('.', ', ')}) 7.34.0 6.17.1 7.4.9 6.5."
    assert book.run_cell(0).startswith(version)
    assert book.run_cell(1) == "True\n"
    assert "torch" in machine.run("python", "-m", "pip", "list")


def test_what_pip_installs_is_gone_with_the_machine_and_the_preinstalled_stays(
    machines: Machines, cloud: Cloud, tmp_path: Path
) -> None:
    package = machines.shared / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "numpy"\nversion = "99"\n[tool.setuptools]\npy-modules = ["numpy"]\n'
    )
    (package / "numpy.py").write_text("__version__ = '99'\n")
    pip = ("python", "-m", "pip", "install", "--no-build-isolation", "--no-deps", str(package))
    version = "import numpy; print(numpy.__version__)"
    machine = machines.colab(cloud)
    before = ask(machine, version)
    machine.run(*pip)
    assert (before, ask(machine, version)) != ("99", before)
    assert "Read-only" in machine.run("touch", "/preinstalled/packages/numpy", code=1)
    assert ask(machines.colab(cloud), version) == before


def test_the_project_finds_what_it_requires_but_for_what_no_service_has(
    machines: Machines, cloud: Cloud
) -> None:
    code = "import torch, sklearn, safetensors, matplotlib, tensorboard, yaml, jsonschema"
    machine = machines.colab(cloud)
    assert ask(machine, code) == ""
    assert "ModuleNotFoundError" in machine.run("python", "-c", "import tyro", code=1)


def test_gradient_keeps_its_notebooks_and_its_storage(machines: Machines, tmp_path: Path) -> None:
    kept = tmp_path / "notebooks", tmp_path / "storage"
    machine = machines.gradient(*kept)
    assert service(machine) == "gradient-notebook"
    assert machine.run("pwd").strip() == "/notebooks"
    machine.run("touch", "/notebooks/a", "/storage/b", "/root/c")
    machine.die()
    assert machines.gradient(*kept).run("ls", "/notebooks", "/storage", "/root").split() == [
        *("/notebooks:", "a"),
        "/root:",
        *("/storage:", "b"),
    ]


def test_kaggle_has_its_folders_and_its_secrets(machines: Machines) -> None:
    machine = machines.kaggle(secrets={"TOKEN": "abc"})
    assert service(machine) == "kaggle"
    assert machine.path("/kaggle/working").is_dir()
    assert machine.path("/kaggle/tmp").is_dir()
    client = "from kaggle_secrets import UserSecretsClient as C\nprint(C().get_secret('{}'))"
    assert ask(machine, client.format("TOKEN")) == "abc"
    assert "BackendError" in machine.run("python", "-c", client.format("OTHER"), code=1)


def test_a_jupyter_server_keeps_the_home_and_has_bubblewrap(
    machines: Machines, tmp_path: Path
) -> None:
    machine = machines.jupyter(tmp_path)
    assert service(machine) == "local"
    machine.run("bwrap", "--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "true")
    machine.run("touch", "file")
    machine.die()
    assert (tmp_path / "file").exists()


def test_a_machine_that_dies_takes_all_of_its_processes_and_its_disk_along(
    machines: Machines, cloud: Cloud
) -> None:
    machine = machines.colab(cloud)
    machine.notebook(notebook(MOUNT, "open('/content/file', 'w').close()")).run()
    cloud.faults(upload_seconds="never")
    script = "setsid sleep 1000 >/dev/null 2>&1 & echo 1 >/content/drive/MyDrive/lost"
    machine.run("sh", "-c", script)
    pids = machine.pids()
    assert len(pids) >= 4
    machine.die()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert not machine.disk.exists()
    cloud.faults()
    other = machines.colab(cloud)
    other.notebook(notebook(MOUNT)).run()
    assert other.run("ls", "/content", "/content/drive/MyDrive").split() == [
        *("/content:", "drive"),
        "/content/drive/MyDrive:",
    ]


# The package google.colab


def colab(machines: Machines, cloud: Cloud, *cells: str) -> Any:
    return machines.colab(cloud).notebook(notebook(*cells))


def test_consent_is_asked_for_even_where_drive_is_mounted(machines: Machines, cloud: Cloud) -> None:
    book = colab(machines, cloud, MOUNT, MOUNT)
    assert book.run_cell(0) == "Mounted at /content/drive\n"
    assert "Drive already mounted at /content/drive" in book.run_cell(1)
    assert len(cloud.events("consent")) == 2
    assert len(cloud.events("mount")) == 1


def test_a_refused_consent_and_a_policy_are_different_errors(
    machines: Machines, cloud: Cloud
) -> None:
    book = colab(machines, cloud, MOUNT)
    cloud.user(consent=False)
    with pytest.raises(CellError, match="credential propagation") as refused:
        book.run()
    assert refused.value.ename == "MessageError"
    cloud.user(policy=False)
    with pytest.raises(CellError, match="domain policy") as disabled:
        book.run()
    assert disabled.value.ename == "ValueError"


def test_a_mountpoint_that_holds_something_is_refused(machines: Machines, cloud: Cloud) -> None:
    book = colab(machines, cloud, "import os; os.makedirs('/content/drive/MyDrive/x')", MOUNT)
    book.run_cell(0)
    assert "already mounted" in book.run_cell(1), "the real one is deceived by the folder's name"
    book = colab(machines, cloud, "import os; os.makedirs('/content/drive/x')", MOUNT)
    with pytest.raises(CellError, match="ValueError: Mountpoint must not already contain files"):
        book.run()


def test_only_force_replaces_a_mount_whose_process_has_died(
    machines: Machines, cloud: Cloud
) -> None:
    forced = MOUNT.replace(")", ", force_remount=True)")
    book = colab(machines, cloud, MOUNT, "open('/content/drive/MyDrive/x', 'w')", MOUNT, forced)
    book.run_cell(0)
    cloud.faults(crash=True)
    drive = machines.made[-1].path("/content/drive/MyDrive")
    until(lambda: not os.path.isdir(drive))
    with pytest.raises(CellError, match=r"Errno 107"):
        book.run_cell(1)
    with pytest.raises(CellError, match="ValueError: mount failed"):
        book.run_cell(2)
    book.run_cell(3)
    book.run_cell(1)


def test_a_flush_uploads_and_unmounts(machines: Machines, cloud: Cloud) -> None:
    cloud.faults(upload_seconds="never")
    write = "open('/content/drive/MyDrive/x', 'w').write('1')"
    flush = "drive.flush_and_unmount()"
    book = colab(machines, cloud, MOUNT, write, flush, flush)
    book.run(stop=2)
    assert not (cloud.files / "MyDrive" / "x").exists()
    assert book.run_cell(2) == ""
    assert cloud.waiting("x").read_text() == "1"
    assert "not mounted" in book.run_cell(3)


def test_a_mount_can_be_read_only(machines: Machines, cloud: Cloud) -> None:
    mount = MOUNT.replace(")", ", readonly=True)")
    book = colab(machines, cloud, mount, "open('/content/drive/MyDrive/x', 'w')")
    with pytest.raises(CellError, match="Read-only"):
        book.run()


def test_the_package_works_in_the_kernel_only(machines: Machines, cloud: Cloud) -> None:
    machine = machines.colab(cloud)
    assert "AttributeError" in machine.run("python", "-c", MOUNT, code=1)


def test_secrets_have_three_ways_to_fail(machines: Machines, cloud: Cloud) -> None:
    cloud.user(secrets={"KEY": "abc"}, refused=["CLOSED"], silent=["SLOW"])
    names = ("KEY", "NONE", "CLOSED", "SLOW")
    get = "from google.colab import userdata; userdata.get('{}')"
    book = colab(machines, cloud, *(get.format(name) for name in names))
    assert book.run_cell(0) == "'abc'\n"
    for cell, error in enumerate(
        ("SecretNotFoundError", "NotebookAccessError", "TimeoutException")
    ):
        with pytest.raises(CellError) as failed:
            book.run_cell(cell + 1)
        assert failed.value.ename == error
    assert [event["name"] for event in cloud.events("secret")] == list(names)


def test_a_download_is_told(machines: Machines, cloud: Cloud) -> None:
    download = "from google.colab import files; files.download('model')"
    book = colab(machines, cloud, "_ = open('model', 'w').write('12')", download)
    book.run()
    assert cloud.events("download") == [{"event": "download", "path": "/content/model", "size": 2}]


# Notebooks


def test_fields_of_forms_get_values(machines: Machines, cloud: Cloud) -> None:
    cell = (
        '#@title Names\nname = "x" #@param {type:"string"}\nkeep = True #@param {type:"boolean"}\n'
    )
    book = machines.colab(cloud).notebook(
        notebook(cell + "print([name, keep])"), name='a "b" \\n', keep=False
    )
    assert book.run_cell("Names") == "['a \"b\" \\\\n', False]\n"
    with pytest.raises(KeyError, match="no form field other"):
        book.set(other=1)


def test_an_error_is_readable_and_the_rest_can_be_run(
    machines: Machines, cloud: Cloud, tmp_path: Path
) -> None:
    show = "import sys\nsys.stderr.write('err\\n')\nfrom IPython.display import Image, display\n"
    show += "display(Image(data=b'', format='png'))"
    book = colab(machines, cloud, "print('one')\n1 / 0", show)
    with pytest.raises(CellError, match="cell 0: ZeroDivisionError: division by zero") as failed:
        book.run()
    assert "\x1b" not in failed.value.traceback
    assert book.text(0) == "one\nZeroDivisionError: division by zero\n"
    assert book.run_cell(1) == "err\n[image/png]\n"
    book.save(tmp_path / "run.ipynb")
    cells = json.loads((tmp_path / "run.ipynb").read_text())["cells"]
    assert [output["output_type"] for output in cells[0]["outputs"]] == ["stream", "error"]


def test_what_a_cell_prints_can_be_watched(machines: Machines, cloud: Cloud) -> None:
    seen: list[str] = []
    book = colab(machines, cloud, "for i in range(3): print(i, flush=True)")
    book.run_cell(0, watch=seen.append)
    assert seen[-1] == "0\n1\n2\n"


@pytest.mark.parametrize("children", [False, True])
def test_a_kernel_can_be_killed_in_the_middle_of_a_cell(
    machines: Machines, cloud: Cloud, children: bool
) -> None:
    child = "import subprocess; subprocess.Popen(['sleep', '1000'])\n"
    book = colab(machines, cloud, MOUNT, child + TICK, "print('alive', 'child' in globals())")
    machine = machines.made[-1]
    book.run_cell(0)
    printed = book.kill_during(1, "tick 3")
    assert re.search(r"tick 3\n(tick \d\n)*$", printed)
    asleep = machine.run("sh", "-c", "cat /proc/[0-9]*/comm").split().count("sleep")
    assert asleep == 2, "the machine's first process and the cell's"
    if children:
        book.kill_during(1, lambda text: "tick 1" in text, children=True)
        assert machine.run("sh", "-c", "cat /proc/[0-9]*/comm").split().count("sleep") == 2
    assert book.run_cell(2) == "alive False\n"
    assert machine.path("/content/drive/MyDrive").is_dir(), "Drive outlives the kernel"


def test_a_cell_that_ends_before_it_was_killed_is_an_error(
    machines: Machines, cloud: Cloud
) -> None:
    book = colab(machines, cloud, "print('done')")
    with pytest.raises(AssertionError, match=r"cell 0 ended first:\ndone"):
        book.kill_during(0, "never printed")


# The git server


def test_repositories_are_cloned_by_path_and_over_http(
    machines: Machines, cloud: Cloud, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "project" / "src").mkdir(parents=True)
    (tmp_path / "project" / "src" / "a.py").write_text("1")
    repository = server.add(tmp_path / "project")
    machine = machines.colab(cloud)
    for number, url in enumerate((repository.file_url, repository.url)):
        machine.run("git", "clone", url, str(number))
        assert machine.path(f"/content/{number}/src/a.py").read_text() == "1"
    commit = repository.commit({"src/b.py": "2"})
    machine.run("git", "-C", "1", "pull")
    assert machine.run("git", "-C", "1", "rev-parse", "HEAD").strip() == commit


def test_a_private_repository_wants_its_token(server: Server, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "a").write_text("1")
    url = server.add(tmp_path / "project").private_url
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    without = subprocess.run(["git", "clone", url, tmp_path / "b"], env=env, capture_output=True)
    assert without.returncode == 128
    subprocess.run(
        ["git", "clone", url.replace("//", f"//x-access-token:{TOKEN}@"), tmp_path / "b"],
        env=env,
        check=True,
    )
    assert (tmp_path / "b" / "a").read_text() == "1"
    assert any("401 auth=no" in request for request in server.requests)
    assert any("200 auth=yes" in request for request in server.requests)
    assert TOKEN not in str(server.requests)
