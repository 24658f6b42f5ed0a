"""What is Keras' alone: two backends, networks that learn their shapes, and a file of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from . import FRAMEWORKS, Entry, on
from .conftest import Edited, FrameworkLab, lab_of

OF_KERAS = [entry for entry in FRAMEWORKS if entry.framework == "keras"]
pytestmark = pytest.mark.slow
BUILT = "return keras.Model(images, layers.Dense(CLASSES)(features))"
SHAPELESS = """return keras.Sequential(
        [layers.Flatten(), layers.Dense(16, "relu"), layers.Dropout(0.5), layers.Dense(CLASSES)]
    )"""


@on(OF_KERAS)
def test_a_run_goes_on_on_no_other_backend_and_nothing_is_lost(
    lab: FrameworkLab, entry: Entry
) -> None:
    lab.kill_at(40)
    kept = lab.checkpoints()
    (other,) = (each for each in OF_KERAS if each is not entry)
    if not Path(other.python).exists():
        pytest.skip("TensorFlow isn't there: make .venv/tensorflow/.ready")
    env = {name: text for name, text in lab.env.items() if name != "KERAS_BACKEND"}
    output = FrameworkLab(lab.project, lab.storage, {**env, **other.env}, other).train(code=2)
    assert "keras on jax" in output and "keras on tensorflow" in output and "--fresh" in output
    assert lab.checkpoints() == kept


@on(OF_KERAS)
@pytest.mark.parametrize(
    "options, message",
    [
        (("--device", "mps"), "--device mps: "),
        (("--device", "cuda"), "Leave the option out to run on what works"),
        (("--precision", "fp16"), "Take bf16"),
    ],
)
def test_what_keras_does_not_have_is_refused_with_what_would_do(
    lab: FrameworkLab, options: tuple[str, ...], message: str
) -> None:
    assert message in lab.train(*options, code=2)


@on(OF_KERAS[1:])
def test_a_compiled_run_is_exact_over_a_kill(
    lab: FrameworkLab, entry: Entry, tmp_path: Path
) -> None:
    never_cut_off = lab_of(lab.project, tmp_path / "whole", entry)
    never_cut_off.train("--compile")
    lab.kill_at(50, "--compile")
    assert "carrying on at step" in lab.train("--compile")
    assert lab.results() == never_cut_off.results()


@on(OF_KERAS[:1])
def test_a_network_that_learns_its_shapes_from_a_batch_survives_a_kill(
    lab: FrameworkLab, edited: Edited, entry: Entry, tmp_path: Path
) -> None:
    own = edited("model", BUILT, SHAPELESS)
    never_cut_off = lab_of(own.project, tmp_path / "whole", entry)
    never_cut_off.train()
    own.kill_at(50)
    assert "carrying on at step" in own.train()
    assert own.results() == never_cut_off.results()
    assert "test examples" in own.run(own.package, "evaluate")


READ = """
import sys, keras, numpy as np
from my_model.data import datasets
model = keras.saving.load_model(sys.argv[1])
images, classes = zip(*datasets().test)
print(np.mean(model.predict(np.stack(images), verbose=0).argmax(1) == np.array(classes)))
"""


@on(OF_KERAS[:1])
def test_the_exported_model_is_read_by_keras_alone(
    defaults: FrameworkLab, entry: Entry, tmp_path: Path
) -> None:
    path = f"{tmp_path}/model.keras"
    defaults.run(defaults.package, "export", "--name", "train", "--output", path)
    command = [entry.python, "-c", READ, path]
    env, folder = defaults.environment(), defaults.project
    found = subprocess.check_output(command, env=env, text=True, cwd=folder)
    assert float(found) >= 0.97
