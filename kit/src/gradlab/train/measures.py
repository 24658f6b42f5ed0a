"""What losses and metrics mean to a run: which evaluation is the best, and which loss is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..base.errors import GradlabError
from ..services import session


def is_better(values: Mapping[str, float], before: float | None, best: tuple[str, str]) -> bool:
    """Tell whether an evaluation is better than the best before it, None for none.

    `best` is by which metric, and whether the highest or lowest; GradlabError if it isn't there.
    """
    name, way = best
    if name not in values or way not in ("highest", "lowest"):
        raise GradlabError(
            f"task.py says BEST = {best!r}: give one of {', '.join(values)}, and 'highest' or "
            "'lowest'."
        )
    if before is None or math.isnan(before) or math.isnan(values[name]):
        return before is None or (math.isnan(before) and not math.isnan(values[name]))
    return values[name] > before if way == "highest" else values[name] < before


def refuse_infinite(lines: Sequence[Mapping[str, float]], step: int) -> None:
    """Raise GradlabError where one of the losses by a step is no number any more."""
    losses = [(name, value) for line in lines for name, value in line.items()]
    name, value = next((each for each in losses if not math.isfinite(each[1])), ("loss", 0.0))
    if not math.isfinite(value):
        raise GradlabError(
            f"The {name.replace('_', ' ')} became {value} by step {step}: try a lower "
            f"--learning-rate or --precision fp32, and {session.ways_to_start_over()}.",
            exit_code=1,
        )
