"""Google's side of a user's Colab sessions, as far as a test has to do with it.

Promises: one folder of this machine holds all of it, so that it outlives every machine it is
bound to: the Drive's files, its trash, the faults, the user's secrets and consent, and an account
of what happened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .faults import EVENTS, FAULTS, TOP, tell, write_whole
from .processes import until

USER = "user.json"


class Cloud:
    """What Google keeps for one user, in a folder: an empty Drive, no faults, no secrets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = folder / "drive"
        (self.files / TOP).mkdir(parents=True)
        (folder / EVENTS).touch()
        self.user()
        self.faults()

    def faults(self, **faults: Any) -> None:
        """Replace all faults of the Drive by these, at once.

        upload_seconds    from a file's close to its upload, or "never"
        stuck             pattern of paths that are never uploaded
        crash             the Drive's process is killed now
        crash_at_write    ... at the n-th write from now
        eio               list of {path, operations, count, until}, all of them optional: what meets
                          EIO; path is a pattern, until is in seconds since 1970
        quota             bytes; with quota_error (ENOSPC or EDQUOT) and quota_at (write or upload)
        rename, symlink   name of the error number that it ends with
        locks             the same, for file locks; in force from the next mount on
        append_stays_empty  files opened for append are uploaded without content
        entries           a folder of more entries can't be listed: EIO
        """
        write_whole(self.folder / FAULTS, json.dumps(faults))

    def user(
        self,
        consent: bool = True,
        policy: bool = True,
        secrets: Mapping[str, str] | None = None,
        refused: Sequence[str] = (),
        silent: Sequence[str] = (),
    ) -> None:
        """Say what the user does when asked, and the domain's policy on Drive.

        Of the names of secrets, `refused` ones are closed to the notebook, and the question for
        `silent` ones is never answered.
        """
        facts = {
            "consent": consent,
            "policy": policy,
            "secrets": dict(secrets or {}),
            "refused": list(refused),
            "silent": list(silent),
        }
        write_whole(self.folder / USER, json.dumps(facts))

    def tell(self, event: str, **facts: object) -> None:
        tell(self.folder, event, **facts)

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """List what happened, in order: mount, unmount, upload, crash, consent, secret, ..."""
        lines = (self.folder / EVENTS).read_text().splitlines()
        return [e for e in map(json.loads, lines) if kind in (None, e["event"])]

    def waiting(self, path: str, seconds: float = 10.0) -> Path:
        """Wait until Google holds a file, named below MyDrive, and give its place."""
        place = self.files / TOP / path
        until(place.exists, seconds, f"the upload of {path}")
        return place
