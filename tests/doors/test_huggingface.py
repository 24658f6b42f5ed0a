"""`gradlab submit --to huggingface`: the real client against Hugging Face on loopback."""

from __future__ import annotations

import json

import pytest

from .conftest import SECRETS, Desk
from .huggingface_service import TOKEN, HuggingFace
from .standin import faults_in_turn

SUBMIT = ("submit", "train", "--to", "huggingface")


def test_a_run_is_handed_over_as_a_job_with_its_secrets(
    desk: Desk, huggingface: HuggingFace
) -> None:
    done = desk.run(*SUBMIT, "--hours", "2")
    assert done.returncode == 0, done.stderr
    assert "t4-small costs 0.40 USD an hour" in done.stderr
    assert "train: done" in done.stderr
    (job,) = huggingface.jobs
    assert job.spec["timeoutSeconds"] == 7200 and job.spec["flavor"] == "t4-small"
    bag = json.loads(job.secrets["GRADLAB_BAG"])
    assert SECRETS.items() <= bag["env"].items()
    assert not any(value in json.dumps(job.told()) for value in SECRETS.values())
    assert desk.spills() == []


@pytest.mark.slow
def test_after_a_fault_in_any_request_the_same_command_completes_it(
    desk: Desk, huggingface: HuggingFace
) -> None:
    desk.ok(*SUBMIT)
    for nth, kind in faults_in_turn(len(huggingface.requests)):
        huggingface.clear()
        desk.fresh()
        huggingface.fail(kind, nth=nth)
        done = desk.run(*SUBMIT)
        huggingface.faults.clear()
        for _ in range(3):
            if "train: done" not in done.stderr:
                done = desk.run(*SUBMIT)
        assert "train: done" in done.stderr, (nth, kind, done.stderr)
        assert len(huggingface.jobs) == 1, (nth, kind)
    assert desk.spills() == []


def test_an_account_without_credit_is_told_where_it_gets_some(
    desk: Desk, huggingface: HuggingFace
) -> None:
    huggingface.pays = False
    assert "has no way to pay: https://huggingface.co/settings/billing" in desk.fails(1, *SUBMIT)
    assert huggingface.jobs == []


@pytest.mark.parametrize(("stage", "words"), [("ERROR", "ERROR"), ("COMPLETED", "COMPLETED")])
def test_an_end_without_a_finished_run_is_no_success(
    desk: Desk, huggingface: HuggingFace, stage: str, words: str
) -> None:
    huggingface.runs = lambda service, job: setattr(job, "stage", stage)
    assert f"the service says: {words}" in desk.fails(1, *SUBMIT, "--follow")
    assert len(huggingface.jobs) == 2 and TOKEN not in "".join(desk.said)
