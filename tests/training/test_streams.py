"""Training data without an index: a run over them is exact over kills, or refused at its start."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchdata.nodes

from gradlab.base.errors import GradlabError
from gradlab.train.streams import source
from gradlab.train.torch import World

from .. import warm
from ..conftest import generate
from ..failing import Forks
from .test_kept import TINY, Tiny
from .test_options import ends_as, lab

# In the place of the training set in a project's data.py: by the variable STREAM, one of these.
STREAMS = '''

class Counted:
    """Examples in an order of its own, pass after pass; the state says where it is."""

    def __init__(self, data, size=None):
        self.data, self.size, self.number, self.at = data, size or len(data), 0, 0

    def __iter__(self):
        order = np.random.default_rng(self.number).permutation(self.size)
        while self.at < self.size:
            self.at += 1
            yield self.data[int(order[self.at - 1])]
        self.number, self.at = self.number + 1, 0

    def state_dict(self):
        return {"number": self.number, "at": self.at}

    def load_state_dict(self, state):
        self.number, self.at = state["number"], state["at"]


class Measured(Counted):
    def __len__(self):
        return self.size


class Forgetful(Counted):
    def state_dict(self):
        return {"number": self.number, "at": 0}


class Late(Counted):
    """Its state is right in the first pass, as that of a buffer is until it is filled anew."""

    def state_dict(self):
        return {"number": self.number, "at": 0 if self.number else self.at}


class Own(Counted):
    """Its own generator is not in its state."""

    def __iter__(self):
        noise = np.random.default_rng(0)
        for image, kind in super().__iter__():
            yield image + float(noise.normal()), kind


class Opaque(Counted):
    def state_dict(self):
        return {"number": self.number, "at": self.at, "open": object()}


class Empty(Counted):
    def __iter__(self):
        return iter(())


class Renamed(Counted):
    def load_state_dict(self, state):
        super().load_state_dict({"number": state["pass"], "at": state["at"]})


class Broken(Counted):
    def __iter__(self):
        for number, example in enumerate(super().__iter__()):
            if number == 43:
                raise OSError("shard 3 can't be read")
            yield example


class Plain:
    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(self.data)


class Epochs(Counted):
    """Shuffled by the number that set_epoch is given, as the streams of Hugging Face are."""

    def __init__(self, data):
        super().__init__(data)
        self.epoch, self.state = 0, None

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        state, self.at = self.state or {}, 0
        self.at = state["at"] if state.get("epoch") == self.epoch else 0
        order = np.random.default_rng(self.epoch).permutation(self.size)
        for index in order[self.at:]:
            self.at += 1
            yield self.data[int(index)]

    def state_dict(self):
        return {"epoch": self.epoch, "at": self.at}

    def load_state_dict(self, state):
        self.state, self.at = state, state["at"]


def _noisy(example):
    image, kind = example
    return image + float(np.random.normal(0, 0.1)), kind


def nodes(data, last=_noisy, within=None, order=None):
    """What is done last is done in the process that trains, what is within in a thread."""
    from torch.utils.data import DistributedSampler
    from torchdata import nodes

    order = order or DistributedSampler(data, num_replicas=1, rank=0)  # it has set_epoch
    node = nodes.Mapper(nodes.SamplerWrapper(order), data.__getitem__)
    node = nodes.Prefetcher(nodes.Mapper(node, within) if within else node, prefetch_factor=4)
    return nodes.Loader(nodes.Mapper(node, last) if last else node)


def stateful(data, workers=0):
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(data, batch_size=None, shuffle=True, num_workers=workers)


def stream(data, plain):
    return {
        "none": lambda: data,
        "counted": lambda: Counted(data),
        "measured": lambda: Measured(data),
        "forgetful": lambda: Forgetful(data),
        "late": lambda: Late(data),
        "own": lambda: Own(data),
        "opaque": lambda: Opaque(data),
        "empty": lambda: Empty(data),
        "renamed": lambda: Renamed(data),
        "broken": lambda: Broken(data),
        "plain": lambda: Plain(data),
        "epochs": lambda: Epochs(data),
        "nodes": lambda: nodes(plain),
        "nodes, any order": lambda: nodes(plain, order=torch.utils.data.RandomSampler(plain)),
        "nodes, noise in a thread": lambda: nodes(plain, None, _noisy),
        "stateful": lambda: stateful(data),
        "stateful, workers": lambda: stateful(plain, 2),
        "stateful, noise in workers": lambda: stateful(data, 2),
    }[os.environ.get("STREAM", "none")]()


def judged(data):
    return Counted(data) if "JUDGED" in os.environ else data
'''
EPOCH = ["--steps-per-epoch", "4"]
EXACT = ["measured", "epochs", "nodes", "stateful", "stateful, workers"]


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Forks:
    project = generate(tmp_path_factory.mktemp("streams"), {})
    data = project / "src" / "my_model" / "data.py"
    text = data.read_text()
    edits = {
        "import annotations\n": "import annotations\n\nimport os\n\nimport torch\n",
        "in data.target]": "in data.target[:120]]",
        "Splits(part(train, augmented=True), ": "Splits(stream(part(train, True), part(train)), ",
        "part(validation), part(test))": "judged(part(validation)), judged(part(test)))",
    }
    for old, new in edits.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    data.write_text(text + STREAMS)
    return Forks(project, *warm.TRAINING, "my_model.train", "torchdata.nodes")


def over(streams: Forks, folder: Path, name: str) -> Tiny:
    return lab(streams, folder, STREAM=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_a_run_over_a_stream_is_exact_over_kills(streams: Forks, tmp_path: Path, name: str) -> None:
    whole = over(streams, tmp_path / "whole", name)
    command = ["train", *TINY, *([] if name in ("measured", "stateful") else EPOCH)]
    done = whole.fork(*command)
    assert done.code == 0, done.output
    assert "0 loader worker(s)" in done.output
    ends_as(whole, streams, tmp_path / "killed", name, *command)


def refused(streams: Forks, folder: Path, name: str, *options: str) -> str:
    done = over(streams, folder, name).fork("train", *TINY, *options)
    assert done.code == 2, done.output
    return done.output


@pytest.mark.parametrize(
    "name, words",
    [
        ("forgetful", "Forgetful gives other examples .* the state_dict of its example (512|2048)"),
        ("late", "Late gives other examples .* the state_dict of its example (512|2048)"),
        ("own", "Own gives other examples after load_state_dict"),
        ("nodes, any order", "Loader gives other examples after load_state_dict"),
        ("nodes, noise in a thread", "Loader gives other examples after load_state_dict"),
        ("stateful, noise in workers", "StatefulDataLoader gives other examples after load_state"),
        ("opaque", "The state_dict of Opaque holds a builtins.object, which can't be saved"),
        ("renamed", "Renamed can't go on from what its state_dict gave: KeyError: 'pass'"),
        ("plain", "Plain has no length or no index, .* may have state_dict and load_state_dict"),
    ],
)
def test_a_stream_that_could_not_be_resumed_is_refused(
    streams: Forks, tmp_path: Path, name: str, words: str
) -> None:
    assert re.search(words, refused(streams, tmp_path, name, *EPOCH), re.DOTALL)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("counted", [], "Counted has no length: say by --steps-per-epoch"),
        ("none", EPOCH, "--steps-per-epoch is for training data without an index"),
        ("measured", ["--batch-size", "73"], "between 1 and 72"),
    ],
)
def test_an_epoch_that_is_not_known_is_asked_for(
    streams: Forks, tmp_path: Path, name: str, options: list[str], words: str
) -> None:
    assert words in refused(streams, tmp_path, name, *options)


def test_several_processes_cannot_share_a_stream() -> None:
    stream = source(torchdata.nodes.Loader(torchdata.nodes.IterableWrapper(range(9))), 0)
    with pytest.raises(GradlabError, match="Loader has no index, so 2 processes can't share"):
        stream.plan(4, 2, World(0, 2, torch.device("cpu")))


def test_a_stream_without_examples_says_so(streams: Forks, tmp_path: Path) -> None:
    done = over(streams, tmp_path, "empty").fork("train", *TINY, *EPOCH)
    assert done.code == 1 and "a pass over Empty has no examples" in done.output


def test_a_learning_rate_is_found_over_a_stream(streams: Forks, tmp_path: Path) -> None:
    done = over(streams, tmp_path, "counted").fork("find-rate", *TINY, *EPOCH)
    assert done.code == 0 and "falls fastest by: --learning-rate" in done.output


def test_what_follows_an_example_that_fails_is_as_if_it_had_not(
    streams: Forks, tmp_path: Path
) -> None:
    whole, run = (over(streams, tmp_path / name, name) for name in ("counted", "broken"))
    assert whole.fork("train", *TINY, *EPOCH).code == 0
    for _ in range(3):
        done = run.fork("train", *TINY, *EPOCH)
        assert done.code == 1 and "shard 3 can't be read" in done.output, done.output
    run.env["STREAM"] = "counted"
    assert run.fork("train", *TINY, *EPOCH).code == 0
    assert run.results() == whole.results()


def test_a_state_that_other_data_gave_is_refused(streams: Forks, tmp_path: Path) -> None:
    run = over(streams, tmp_path, "counted")
    short = ["train", *TINY, *EPOCH, "--max-minutes", "0"]
    assert run.fork(*short).code == 0
    run.env["STREAM"] = "renamed"
    done = run.fork(*short)
    assert done.code == 2 and "put its code and data back as they were" in done.output


def test_only_training_data_may_be_without_an_index(streams: Forks, tmp_path: Path) -> None:
    run = lab(streams, tmp_path, JUDGED="")
    train = run.fork("train", *TINY)
    assert train.code == 2 and "Counted has no length or no index" in train.output
    run.env.clear()
    assert run.fork("train", *TINY).code == 0
    run.env["JUDGED"] = ""
    test = run.fork("evaluate")
    assert test.code == 2 and "Counted has no length or no index" in test.output
