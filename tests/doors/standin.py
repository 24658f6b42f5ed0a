"""A service on loopback that keeps state, records what arrives, and fails on demand.

A request that it does not know is an error of the test: see `unexpected`.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ..gradient.api import Fault, Request, Server

PAGE = b"<!DOCTYPE html><html><body>Welcome to the hotel. Log in.</body></html>"
Reply = tuple[int, Any]
FAULTS: list[Any] = ["lost", 500, "html", "drop", 404, 401, "stale", 403, 409, 429, "timeout"]
# Each request meets one of them. Every request all of them: ROUNDS=11
ROUNDS = int(os.environ.get("ROUNDS", "1"))
Route = Callable[[Any, Request, re.Match[str]], Reply]


class Service:
    """A service's state and its server."""

    prefix = b""  # before each answer

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.unexpected: list[str] = []
        self.before: dict[str, Reply] = {}  # what was last answered to a request
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self.server = Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    routes: tuple[tuple[str, str, Route], ...] = ()

    @contextmanager
    def running(self) -> Iterator[Any]:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            self.closing.set()
            self.server.shutdown()
            self.server.server_close()

    def fail(self, what: int | str, **when: Any) -> None:
        """Let go wrong, beside what Fault has: `html`, or `stale`, the answer to the one before."""
        self.faults.append(Fault(what, **when))

    def sent(self, pattern: str) -> list[Request]:
        return [request for request in self.requests if re.search(pattern, str(request))]

    def allowed(self, request: Request) -> bool:
        """Tell whether a request has the account's key."""
        return True

    def answer(self, request: Request) -> Reply:
        if not self.allowed(request):
            return 401, {"code": 401, "message": "no such token"}
        for method, pattern, route in self.routes:
            match = re.fullmatch(pattern, request.path)
            if method in (request.method, "") and match:
                return route(self, request, match)
        self.unexpected.append(str(request))
        return 404, {"code": 404, "message": "no such route"}


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            request = self.read()
            with service.lock:
                service.requests.append(request)
                number = len(service.requests)
                fault = next((f for f in service.faults if f.hits(number, request)), None)
                what = fault.what if fault else None
                done: Reply = (500, None)
                if what in (None, "lost", "stale"):
                    done = service.answer(request)
                    old = service.before.get(str(request), (404, {"code": 404, "message": "?"}))
                    service.before[str(request)] = done
                    done = old if what == "stale" else done
            if isinstance(what, int):
                self.reply(what, {"code": what, "message": f"refused as the test wants: {what}"})
            elif what == "html":
                self.raw(200, PAGE, "text/html")
            elif what == "timeout":
                service.closing.wait(30)
                self.drop()
            elif what in ("drop", "lost"):
                self.drop()
            else:
                self.reply(*done)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = serve

        def read(self) -> Request:
            parts = urlsplit(self.path)
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            kind = self.headers.get("Content-Type", "")
            body = json.loads(text) if text and "json" in kind else text or None
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = parse_qs(parts.query)
            return Request(self.command, unquote(parts.path), query, body, headers)

        def reply(self, status: int, data: Any) -> None:
            if isinstance(data, bytes):
                self.raw(status, data, "text/plain")
            else:
                self.raw(status, service.prefix + json.dumps(data).encode(), "application/json")

        def raw(self, status: int, data: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def drop(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler


def faults_in_turn(requests: int, kinds: Sequence[Any] = FAULTS) -> Iterator[tuple[int, Any]]:
    """Give requests by their numbers, each with what goes wrong there; begins with a random one."""
    first = random.randrange(len(kinds))
    print(f"The faults begin with number {first} of the kinds.")
    for turn in range(ROUNDS):
        yield from (
            (nth, kinds[(first + turn + nth) % len(kinds)]) for nth in range(1, requests + 1)
        )
