"""Messages about runs to whom GRADLAB_NOTIFY names, by apprise: a chat, a mail, a phone.

    GRADLAB_NOTIFY   addresses of apprise, with commas or spaces between them. They are secret.

    python -m gradlab.services.notify    sends the message that standard input holds

Promises: no address is printed, kept or on a command line, and no job of a workflow gets them. Work
waits for messages some seconds at its end only, and one that fails is said, and stops nothing. What
stands in it is printed too.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress

from ..base.errors import GradlabError, note, only_observing, reason

VARIABLE = "GRADLAB_NOTIFY"
SECONDS = 10.0  # for a message, and at most at the end of the work
BETWEEN = re.compile(r"[\s,]+(?=[A-Za-z][\w+.-]*://)")
SCHEME = re.compile(r"[A-Za-z][\w+.-]*(?=://)")


def addresses() -> list[str]:
    """Give the addresses that the environment names."""
    given = os.environ.get(VARIABLE, "").strip(" \t\r\n,")
    return BETWEEN.split(given) if given else []


def check() -> None:
    """Raise GradlabError where messages are asked for that can't be sent; names no address."""
    given = addresses()
    if not given:
        return
    if importlib.util.find_spec("apprise") is None:
        raise GradlabError(
            f"{VARIABLE} asks for messages, which apprise sends, and that is not installed: "
            "pip install --find-links vendor 'gradlab[notify]'; or unset the variable."
        )
    import apprise

    for number, address in enumerate(given, 1):
        if apprise.Apprise.instantiate(address) is None:
            raise GradlabError(
                f"{VARIABLE}: address {number} of {len(given)} ({_kind(address)}) is none that "
                "apprise can use, such as mailto://USER:PASSWORD@HOST or slack://TOKENS.\n"
                "Each stands as apprise's page has it, with commas or spaces between them."
            )


def _kind(address: str) -> str:
    """Say of an address what is no secret."""
    found = SCHEME.match(address)
    return f"{found[0]}://" if found else "without ://"


class Teller:
    """Tells of what this process does, from its beginning to its end."""

    def __init__(self) -> None:
        self._at_work = ""
        self._sent: list[subprocess.Popen[bytes]] = []
        self._warned = False

    def began(self, what: str, text: str, next: str) -> None:
        """Tell that something began or carries on, such as "my_model: run 'wide'"."""
        self.takes_on(what)
        self._tell(text, next)

    def takes_on(self, what: str) -> None:
        """Note what is done from now on, of which only the end is told."""
        self._at_work = what

    def lets_go(self) -> None:
        """Note that there is nothing more to tell."""
        self._at_work = ""

    def ended(self, text: str, next: str) -> None:
        """Tell how what began has ended, or that it was cut off; once."""
        if self._at_work:
            self._tell(text, next)
        self.lets_go()

    def failed(self, error: BaseException) -> None:
        """Tell that what began has failed, unless its end was told."""
        why = reason(error).strip()
        self.ended(f"failed: {why}", "Mend that; the same command carries on from what was kept.")

    def _tell(self, text: str, next: str) -> None:
        if not addresses():
            return
        title, _, more = f"{self._at_work} {text}".partition("\n")
        body = "\n".join(filter(None, [more, next, f"On {socket.gethostname()}."]))
        with only_observing("No message could be sent"):
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # what a terminal sends is for the work
            )
            assert process.stdin
            process.stdin.write(json.dumps([title, body]).encode())
            process.stdin.close()
            self._sent.append(process)

    def wait(self) -> None:
        """Give what is being sent some seconds, and warn once if it could not be."""
        end = time.monotonic() + SECONDS
        for process in self._sent:
            said = "no answer in time"
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
                assert process.stdout
                said = process.stdout.read().decode("utf-8", "replace").strip()
            if process.poll() is None:
                process.kill()
                process.wait()
            if said and not self._warned:
                self._warned = True
                note(f"! A message to {VARIABLE} could not be sent: {said}. Nothing else is lost.")
        self._sent.clear()


teller = Teller()


def send(title: str, body: str) -> list[str]:
    """Send a message to all addresses at once; give the kinds that did not take it.

    Each once: who is slow may have taken it, and nobody is to be told twice.
    """
    from concurrent.futures import ThreadPoolExecutor

    import apprise

    def sent(address: str) -> bool:
        one = apprise.Apprise()
        one.add(address)
        return bool(one.notify(body=body, title=title))

    given = addresses()
    with ThreadPoolExecutor(len(given)) as pool:
        taken = list(pool.map(sent, given))
    return [_kind(address) for address, was in zip(given, taken, strict=True) if not was]


if __name__ == "__main__":
    title, body = json.load(sys.stdin)
    if refused := send(title, body):
        print(f"{', '.join(refused)} did not take it")
