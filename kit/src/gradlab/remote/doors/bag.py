"""The secrets that a run needs on the other side: of the storage, the repository, the workflow.

Promises: they are a text for a door's own means of carrying secrets, and stand nowhere else.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from ...base.errors import GradlabError
from ...run import masking
from ...services import urls
from ...spec import credentials
from ...spec.spec import Spec

# Variables that name a file of this machine: what it holds goes, under the same variable.
FILES = ("GOOGLE_APPLICATION_CREDENTIALS", "NETRC")
HERE_ONLY = re.compile(r"SSH_AUTH_SOCK|AWS_(CONFIG|SHARED_CREDENTIALS)_FILE|AWS_PROFILE|HF_H\w+")
GIT_TOKEN = "GRADLAB_GIT_TOKEN"
# What a client can't do without, where the other side has no file of the user's.
NEEDED = {"s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "hf": ("HF_TOKEN",)}


def pack(spec: Spec, storage: str, private: bool) -> str:
    """Give the secrets as a text; GradlabError for one that is not at hand."""
    _refuse_what_is_missing(storage)
    env = {name: v for name, v in urls.variables().items() if not HERE_ONLY.fullmatch(name)}
    files = {}
    for name in FILES:
        if path := env.pop(name, ""):
            files[name] = _content(name, path)
    env |= _of_workflow(spec)
    if private:
        env[GIT_TOKEN] = git_token()
    return json.dumps({"env": env, "files": files})


def git_token() -> str:
    """Give the token for the repository; GradlabError where there is none."""
    for name in (GIT_TOKEN, "GITHUB_TOKEN", "GH_TOKEN"):
        if value := os.environ.get(name):
            return value
    raise GradlabError(
        "the repository is private, and the other side needs a token to read it: make one that "
        "may read its contents (github.com/settings/personal-access-tokens), and set the "
        f"environment variable {GIT_TOKEN} to it"
    )


def mask(text: str) -> masking.Mask:
    """Give what hides the secrets of a bag."""
    data = json.loads(text)
    values = {v for name, v in data["env"].items() if credentials.SECRET_VARIABLE.search(name)}
    return masking.Mask(values | set(data["files"].values()))


def _of_workflow(spec: Spec) -> dict[str, str]:
    places = {
        name: f"{spec.path}:{job.mark.line}: job {job.name!r}"
        for job in spec.jobs.values()
        for name in credentials.names_in(job.env, job.parameters)
    }
    return {credentials.variable(n): v for n, v in credentials.values_of(places).items()}


def _refuse_what_is_missing(storage: str) -> None:
    needed = NEEDED.get(urls.extra_of(storage), ())
    if missing := [name for name in needed if not os.environ.get(name)]:
        raise GradlabError(
            f"the storage {storage} is reached from another machine, which has no file of yours: "
            f"set the environment variable {', '.join(missing)}"
        )


def _content(name: str, path: str) -> str:
    try:
        return Path(path).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GradlabError(f"{name} is {path}, which can't be read: {error}") from None
