"""The notebook in a real browser: JupyterLab in a headless Chromium, its buttons pushed."""

from __future__ import annotations

import importlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .lab import call
from .test_notebook_file import TITLES

if TYPE_CHECKING:
    from scripts.picture import Notebook

pytestmark = pytest.mark.slow
BAR = re.compile(r"\[train\] +\d+%\|.+\| \d+/960 \[.+step/s, epoch \d+, loss \d\.\d+\]")


@pytest.fixture(scope="module")
def picture() -> Any:
    for module in ("selenium", "jupyterlab", "PIL"):
        pytest.importorskip(module)
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    return importlib.import_module("scripts.picture")


@pytest.fixture(scope="module")
def opened(picture: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """The notebook in a browser, which all tests share: to start both takes long."""
    with pytest.MonkeyPatch.context() as patch:
        # One thread: many tests share the cores.
        patch.setenv("OMP_NUM_THREADS", "1")
        with picture.opened(tmp_path_factory.mktemp("opened")) as notebook:
            yield notebook


@pytest.fixture
def project(opened: Notebook) -> Path:
    """The project that the notebook is of, as fresh as at first."""
    [project] = (path.parent for path in opened.folder.glob("*/pyproject.toml"))
    call(project, "git", "checkout", "--quiet", ".")
    shutil.rmtree(project / "storage", ignore_errors=True)
    return project


@pytest.fixture
def notebook(opened: Notebook, project: Path) -> Notebook:
    """The notebook with nothing below its cells."""
    opened.driver.switch_to.default_content()
    clear(opened)
    return opened


def clear(notebook: Notebook) -> None:
    """Let nothing of an earlier run be seen."""
    notebook.click(".lm-MenuBar-itemLabel", "Edit")
    notebook.click(".lm-Menu-itemLabel", "Clear Outputs of All Cells")


def test_a_stop_in_mid_run_saves_and_another_run_carries_on_and_shows_all_there_is(
    picture: Any, notebook: Notebook, project: Path
) -> None:
    stop_in_mid_run(picture, notebook)
    clear(notebook)
    moments = picture.moments(notebook)
    ran = notebook.output(picture.RUN)
    carrying_on = re.search(r"carrying on at step (\d+) of 960", ran)
    assert carrying_on and int(carrying_on[1]) > 0
    assert "100%|" in ran
    for job in ("train", "evaluate", "register"):
        assert re.search(rf"^{job} +ran ", ran, re.M)
    assert notebook.fails() == ""
    assert "Safe: " in notebook.output(TITLES[-1])
    [model] = (project / "storage/models/my_model").glob("*.json")
    assert json.loads(model.read_text())["metrics"]["accuracy"] >= 0.97

    whole = picture.stack(moments)
    assert 1200 <= whole.width <= 1280 and whole.height <= 1600
    whole.save(file := io.BytesIO(), "PNG", optimize=True)
    assert file.tell() < 400_000

    shown = [notebook.cell(title).text for title in TITLES]
    assert 'workflow = "train"  #@param' in shown[TITLES.index(picture.RUN)]
    curves, matrix = widths(notebook, picture.LOOK)
    assert curves > 300 and matrix > 300
    [frame] = notebook.find("iframe")
    notebook.driver.switch_to.frame(frame)
    picture.wait_for(lambda: notebook.find("body", "learning_rate"), "TensorBoard")


def stop_in_mid_run(picture: Any, notebook: Notebook) -> None:
    notebook.run_all()
    picture.wait_for(lambda: notebook.percent(picture.RUN) >= 20, "a progress bar")
    assert BAR.search(notebook.output(picture.RUN))
    notebook.click("[data-command='notebook:interrupt-kernel']")
    picture.wait_for(notebook.fails, "the end of the cell")
    assert notebook.fails() == "Stopped. Run this cell again to carry on from what was saved."
    assert notebook.percent(picture.RUN) < 100
    picture.wait_for(notebook.has_ended, "the end of the stop")


def test_a_picture_of_a_failing_cell_is_refused_with_its_words(
    picture: Any, notebook: Notebook, project: Path
) -> None:
    (project / ".gradient/workflows/train.yaml").write_text("jobs: {}\n")
    with pytest.raises(picture.PictureError, match="`jobs` is empty; add a job"):
        picture.moments(notebook)


def widths(notebook: Notebook, title: str) -> list[int]:
    """Give the natural widths of the pictures below a cell, 0 for one that is not there yet."""
    script = "return [...arguments[0].querySelectorAll('img')].map(image => image.naturalWidth)"
    return list(notebook.driver.execute_script(script, notebook.cell(title)))
