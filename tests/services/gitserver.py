"""A git server on this machine's loopback, with a public and a private door.

Promises: git's own smart protocol by `git http-backend`; below /private/ a repository asks for
the token as the password; the account of the requests holds no token.
"""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

TOKEN = "not-a-real-token-1234567890"
WHO = {"name": "A Tester", "email": "tester@example.org"}
PRIVATE = "/private/"


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, as somebody whom the user's own configuration doesn't know."""
    who = {f"GIT_{role}_{k.upper()}": v for role in ("AUTHOR", "COMMITTER") for k, v in WHO.items()}
    env = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Repository:
    """A bare repository on the server, and a clone of it to commit from."""

    path: Path
    work: Path
    host: str

    @property
    def file_url(self) -> str:
        return self.path.as_uri()

    @property
    def url(self) -> str:
        """The address that is open to everybody."""
        return f"http://{self.host}/{self.path.name}"

    @property
    def private_url(self) -> str:
        """The address that asks for TOKEN."""
        return f"http://{self.host}{PRIVATE}{self.path.name}"

    def commit(self, files: dict[str, str], message: str = "A change", branch: str = "main") -> str:
        """Write files, commit and push them; gives the commit's id."""
        git(self.work, "checkout", "--quiet", "-B", branch)
        for name, text in files.items():
            (self.work / name).parent.mkdir(parents=True, exist_ok=True)
            (self.work / name).write_text(text)
        git(self.work, "add", "--all")
        git(self.work, "commit", "--quiet", "--message", message)
        git(self.work, "push", "--quiet", "origin", branch)
        return git(self.work, "rev-parse", "HEAD").strip()


class Server:
    """Serves the repositories in a folder while it is entered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    def __enter__(self) -> Server:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def add(self, project: Path, name: str = "project", branch: str = "main") -> Repository:
        """Make a repository of the files of a project."""
        bare, work = self.folder / f"{name}.git", self.folder / f"{name}-work"
        bare.mkdir(parents=True)
        work.mkdir()
        git(bare, "init", "--quiet", "--bare", "--initial-branch", branch)
        git(work, "clone", "--quiet", str(bare), ".")
        subprocess.run(["cp", "-a", f"{project}/.", str(work)], check=True)
        repository = Repository(bare, work, f"127.0.0.1:{self._http.server_port}")
        repository.commit({}, "The project as generated", branch)
        return repository


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = "Basic " + base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
            given = self.headers.get("Authorization")
            if self.path.startswith(PRIVATE) and given != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="private"')
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self._serve(self.path.replace(PRIVATE, "/", 1))

        do_POST = do_GET

        def _serve(self, path: str) -> None:
            head, _, body = self._ask_git(path).partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(fields.pop("Status", "200 OK").split()[0]))
            for name, value in {**fields, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _ask_git(self, path: str) -> bytes:
            place, _, query = path.partition("?")
            length = self.headers.get("Content-Length", "0")
            env = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(server.folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "REQUEST_METHOD": self.command,
                "PATH_INFO": place,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": length,
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            }
            body = self.rfile.read(int(length))
            return subprocess.run(
                ["git", "http-backend"], input=body, env=env, capture_output=True, check=True
            ).stdout

        def log_request(self, code: Any = "-", size: Any = "-") -> None:
            auth = "yes" if self.headers.get("Authorization") else "no"
            server.requests.append(f"{self.command} {self.path} {int(code)} auth={auth}")

    return Handler
