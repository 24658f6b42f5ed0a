"""The notebook in a real browser: JupyterLab in a headless Chromium, its buttons pushed."""

from __future__ import annotations

import importlib
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .test_notebook_file import TITLES

if TYPE_CHECKING:
    from scripts.picture import Notebook

pytestmark = pytest.mark.slow
BAR = re.compile(r"\[train\] +\d+%\|.+\| \d+/960 \[.+step/s, epoch \d+, loss \d\.\d+\]")


@pytest.fixture
def picture() -> Any:
    for module in ("selenium", "jupyterlab", "PIL"):
        pytest.importorskip(module)
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    return importlib.import_module("scripts.picture")


@pytest.fixture
def notebook(picture: Any, tmp_path: Path) -> Iterator[Notebook]:
    with picture.opened(tmp_path) as opened:
        yield opened


def test_all_cells_run_and_show_curves_confusion_matrix_and_tensorboard(
    picture: Any, notebook: Notebook, tmp_path: Path
) -> None:
    moments = picture.moments(notebook)
    whole = picture.stack(moments)
    assert 1200 <= whole.width <= 1280 and whole.height <= 1600
    whole.save(file := io.BytesIO(), "PNG", optimize=True)
    assert file.tell() < 400_000

    shown = [notebook.cell(title).text for title in TITLES]
    assert 'workflow = "train"  #@param' in shown[TITLES.index(picture.RUN)]
    assert "100%|" in notebook.output(picture.RUN)
    for job in ("checkout", "train", "evaluate", "register"):
        assert re.search(rf"^{job} +ran ", notebook.output(picture.RUN), re.M)
    curves, matrix = widths(notebook, picture.LOOK)
    assert curves > 300 and matrix > 300
    assert "Safe: " in notebook.output(TITLES[-1])
    assert notebook.fails() == ""

    [frame] = notebook.find("iframe")
    notebook.driver.switch_to.frame(frame)
    picture.wait_for(lambda: notebook.find("body", "learning_rate"), "TensorBoard")


def test_a_stop_in_mid_run_saves_and_another_run_carries_on(
    picture: Any, notebook: Notebook
) -> None:
    notebook.run_all()
    picture.wait_for(lambda: notebook.percent(picture.RUN) >= 20, "a progress bar")
    assert BAR.search(notebook.output(picture.RUN))
    notebook.click("[data-command='notebook:interrupt-kernel']")
    picture.wait_for(notebook.fails, "the end of the cell")
    assert notebook.fails() == "Stopped. Run this cell again to carry on from what was saved."
    assert notebook.percent(picture.RUN) < 100

    picture.wait_for(notebook.has_ended, "the end of the stop")
    notebook.run_all()
    carrying_on = re.compile(r"carrying on at step (\d+) of 960")
    picture.wait_for(lambda: carrying_on.search(notebook.output(picture.RUN)), "the second run")
    assert int(carrying_on.search(notebook.output(picture.RUN))[1]) > 0  # type: ignore[index]
    leave = TITLES[-1]
    picture.wait_for(
        lambda: notebook.fails() or "Safe: " in notebook.output(leave), "the last cell"
    )
    assert notebook.fails() == ""
    assert len(widths(notebook, picture.LOOK)) == 2


def test_a_picture_of_a_failing_cell_is_refused_with_its_words(
    picture: Any, notebook: Notebook, tmp_path: Path
) -> None:
    [workflow] = tmp_path.glob("*/.gradient/workflows/train.yaml")
    workflow.write_text("jobs: {}\n")
    with pytest.raises(picture.PictureError, match="`jobs` is empty; add a job"):
        picture.moments(notebook)


def widths(notebook: Notebook, title: str) -> list[int]:
    """Give the natural widths of the pictures below a cell, 0 for one that is not there yet."""
    script = "return [...arguments[0].querySelectorAll('img')].map(image => image.naturalWidth)"
    return list(notebook.driver.execute_script(script, notebook.cell(title)))
