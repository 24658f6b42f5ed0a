"""An edit between two runs of the workflow that every project brings: what is trained and told."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Bake
from .lab import Lab

SMALLER = {"epochs: int = 60": "epochs: int = 2", "width: int = 32": "width: int = 4"}
EDIT = ("uniform(-12, 12)", "uniform(-40, 40)")


def replace(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


@pytest.mark.slow
def test_edited_code_is_never_registered_untrained_and_trains_anew_when_asked(
    bake: Bake, tmp_path: Path
) -> None:
    lab = Lab(bake(), tmp_path / "storage")
    lab.env = {"GRADLAB_NETWORK": "off"}
    code = lab.project / "src" / lab.package
    replace(code / "config.py", *SMALLER.items())
    workflow = ("gradlab", "run", "train", "--engine", "paths")
    lab.run(*workflow)
    models = lab.storage / "models" / lab.package
    (first,) = models.glob("*.json")

    replace(code / "data.py", EDIT)
    output = lab.run(*workflow, code=1)
    assert f"src/{lab.package}/data.py has changed" in output
    assert "gradlab run train --fresh" in output
    assert "another RUN (or --name) in .gradient/workflows/train.yaml" in output
    assert list(models.glob("*.json")) == [first]

    output = lab.run(*workflow, "--fresh")
    assert "starting at step 0" in output
    assert len(list(models.glob("*.json"))) == 2

    output = lab.run(*workflow)
    assert "finished at step" in output or "reused" in output
