"""Which version of the template a project came from, and whether the kit in use is its own.

Promises: the version is part of the kit, so it is right after an update, and however the
template was had: from git, at a tag or as a zip.
"""

from __future__ import annotations

import json
from pathlib import Path

from . import __version__
from .errors import GradlabError

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


def refuse_other_kit(root: Path) -> None:
    """Raise GradlabError where the project in `root` has a kit, and another one is in use."""
    here, own = Path(__file__).parent, root / "src" / "gradlab"
    if not (own / "__init__.py").is_file() or own.samefile(here) or _sources(own) == _sources(here):
        return
    raise GradlabError(
        f"the kit in use is that of another project: {here},\nand not this project's: {own}.\n"
        "Two projects share this environment, and Python takes the kit of the one installed "
        "first.\nGive each project an environment of its own, or choose this one's: "
        f"export PYTHONPATH={root / 'src'}"
    )


def _sources(kit: Path) -> dict[str, bytes]:
    return {str(path.relative_to(kit)): path.read_bytes() for path in sorted(kit.rglob("*.py"))}
