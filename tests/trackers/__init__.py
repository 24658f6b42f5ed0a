"""Trackers and messages: what shows elsewhere how a run goes."""

from __future__ import annotations

import sys
from pathlib import Path

# Which has their clients, and all that the tests need.
PYTHON = Path(sys.executable).parents[1] / "trackers/bin/python"
