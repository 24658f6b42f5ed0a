"""A storage that is named by a URL, such as s3://bucket/folder, instead of by a folder.

Promises: a URL holds no password; one that no client could use is an error that names it.
"""

from __future__ import annotations

import os
import re

from ..base.errors import GradlabError

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
ONE_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)(.*)")
LOGIN = re.compile(r"[^/@]*:[^/]*@")
SIGNED = re.compile(r"[?&][\w-]*(?:sig|signature|token|secret|password)[\w-]*=", re.I)
# What has to be installed for a kind of URL: an extra of the kit.
EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "hf": "hf",
    "sftp": "sftp",
    "ssh": "sftp",
    "webdav": "webdav",
    "webdavs": "webdav",
}
# Where the client of a kind of URL looks for credentials.
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws (aws configure)",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login",
    "hf": "HF_TOKEN, or hf auth login",
    "sftp": "a key in ~/.ssh, or ssh-agent",
    "webdav": "a line for the host in ~/.netrc",
}
# By which the clients find credentials, and what they speak to.
VARIABLES = re.compile(
    r"(AWS|GOOGLE|GCE|GCSFS|FSSPEC|HF|WEBDAV)_\w+|HUGGING_FACE_HUB_TOKEN|CLOUDSDK_\w+|NETRC"
    r"|SSH_AUTH_SOCK|BOTO_CONFIG"
)
NOTHING_KEPT = ("memory", "data", "http", "https")


def variables() -> dict[str, str]:
    """Give the variables of this machine's environment that the clients of URLs heed."""
    return {name: value for name, value in os.environ.items() if VARIABLES.fullmatch(name)}


def is_url(text: str) -> bool:
    """Tell whether a storage is named by a URL."""
    return bool(URL.fullmatch(text)) and scheme_of(text) != "file"


def scheme_of(url: str) -> str:
    """Give what stands before a URL's `://`, in small letters."""
    return url.partition("://")[0].lower()


def extra_of(url: str) -> str:
    """Name the extra of the kit that brings a URL's client, or nothing."""
    return EXTRAS.get(scheme_of(url), "")


def where_credentials_are(url: str) -> str:
    """Say where the client of a URL looks for credentials."""
    return CREDENTIALS.get(extra_of(url), "where its client looks for them")


def checked(text: str) -> str | None:
    """Give a storage's URL, without a slash at its end; None for what is a folder.

    Raises GradlabError for one that holds a password, or in which nothing can be kept.
    """
    if one := ONE_SLASH.match(text):
        if one[1].lower() in EXTRAS:
            raise GradlabError(
                f"GRADLAB_STORAGE is {text}: a URL has two slashes: {one[1]}://{one[2]}"
            )
        return None
    if not (match := URL.fullmatch(text)):
        return None
    scheme, rest = match[1].lower(), match[2]
    if LOGIN.match(rest) or SIGNED.search(rest):
        shown = f"{scheme}://***@{rest.rpartition('@')[2].partition('?')[0]}"
        raise GradlabError(
            f"GRADLAB_STORAGE is {shown}, a URL with a password, which would end up in logs and "
            f"lists of processes.\nLeave it out; its client finds it in "
            f"{where_credentials_are(match[0])}."
        )
    if scheme in NOTHING_KEPT or not rest.strip("/"):
        why = "names no bucket or host" if not rest.strip("/") else "can't keep anything"
        raise GradlabError(
            f"GRADLAB_STORAGE is {text}, which {why}: set it to a folder, or to a URL such as "
            "s3://bucket/folder."
        )
    return f"{scheme}://{rest.rstrip('/')}"
