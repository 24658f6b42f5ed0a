"""Runs where Paperspace's command line is installed, and calls it and its SDK for the kit.

A request is a line of JSON on standard input, its answer one on standard output:

    {"client": "DatasetsClient", "method": "list", "arguments": {...}}    a method of the SDK
    {"command": ["workflows", "run", ...]}                                 the command line
    {"upload": URL, "text": "...", "type": "text/plain"}                   a file of a dataset

Promises: as clients/frame.py and clients/transport.py say; a failure is told with its HTTP status,
which neither the command line nor the SDK does. Needs nothing of the kit but these two files.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients"))

import frame
from frame import Answer

NO_SPEC = os.path.join(os.devnull, "spec.yaml")
version = frame.version_of("gradient")
try:
    import attr
    import requests
    import transport
    from gradient import api_sdk
    from gradient.api_sdk.config import config
    from gradient.main import _cli_entry_point as command_line
except Exception as error:  # a ValueError or OSError: of the file that the key is stored in
    kind = "config" if isinstance(error, (ValueError, OSError)) else "unusable"
    frame.tell({"version": version, kind: f"{type(error).__name__}: {error}"})
    sys.exit()


def greeting() -> Answer:
    """Say what this is."""
    transport.carry_everything()
    return {"version": version, "key": key(), "defect": defect()}


def key() -> str:
    """Tell whether an API key is there and can be one; the key itself is never told."""
    found = str(config.PAPERSPACE_API_KEY or "")
    if not found:
        return "missing"
    return "fine" if found.isascii() and found.isprintable() and " " not in found else "malformed"


def defect() -> str:
    """Tell why the command line would die, as it does with a click that is too new."""
    reply = answer({"command": ["workflows", "run", "--id", "none", "--path", NO_SPEC]})
    words = str(reply.get("result", reply))
    return "" if NO_SPEC in words else words


def answer(request: Answer) -> Answer:
    """Do what a request asks for; an answer holds a `result` or a `failure`."""
    words = api_sdk.utils.MessageExtractor().get_message_from_response_data
    return transport.answered(lambda: do(request), words, strict=True)


def do(request: Answer) -> Any:
    if "command" in request:
        return run(request["command"])
    if "upload" in request:
        headers = {"Content-Type": request["type"]}
        requests.put(request["upload"], data=request["text"].encode(), headers=headers)
        return None
    client = getattr(api_sdk.clients, request["client"])(api_key=config.PAPERSPACE_API_KEY)
    return plain(getattr(client, request["method"])(**request["arguments"]))


def run(arguments: list[str]) -> str:
    """Run the command line and give what it prints."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        command_line(arguments, prog_name="gradient", standalone_mode=False)
    return printed.getvalue()


def plain(value: Any) -> Any:
    """Make mappings of the SDK's objects."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return attr.asdict(value) if attr.has(type(value)) else value


if __name__ == "__main__":
    frame.serve(greeting, answer)
