"""What is JAX's alone: several devices that share a batch, precision, and pytrees by names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ..kit import paths
from . import FRAMEWORKS, QUICK_TO_COMPILE, Entry, on
from .conftest import STEPS, Edited, FrameworkLab, edit, lab_of

TWO = {"XLA_FLAGS": f"{QUICK_TO_COMPILE} --xla_force_host_platform_device_count=2"}


pytestmark = on(FRAMEWORKS[:1])


@pytest.fixture
def pair(lab: FrameworkLab) -> FrameworkLab:
    """A lab with two devices."""
    lab.env |= TWO
    return lab


def losses(lab: FrameworkLab) -> np.ndarray:
    lines = (lab.folder() / "metrics.jsonl").read_text().splitlines()
    return np.array([json.loads(line)["loss"] for line in lines])


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--accumulate", "2", "--clip", "1", "--ema", "0.9")])
def test_two_devices_killed_and_resumed_end_with_the_same_bytes(
    pair: FrameworkLab, entry: Entry, tmp_path: Path, options: tuple[str, ...]
) -> None:
    never_cut_off = lab_of(pair.project, tmp_path / "whole", entry)
    never_cut_off.env |= TWO
    assert "2 device(s)" in never_cut_off.train(*options)
    pair.kill_at(50, *options)
    assert "carrying on at step" in pair.train(*options)
    assert pair.results() == never_cut_off.results()


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--accumulate", "4")])
def test_two_devices_see_the_batches_of_one_in_the_same_order(
    pair: FrameworkLab, entry: Entry, tmp_path: Path, options: tuple[str, ...]
) -> None:
    alone = lab_of(pair.project, tmp_path / "alone", entry)
    alone.train(*options)
    pair.train(*options)
    # Sums of another order differ in the last bits, and steps make more of it.
    assert len(losses(pair)) == STEPS
    assert losses(pair) == pytest.approx(losses(alone), rel=0.01)
    assert losses(pair)[0] == pytest.approx(losses(alone)[0], rel=1e-5)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices_and_says_so(lab: FrameworkLab) -> None:
    lab.kill_at(40)
    lab.env |= TWO
    assert "the same examples in the same order" in lab.train()


@pytest.mark.slow
def test_a_batch_that_the_devices_cannot_share_is_refused(pair: FrameworkLab) -> None:
    output = pair.train("--batch-size", "33", code=2)
    assert "A batch of 33 can't be shared equally by 2 devices: take a --batch-size" in output
    output = pair.train("--batch-size", "32", "--accumulate", "32", code=2)
    assert "can't be shared equally by 2 devices in 32 parts" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, message",
    [
        (("--device", "mps"), "JAX doesn't train on Apple's GPU"),
        (("--device", "cuda"), "finds no NVIDIA GPU"),
        (("--precision", "fp16"), "Take bf16, which has the range of fp32, or fp32"),
    ],
)
def test_what_jax_does_not_have_is_refused_with_what_would_do(
    lab: FrameworkLab, options: tuple[str, ...], message: str
) -> None:
    assert message in lab.train(*options, code=2)


@pytest.mark.slow
def test_a_network_that_its_forward_pass_alters_is_refused_before_the_first_step(
    edited: Edited,
) -> None:
    call = "        features = self.block2("
    seen = "        self.block1.seen = nnx.BatchStat(images.mean())\n"
    output = edited("model", call, seen + call).train(code=2)
    assert "changes what it is made of: block1.seen. Let __init__ make each" in output


@pytest.mark.slow
def test_what_a_network_counts_is_kept_as_its_weights_are(edited: Edited, tmp_path: Path) -> None:
    init, call = "        self.dropout = nnx", "        features = self.block2("
    lab = edited("model", init, f"        self.seen = nnx.BatchStat(jax.numpy.zeros(()))\n{init}")
    counted = (
        "        self.seen[...] = self.seen[...] + 1\n        images *= 1 + self.seen[...] / 100\n"
    )
    edit(lab.project, "model", call, counted + call)
    never_cut_off = FrameworkLab(lab.project, tmp_path / "whole", lab.env, lab.entry)
    never_cut_off.train()
    lab.kill_at(40)
    lab.train()
    assert lab.results() == never_cut_off.results()


EXPORTED = """
import sys, jax, numpy as np
from my_model.data import datasets
model = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
test = datasets().test
for size in (1, 7, len(test)):
    images, classes = zip(*(test[i] for i in range(size)))
    found = np.asarray(model.call(np.stack(images))).argmax(1)
print(np.mean(found == np.array(classes)), model.platforms)
"""


@pytest.mark.slow
def test_the_exported_model_runs_without_the_learner_for_batches_of_any_size(
    defaults: FrameworkLab, tmp_path: Path
) -> None:
    defaults.run(defaults.package, "export", "--name", "train", "--output", f"{tmp_path}/m.jax")
    command = [sys.executable, "-c", EXPORTED, f"{tmp_path}/m.jax"]
    found = subprocess.check_output(
        command, cwd=defaults.project, env=defaults.environment(), text=True
    )
    accuracy, platforms = found.split(" ", 1)
    assert float(accuracy) >= 0.97 and "cuda" in platforms and "tpu" in platforms


KIT = """
import sys
import jax, jax.numpy as jnp, numpy as np
from typing import NamedTuple
from safetensors.numpy import save
from gradlab.base.errors import GradlabError
from gradlab.train import arrays, values
from gradlab.train.jax import join, trees
class State(NamedTuple):
    count: jax.Array
    inner: dict
tree = [State(jnp.int32(3), {"a": jnp.arange(3, dtype=jnp.bfloat16)}), {"b": jnp.ones((2, 1))}]
named = trees.named(tree)
assert list(named) == ["0.count", "0.inner.a", "1.b"], list(named)
plain, data, arrived = values.Snapshots().take({"tree": named, "step": 7})
arrived()
parts = arrays.parse(b"".join(arrays.pieces(plain, data)))
again = values.restored(*parts)["tree"]
filled = trees.filled(tree, again)
for one, other in zip(jax.tree.leaves(tree), jax.tree.leaves(filled), strict=True):
    assert one.dtype == other.dtype and (np.asarray(one) == other).all()
back = trees.load(save(trees.copies(named)))
assert {n: (a.dtype, a.tolist()) for n, a in back.items()} == {
    n: (np.asarray(a).dtype, np.asarray(a).tolist()) for n, a in named.items()}
for wrong in ({**named, "1.b": jnp.ones((2, 2))}, {"0.count": named["0.count"]}):
    for refuse in (lambda: trees.fitting(wrong, named, "it"), lambda: trees.restored(tree, wrong)):
        try:
            refuse()
        except GradlabError as error:
            assert "1.b" in str(error), error
        else:
            raise AssertionError("taken")
try:
    trees.named({"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}})
except GradlabError as error:
    assert "a.b" in str(error)
else:
    raise AssertionError("taken")
streams = {"a": trees.key(0, "x"), "b": trees.key(0, "y"), "count": jnp.uint32(5)}
one, same, other = (trees.reseeded(streams, trees.key(1, n)) for n in (1, 1, 2))
draw = lambda found: [float(jax.random.uniform(found[n])) for n in "ab"]
assert draw(one) == draw(same) != draw(other) and draw(one)[0] != draw(one)[1]
assert int(one["count"]) == 0
world = join("cpu")
batch = world.spread({"x": np.zeros((6, 2), np.float32), "odd": np.zeros(3), "text": ["a"]})
x, odd = jax.jit(lambda *arrays: arrays)(batch["x"], batch["odd"])
print(world.devices, len(x.sharding.device_set), batch["text"],
      x.addressable_shards[0].data.shape, odd.addressable_shards[0].data.shape)
"""


@pytest.mark.parametrize("devices, shape", [(1, "(6, 2)"), (2, "(3, 2)")])
def test_arrays_come_back_by_their_names_and_batches_are_shared(
    entry: Entry, tmp_path: Path, devices: int, shape: str
) -> None:
    flags = f"--xla_force_host_platform_device_count={devices}"
    env = {"PATH": "", "PYTHONPATH": paths(), "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", KIT], env=env, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout == f"{devices} {devices} ['a'] {shape} (3,)\n", done.stderr
