"""A server with SSH on this machine, as a user's who keeps things on one of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .processes import free_ports

PROGRAM = shutil.which("sshd") or "/usr/sbin/sshd"
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/home/.ssh/id_ed25519.pub
PermitRootLogin yes
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile none
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Sshd:
    """A server, and the home of a user who may log in and knows it."""

    port: int
    home: Path

    def url(self, folder: Path) -> str:
        return f"sftp://127.0.0.1:{self.port}{folder}"


def is_here() -> bool:
    return os.path.exists(PROGRAM) and shutil.which("ssh-keygen") is not None


@contextmanager
def serve(folder: Path) -> Iterator[Sshd]:
    """Run a server until the end of the block."""
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True)
    for key in (folder / "host_key", home / ".ssh/id_ed25519"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(command, check=True)
    (port,) = free_ports(1)
    (folder / "config").write_text(CONFIG.format(port=port, folder=folder))
    public = (folder / "host_key.pub").read_text()
    (home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    if not os.getuid():
        Path("/run/sshd").mkdir(exist_ok=True)
    with subprocess.Popen(
        [PROGRAM, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.DEVNULL
    ) as server:
        while True:
            with socket.socket() as tried:
                if not tried.connect_ex(("127.0.0.1", port)):
                    break
            assert server.poll() is None, "sshd has ended"
            time.sleep(0.05)
        yield Sshd(port, home)
        server.terminate()
