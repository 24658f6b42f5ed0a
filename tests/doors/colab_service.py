"""Colab on loopback, as its real client (0.7.5) asks it: machines with a real Jupyter server each.

What goes to a machine's Jupyter goes over a relay, on which requests can fail like all others.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from ..gradient.api import Request
from ..services.machine import Machine
from .standin import PAGE, Reply, Service

TOKEN = "colab-login-token-0123456789"
PROXY = "colab-proxy-token-0123456789"
ENTITLED = ("NONE", "T4", "A100")


class Jupyter:
    """A Jupyter server whose kernel and files are those of a machine."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        quiet = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        program = (machine.python, "-m", "ipykernel_launcher", "-f", "{connection_file}")
        command = machine.command(*program, env=quiet)
        spec = folder / "kernels" / "python3"
        spec.mkdir(parents=True)
        data = {"argv": command, "display_name": "Python 3", "language": "python"}
        (spec / "kernel.json").write_text(json.dumps(data))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        options = {
            "ServerApp.port": self.port,
            "ServerApp.root_dir": machine.disk,
            "ServerApp.disable_check_xsrf": True,
            "IdentityProvider.token": "",
            "ServerApp.open_browser": False,
            "KernelSpecManager.ensure_native_kernel": False,
        }
        names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")
        env = {**os.environ, **{name: str(folder / name) for name in names}}
        env |= {
            "JUPYTER_NO_CONFIG": "1",
            "JUPYTER_PATH": str(folder),
            "JUPYTER_RUNTIME_DIR": str(machine.disk / "kernel"),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jupyter_server", "--allow-root"]
            + [f"--{name}={value}" for name, value in options.items()],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                assert time.monotonic() < end and self.process.poll() is None
                time.sleep(0.1)

    def clean(self) -> None:
        """Be a new machine: no kernel runs on it."""
        place = f"http://127.0.0.1:{self.port}/api/kernels"
        for kernel in requests.get(place, timeout=30).json():
            requests.delete(f"{place}/{kernel['id']}", timeout=30)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


@dataclass
class Assignment:
    """A machine that somebody has."""

    endpoint: str
    accelerator: str
    jupyter: Jupyter


class Colab(Service):
    """The service; `machine` gives one whenever one is taken."""

    prefix = b")]}'\n"

    def __init__(self, machine: Callable[[], Jupyter]) -> None:
        self.machine = machine
        self.ids = itertools.count(1)
        super().__init__()
        self.clear()
        self.relay = Relay(self)

    def clear(self) -> None:
        """Forget everything."""
        self.assigned: dict[str, Assignment] = {}
        self.given: list[str] = []  # notebooks' ids that a machine was given to
        self.gives = ""  # another accelerator than is asked for
        self.full = False
        self.requests, self.faults, self.before = [], [], {}

    @property
    def env(self) -> dict[str, str]:
        return {"STAND_IN_COLAB": self.url, "STAND_IN_COLAB_TOKEN": TOKEN}

    def allowed(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {TOKEN}"

    def told(self, found: Assignment) -> dict[str, Any]:
        info = {"token": PROXY, "tokenExpiresInSeconds": 3600, "url": self.relay.url}
        told: dict[str, Any] = {"accelerator": found.accelerator, "endpoint": found.endpoint}
        return told | {"variant": int(found.accelerator != "NONE"), "runtimeProxyInfo": info}

    def _asked(self, request: Request, _: re.Match[str]) -> Reply:
        notebook = request.query["nbh"][0]
        if found := self.assigned.get(notebook):
            return 200, self.told(found)
        return 200, {"acc": "NONE", "nbh": notebook, "token": "xsrf", "variant": "DEFAULT"}

    def _assign(self, request: Request, _: re.Match[str]) -> Reply:
        assert request.headers["x-goog-colab-token"] == "xsrf"
        notebook = request.query["nbh"][0]
        accelerator = request.query.get("accelerator", ["NONE"])[0]
        if self.full:
            return 412, {"message": "precondition failed"}
        if accelerator not in ENTITLED:
            return 400, {"message": "not entitled"}
        if notebook not in self.assigned:
            endpoint = f"gpu-s-{next(self.ids)}"
            given = self.gives or accelerator
            self.assigned[notebook] = Assignment(endpoint, given, self.machine())
            self.given.append(notebook)
        return 200, self.told(self.assigned[notebook])

    def _assignments(self, request: Request, _: re.Match[str]) -> Reply:
        found = [{**self.told(each), "machineShape": 0} for each in self.assigned.values()]
        return 200, {"assignments": found}

    def _ask_unassign(self, request: Request, _: re.Match[str]) -> Reply:
        return 200, {"token": "xsrf"}

    def _unassign(self, request: Request, match: re.Match[str]) -> Reply:
        for notebook, found in list(self.assigned.items()):
            if found.endpoint == match[1]:
                del self.assigned[notebook]
                found.jupyter.clean()
        return 200, {}

    def _usage(self, request: Request, _: re.Match[str]) -> Reply:
        rate = sum(1.19 for each in self.assigned.values() if each.accelerator == "T4")
        told = {"currentBalance": 88.5, "consumptionRateHourly": rate}
        return 200, told | {"assignmentsCount": len(self.assigned)}

    routes = (
        ("GET", "/tun/m/assign", _asked),
        ("POST", "/tun/m/assign", _assign),
        ("GET", "/tun/m/assignments", _assignments),
        ("GET", "/tun/m/unassign/(.+)", _ask_unassign),
        ("POST", "/tun/m/unassign/(.+)", _unassign),
        ("GET", "/tun/m/ccu-info", _usage),
    )


class Relay:
    """Brings connections to the Jupyter server of the machine that was taken last."""

    def __init__(self, service: Colab) -> None:
        self.service = service
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.relay, args=(connection,), daemon=True).start()

    def relay(self, connection: socket.socket) -> None:
        """Pass on one connection, or let its first request fail."""
        with connection:
            head = self.head(connection)
            if not head:
                return
            method, path = head.split(b" ")[:2]
            request = Request(method.decode(), path.decode().partition("?")[0], {}, None, {})
            service = self.service
            with service.lock:
                service.requests.append(request)
                number = len(service.requests)
                fault = next((f for f in service.faults if f.hits(number, request)), None)
                machines = [*service.assigned.values()]
            what = fault.what if fault else None
            if not machines or PROXY.encode() not in head:
                what = 401
            if what == "timeout":
                service.closing.wait(30)
            elif what == "html":
                connection.sendall(answer(200, PAGE))
            elif isinstance(what, int):
                connection.sendall(answer(what, b'{"message": "refused as the test wants"}'))
            elif what != "drop":
                server = socket.create_connection(("127.0.0.1", machines[-1].jupyter.port))
                self.both(head, connection, server, unanswered=what in ("lost", "stale"))

    @staticmethod
    def head(connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(1 << 16)
            if not piece:
                return b""
            data += piece
        # One request in a connection, but for those that become something else.
        if b"pgrade: websocket" not in data:
            data = data.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            data = re.sub(rb"\r\nConnection: keep-alive", b"", data)
        return data

    @staticmethod
    def both(head: bytes, client: socket.socket, server: socket.socket, unanswered: bool) -> None:
        def back() -> None:
            while data := server.recv(1 << 16):
                if not unanswered:
                    client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

        def quietly(do: Callable[[], None]) -> None:
            with suppress(OSError):  # who asked has gone
                do()

        with server:
            server.sendall(head)
            thread = threading.Thread(target=quietly, args=(back,), daemon=True)
            thread.start()

            def forth() -> None:
                while data := client.recv(1 << 16):
                    server.sendall(data)
                server.shutdown(socket.SHUT_WR)

            quietly(forth)
            thread.join(30)


def answer(status: int, data: bytes) -> bytes:
    words = http.client.responses[status]
    head = f"HTTP/1.1 {status} {words}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    return head.encode() + data
