"""Whatever a model's state_dict gives is saved, compared and restored, or refused at once."""

from __future__ import annotations

import io
import math
import shutil
from collections import OrderedDict
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from gradlab.base.errors import GradlabError
from gradlab.train.torch.network import Average, evaluating, load_weights, prove, weights

from ..lab import Lab

VALUES = [
    None,
    True,
    7,
    -(2**70),
    0.1,
    math.inf,
    "text \u00e4\U0001f600",
    b"\x00\xff",
    bytearray(b"x"),
    1 + 2j,
    [],
    [1, [2.5, "x"]],
    (1, (2,)),
    {},
    {"a": 1, 2: {"b": (None, [torch.ones(2)])}},
    {(1, 2): "a tuple is a key"},
    OrderedDict([("z", 1), ("a", 2)]),
    {3, 1, 2},
    frozenset({"x"}),
    torch.Size([2, 3]),
    torch.float16,
    torch.device("cpu"),
    np.float32(0.1),
    np.int64(5),
    np.arange(6).reshape(2, 3)[:, ::2],
    np.array(3.0),
    np.array(["a", "bc"]),
    torch.ones(3, requires_grad=True),
    torch.tensor(1 + 2j).conj(),
    torch.empty(0, 3),
    torch.eye(3).to_sparse(),
]


class Extra(nn.Module):
    """A model with any extra state."""

    def __init__(self, value: Any = None) -> None:
        super().__init__()
        self.value = value

    def get_extra_state(self) -> Any:
        return self.value

    def set_extra_state(self, value: Any) -> None:
        self.value = value


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(
            one.to_dense(), other.to_dense()
        )
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_extra_state_of_any_plain_kind_comes_back_from_a_save_and_a_model(value: Any) -> None:
    model = nn.Sequential(Extra(value), nn.Linear(2, 2))
    prove(model)
    state = weights(model)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    for saved in (load(save(state)), torch.load(buffer, weights_only=True)):
        again = nn.Sequential(Extra(), nn.Linear(2, 2))
        load_weights(again, saved, "a file")
        assert equal(again[0].value, value)
        assert save(weights(again)) == save(state)


@pytest.mark.parametrize("value", [object(), Fraction(1, 2), [{"x": print}], np.array([object()])])
def test_what_is_not_plain_is_refused_before_the_first_step(value: object) -> None:
    with pytest.raises(GradlabError, match=r"The model's state '0\._extra_state' holds a "):
        prove(nn.Sequential(Extra(value)))


def test_a_state_that_cannot_be_set_is_refused_before_the_first_step() -> None:
    class OneWay(nn.Module):
        def get_extra_state(self) -> int:
            return 1

    with pytest.raises(GradlabError, match="its state_dict does not load again: RuntimeError"):
        prove(OneWay())


def test_an_evaluation_leaves_no_trace_though_it_is_cut_short() -> None:
    class Counting(Extra):
        def forward(self, x: Tensor) -> Tensor:
            self.value["seen"] += 1
            self.mean += x.mean()
            return x

    counting = Counting({"seen": 0})
    counting.register_buffer("mean", torch.zeros(()), persistent=False)
    network = nn.Sequential(counting, nn.BatchNorm1d(2).eval(), nn.Linear(2, 2))
    before, modes = save(weights(network)), [m.training for m in network.modules()]
    for error in (None, KeyboardInterrupt):
        with suppress(KeyboardInterrupt), evaluating(network):
            assert not network(torch.ones(1, 2)).requires_grad
            assert counting.value == {"seen": 1} and counting.mean == 1
            if error:
                raise error
        assert save(weights(network)) == before
        assert [m.training for m in network.modules()] == modes


def test_an_average_is_of_all_numbers_once_and_everything_else_is_the_newest() -> None:
    network = nn.Sequential(Extra({"seen": 0}), nn.Linear(2, 2, bias=False))
    weight = network[1].weight
    network[1].part = nn.Parameter(weight.data[:1])  # averaged where it lies, and by itself
    network[0].register_buffer("mean", torch.zeros(2))
    network[0].register_buffer("count", torch.tensor(7))
    network[0].register_buffer("mask", torch.ones(2, dtype=torch.bool))
    average, expected = Average(network, 0.5, {}), torch.zeros(2, 2)
    for step in range(1, 5):
        network[0].value["seen"] = step
        network[0].count += 1
        network[0].mask[0] = step < 4
        for numbers in (weight.data, network[0].mean):
            numbers.fill_(step)
        average.update()
        expected = expected.lerp(weight.data, 0.5 if step > 1 else 1.0)
    own = save(weights(network))
    for _ in range(2):
        with average.taken():
            assert torch.equal(weight, expected) and torch.equal(network[1].part, expected[:1])
            assert torch.equal(network[0].mean, expected[0])
            assert (network[0].count, network[0].mask.tolist()) == (11, [False, True])
            assert network[0].value == {"seen": 4}
        assert save(weights(network)) == own


def test_a_state_that_is_not_taken_over_is_refused_when_it_is_loaded() -> None:
    class Forgetful(Extra):
        def set_extra_state(self, value: Any) -> None:
            pass

    with pytest.raises(GradlabError, match="_extra_state of the model is not what was saved"):
        load_weights(Forgetful(0), weights(Forgetful(1)), "a file")


def test_a_state_without_what_a_model_leaves_out_loads_as_earlier_versions_saved_it() -> None:
    network = nn.Linear(2, 2)
    network.register_buffer("table", torch.arange(3), persistent=False)
    saved = {name: array for name, array in weights(network).items() if "table" not in name}
    assert len(saved) == 2
    network.get_buffer("table").add_(1)
    load_weights(network, saved, "a file")
    assert network.get_buffer("table").tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "other, difference",
    [
        (nn.Linear(3, 2), r"weight: saved \(2, 3\), now \(2, 2\)"),
        (nn.Linear(2, 2).double(), r"weight: saved \(2, 2\) float64, now \(2, 2\)"),
        (nn.BatchNorm1d(2), r"running_mean: saved \(2,\), now gone"),
    ],
)
def test_other_weights_are_refused_with_the_difference(other: nn.Module, difference: str) -> None:
    with pytest.raises(GradlabError, match=difference):
        load_weights(nn.Linear(2, 2), weights(other), "a file")


MODEL = """
class Hostile(Net):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.seen = {"images": 0, "names": ("x", None)}
        self.register_buffer("wide", torch.ones(1).expand(8))
        self.register_buffer("same", self.wide)
        self.register_buffer("phase", torch.tensor([1 + 2j]))
        self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).T)
        self.again = self.classify

    def forward(self, images):
        self.seen["images"] += len(images) * self.training
        return super().forward(images)

    def get_extra_state(self):
        return self.seen

    def set_extra_state(self, seen):
        self.seen = seen
        assert type(seen["names"]) is tuple
"""


def test_a_model_with_all_of_these_is_trained_carried_on_and_evaluated(
    project: Path, tmp_path: Path
) -> None:
    shutil.copytree(project / "src", tmp_path / "project" / "src")
    shutil.copy(project / "pyproject.toml", tmp_path / "project")
    model = tmp_path / "project" / "src" / project.name / "model.py"
    text = "import torch\n" + model.read_text().replace("from __future__ import annotations\n", "")
    text = text.replace("def build(", MODEL + "\n\ndef build(").replace(
        "return Net(", "return Hostile("
    )
    model.write_text(text)
    cut_off, whole = (Lab(tmp_path / "project", tmp_path / name) for name in ("a", "b"))
    small = ("--epochs", "2", "--workers", "0")
    whole.train(*small)
    cut_off.train(*small, "--max-minutes", "0.001")
    assert 0 < len(cut_off.steps()) < len(whole.steps())
    assert "carrying on" in cut_off.train(*small)
    for name in ("model", "best"):
        assert cut_off.sha(file=f"{name}.safetensors") == whole.sha(file=f"{name}.safetensors")
    assert "on 360 test examples" in cut_off.run(cut_off.package, "evaluate")
