"""A git server that sends git elsewhere, or stalls."""

from __future__ import annotations

import base64
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gradlab.run import repository


class Handler(BaseHTTPRequestHandler):
    """Redirects /elsewhere, trickles at /slow, wants a login for all else."""

    logins: list[tuple[str, str]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        login = self.headers.get("Authorization", "").removeprefix("Basic ")
        if login:
            self.logins.append((self.headers["Host"], base64.b64decode(login).decode()))
        if self.path.startswith("/elsewhere"):
            port = self.headers["Host"].rpartition(":")[2]
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{port}/private{self.path[10:]}")
        elif self.path.startswith("/slow"):
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # git has gone
                for _ in range(60):
                    time.sleep(0.5)
                    self.wfile.write(b"0")
            return
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic realm=test")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.logins.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.daemon_threads = True
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def run(command: Sequence[str], env: Mapping[str, str]) -> int:
    return subprocess.run(command, env=env, capture_output=True).returncode


def test_a_password_goes_to_its_host_and_to_no_other(server: str, tmp_path: Path) -> None:
    for path in ("elsewhere", "here"):
        url = f"{server}/{path}/repo.git"
        login = repository.Login("me", "hunter2").env(tmp_path, url)
        assert repository.clone(url, "main", tmp_path, login, run) != 0
    assert set(Handler.logins) == {(server.removeprefix("http://"), "me:hunter2")}


def test_a_server_that_stalls_is_given_up(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "STALLED", "2")
    began = time.monotonic()
    assert repository.clone(f"{server}/slow/repo.git", "main", tmp_path, {}, run) != 0
    assert time.monotonic() - began < 28
