"""How long a service's sessions last and how many it gives, from the one table of services.

limits.json is written by scripts/services.py from services.yaml, where each figure has its source.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Of a session: `hours` it lasts at most; of an account: GPU hours a week, sessions at once."""

    hours: float | None = None
    gpu_hours_a_week: float | None = None
    sessions: int | None = None


def of(service: str) -> Limits:
    """Give the limits of a service by its id; all unknown where it has none there."""
    return Limits(**_table().get(service, {}))


@cache
def _table() -> dict[str, dict[str, Any]]:
    text = resources.files(__package__).joinpath("limits.json").read_text("utf-8")
    table: dict[str, dict[str, Any]] = json.loads(text)
    return table
