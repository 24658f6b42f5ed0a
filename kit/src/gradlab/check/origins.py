"""Where a workflow takes things from: repositories, contexts, images, branches, values.

Promises: what only the service can know, such as what a private repository holds, is no finding.
git is asked for nothing but the names of branches, and only in a repository that has them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ..base import git
from ..spec.document import Document, Problem
from ..spec.spec import FOLDER, Port, Spec
from .shell import all_texts

_CONTEXTS = ("context.event.github.url", "context.event.github.ref")
_CONTEXT = re.compile(
    r"\s*\$?[{(]*\s*(?:(?:context|contexts|ctx)\.[\w.]*|(?:event|github)\.(?:event|github|url|ref|sha|"
    r"repository|clone_url|head_ref|ref_name)[\w.]*)\s*[})]*\s*",
    re.IGNORECASE,
)
_PAGES = (  # a host, what a repository's path is there, and what follows it in a page's address
    (
        "github.com",
        r"[\w.-]+/[\w.-]+",
        r"/(?:tree|blob|commit|commits|raw)/(?P<ref>[^/?#]+)(?:/.*)?|/.+",
    ),
    (
        "gitlab.com",
        r"\w[\w.-]*(?:/\w[\w.-]*)+?",
        r"/-/(?:tree|blob|commit|raw)/(?P<ref>[^/?#]+)(?:/.*)?|/-/.+",
    ),
    ("bitbucket.org", r"[\w.-]+/[\w.-]+", r"/(?:src|branch|commits)/(?P<ref>[^/?#]+)(?:/.*)?|/.+"),
    (
        "huggingface.co",
        r"(?:(?:datasets|spaces)/)?[\w.-]+/[\w.-]+",
        r"/(?:tree|blob|resolve|raw)/(?P<ref>[^/?#]+)(?:/.*)?|/.+",
    ),
)
_NO_REPOSITORY = ("raw.githubusercontent.com", "codeload.github.com", "colab.research.google.com")
_SHORT = re.compile(
    r"(?!\.)(?:(?:www\.)?(?:github|gitlab|bitbucket)\.(?:com|org)/)?[\w.-]+/[\w.-]+/?"
)
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9][\w.-]*(?::\d+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z0-9+._-]+:[0-9a-fA-F]{32,})?"
)


_LONGEST = 400  # characters of what is looked at by a pattern


def origins(spec: Spec, document: Document) -> Iterator[Problem]:
    """Give what these rules find wrong."""
    for rule in (contexts, repositories, images, values, branches):
        yield from rule(spec, document)


def contexts(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find what is written like a part of the context, and does not exist."""
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
            yield Problem(document.mark(*place), "unknown-context", message, f"write `{right}`")


def _is_context(text: str) -> bool:
    """Tell whether a text is meant for a part of the context."""
    return len(text) < _LONGEST and _CONTEXT.fullmatch(text) is not None


def repositories(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find urls of a checkout that are no repository's."""
    for job in spec.jobs.values():
        url = job.parameters.get("url")
        if job.uses != "git-checkout@v1" or not isinstance(url, str):
            continue
        if found := _no_repository(url.strip()):
            message = f"`url` of job `{job.name}` is `{_bare(url)}`, {found[0]}"
            mark = document.mark("jobs", job.name, "with", "url")
            yield Problem(mark, "repository-url", message, found[1])


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
    for name, repository, rest in _PAGES:
        if host == name and parts.scheme in ("http", "https"):
            return _page(parts.path, f"https://{host}", repository, rest)
    return None


def _page(path: str, host: str, repository: str, rest: str) -> tuple[str, str] | None:
    path = path.strip("/")
    if re.fullmatch(repository, path):
        return None
    found = re.fullmatch(rf"(?P<repository>{repository})(?:{rest})", path)
    if not found:
        return "which names no repository", f"write `{host}/OWNER/REPOSITORY`"
    advice = f"write `url: {host}/{found['repository']}`"
    if found["ref"]:
        advice += f" and `ref: {found['ref']}`"
    return "which is a web page, not a repository", advice


def _bare(url: str) -> str:
    """Take a login out of a url."""
    return re.sub(r"://[^/@]*@", "://", url)


def images(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find images that no registry can have."""
    for job in spec.jobs.values():
        image = job.parameters.get("image")
        if not isinstance(image, str) or "${{" in image or _IMAGE.fullmatch(image[:_LONGEST]):
            continue
        message = f"`image` of job `{job.name}` is `{image}`, which can't be an image's name"
        advice = "write NAME, NAME:TAG or REGISTRY/NAME:TAG"
        if "://" in image:
            advice += ", not the address of its page"
        elif _IMAGE.fullmatch(lower := _lower(image)):
            advice = f"write `{lower}`: the part before the tag has no capitals"
        elif "Dockerfile" in image or image.startswith((".", "/")):
            advice = "build the image elsewhere, push it to a registry, and write its name"
        mark = document.mark("jobs", job.name, "with", "image")
        yield Problem(mark, "image-name", message, advice)


def _lower(image: str) -> str:
    """Write an image's name in small letters, and its tag as it is."""
    name, colon, tag = image.rpartition(":")
    return f"{name.lower()}:{tag}" if colon and "/" not in tag else image.lower()


def values(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find inputs that nothing gives a value."""
    for job in spec.jobs.values():
        for port in job.inputs.values():
            if port.type == "volume" and not port.source and not port.optional:
                message = (
                    f"input `{port.name}` of job `{job.name}` is a volume of no job: it is empty"
                )
                yield Problem(port.mark, "input-without-value", message, _from_job(spec, port))
            elif port.type == "string" and port.value is None and not port.optional:
                message = f"input `{port.name}` of job `{job.name}` is a string without a value"
                advice = (
                    f"write `with: {{value: TEXT}}`, or take it: `{port.name}: JOB.outputs.NAME`"
                )
                yield Problem(port.mark, "input-without-value", message, advice)
    pushed = bool(spec.on and spec.on.get("github"))
    for port in spec.inputs.values():
        empty = port.value is None if port.type == "string" else not port.ref
        if pushed and empty and port.type in ("string", "dataset") and not port.optional:
            message = f"input `{port.name}` of the workflow has no value, and a push brings none"
            what = "value: TEXT" if port.type == "string" else "ref: NAME"
            advice = f"write `with: {{{what}}}`"
            yield Problem(port.mark, "input-without-value", message, advice)


def _from_job(spec: Spec, port: Port) -> str:
    makers = [job.name for job in spec.jobs.values() if port.name in job.outputs]
    maker = makers[0] if makers else "JOB"
    name = port.name if makers else "NAME"
    return f"write `{port.name}: {maker}.outputs.{name}`, and `{maker}` in `needs`"


def branches(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find branches in `on` that the file's repository does not have."""
    wanted = document.get("on", "github", "branches")
    if not isinstance(wanted, dict) or document.path.absolute().parent.parts[-2:] != FOLDER.parts:
        return
    keys = ("on", "github", "branches")
    named = [
        (place, name)
        for part in ("only", "include")
        for place, name in all_texts(wanted.get(part), (*keys, part))
        if re.fullmatch(r"[\w./-]+", name)
    ]
    known = _branches(document.path.absolute().parent) if named else set()
    for place, name in named:
        if known and name not in known:
            message = f"`{name}` is no branch of this repository, so that no push runs this file"
            listed = ", ".join(f"`{each}`" for each in sorted(known)[:5])
            advice = f"its branches are {listed}" + ", ..." * (len(known) > 5)
            yield Problem(document.mark(*place), "unknown-branch", message, advice)


def _branches(folder: Path) -> set[str]:
    """Give the branches of the repository around a folder, or none if some may be missing."""
    shallow = git.ask(folder, "rev-parse", "--is-shallow-repository")
    fetched = git.ask(folder, "config", "--get-all", "remote.origin.fetch")
    if shallow != "false" or (fetched and "refs/heads/*" not in fetched):
        return set()
    local = git.ask(folder, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads")
    remote = git.ask(folder, "for-each-ref", "--format=%(refname:lstrip=3)", "refs/remotes")
    current = git.ask(folder, "symbolic-ref", "--short", "HEAD")
    return {*local.split(), *remote.split(), *current.split()} - {"HEAD"}
