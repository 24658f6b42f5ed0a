"""The datasets that a training reads, in a job of a workflow and outside of one.

Promises: the same call gives the same files in both, and the run notes which they were.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..base.errors import GradlabError
from ..services import session
from ..store.datasets import open_store
from ..store.versions import NoVersion

TOLD = "GRADLAB_DATA"  # by the runner to a job: {input: SHA-256 of what it holds}
_opened: dict[str, str] = {}


def folder(name: str) -> Path:
    """Give the folder of a dataset, not to be written to: a job's input, else the newest version.

    Raises GradlabError where there is neither.
    """
    given = Path(os.environ.get("GRADLAB_INPUTS", "/inputs"), name)
    if given.is_dir():
        return given
    store = open_store(session.project_root())
    try:
        version = store.find(name)
    except NoVersion as error:
        raise GradlabError(
            f"{error}\nIn a job of a workflow it is read as /inputs/{name} where the job has an "
            f"input of the name {name}."
        ) from error
    _opened[name] = version.tree.digest
    return store.open(version)


def digests() -> dict[str, str]:
    """Give the SHA-256 of each dataset that is read here: a job's inputs, and what was opened."""
    told: dict[str, str] = json.loads(os.environ.get(TOLD, "{}"))
    return dict(sorted({**_opened, **told}.items()))
