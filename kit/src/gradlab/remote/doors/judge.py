"""What became of a hop: of the service's state, what the other side noted, and the run's record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .far_side import MARK
from .protocol import Seen

MORE_TO_DO = 75
BY_SIGNAL = 128


@dataclass(frozen=True)
class Verdict:
    """How a hop ended: done or failed as a whole; stopped or cut off with more to do."""

    state: Literal["done", "failed", "stopped", "cut off"]
    said: str
    by_someone: bool = False  # who wants no next one


def by_record(
    seen: Seen, outcome: Mapping[str, Any] | None, finished: bool, printed: str
) -> Verdict | None:
    """Judge a hop of which the run's record tells; `finished` is a run that ended since it began.

    None while it goes on. `printed` is looked at where the other side noted nothing.
    """
    service = f"the service says: {seen.said or seen.word}"
    if finished:
        return Verdict("done", "the run has finished")
    if outcome:
        return _noted(int(outcome["code"]), bool(outcome.get("asked")))
    if seen.lives:
        return None
    if seen.word == "cancelled":
        return Verdict("stopped", f"ended by someone; {service}", by_someone=True)
    if reason := _could_not_begin(printed):
        return Verdict("failed", f"it could not begin: {reason}")
    return Verdict("cut off", f"the run has not finished, and nothing goes on; {service}")


def _noted(code: int, asked: bool) -> Verdict:
    if asked:
        return Verdict("stopped", "asked to stop, it has saved", by_someone=True)
    if code == MORE_TO_DO:
        return Verdict("stopped", "it has saved in time, and there is more to do")
    if code > BY_SIGNAL:
        return Verdict("cut off", f"the run was ended by signal {code - BY_SIGNAL}")
    if code == 0:
        return Verdict("failed", "it ended with exit code 0, but the run has not finished")
    return Verdict("failed", f"the run has failed, exit code {code}: see its log")


def _could_not_begin(printed: str) -> str:
    lines = [line for line in printed.splitlines() if MARK in line]
    return lines[-1].partition(MARK)[2] if lines else ""
