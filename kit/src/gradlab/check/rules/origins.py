"""Rules on where a workflow takes things from: contexts, repositories, buckets, images.

Promises: what only the service can know, such as what a private repository holds, is no finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from ...spec.document import Document
from ...spec.spec import Job, Spec
from ..registry import Found, rule
from ..shell import all_texts

_CONTEXTS = ("context.event.github.url", "context.event.github.ref")
_CONTEXT = re.compile(
    r"\s*\$?[{(]*\s*(?:(?:context|contexts|ctx)\.[\w.]*|(?:event|github)\.(?:event|github|url|ref|sha|"
    r"repository|clone_url|head_ref|ref_name)[\w.]*)\s*[})]*\s*",
    re.IGNORECASE,
)
_PAGES = {  # a host: what a repository's path is there, and what begins the path of a page of it
    "github.com": (r"[\w.-]+/[\w.-]+", "/", "tree|blob|commit|commits|raw"),
    "gitlab.com": (r"\w[\w.-]*(?:/\w[\w.-]*)+?", "/-/", "tree|blob|commit|raw"),
    "bitbucket.org": (r"[\w.-]+/[\w.-]+", "/", "src|branch|commits"),
    "huggingface.co": (
        r"(?:(?:datasets|spaces)/)?[\w.-]+/[\w.-]+",
        "/",
        "tree|blob|resolve|raw",
    ),
}
_NO_REPOSITORY = ("raw.githubusercontent.com", "codeload.github.com", "colab.research.google.com")
_SHORT = re.compile(
    r"(?!\.)(?:(?:www\.)?(?:github|gitlab|bitbucket)\.(?:com|org)/)?[\w.-]+/[\w.-]+/?"
)
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9][\w.-]*(?::\d+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z0-9+._-]+:[0-9a-fA-F]{32,})?"
)
_LONGEST = 400  # characters of what is looked at by a pattern


@rule("unknown-context", "error", "a part of the context does not exist")
def unknown_context(spec: Spec, document: Document) -> Found:
    for job in spec.jobs.values():
        keys = ("jobs", job.name, "with")
        for place, text in all_texts(document.get(*keys), keys):
            if place[-1] in ("script", "args") or len(place) > 4 or not _is_context(text):
                continue
            name = text.strip(" ${}()")
            if name in _CONTEXTS or document.get(*name.split(".")) is not None:
                continue
            right = _CONTEXTS[0] if place[-1] == "url" else _CONTEXTS[1]
            message = f"`{place[-1]}` of job `{job.name}` is `{text}`, which does not exist"
            yield document.mark(*place), message, f"write `{right}`"


def _is_context(text: str) -> bool:
    """Tell whether a text is meant for a part of the context."""
    return len(text) < _LONGEST and _CONTEXT.fullmatch(text) is not None


def _given(spec: Spec, name: str, action: str = "") -> Iterator[tuple[Job, str]]:
    """Give the jobs, of an action if one is named, with the text of one of their parameters."""
    for job in spec.jobs.values():
        text = job.parameters.get(name)
        if isinstance(text, str) and action in ("", job.uses):
            yield job, text


@rule("repository-url", "error", "the url of a checkout is no repository's")
def repository_url(spec: Spec, document: Document) -> Found:
    for job, url in _given(spec, "url", "git-checkout@v1"):
        if found := _no_repository(url.strip()):
            message = f"`url` of job `{job.name}` is `{_bare(url)}`, {found[0]}"
            yield document.mark("jobs", job.name, "with", "url"), message, found[1]


def _no_repository(url: str) -> tuple[str, str] | None:
    """Say what a url is, if it is no repository's, and what to write."""
    if _is_context(url) or len(url) > _LONGEST or url.startswith("secret:"):
        return None
    if not url:
        return "which is empty", "write `context.event.github.url`, or an address"
    if _SHORT.fullmatch(url):
        name = url.strip("/")
        address = name if re.match(r"(?:www\.)?(?:github|gitlab|bitbucket)\.", name) else ""
        return "which lacks its beginning", f"write `https://{address or f'github.com/{name}'}`"
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").removeprefix("www.")
    except ValueError:
        return "which is no address", "write `https://HOST/OWNER/REPOSITORY`"
    if host in _NO_REPOSITORY:
        return "which is a file, not a repository", "write `https://github.com/OWNER/REPOSITORY`"
    if host in _PAGES and parts.scheme in ("http", "https"):
        return _page(host, parts.path.strip("/"))
    return None


def _page(host: str, path: str) -> tuple[str, str] | None:
    repository, begin, kinds = _PAGES[host]
    if re.fullmatch(repository, path):
        return None
    page = rf"{begin}(?:(?:{kinds})/(?P<ref>[^/?#]+)(?:/.*)?|.+)"
    found = re.fullmatch(rf"(?P<repository>{repository}){page}", path)
    if not found:
        return "which names no repository", f"write `https://{host}/OWNER/REPOSITORY`"
    advice = f"write `url: https://{host}/{found['repository']}`"
    if found["ref"]:
        advice += f" and `ref: {found['ref']}`"
    return "which is a web page, not a repository", advice


def _bare(url: str) -> str:
    """Take a login out of a url."""
    return re.sub(r"://[^/@]*@", "://", url)


@rule("s3-url", "error", "the url of a download is no bucket's")
def s3_url(spec: Spec, document: Document) -> Found:
    for job, url in _given(spec, "url", "s3-download@v1"):
        if not re.match(r"s3://[^/]+", url) and not url.startswith(("secret:", "workflow.inputs.")):
            message = f"`url` of job `{job.name}` is `{url}`, which is no bucket's"
            advice = "write `s3://BUCKET/PATH`, and the server, where it is not Amazon's, "
            advice += "as `endpoint`"
            yield document.mark("jobs", job.name, "with", "url"), message, advice


@rule("image-name", "error", "an image has a name that no registry takes")
def image_name(spec: Spec, document: Document) -> Found:
    for job, image in _given(spec, "image"):
        if "${{" in image or _IMAGE.fullmatch(image[:_LONGEST]):
            continue
        message = f"`image` of job `{job.name}` is `{image}`, which can't be an image's name"
        advice = "write NAME, NAME:TAG or REGISTRY/NAME:TAG"
        if "://" in image:
            advice += ", not the address of its page"
        elif _IMAGE.fullmatch(lower := _lower(image)):
            advice = f"write `{lower}`: the part before the tag has no capitals"
        elif "Dockerfile" in image or image.startswith((".", "/")):
            advice = "build the image elsewhere, push it to a registry, and write its name"
        yield document.mark("jobs", job.name, "with", "image"), message, advice


def _lower(image: str) -> str:
    """Write an image's name in small letters, and its tag as it is."""
    name, colon, tag = image.rpartition(":")
    return f"{name.lower()}:{tag}" if colon and "/" not in tag else image.lower()
