"""What goes wrong on the way to Colab: no machine stays, and nothing is begun twice."""

from __future__ import annotations

from typing import Any

import pytest

from .colab_service import Colab
from .conftest import Desk

SUBMIT = ("submit", "train", "--to", "colab")
FIRST = 12  # requests, from the login to the machine's kernel
KINDS: list[Any] = [500, "lost", "html", "drop", 404, 401, 403, 409]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_after_a_fault_in_any_request_the_same_command_completes_it(
    desk: Desk, colab: Colab
) -> None:
    for nth in range(1, FIRST + 1):
        colab.clear()
        desk.fresh()
        colab.fail(KINDS[nth % len(KINDS)], nth=nth)
        done = desk.run(*SUBMIT)
        colab.faults.clear()
        if done.returncode:
            assert colab.assigned == {}, f"a machine is held after request {nth}: {done.stderr}"
        for _ in range(3):
            if done.returncode:
                done = desk.run(*SUBMIT)
        assert done.returncode == 0, (nth, done.stderr)
        assert len(colab.assigned) == 1
        (hop,) = [hop["name"] for hop in desk.hops()]
        desk.finish(hop)
        assert "train: done" in desk.run(*SUBMIT).stderr
        assert colab.assigned == {}
    assert desk.spills() == []


def test_another_machine_than_was_asked_for_is_given_back(desk: Desk, colab: Colab) -> None:
    colab.gives = "A100"
    assert "it gives A100 where T4 was asked for" in desk.fails(1, *SUBMIT)
    assert colab.assigned == {}


def test_a_machine_that_colab_does_not_know_is_refused_before_any_request(
    desk: Desk, colab: Colab
) -> None:
    assert "Colab has no machine 'BOGUS'" in desk.fails(2, *SUBMIT, "--machine", "BOGUS")
    assert colab.requests == []


def test_a_service_without_a_machine_is_told(desk: Desk, colab: Colab) -> None:
    colab.full = True
    assert "Colab has no machine for it now" in desk.fails(1, *SUBMIT)
    assert colab.assigned == {}
