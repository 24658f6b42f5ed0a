"""A stand-in of the Hugging Face Hub on this machine: repositories of models that keep state.

What its client asks of it is answered by the documented API: making a repository, how each file
is to be sent, large files by Git LFS, commits that become visible as a whole. Things go wrong by
`faults`, as tests/services/bucket.py has them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from .bucket import Fault

TOKENS = {"hf_writes": "write", "hf_reads": "read"}
LARGE = (".safetensors", ".onnx")
Files = dict[str, bytes]


@dataclass
class Repository:
    """What it holds after each commit, and which of its files are kept as large ones."""

    commits: list[tuple[str, Files]] = field(default_factory=lambda: [(_sha1(b"first"), {})])
    messages: list[str] = field(default_factory=list)
    large: dict[str, str] = field(default_factory=dict)  # path -> SHA-256

    @property
    def sha(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> Files:
        return self.commits[-1][1]


@dataclass
class Hub:
    """The Hub, and what went wrong and was asked there."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # large files, by their SHA-256
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, method: str, path: str, body: bytes, role: str) -> tuple[int, Any]:
        """Give the status and the answer to a request."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        match method, parts:
            case "PUT", ["objects", oid]:
                if hashlib.sha256(body).hexdigest() != oid:
                    return 400, {"error": "another content"}
                self.objects[oid] = body
                return 200, {}
            case _ if not role:
                return 401, {"error": "Invalid username or password."}
            case "POST", ["api", "validate-yaml"]:
                return 200, {"errors": [], "warnings": []}
            case _ if method == "POST" and role != "write":
                return 403, {"error": "you have no rights to this"}
            case "POST", ["api", "repos", "create"]:
                return self._made(json.loads(body))
            case "POST", [owner, name, "info", "lfs", "objects", "batch"]:
                return 200, {"transfer": "basic", "objects": self._sent(json.loads(body))}
            case _, ["api", "models", owner, name, *rest]:
                found = self.repositories.get(f"{owner}/{name}")
                if not found:
                    return 404, {"error": "Repository not found"}
                return self._of(found, f"{self.address}/{owner}/{name}", method, rest, body)
        return 404, {"error": f"no such address: {path}"}

    def _made(self, asked: dict[str, Any]) -> tuple[int, Any]:
        name = f"{asked['organization']}/{asked['name']}"
        status = 409 if name in self.repositories else 200
        self.repositories.setdefault(name, Repository())
        return status, {"url": f"{self.address}/{name}", "error": "You already created this repo"}

    def _sent(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        def action(oid: str) -> dict[str, Any]:
            upload = {"href": f"{self.address}/objects/{oid}", "header": {}}
            return {} if oid in self.objects else {"actions": {"upload": upload}}

        return [{**each, **action(each["oid"])} for each in asked["objects"]]

    def _of(
        self, found: Repository, url: str, method: str, rest: list[str], body: bytes
    ) -> tuple[int, Any]:
        match method, rest:
            case "GET", [] | ["revision", _]:
                return 200, {"id": "x", "modelId": "x", "sha": found.sha, "private": False}
            case "GET", ["tree", commit]:
                return 200, [*_tree(found, dict(found.commits)[commit])]
            case "POST", ["preupload", _]:
                return 200, {"files": [*_modes(json.loads(body)["files"])]}
            case "POST", ["commit", "main"]:
                sha = self._committed(found, [json.loads(line) for line in body.splitlines()])
                if not sha:
                    return 412, {"error": "A commit has happened since. Please refresh."}
                return 200, {"success": True, "commitOid": sha, "commitUrl": f"{url}/commit/{sha}"}
        return 404, {"error": f"no such address: {rest}"}

    def _committed(self, found: Repository, lines: list[Any]) -> str:
        """Do a commit as a whole and name it; "" where it follows another one than the last."""
        head, files, large = lines[0]["value"], dict(found.files), dict(found.large)
        if head.get("parentCommit", found.sha) != found.sha:
            return ""
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.objects[value["oid"]]
                    large[value["path"]] = value["oid"]
                case "deletedFile":
                    del files[value["path"]]
                    large.pop(value["path"], None)
        sha = _sha1(f"{found.sha} {sorted(files)} {len(found.commits)}".encode())
        found.commits.append((sha, files))
        found.messages.append(head["summary"])
        found.large = large
        return sha


def _modes(asked: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for each in asked:
        mode = "lfs" if each["path"].endswith(LARGE) else "regular"
        yield {"path": each["path"], "uploadMode": mode, "shouldIgnore": False}


def _tree(found: Repository, files: Files) -> Iterator[dict[str, Any]]:
    for path, data in files.items():
        blob = _sha1(f"blob {len(data)}\0".encode() + data)
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob}
        if oid := found.large.get(path):
            entry |= {"oid": "0" * 40, "lfs": {"oid": oid, "size": len(data), "pointerSize": 1}}
        yield entry


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def meet(self) -> None:
            path = urlsplit(self.path).path
            hub.requests.append(f"{self.command} {path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with hub.turn:
                met = next((f for f in hub.faults if f.meets(self.command, path)), Fault())
                if met.cut == "request":
                    self.close_connection = True
                    return
                role = TOKENS.get(self.headers.get("Authorization", "").removeprefix("Bearer "), "")
                status, said = met.status, {"error": "of a test"}
                if not met.status:
                    status, said = hub.answer(self.command, path, body, role)
            if met.cut == "answer":
                self.close_connection = True
                return
            data = json.dumps(said).encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = meet

    return Handler


@contextmanager
def serve() -> Iterator[Hub]:
    """Serve a Hub on this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
