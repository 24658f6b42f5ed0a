"""`gradlab publish`: a model where others find it, with a card that says what it is."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import tyro

from ..base import folders
from ..base.errors import GradlabError
from ..base.files import write_durably
from ..base.units import human
from ..services import session
from ..store import location
from ..store.datasets import usable
from . import card, choice
from .choice import SHOWN, WEIGHTS
from .hub import Hub, require

CARD = "README.md"
WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
REPOSITORY = re.compile(rf"hf://({WORD}/{WORD})/?")
TAKEN = ("buckets", "datasets", "spaces", "models")  # by the Hub's other kinds of address


def publish_command(
    url: Annotated[str, tyro.conf.Positional],
    run: str | None = None,
    private: bool = False,
    dry_run: bool = False,
) -> int:
    """Share a finished run's model, with its curves and a card, on the Hugging Face Hub.

    The token comes from HF_TOKEN or hf auth login. Given again, it sends what has changed.

    Args:
        url: hf://OWNER/NAME: a repository of models, which is made if it isn't there.
        run: Its name, where more than one has finished (gradlab runs lists all).
        private: Make the repository, if it isn't there, for you and your organization only.
        dry_run: Lay out what would be sent in a folder, say which, and send nothing.
    """
    repository, root = _repository(url), session.project_root()
    require()
    project = session.project_name(root)
    place = location.of(project)
    with usable(place.backend):
        hub = None if dry_run else Hub(repository, private)
        chosen = choice.chosen(place, run)
        folder = place.work / "published" / repository
        names = choice.lay(chosen, folder)
    text = card.text(chosen, project, session.project_framework(root), folder, names)
    write_durably(folder / CARD, text.encode())
    names.append(CARD)
    size = sum((folder / name).stat().st_size for name in names)
    print(f"Run {chosen.name!r} in {chosen.where}: {len(names)} files, {human(size)}.")
    if hub is None:
        print(f"They lie in {folder}; nothing was sent.")
        return 0
    try:
        message = f"Run {chosen.name} of {project}, step {chosen.summary.step}"
        sent = hub.bring(folder, names, (*WEIGHTS, *SHOWN, CARD), message)
    finally:
        _clear(folder)
    print(f"Sent in one commit: {sent}" if sent else f"{hub.where} has all of it already.")
    return 0


def _repository(url: str) -> str:
    match = REPOSITORY.fullmatch(url)
    if not match or match[1].partition("/")[0] in TAKEN:
        raise GradlabError(
            f"{url!r} names no repository of models: it is hf://OWNER/NAME, such as hf://me/digits"
        )
    return match[1]


def _clear(folder: Path) -> None:
    with suppress(OSError):
        folders.discard(folder)
