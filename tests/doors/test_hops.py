"""Hops: a run that a limit has stopped goes on at the first door of the list that has room."""

from __future__ import annotations

import json

from .conftest import Desk
from .huggingface_service import HuggingFace, Job
from .kaggle_service import Kaggle, Kernel

SUBMIT = ("submit", "train", "--to", "kaggle,huggingface")


def test_a_run_goes_on_at_the_next_door_when_the_first_has_no_hours_left(
    desk: Desk, kaggle: Kaggle, huggingface: HuggingFace
) -> None:
    def stops(service: Kaggle, kernel: Kernel) -> None:
        desk.step(480)
        kernel.status, service.used = "ERROR", service.allowed_hours
        desk.finish(kernel.slug, 75, finished=False)

    kaggle.runs = stops
    done = desk.run(*SUBMIT, "--follow")
    assert done.returncode == 0, done.stderr
    hops = [(hop["door"], hop["state"]) for hop in desk.hops()]
    assert hops == [("kaggle", "stopped"), ("huggingface", "done")]
    assert len(kaggle.pushed) == len(huggingface.jobs) == 1
    assert kaggle.datasets == {} and desk.spills() == []


def test_a_run_goes_on_at_the_same_door_as_long_as_it_gets_further(
    desk: Desk, huggingface: HuggingFace
) -> None:
    def stops(service: HuggingFace, job: Job) -> None:
        number = len(service.jobs)
        desk.step(100 * min(number, 3))
        job.stage = "ERROR"
        desk.finish(job.name, 75, finished=False)

    huggingface.runs = stops
    text = desk.fails(1, "submit", "train", "--to", "huggingface", "--follow")
    assert "two hops in a row made no progress" in text
    assert len(huggingface.jobs) == 5, "the fourth and the fifth got no further"
    assert json.dumps(desk.hops()).count("more to do") == 5
