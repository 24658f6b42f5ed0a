"""Which version of the template a project came from.

Promises: the version is part of the kit, so it is right after an update, and however the
template was had: from git, at a tag or as a zip. Never fails.
"""

from __future__ import annotations

import json
from pathlib import Path

from . import __version__

TEMPLATE = "cookiecutter-gradient-colab"


def origin(root: Path) -> str:
    """Name the template and its version, and the commit where cruft has recorded it.

    Args:
        root: The project's folder.
    """
    known = f"{TEMPLATE} {__version__}"
    try:
        commit = json.loads((root / ".cruft.json").read_text("utf-8"))["commit"][:7]
    except (OSError, ValueError, LookupError, TypeError):
        return known
    return f"{known} (commit {commit})"
