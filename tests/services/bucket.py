"""A bucket on this machine, and a wire to its server on which things go wrong.

Real HTTP all the way: a client speaks to the wire, the wire to the server. What goes wrong is
told as `faults`, and what went over the wire is in `requests`.
"""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .s3 import KEYS, Address

NAME = "bucket"


@dataclass
class Fault:
    """What goes wrong with requests of a method whose path holds a text, so many times."""

    method: str = ""
    path: str = ""
    times: float = float("inf")
    status: int = 0  # answered instead of the server
    code: str = ""
    seconds: float = 0.0  # by which the answer is late
    cut: str = (
        ""  # "request": after half of what is sent; "answer": of what comes back, or all of it
    )

    def meets(self, method: str, path: str) -> bool:
        if self.times <= 0 or self.method not in ("", method) or self.path not in path:
            return False
        self.times -= 1
        return True


@dataclass
class Bucket:
    """A bucket with a wire before it."""

    address: str
    client: Any
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    busy: int = 0  # requests that are answered now
    most: int = 0  # of these at a time

    @property
    def env(self) -> dict[str, str]:
        """What a client finds in its environment."""
        nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        place = {"AWS_ENDPOINT_URL": self.address, "AWS_DEFAULT_REGION": "us-east-1"}
        return {**KEYS, **place, **nowhere, "AWS_EC2_METADATA_DISABLED": "true"}

    def keys(self, prefix: str) -> list[str]:
        """Name the objects below a prefix, relative to it."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=NAME, Prefix=prefix)
        found = (each["Key"] for page in pages for each in page.get("Contents", ()))
        return [key.removeprefix(prefix) for key in found]

    def bring(self, prefix: str, folder: Path) -> Path:
        """Make a folder hold what lies below a prefix."""
        keys = self.keys(prefix)
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            if str(path.relative_to(folder)) not in keys:
                path.unlink()
        for key in keys:
            place = folder / key
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(self.client.get_object(Bucket=NAME, Key=prefix + key)["Body"].read())
        return folder

    def take(self, prefix: str, folder: Path) -> None:
        """Put what lies in a folder below a prefix, as a user copies it there by hand."""
        for path in (path for path in folder.rglob("*") if path.is_file()):
            key = f"{prefix}{path.relative_to(folder)}"
            self.client.put_object(Bucket=NAME, Key=key, Body=path.read_bytes())

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=NAME, Key=key)


def _handler(bucket: Bucket, server: tuple[str, int]) -> type[BaseHTTPRequestHandler]:
    class Wire(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def answer(self) -> None:
            bucket.requests.append(f"{self.command} {self.path}")
            bucket.busy += 1
            bucket.most = max(bucket.most, bucket.busy)
            try:
                self.meet()
            finally:
                bucket.busy -= 1

        def meet(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            met = [f for f in bucket.faults if f.meets(self.command, self.path)]
            fault = met[0] if met else Fault()
            if fault.cut == "request":
                self.rfile.read(size // 2)
                self.drop()
                return
            body = self.rfile.read(size)
            time.sleep(fault.seconds)
            if fault.status:
                self.send(fault.status, [], _said(fault))
                return
            status, headers, data = self.forwarded(body)
            if fault.cut == "answer":
                self.send(status, headers, data, len(data) // 2)
                self.drop()
                return
            self.send(status, headers, data)

        def forwarded(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection(*server)
            connection.request(self.command, self.path, body, dict(self.headers))
            found = connection.getresponse()
            data = found.read()
            connection.close()
            return found.status, found.getheaders(), data

        def send(
            self, status: int, headers: list[tuple[str, str]], data: bytes, part: int | None = None
        ) -> None:
            """Answer, with a part of the data alone, or with nothing if there is none."""
            if part is not None and not part:
                return
            self.send_response_only(status)
            own = ("content-length", "connection", "transfer-encoding")
            for name, value in headers:
                if name.lower() not in own:
                    self.send_header(name, value)
            length = dict((n.lower(), v) for n, v in headers).get("content-length", str(len(data)))
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[:part])
            self.wfile.flush()

        def drop(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    return Wire


def _said(fault: Fault) -> bytes:
    text = f"<Error><Code>{fault.code}</Code><Message>as told</Message></Error>"
    return f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode() if fault.code else b""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that is gone is no news."""


@contextmanager
def serve(server: Address) -> Iterator[Bucket]:
    """Give an empty bucket of a server, and a wire to it."""
    import boto3

    host, port = server
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=NAME)
    bucket = Bucket("", client)
    wire = _Server(("127.0.0.1", 0), _handler(bucket, server))
    bucket.address = f"http://127.0.0.1:{wire.server_address[1]}"
    threading.Thread(target=wire.serve_forever, daemon=True).start()
    yield bucket
    wire.shutdown()
