"""Which version of the template a project came from, and whether the kit in use is its own.

Promises: uses the standard library only, for it is used before anything is installed; the version
is part of the kit, so it is right after an update, and however the template was had: from git, at
a tag or as a zip.
"""

from __future__ import annotations

import json
import shlex
import zipfile
import zlib
from pathlib import Path

from .. import __version__
from ..base.errors import GradlabError

TEMPLATE = "cookiecutter-gradient-colab"
VENDOR = "vendor"  # the folder of a project in which its kit lies, as a wheel
CODE = (".py", ".json")


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


def wheel(root: Path) -> Path | None:
    """Give the wheel with the kit of the project in `root`; None where it has none."""
    return max((root / VENDOR).glob("gradlab-*.whl"), default=None)


def refuse_other_kit(root: Path) -> None:
    """Raise GradlabError where the project in `root` has a kit, and another one is in use."""
    here, own = Path(__file__).parents[1], wheel(root)
    if own is None or own.samefile(here.parent) or is_the_kit_of(own, here):
        return
    raise GradlabError(
        f"the kit in use is not this project's: {here}\nis not what is in {own}.\n"
        "Two projects share this environment, or the project has a newer kit than is installed.\n"
        "Give each project an environment of its own, or install this one's kit: "
        f"python -m pip install --force-reinstall --no-deps {shlex.quote(str(own))}"
    )


def is_the_kit_of(wheel: Path, folder: Path) -> bool:
    """Tell whether a folder holds the code of the kit that is in a wheel, and no other code.

    Raises GradlabError where the wheel can't be read.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            files = [info for info in archive.infolist() if info.filename.startswith("gradlab/")]
    except (OSError, zipfile.BadZipFile) as error:
        raise GradlabError(
            f"{wheel}, the kit of this project, can't be read: {error}.\n"
            "Bring it back from git, or from the template."
        ) from error
    top = folder.parent
    there = {info.filename: info.CRC for info in files if info.filename.endswith(CODE)}
    here = [path for path in folder.rglob("*") if path.suffix in CODE]
    return there == {p.relative_to(top).as_posix(): zlib.crc32(p.read_bytes()) for p in here}
