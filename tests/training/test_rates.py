"""The learning rate that `find-rate` suggests: the same each time, and no run is touched."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from gradlab.base.errors import GradlabError
from gradlab.train.rates import LOWEST, Sweep

from ..failing import Forks
from .test_kept import TINY, Tiny
from .test_options import lab

PICTURE = "learning_rates.png"
FIND = ["find-rate", *TINY]


def suggested(output: str) -> float:
    found = re.search(r"^The loss falls fastest by: --learning-rate (\S+)$", output, re.MULTILINE)
    assert found, output
    return float(found[1])


def contents(run: Tiny) -> dict[str, bytes]:
    files = (path for path in run.folder().rglob("*") if path.is_file())
    return {str(path.relative_to(run.folder())): path.read_bytes() for path in files}


def test_the_same_seed_finds_the_same_rate_and_another_seed_other_losses(
    forks: Forks, tmp_path: Path
) -> None:
    first, again, other = (lab(forks, tmp_path / name) for name in ("first", "again", "other"))
    outputs = [run.fork(*FIND).output for run in (first, again)]
    numbers = [output.replace(str(tmp_path), "").splitlines()[:-1] for output in outputs]
    assert numbers[0] == numbers[1] != other.fork(*FIND, "--seed", "1").output.splitlines()[:-1]
    assert contents(first) == contents(again)
    assert contents(first)[PICTURE].startswith(b"\x89PNG")
    assert 1e-4 < suggested(outputs[0]) < 1


def test_a_run_that_is_under_way_is_not_touched(forks: Forks, tmp_path: Path) -> None:
    whole, run = (lab(forks, tmp_path / name) for name in ("whole", "run"))
    assert whole.fork("train", *TINY).code == 0
    assert run.fork("train", *TINY, "--max-minutes", "0").code == 0
    before = contents(run)
    suggested(run.fork(*FIND, "--fresh").output)
    assert contents(run) == {**before, PICTURE: contents(run)[PICTURE]}
    assert run.fork("train", *TINY).code == 0
    assert run.results() == whole.results()


def test_a_picture_that_cannot_be_drawn_leaves_the_suggestion(forks: Forks, tmp_path: Path) -> None:
    run = lab(forks, tmp_path)
    done = run.fork(*FIND, at=1, only=f"open *{PICTURE}*", error="ENOSPC")
    assert done.failed and done.code == 0
    assert suggested(done.output) and "could not be drawn" in done.output


def swept(losses: list[float]) -> Sweep:
    sweep = Sweep(len(losses))
    for loss in losses:
        if sweep.add(loss):
            break
    return sweep


def test_rates_rise_by_equal_factors_up_to_the_last() -> None:
    sweep = Sweep(71)
    assert sweep.rate(0) == LOWEST
    assert math.isclose(sweep.rate(70), 10)
    assert math.isclose(sweep.rate(41) / sweep.rate(40), 10**0.1)


def test_the_steepest_fall_is_suggested_not_the_lowest_loss() -> None:
    falling = [3.0] * 40 + [3 - 0.1 * i for i in range(20)] + [1 - 0.01 * i for i in range(20)]
    assert 50 < swept(falling + [9.0] * 20).best() < 65


@pytest.mark.parametrize("end", [math.nan, math.inf, 1e3])
def test_a_loss_that_diverges_ends_the_sweep(end: float) -> None:
    assert len(swept([3.0 - 0.02 * i for i in range(50)] + [end] * 50).losses) == 50


@pytest.mark.parametrize(
    "losses", [[2.0] * 50, [2.0 + 0.1 * i for i in range(50)], [math.nan] * 50]
)
def test_no_rate_is_suggested_where_the_loss_falls_by_none(losses: list[float]) -> None:
    with pytest.raises(GradlabError, match="The loss fell by no learning rate"):
        swept(losses).best()
