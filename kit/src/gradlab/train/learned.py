"""The record of what a run has learned from, as its settings and its model hold it."""

from __future__ import annotations

from typing import Any

RECORD = "learned_from"  # in a run's settings: since which step, by which code and data


def of(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the record that the settings of a run or model hold; nothing if they hold none."""
    if "code" in settings:  # of a version that kept no more
        return [{"after_step": 0, "code": settings["code"], "data": []}]
    return list(settings.get(RECORD, []))
