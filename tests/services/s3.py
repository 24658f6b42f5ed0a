"""Servers that speak S3 on this machine's loopback: moto's, which stands in for one, and SeaweedFS.

SeaweedFS is a real one: it keeps what it is given on a disk, refuses a second write under a
condition, checks signatures, and puts large objects together of their parts.
"""

from __future__ import annotations

import http.client
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .processes import free_ports, until

Address = tuple[str, int]
KEYS = {"AWS_ACCESS_KEY_ID": "the-key-id", "AWS_SECRET_ACCESS_KEY": "the-s3cret-key"}
HERE = "127.0.0.1"
# Of one process that is all of SeaweedFS: where files lie, how they are found, and what speaks S3.
PARTS = ("master", "volume", "filer", "s3")
FLAGS = {
    "ip": HERE,
    "ip.bind": HERE,
    "master.telemetry": "false",
    "master.volumeSizeLimitMB": "256",
    "volume.max": "0",  # as many as the disk has room for
    "volume.minFreeSpace": "1",
    "filer": "true",
    "s3": "true",
    "s3.iam": "false",
    "s3.port.iceberg": "0",
    "s3.port.lance": "0",
}


def weed() -> str | None:
    """Give where SeaweedFS's program is, beside this Python or on the path."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("weed", path=beside) or shutil.which("weed")


@contextmanager
def moto() -> Iterator[Address]:
    """Run moto's server, in this process."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=HERE, port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@contextmanager
def seaweedfs(folder: Path) -> Iterator[Address]:
    """Run SeaweedFS, which keeps all in a folder; it dies with this process."""
    program, setpriv = weed(), shutil.which("setpriv")
    assert program
    ports = free_ports(2 * len(PARTS))
    keys = dict(zip(("accessKey", "secretKey"), KEYS.values(), strict=True))
    user = {"name": "me", "credentials": [keys], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [user]}))
    flags = FLAGS | {"dir": str(folder), "s3.config": str(folder / "s3.json")}
    for name, port, rpc in zip(PARTS, ports[::2], ports[1::2], strict=True):
        flags |= {f"{name}.port": str(port), f"{name}.port.grpc": str(rpc)}
    for name in ("filer", "s3"):
        flags[f"{name}.localSocket"] = str(folder / f"{name}.sock")
    command = [program, "server", *(f"-{name}={value}" for name, value in flags.items())]
    tied = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([*tied, *command], cwd=folder, stdout=log, stderr=log) as server,
    ):
        try:
            until(lambda: server.poll() is not None or _answers(ports[-2]), 60, "SeaweedFS")
            assert server.poll() is None, (folder / "log").read_text()
            yield HERE, ports[-2]
        finally:
            server.kill()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HERE, port, timeout=1)
    try:
        connection.request("GET", "/status")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
