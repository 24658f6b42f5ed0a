"""Stands in for the Python of Paperspace's client: as it, but quick to become the kit's agent.

That one asks a Python that has loaded the client, see tests/warm, for a fork. Whatever else is
wanted of it is started as usual.
"""

from __future__ import annotations

import os

FLAGS = ["-I", "-X", "utf8", "-W", "ignore"]  # with which the kit starts its agent
# Modules of it that take the environment in when they are loaded.
AFRESH = ("gradient.api_sdk.config", "gradient.api_sdk.clients.http_client")
LOADED = ("attr", "requests", "gradient", "gradient.main", *AFRESH)
AT_START = ("LC_", "LANG", "LD_")  # what a Python reads when it starts


def main(python: str, server: str, program: str, *arguments: str) -> None:
    """Become the agent, or what a Python becomes with these arguments."""
    *flags, file = arguments or ("",)
    # A Python that finds none makes a locale of its own known.
    given = set(os.environ) - ({"LC_CTYPE"} if os.environ.get("LC_CTYPE") == "C.UTF-8" else set())
    if flags != FLAGS or any(name.startswith(AT_START) for name in given):
        os.execv(python, [python, *arguments])
    from asking import become  # of tests/warm

    become(server, [file], AFRESH)
