"""What goes wrong on the way to Colab: no machine stays, and nothing is begun twice."""

from __future__ import annotations

import pytest

from .colab_service import Colab
from .conftest import Desk
from .standin import FAULTS, faults_in_turn

SUBMIT = ("submit", "train", "--to", "colab")
FIRST = 12  # requests, from the login to the machine's kernel
# Without those for which it waits.
KINDS = [kind for kind in FAULTS if kind not in ("timeout", 429, "stale")]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_after_a_fault_in_any_request_the_same_command_completes_it(
    desk: Desk, colab: Colab
) -> None:
    for nth, kind in faults_in_turn(FIRST, KINDS):
        colab.clear()
        desk.fresh()
        colab.fail(kind, nth=nth)
        done = desk.run(*SUBMIT)
        colab.faults.clear()
        if done.returncode:
            assert colab.assigned == {}, (
                f"a machine is held after {kind} in request {nth}: {done.stderr}"
            )
        for _ in range(3):
            if done.returncode:
                done = desk.run(*SUBMIT)
        assert done.returncode == 0, (nth, kind, done.stderr)
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
