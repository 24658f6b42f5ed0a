"""The clients of storages by URL: fsspec's, loaded only where a URL is given.

Promises: none of them shows a listing from a cache; credentials come from where each client looks
by itself; a client that is missing is named with the extra that brings it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..base.errors import GradlabError
from ..services import urls

FRESH = {"skip_instance_cache": True, "use_listings_cache": False}
CONNECT_SECONDS, READ_SECONDS = 10, 60
# Of a large file: the client of S3 would hold ten parts of 50 MB of each file that is moved.
PART, PARTS_AT_ONCE = 16 << 20, 4
MOST_PARTS = 10_000  # of which S3 puts an object together
TRIES = 2  # of a client by itself; what tries again for longer is Remote


def open_client(url: str) -> tuple[Any, str]:
    """Give the file system of a URL and its path there; GradlabError where no client is there."""
    scheme = urls.scheme_of(url)
    try:
        opener = _OPENERS.get(urls.extra_of(url), _any)
        return opener(url)
    except ImportError as error:
        extra = urls.extra_of(url)
        way = f'pip install "gradlab[{extra}]" (with --find-links vendor)' if extra else str(error)
        raise GradlabError(f"the storage {url} needs a client that is not installed: {way}") from (
            error
        )
    except ValueError as error:  # fsspec's, for a kind of URL that it doesn't know
        raise GradlabError(
            f"GRADLAB_STORAGE is {url}, and {scheme}:// is no kind of URL that is known here "
            f"({error}).\nKnown are {', '.join(f'{each}://' for each in urls.EXTRAS)}, and what "
            "fsspec has."
        ) from error


def parts(url: str, size: int) -> dict[str, int]:
    """Say to the client of a URL in which parts a file of `size` bytes is sent."""
    if urls.extra_of(url) != "s3":
        return {}
    return {"chunksize": max(PART, -(-size // MOST_PARTS))}


def _any(url: str, **options: bool) -> tuple[Any, str]:
    import fsspec  # type: ignore[import-untyped, unused-ignore]

    system, path = fsspec.url_to_fs(url, **(options or FRESH))
    return system, str(path).rstrip("/")


def _s3(url: str) -> tuple[Any, str]:
    from s3fs import S3FileSystem  # type: ignore[import-untyped, import-not-found, unused-ignore]

    config = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"mode": "standard", "max_attempts": TRIES},
        "max_pool_connections": 32,
    }
    # anon=False: without credentials a request fails, in clear words, instead of being anonymous.
    system = S3FileSystem(
        anon=False,
        config_kwargs=config,
        default_block_size=PART,
        max_concurrency=PARTS_AT_ONCE,
        **FRESH,
    )
    system.retries = 1
    return system, str(system._strip_protocol(url)).rstrip("/")


def _sftp(url: str) -> tuple[Any, str]:
    import paramiko  # type: ignore[import-untyped, import-not-found, unused-ignore]

    try:
        system, path = _any(url, skip_instance_cache=True)  # it has no cache of listings
    except paramiko.SSHException as error:
        if "No authentication methods" in str(error):  # it has found no key
            raise paramiko.AuthenticationException(str(error)) from error
        raise
    parts = urlsplit(url)
    known = paramiko.HostKeys()
    for place in ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"):
        if Path(place).expanduser().exists():
            known.load(str(Path(place).expanduser()))
    key = system.client.get_transport().get_remote_server_key()
    host = parts.hostname or ""
    names = [host] if parts.port in (None, 22) else [f"[{host}]:{parts.port}"]
    if not any(known.check(name, key) for name in names):  # its client takes any
        system.client.close()
        port = f" -p {parts.port}" if parts.port else ""
        raise GradlabError(
            f"{url}: the server's key ({key.get_name()} {key.fingerprint}) is not in "
            f"~/.ssh/known_hosts: log in once, and compare it: ssh{port} {host}"
        )
    return system, path


def _webdav(url: str) -> tuple[Any, str]:
    import httpx  # type: ignore[import-not-found, unused-ignore]
    from webdav4.fsspec import (  # type: ignore[import-untyped, import-not-found, unused-ignore]
        WebdavFileSystem,
    )

    class Moving(WebdavFileSystem):  # type: ignore[misc, unused-ignore]
        """Its own would copy, to where nothing is, and remove."""

        def mv(self, path1: str, path2: str, **_: object) -> None:
            self.client.move(path1, path2, overwrite=True)

    parts = urlsplit(url)
    scheme = "http" if parts.scheme == "webdav" and _is_here(parts.hostname or "") else "https"
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    auth = httpx.NetRCAuth(str(netrc)) if netrc.exists() else None
    # It has no cache of listings, and no name for one.
    system = Moving(f"{scheme}://{parts.netloc}", auth=auth, skip_instance_cache=True)
    return system, parts.path.strip("/")


def _is_here(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")


_OPENERS: dict[str, Callable[[str], tuple[Any, str]]] = {
    "s3": _s3,
    "sftp": _sftp,
    "webdav": _webdav,
}
