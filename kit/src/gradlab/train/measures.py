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
    """Raise GradlabError where a loss by a step is no number any more."""
    if not all(math.isfinite(line["loss"]) for line in lines):
        raise GradlabError(
            f"The loss became {lines[-1]['loss']} by step {step}: try a lower --learning-rate or "
            f"--precision fp32, and {session.ways_to_start_over()}.",
            exit_code=1,
        )
