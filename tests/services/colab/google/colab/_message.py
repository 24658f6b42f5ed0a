"""Questions to the browser, answered by a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from IPython import get_ipython

from . import errors

USER = "STAND_IN_USER"


class MessageError(errors.Error):
    """The browser's answer was an error."""


def blocking_request(request_type: str, request: Any = "", timeout_sec: float | None = 5) -> Any:
    """Ask the browser; gives its answer, None if there was none in time."""
    # None in any other process than the kernel's, and so an AttributeError there.
    get_ipython().kernel.shell  # noqa: B018
    folder = Path(os.environ[USER]).parent
    user = json.loads(Path(os.environ[USER]).read_text())
    if request_type == "request_auth":
        tell(folder, "consent", given=user["consent"])
        if not user["consent"]:
            raise MessageError("Error: credential propagation was unsuccessful")
        return {}
    key = request["key"]
    tell(folder, "secret", name=key)
    if key in user["silent"]:
        return None
    known = key in user["secrets"]
    answer = {"exists": known or key in user["refused"], "access": key not in user["refused"]}
    return answer | ({"payload": user["secrets"][key]} if known else {})


def tell(folder: Path, event: str, **facts: object) -> None:
    """Add a line to the account of what happened."""
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"event": event, **facts}) + "\n")
