"""A WebDAV server on this machine's loopback, wsgidav, which asks for a name and a password."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER, PASSWORD = "me", "pa55word"


@dataclass(frozen=True)
class WebDav:
    """A server, and what `NETRC` names so that its client may log in."""

    port: int
    netrc: Path

    def url(self, folder: str) -> str:
        return f"webdav://127.0.0.1:{self.port}/{folder}"


@contextmanager
def serve(folder: Path) -> Iterator[WebDav]:
    """Run a server of a folder until the end of the block."""
    from cheroot.wsgi import Server
    from wsgidav.wsgidav_app import WsgiDAVApp

    (folder / "files").mkdir()
    netrc = folder / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    settings = {
        "provider_mapping": {"/": str(folder / "files")},
        "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
        "verbose": 0,
        "logging": {"enable": False},
    }
    server = Server(("127.0.0.1", 0), WsgiDAVApp(settings))
    server.prepare()
    threading.Thread(target=server.serve, daemon=True).start()
    yield WebDav(server.bind_addr[1], netrc)
    server.stop()
