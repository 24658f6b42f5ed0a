"""What a task may be: any losses, metrics and forms of input, a network that draws at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import Bake
from ..lab import Lab

Edited = Callable[..., Lab]
SHORT = ["--max-steps", "40"]
LOSS = '"loss": cross_entropy('
LOGITS = "logits: Tensor = self.classify(self.features(images.unsqueeze(1)))"
EXAMPLE = "return image * 2 - 1,"
RESULT = "return values, task.seen(outputs, targets)"


@pytest.fixture
def edited(bake: Bake, tmp_path: Path) -> Edited:
    """Give a lab with a project of its own, in files of which something stands for another."""

    def make(**edits: tuple[str, str]) -> Lab:
        lab = Lab(bake(), tmp_path / "storage")
        for name, (old, new) in edits.items():
            path = lab.project / "src" / lab.package / f"{name}.py"
            text = path.read_text()
            assert text.count(old) == 1, f"{name}.py: {old}"
            path.write_text(text.replace(old, new))
        return lab

    return make


@pytest.mark.slow
def test_what_a_network_draws_in_an_evaluation_depends_on_no_worker(edited: Edited) -> None:
    noise = "    from torch import randn_like\n        logits = logits + randn_like(logits)\n"
    model = (f"{LOGITS}\n", f"{LOGITS}\n    {noise}")
    lab = edited(model=model, task=("BATCH = 256", "BATCH = 16"))
    for workers in "02":
        lab.train("--workers", workers, "--name", workers, *SHORT)
    assert len({lab.sha(workers, "metrics.jsonl") for workers in "02"}) == 1


def test_any_loss_that_becomes_no_number_ends_the_training(edited: Edited) -> None:
    other = 'outputs.sum() * float("nan")'
    lab = edited(task=(LOSS, f'"other_loss": {other}, {LOSS}'))
    output = lab.train(*SHORT, code=1)
    assert "The other loss became nan by step 1" in output and "Traceback" not in output


def test_runs_whose_evaluation_has_no_loss_are_compared(edited: Edited) -> None:
    lab = edited(learner=(RESULT, RESULT.replace("values", "{}")))
    lab.train(*SHORT)
    table = lab.run("gradlab", "compare", str(lab.folder()), "--output", str(lab.storage / "out"))
    assert table.splitlines()[0].split() == ["run", "val_accuracy", "epoch"]


def test_a_network_of_several_inputs_is_told_where_its_export_is_to_be_changed(
    edited: Edited,
) -> None:
    data = (EXAMPLE, EXAMPLE.replace("return ", 'return {"image": ').replace("1,", "1},"))
    lab = edited(data=data, model=("images.unsqueeze(1)", 'images["image"].unsqueeze(1)'))
    lab.train(*SHORT)
    output = lab.run(lab.package, "export", code=2)
    assert "takes a dict" in output and "`to_onnx`" in output
