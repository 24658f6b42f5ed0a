"""The notebook as a file: what Colab and Jupyter read in it, and what must not be there."""

from __future__ import annotations

import ast
import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest

from .conftest import Bake

SERVICES = {"google", "kaggle_secrets"}
TITLES = [
    "1. Where things are",
    "2. Get the code",
    "3. Install",
    "4. Check the machine",
    "5. Run the workflow",
    "6. Look",
    "6. TensorBoard",
    "6. Take the model with you",
    "7. Leave",
]


def read(project: Path) -> dict[str, Any]:
    text = (project / "notebooks/train.ipynb").read_text("utf-8")
    return dict(json.loads(text))


def code(project: Path) -> list[str]:
    return ["".join(c["source"]) for c in read(project)["cells"] if c["cell_type"] == "code"]


def test_the_notebook_is_valid_and_has_no_output(project: Path) -> None:
    notebook = nbformat.read(project / "notebooks/train.ipynb", nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
        # Colab writes the user's name and the times in others.
        assert set(cell.metadata) <= {"cellView", "jupyter"}


def test_each_cell_has_a_form_with_a_title_and_a_text_before_it(project: Path) -> None:
    cells = read(project)["cells"]
    sources = code(project)
    pattern = re.compile(r'#@title (.*) \{ display-mode: "form" \}\n')
    assert [m[1] for source in sources if (m := pattern.match(source))] == TITLES
    for before, cell in pairwise(cells):
        if cell["cell_type"] == "code":
            assert cell["metadata"]["cellView"] == "form"
            assert before["cell_type"] == "markdown" and "".join(before["source"]).strip()


@pytest.mark.parametrize(
    "machine, gpu",
    [("RTX4000", "T4"), ("A6000", "T4"), ("A100-80G", "A100"), ("H100", "H100"), ("C5", "none")],
)
def test_colab_is_asked_for_the_gpu_of_the_machine_or_for_its_free_one(
    bake: Bake, machine: str, gpu: str
) -> None:
    metadata = read(bake(gradient_machine=machine))["metadata"]
    assert metadata.get("accelerator") == (None if gpu == "none" else "GPU")
    assert metadata["colab"].get("gpuType") == (None if gpu == "none" else gpu)
    assert metadata["kernelspec"] == {"name": "python3", "display_name": "Python 3"}
    assert metadata["language_info"] == {"name": "python"}


def test_no_answer_is_in_the_notebook_but_the_address(bake: Bake) -> None:
    answers = {
        "project_name": "Zebra Project",
        "project_slug": "zebra_slug",
        "description": "Tells zebras apart",
        "author": "Zoe Zebra",
        "github_owner": "zebra-owner",
        "gradient_machine": "A6000",
    }
    text = (bake(**answers) / "notebooks/train.ipynb").read_text("utf-8")
    assert 'repository = \\"https://github.com/zebra-owner/zebra_slug\\"  #@param' in text
    rest = text.replace("zebra-owner/zebra_slug", "")
    assert not [answer for answer in answers.values() if answer in rest]


def test_no_cell_imports_what_is_installed_before_it_is_installed(project: Path) -> None:
    sources = code(project)
    install = next(i for i, source in enumerate(sources) if "#@title 3. Install" in source)
    install_it = 'show(sys.executable, "-m", "gradlab.notebook.install")'
    before, call, _ = sources[install].partition(install_it)
    assert call
    for source in (*sources[:install], before):
        for name in imported(source):
            assert name in sys.stdlib_module_names | SERVICES


def imported(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    return found


def test_each_cell_is_plain_python_whose_failures_are_seen(project: Path) -> None:
    for source in code(project):
        tree = ast.parse(source)  # neither !commands nor %magics
        calls = [ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)]
        assert not {"os.system", "get_ipython"} & set(calls)


def test_the_badges_open_this_very_notebook(project: Path) -> None:
    place = "your-github-name/my_model/blob/main/notebooks/train.ipynb"
    for text in (
        (project / "README.md").read_text("utf-8"),
        "".join(read(project)["cells"][0]["source"]),
    ):
        assert f"(https://colab.research.google.com/github/{place})" in text
        assert f"(https://console.paperspace.com/github/{place}?machine=Free-GPU&" in text
