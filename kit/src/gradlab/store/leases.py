"""Leases: who is at work on something in a storage that several machines reach.

    leases/<key>/00000001.json, 00000002.json ...    the last one counts: whose it is, until when

Promises: one process at a time has the lease of a key. It ends when it is given up, or was not
renewed for some seconds (GRADLAB_LEASE_SECONDS, 60 unless set), by the storage's own clock. Each
has a number, its token, larger than all before it: a writer that was away for so long that
another has taken its place finds a larger one before it commits, and doesn't. A process of the
same machine that died need not be waited for, since a lock of the machine has told that.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import re
import secrets
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from ..base.errors import GradlabError, note
from ..base.locks import ENDING, Held
from .backend import Backend
from .refusals import StorageError

SECONDS = 60.0
NUMBERED = re.compile(r"(\d{8})\.json")
_held: dict[tuple[str, str], Lease] = {}


class Lost(StorageError):
    """Another process has taken over what this one was at work on."""


class Lease:
    """The lease of a key on a backend, for a process of this machine."""

    def __init__(self, backend: Backend, key: str, machine: str) -> None:
        self.backend, self.key, self.machine = backend, key, machine
        self.folder, self.token = f"leases/{key}", 0
        self.seconds = _seconds()
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._owner = {
            "machine": machine,
            "nonce": secrets.token_hex(8),
            "who": f"process {os.getpid()} on {socket.gethostname()} since {since}",
        }
        self._beats, self._ending, self._lost = 0, False, False
        self._process = os.getpid()
        self._end = threading.Event()
        self._busy = threading.Lock()

    def take(self) -> None:
        """Take it; Held where another process has it and has renewed it not long ago."""
        number, state = self._newest()
        if self._is_taken(number, state):
            raise self._by(number, state)
        token = number + 1
        if not self.backend.create(self._file(token), self._text()):
            raise self._by(*self._newest())
        self.token = token
        _held[str(self.backend), self.key] = self
        self._end.clear()
        threading.Thread(target=self._serve, daemon=True, name=f"lease of {self.key}").start()
        atexit.register(self.release)
        for old in range(max(1, token - 4), token):
            self.backend.delete(self._file(old))

    def is_free(self) -> bool:
        """Tell whether no other process has it."""
        number, state = self._newest()
        return not self._is_taken(number, state)

    def release(self) -> None:
        """Give it up, so that nobody has to wait for its end."""
        with self._busy:
            if not self.token or os.getpid() != self._process:  # a fork of it has none
                return
            self._end.set()
            _held.pop((str(self.backend), self.key), None)
            atexit.unregister(self.release)
            with suppress(OSError):  # it ends by itself
                self.backend.write(self._file(self.token), self._text(released=True))
            self.token = 0

    def say_ending(self) -> None:
        """Tell those who wait for it that this process is about to end."""
        if not self._ending:
            self._ending = True
            self._renew()

    def verify(self) -> int:
        """Give its token, if no other process has taken over; else raise Lost."""
        number = self._number()
        if number > self.token or not self.token:
            self._lost = True
            raise Lost(
                errno.ESTALE,
                f"another process has taken over {self.backend.where(self.key)}, since this one "
                f"could not renew its lease for {self.seconds:.0f} seconds: nothing more of it is "
                "kept there. End this one; the other carries on",
            )
        return self.token

    def _serve(self) -> None:
        while not self._end.wait(self.seconds / 4):
            self._renew()

    def _renew(self) -> None:
        try:
            with self._busy:
                if self._end.is_set() or not self.token or self._lost:
                    return
                self._beats += 1
                self.backend.write(self._file(self.token), self._text())
            self.verify()
        except Lost as error:
            note(f"! {error}.")
        except OSError as error:
            note(f"! the lease of {self.key} could not be renewed: {error}. It is tried again.")

    def _newest(self) -> tuple[int, dict[str, Any]]:
        """Give the number of the last lease, 0 if there is none, and what it says."""
        number = self._number()
        if not number:
            return 0, {}
        try:
            state = json.loads(self.backend.read(self._file(number)))
            return number, state if isinstance(state, dict) else {}
        except FileNotFoundError:  # a later one has come, and this one gone
            return self._newest() if self._number() != number else (number, {})
        except ValueError:  # half written, or damaged: it ends by its age
            return number, {}

    def _number(self) -> int:
        found = map(NUMBERED.fullmatch, self.backend.list(self.folder))
        return max((int(match[1]) for match in found if match), default=0)

    def _is_taken(self, number: int, state: dict[str, Any]) -> bool:
        if not number or state.get("released") or state.get("machine") == self.machine:
            return False
        return self._age(number) < float(state.get("seconds", self.seconds))

    def _age(self, number: int) -> float:
        try:
            return self.backend.age(self._file(number))
        except FileNotFoundError:
            return 0.0

    def _by(self, number: int, state: dict[str, Any]) -> Held:
        held = Held(f"{state.get('who', '')}{ENDING * bool(state.get('ending'))}")
        held.beat = f"{number} {state.get('nonce')} {state.get('beats')}"
        return held

    def _file(self, number: int) -> str:
        return f"{self.folder}/{number:08}.json"

    def _text(self, released: bool = False) -> bytes:
        beat = {"seconds": self.seconds, "beats": self._beats, "ending": self._ending}
        return json.dumps({**self._owner, **beat, "released": released}).encode()


def fence(backend: Backend, key: str) -> int:
    """Give the token of the lease that this process has of a key, 0 if it needs none.

    Raises Lost where another process has taken over, and OSError where that can't be told.
    """
    lease = _held.get((str(backend), key))
    return lease.verify() if lease else 0


def _seconds() -> float:
    text = os.environ.get("GRADLAB_LEASE_SECONDS", str(SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise GradlabError(f"GRADLAB_LEASE_SECONDS is {text!r}, not a number of seconds")
    return seconds
