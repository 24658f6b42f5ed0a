"""Writes the Python that begins a hop on the other side: far_side.py with what it has to know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...services import urls
from .record import Hop, Submission

FAR_SIDE = Path(__file__).with_name("far_side.py")
EMPTY = "CONFIG: Any = {}  # filled in by bootstrap.py"


def script(
    submission: Submission,
    hop: Hop,
    below: str,
    seconds: float,
    bag: str = "",
    folders: Sequence[str] = (),
) -> str:
    """Give the text; `below` is the project's folder in the repository, `bag` where secrets lie."""
    config: dict[str, Any] = {
        "url": submission.url,
        "commit": submission.commit,
        "below": below,
        "workflow": submission.workflow,
        "seconds": seconds,
        "env": {"GRADLAB_STORAGE": submission.storage, "GRADLAB_HOP": hop.name},
        "extra": urls.extra_of(submission.storage),
        "install": True,
        "bag": bag,
        "folders": list(folders),
    }
    text = FAR_SIDE.read_text("utf-8")
    assert EMPTY in text
    return text.replace(EMPTY, f"CONFIG: Any = {config!r}")
