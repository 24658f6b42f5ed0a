"""`gradlab datasets`: what is kept, whether it is whole, new versions, and their removal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..base.errors import GradlabError
from ..services import session
from ..store import listing, location
from ..store.datasets import Datasets, usable


def datasets_command(
    action: Annotated[
        Literal["list", "show", "verify", "add", "remove"], tyro.conf.Positional
    ] = "list",
    reference: Annotated[str | None, tyro.conf.Positional] = None,
    folder: Annotated[Path | None, tyro.conf.Positional] = None,
    yes: bool = False,
    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
) -> int:
    """List, show, verify, add or remove versions of datasets.

    Args:
        action: list all; show one's versions and files; verify one's files, or all, against
            their SHA-256; add a folder as a new version; remove one version, or all of a dataset:
            what would go is shown, and asked about.
        reference: The dataset: NAME, NAME:VERSION or NAME:TAG.
        folder: What to add.
        yes: With remove: don't ask.
        model: With remove: the id of a registered model, of which what it was made from may go.
    """
    place = location.of(session.project_name(session.project_root()))
    store = Datasets(place)
    if action != "remove" and (yes or model):
        raise GradlabError("--yes and --model are for  gradlab datasets remove")
    with usable(store.top):
        if action != "remove":
            return listing.dispatch(store, action, reference, folder)
        if reference is None:
            raise GradlabError("which dataset? gradlab datasets remove NAME:VERSION")
        from .removing import remove  # and with it what runs need

        return remove(place, session.project_root(), reference, {*model}, yes)
