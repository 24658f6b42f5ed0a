"""A stand-in of W&B's server on this machine, as far as its library and `wandb sync` ask it.

It keeps the lines of a run's history by their numbers, as the library sends them, and tells who
resumes a run how many there are, and the last.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "cA==", "name": "tracked", "entity": {"id": "ZQ==", "name": "me"}}
STREAM = re.compile(r"/files/.*/([^/]+)/file_stream")


@dataclass
class Cloud:
    """The server, with the history of each run: its lines by their numbers."""

    history: dict[str, dict[int, str]] = field(default_factory=dict)

    def __enter__(self) -> Cloud:
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    data = gzip.decompress(data)
                found = STREAM.fullmatch(self.path)
                if found:
                    self.answer(cloud.take(found[1], json.loads(data)))
                else:
                    self.answer({"data": cloud.look(**json.loads(data))})

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.answer({})

            def answer(self, value: Any) -> None:
                data = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # whoever asked was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def env(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self._server.server_port}"
        return {"WANDB_BASE_URL": url, "WANDB_API_KEY": "k" * 40, "WANDB_ERROR_REPORTING": "false"}

    def take(self, run: str, given: dict[str, Any]) -> Any:
        """Keep lines of a run's history."""
        if chunk := (given.get("files") or {}).get("wandb-history.jsonl"):
            lines = dict(enumerate(chunk["content"], chunk["offset"]))
            self.history[run] = self.history.get(run, {}) | lines
        return {}

    def look(self, query: str, variables: dict[str, Any] | None = None, **_: Any) -> Any:
        """Answer a question."""
        given = variables or {}
        lines = self.history.get(given.get("name", ""), {})
        bucket = {"id": "aWQ=", "name": given.get("name"), "historyLineCount": len(lines)}
        bucket |= {"displayName": "default", "config": "{}", "project": PROJECT}
        if "UpsertBucket" in query:
            return {"upsertBucket": {"bucket": bucket, "inserted": not lines}}
        if "RunResumeStatus" in query:
            tail = {"historyTail": json.dumps([lines[max(lines)]]) if lines else "[]"}
            rest = {
                "summaryMetrics": "{}",
                "eventsTail": "[]",
                "wandbConfig": '{"t": 1}',
                "tags": [],
            }
            counts = {"logLineCount": 0, "eventsLineCount": 0}
            return {"model": PROJECT | {"bucket": bucket | tail | rest | counts if lines else None}}
        if "CreateRunFiles" in query:
            url = f"http://127.0.0.1:{self._server.server_port}/"
            files = [{"name": name, "uploadUrl": url + name} for name in given["files"]]
            return {"createRunFiles": {"runID": "aWQ=", "uploadHeaders": [], "files": files}}
        if "viewer" in query:
            viewer = {"id": "dQ==", "entity": "me", "username": "me", "flags": "{}"}
            return {"viewer": viewer | {"teams": {"edges": []}}, "serverInfo": None}
        return {}

    def runs(self) -> list[list[dict[str, Any]]]:
        """Give the lines of each run, as its history has them."""
        found = []
        for lines in self.history.values():
            rows = [json.loads(lines[number]) for number in sorted(lines)]
            named = [{n: v for n, v in row.items() if not n.startswith("_")} for row in rows]
            found.append([{"step": r["_step"], **n} for r, n in zip(rows, named, strict=True)])
        return found
