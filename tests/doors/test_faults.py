"""What goes wrong on the way to a service: the same command completes it, and nothing is left."""

from __future__ import annotations

import pytest

from .conftest import Desk
from .kaggle_service import FULL, Kaggle, Kernel
from .standin import faults_in_turn

REQUESTS = 15  # of a run that is handed to Kaggle and has finished when it is looked at
SUBMIT = ("submit", "train", "--to", "kaggle")


def begun(desk: Desk, kaggle: Kaggle) -> None:
    """Let each notebook go on until the test has its run finished."""
    kaggle.runs = lambda service, kernel: None


def test_the_number_of_requests_is_known(desk: Desk, kaggle: Kaggle) -> None:
    desk.ok(*SUBMIT)
    assert len(kaggle.requests) == REQUESTS, [str(each) for each in kaggle.requests]


@pytest.mark.slow
def test_after_a_fault_in_any_request_the_same_command_completes_it(
    desk: Desk, kaggle: Kaggle
) -> None:
    for nth, kind in faults_in_turn(REQUESTS):
        kaggle.clear()
        desk.fresh()
        kaggle.fail(kind, nth=nth)
        done = desk.run(*SUBMIT)
        kaggle.faults.clear()
        for _ in range(3):
            if "train: done" not in done.stderr:
                done = desk.run(*SUBMIT)
        assert "train: done" in done.stderr, (nth, kind, done.stderr)
        assert [kernel.runs for kernel in kaggle.kernels.values()] == [1], (nth, kind)
        assert kaggle.datasets == {} and kaggle.live() == []
    assert desk.spills() == []


def test_a_run_that_lives_is_adopted_and_never_begun_twice(desk: Desk, kaggle: Kaggle) -> None:
    begun(desk, kaggle)
    desk.ok(*SUBMIT)
    assert "is there already" not in desk.run(*SUBMIT).stderr
    assert len(kaggle.pushed) == 1
    assert "RUNNING" in desk.run("status", "train").stdout
    assert "no job has made anything yet" in desk.fails(75, "collect", "train")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("COMPLETE", "the run has not finished, and nothing goes on; the service says: COMPLETE"),
        ("ERROR", "the service says: ERROR: out of memory"),
        ("CANCEL_ACKNOWLEDGED", "ended by someone; the service says: CANCEL_ACKNOWLEDGED"),
    ],
)
def test_an_end_without_a_finished_run_is_no_success(
    desk: Desk, kaggle: Kaggle, status: str, words: str
) -> None:
    def ends(service: Kaggle, kernel: Kernel) -> None:
        kernel.status, kernel.words = status, "out of memory" * (status == "ERROR")

    kaggle.runs = ends
    done = desk.run(*SUBMIT, "--follow")
    assert words in done.stderr, done.stderr
    assert done.returncode == (75 if status.startswith("CANCEL") else 1)
    assert len(kaggle.pushed) <= 2, "two hops without progress end it"
    assert kaggle.datasets == {}


@pytest.mark.parametrize(
    ("code", "finished", "words"),
    [
        (1, False, "the run has failed, exit code 1"),
        (0, False, "it ended with exit code 0, but the run has not finished"),
    ],
)
def test_what_the_other_side_says_is_compared_with_the_record(
    desk: Desk, kaggle: Kaggle, code: int, finished: bool, words: str
) -> None:
    def ends(service: Kaggle, kernel: Kernel) -> None:
        kernel.status = "COMPLETE"
        desk.finish(kernel.slug, code, finished)

    kaggle.runs = ends
    assert words in desk.fails(1, *SUBMIT, "--follow")
    assert len(kaggle.pushed) == 1


def test_a_full_service_is_told_and_tried_again(desk: Desk, kaggle: Kaggle) -> None:
    kaggle.others = 2
    assert FULL in desk.fails(1, *SUBMIT)
    assert kaggle.datasets == {} and kaggle.kernels == {}
    kaggle.others = 0
    assert "train: done" in desk.run(*SUBMIT).stderr


def test_a_week_without_hours_begins_nothing(desk: Desk, kaggle: Kaggle) -> None:
    kaggle.used = 30.0
    assert "0.0 of 30 hours of GPU are left this week" in desk.fails(1, *SUBMIT)
    assert kaggle.pushed == [] and kaggle.datasets == {}


def test_a_storage_that_is_a_folder_is_refused(desk: Desk, kaggle: Kaggle) -> None:
    text = desk.fails(2, *SUBMIT, GRADLAB_STORAGE=str(desk.home / "folder"))
    assert "set GRADLAB_STORAGE to a URL such as s3://bucket/folder" in text
    assert kaggle.requests == []


def test_what_is_held_is_listed(desk: Desk, kaggle: Kaggle) -> None:
    begun(desk, kaggle)
    desk.ok(*SUBMIT)
    text = desk.ok("doors", "kaggle")
    (slug,) = kaggle.pushed
    assert slug in text and "notebook, RUNNING" in text
