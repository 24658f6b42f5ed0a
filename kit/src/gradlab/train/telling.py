"""What a training tells of itself to whom GRADLAB_NOTIFY names."""

from __future__ import annotations

from ..services.notify import teller


def began(project: str, name: str, step: int, total: int) -> None:
    """Tell that a run starts, or carries on."""
    text = f"carries on at step {step:,} of {total:,}" if step else f"starts: {total:,} steps"
    again = f"If it is cut off: python -m {project} train --name {name}, with the same options"
    teller.began(f"{project}: run {name!r}", text, again)


def stopped(step: int, total: int) -> None:
    """Tell that it was cut off in time."""
    teller.ended(f"stopped at step {step:,} of {total:,}, saved", "The same command carries on.")


def finished(project: str, name: str, best: str) -> None:
    """Tell that it has finished."""
    teller.ended(f"has finished\n{best}.", f"Next: python -m {project} evaluate --name {name}")
